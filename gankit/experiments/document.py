"""Where an experiment's settings are written: reading files, applying overrides, and finding the line of a setting."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from gankit.errors import SettingsError
from gankit.experiments.lines import Location, json_places, toml_places, yaml_places
from gankit.registry.messages import unknown

DEFAULT_RECIPE = "wgan-gp"
FORMATS = {".toml": ".toml", ".json": ".json", ".yaml": ".yaml", ".yml": ".yaml"}


def recipe_names() -> list[str]:
    """The packaged experiments."""
    folder = resources.files("gankit.experiments") / "recipes"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def recipe_text(name: str) -> str:
    """A packaged experiment's TOML.

    Raises:
        SettingsError: there is no such recipe.
    """
    names = recipe_names()
    if name not in names:
        raise SettingsError(f"there is no recipe or file {name!r}; {unknown(name, names)}")
    return (resources.files("gankit.experiments") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")


@dataclass
class Source:
    """A document of settings that knows where each of them was written.

    Attributes:
        label: how errors name the file.
        values: its content, changed by overrides.
        text: the file as it stands.
        format: ".toml", ".json" or ".yaml".
    """

    label: str
    values: dict[str, Any]
    text: str = ""
    format: str = ".toml"
    filled: set[str] = field(default_factory=set)
    overridden: dict[Location, str] = field(default_factory=dict)

    @classmethod
    def of(cls, tables: Mapping[str, Any]) -> Source:
        """Settings of the calling program; a copy, which overrides may change."""
        return cls("experiment", {key: _copied(item) for key, item in tables.items()})

    @classmethod
    def read(cls, recipe_or_path: str | Path) -> Source:
        """A recipe by name, a TOML, JSON or YAML file, or a run folder.

        Raises:
            SettingsError: nothing is there, or it cannot be parsed; with the line.
        """
        named = str(recipe_or_path)
        path = Path(named).expanduser()
        if (path / "experiment.toml").is_file():
            path = path / "experiment.toml"
        if not path.is_file() and named not in recipe_names():
            if path.is_dir():
                raise SettingsError(f"{named} is a folder without an experiment.toml: name a recipe, a file or a run")
            if path.suffix in FORMATS or "/" in named:
                raise SettingsError(f"{named}: there is no such experiment file")
        if not path.is_file():
            text = recipe_text(named)
            return cls(f"recipe {named}", tomllib.loads(text), text)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: cannot be read: {error}") from error
        form = FORMATS.get(path.suffix.lower(), ".toml")
        values = _parsed(text, form, str(path))
        if values is None:  # an empty YAML file, like an empty TOML file
            values = {}
        if not isinstance(values, dict):
            raise SettingsError(f"{path}: an experiment is a set of tables; this file holds {values!r}"[:200])
        return cls(str(path), values, text, form)

    def fill_from_default(self, tables: tuple[str, ...]) -> None:
        """Take the tables that are missing from the default recipe."""
        default = tomllib.loads(recipe_text(DEFAULT_RECIPE))
        for table in tables:
            if table not in self.values and table in default:
                self.values[table] = default[table]
                self.filled.add(table)

    def override(self, overrides: tuple[str, ...]) -> None:
        """Apply `key.path=value` settings; a changed `name` first drops what its table had.

        Raises:
            SettingsError: an override without "=", or whose path leads nowhere.
        """
        for keys, value, text in _names_first([_split(text) for text in overrides]):
            self._set(keys, value, text)

    def _set(self, keys: list[str], value: Any, text: str) -> None:
        table: Any = self.values
        location: Location = ()
        for position, key in enumerate(keys):
            step: Any = _index(table, key, text, location) if isinstance(table, list) else key
            location = (*location, step)
            if position == len(keys) - 1:
                break
            inner = table[step] if isinstance(table, list) else table.get(step)
            if inner is None:
                inner = table[step] = {}
                self.overridden[location] = text
            elif isinstance(inner, str):
                inner = table[step] = {"name": inner}
            if not isinstance(inner, (dict, list)):
                raise SettingsError(f"override {text!r}: {'.'.join(map(str, location))} holds a value, not a table")
            table = inner
        if keys[-1] == "name" and isinstance(table, dict) and table.get("name") != value:
            table.clear()
            self._forget(location[:-1])
        self._forget(location)
        table[location[-1]] = value
        self.overridden[location] = text

    def _forget(self, location: Location) -> None:
        """Overrides inside a table that is replaced no longer count."""
        for inner in [each for each in self.overridden if each[: len(location)] == location and each != location]:
            del self.overridden[inner]

    @cached_property
    def _places(self) -> dict[Location, int]:
        readers = {".toml": toml_places, ".json": json_places, ".yaml": yaml_places}
        return readers[self.format](self.text)

    def place(self, location: Location) -> str:
        """Where a setting was written: an override, or a file and its line; that of the innermost table around it."""
        for length in range(len(location), 0, -1):
            if location[:length] in self.overridden:
                return f"override {self.overridden[location[:length]]!r}"
        if location and location[0] in self.filled:
            return f"recipe {DEFAULT_RECIPE}"
        for length in range(len(location), 0, -1):
            if location[:length] in self._places:
                return f"{self.label}:{self._places[location[:length]]}"
        return self.label


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, (list, tuple)) else value


def _parsed(text: str, form: str, label: str) -> Any:
    try:
        if form == ".json":
            return json.loads(text)
        if form == ".yaml":
            return _parsed_yaml(text, label)
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"^(.*) \(at line (\d+), column (\d+)\)$", str(error))
        place, reason = (f"{label}:{match[2]}", match[1]) if match else (label, str(error))
        raise SettingsError(f"{place}: not TOML: {reason}") from error
    except json.JSONDecodeError as error:
        raise SettingsError(f"{label}:{error.lineno}: not JSON: {error.msg}") from error


def _parsed_yaml(text: str, label: str) -> Any:
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError
    except ImportError as error:
        raise SettingsError(f"{label}: YAML files need an extra: pip install 'gankit[yaml]'") from error
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise SettingsError(f"{label}{f':{mark.line + 1}' if mark else ''}: not YAML: {reason}") from error


def _split(text: str) -> tuple[list[str], Any, str]:
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise SettingsError(f"override {text!r}: write key.path=value, for example training.steps=1000")
    try:
        return keys, tomllib.loads(f"value = {value.strip()}")["value"], text
    except tomllib.TOMLDecodeError:
        return keys, value.strip(), text


def _names_first(parsed: list[tuple[list[str], Any, str]]) -> list[tuple[list[str], Any, str]]:
    """A new name comes before other settings of its table, which it would drop; nothing passes a whole new table."""
    ordered: list[tuple[list[str], Any, str]] = []
    for item in parsed:
        keys, place = item[0], len(ordered)
        if keys[-1] == "name":
            while place and not _bars(ordered[place - 1][0], keys):
                place -= 1
        ordered.insert(place, item)
    return ordered


def _bars(earlier: list[str], name: list[str]) -> bool:
    return earlier[-1] == "name" or earlier == name[: len(earlier)]


def _index(items: list[Any], key: str, text: str, location: Location) -> int:
    names = [item.get("name") if isinstance(item, dict) else item for item in items]
    if key.isdecimal() and int(key) < len(items):
        return int(key)
    if names.count(key) == 1:
        return names.index(key)
    place = ".".join(map(str, location))
    if key in names:
        raise SettingsError(
            f"override {text!r}: {place} has {names.count(key)} entries {key!r}; write their number, from 0"
        )
    known = ", ".join(map(str, names)) or "none"
    raise SettingsError(f"override {text!r}: {place} has no entry {key!r}; it has {known}")
