"""Study files, which are experiments with a table `study`, and the folder that one study keeps to."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from gankit.checkpoint import write_atomically
from gankit.config import FILLED, Experiment, validated
from gankit.errors import RunError, SettingsError
from gankit.sources import Source

Study = TypeVar("Study", bound=Experiment)


def read_study(
    model: type[Study], packaged: str, file: str | Path | None, overrides: tuple[str, ...]
) -> tuple[Study, Source]:
    """A study and where its settings are written, for errors that name the line.

    Args:
        model: the experiment with its table `study`.
        packaged: the name of the study that is read where there is no file.
        file: a TOML, JSON or YAML file, a recipe, or None.
        overrides: settings as `key.path=value`.

    Raises:
        SettingsError: as `gankit.load`.
    """
    if file is None:
        text = (resources.files("gankit") / "study" / f"{packaged}.toml").read_text(encoding="utf-8")
        source = Source(f"study {packaged}", tomllib.loads(text), text)
    else:
        source = Source.read(file)
    source.values.pop("run", None)  # of a run's experiment.toml
    source.fill_from_default(FILLED)
    source.override(overrides)
    return validated(model, source), source


def refusal(source: Source, table: str, key: str, why: str) -> SettingsError:
    """The error that a setting does not fit the study, with the place where it is written."""
    return SettingsError(f"{source.place((table, key))}: {table}.{key}: {why}")


def is_begun(folder: Path, text: str) -> bool:
    """Whether the folder holds this very study already; False where it is free.

    Args:
        folder: of the study.
        text: its settings as TOML.

    Raises:
        RunError: the folder holds something else, or a study of other settings.
    """
    path = folder / "study.toml"
    if path.is_file():
        found = _leaves(tomllib.loads(path.read_text(encoding="utf-8")))
        wanted = _leaves(tomllib.loads(text))
        if different := sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)):
            told = "; ".join(f"{key} was {found.get(key)}, is {wanted.get(key)}" for key in different[:3])
            raise RunError(f"{folder} holds a study of other settings ({told}); choose another --out")
        return True
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is not empty and holds no study; choose another --out")
    return False


def claim(folder: Path, text: str) -> None:
    """Make a study's folder, and keep its settings there as study.toml, where it is not begun.

    Raises:
        RunError: as `is_begun`.
    """
    if not is_begun(folder, text):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "study.toml", text.encode())


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Every setting by its dotted path."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {path: value}
    return {k: v for key, item in items for k, v in _leaves(item, f"{path}.{key}".lstrip(".")).items()}
