"""Study files, which are experiments with a table `study`, and the folder that one study keeps to."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from gankit.errors import RunError, SettingsError
from gankit.experiments.document import Source
from gankit.experiments.experiment import FILLED, Experiment, read_settings
from gankit.files import check_free, write_atomically

Study = TypeVar("Study", bound=Experiment)


def read_study(
    model: type[Study], packaged: str, file: str | Path | None, overrides: tuple[str, ...]
) -> tuple[Study, Callable[[str, str, str], SettingsError]]:
    """A study, and what makes the error of a table, a key and a reason, which names the line that is at fault.

    Args:
        model: the experiment with the study's own table.
        packaged: the name of the study that is read where there is no file.
        file: a TOML, JSON or YAML file, a recipe, or None.
        overrides: settings as `key.path=value`.

    Raises:
        SettingsError: as `gankit.load`, or trainings would end before their last step.
    """
    if file is None:
        text = (resources.files("gankit.studies") / f"{packaged}.toml").read_text(encoding="utf-8")
        source = Source(f"study {packaged}", tomllib.loads(text), text)
    else:
        source = Source.read(file)
    source.values.pop("run", None)  # of a run's experiment.toml
    source.fill_from_default(FILLED)
    source.override(overrides)
    study, refuse = read_settings(model, source), functools.partial(_refusal, source)
    if study.training.max_minutes is not None:
        raise refuse("training", "max_minutes", "a training of a study runs to its end; leave it out, set fewer steps")
    return study, refuse


def _refusal(source: Source, table: str, key: str, why: str) -> SettingsError:
    return SettingsError(f"{source.where((table, key))}: {table}.{key}: {why}")


def experiment_of(study: Experiment, own: str, changes: Mapping[str, Mapping[str, Any]]) -> Experiment:
    """The experiment of one training of a study.

    Args:
        study: the study.
        own: the name of its own table, which is left out.
        changes: settings that differ, by table; None takes one away.
    """
    tables = {name: value for name, value in study.tables().items() if name not in (own, "run")}
    for name, settings in changes.items():
        changed = {**tables.get(name, {}), **settings}
        tables[name] = {key: value for key, value in changed.items() if value is not None}
    return Experiment.model_validate(tables)


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
    check_free(folder, "it holds no study; choose another --out")
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
