"""Where an experiment's settings are written: reading files, applying overrides, and finding the line of a setting."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from gankit.errors import SettingsError

Location = tuple[str | int, ...]
DEFAULT_RECIPE = "wgan-gp"


def recipe_names() -> list[str]:
    """The packaged experiments."""
    folder = resources.files("gankit") / "recipes"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def recipe_text(name: str) -> str:
    """A packaged experiment's TOML.

    Raises:
        SettingsError: there is no such recipe.
    """
    names = recipe_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise SettingsError(f"there is no recipe or file {name!r}{hint} recipes: {', '.join(names)}".replace("? r", "? R"))
    return (resources.files("gankit") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")


@dataclass
class Source:
    """A document of settings that knows where each of them was written.

    Attributes:
        label: how errors name the file.
        text: the file as it stands.
        values: its content, changed by overrides.
    """

    label: str
    text: str
    values: dict[str, Any]
    filled: set[str] = field(default_factory=set)
    overridden: dict[Location, str] = field(default_factory=dict)

    @classmethod
    def read(cls, recipe_or_path: str | Path) -> Source:
        """A recipe by name, a TOML, JSON or YAML file, or a run folder.

        Raises:
            SettingsError: nothing is there, or it cannot be parsed; with the line.
        """
        path = Path(recipe_or_path).expanduser()
        if path.is_dir() and (path / "experiment.toml").is_file():
            path = path / "experiment.toml"
        named = str(recipe_or_path)
        if not path.is_file():
            if path.suffix in (".toml", ".json", ".yaml", ".yml") or "/" in named or path.is_dir():
                raise SettingsError(f"{named}: there is no such experiment file")
            text = recipe_text(named)
            return cls(f"recipe {named}", text, tomllib.loads(text))
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{named}: cannot be read: {error}") from error
        values = _parsed(text, path.suffix.lower(), str(path))
        if not isinstance(values, dict):
            raise SettingsError(f"{path}: an experiment is a set of tables, this file holds a {type(values).__name__}")
        return cls(str(path), text, values)

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
        parsed = [_split(text) for text in overrides]
        # Names first, whatever the order: they drop the settings that a recipe gave the table.
        for keys, value, text in sorted(parsed, key=lambda item: item[0][-1] != "name"):
            self._set(keys, value, text)

    def _set(self, keys: list[str], value: Any, text: str) -> None:
        table: Any = self.values
        location: list[str | int] = []
        for position, key in enumerate(keys):
            last = position == len(keys) - 1
            step: str | int = key
            if isinstance(table, list):
                step = _index(table, key, text)
                if isinstance(table[step], str):
                    table[step] = {"name": table[step]}
            elif isinstance(table, dict):
                if not last and isinstance(table.get(key), str):
                    table[key] = {"name": table[key]}
                if not last and table.get(key) is None:
                    table[key] = {}
            else:
                raise SettingsError(f"override {text!r}: {'.'.join(map(str, location))} holds a value, not a table")
            location.append(step)
            if not last:
                table = table[step]
        if keys[-1] == "name" and isinstance(table, dict) and table.get("name") != value:
            table.clear()
        table[location[-1]] = value
        self.overridden[tuple(location)] = text

    def place(self, location: Location) -> str:
        """Where a setting was written: an override, or a file and its line."""
        for length in range(len(location), 0, -1):
            if location[:length] in self.overridden:
                return f"override {self.overridden[location[:length]]!r}"
        if location and location[0] in self.filled:
            return f"recipe {DEFAULT_RECIPE}"
        line = find_line(self.text, location)
        return f"{self.label}:{line}" if line else self.label


def _parsed(text: str, suffix: str, label: str) -> Any:
    try:
        if suffix == ".json":
            return json.loads(text)
        if suffix in (".yaml", ".yml"):
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
        from ruamel.yaml.error import MarkedYAMLError
    except ImportError as error:
        raise SettingsError(f"{label}: YAML files need an extra: pip install 'gankit[yaml]'") from error
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SettingsError(f"{label}{line}: not YAML: {error.problem}") from error


def _split(text: str) -> tuple[list[str], Any, str]:
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise SettingsError(f"override {text!r}: write key.path=value, for example training.steps=1000")
    try:
        return keys, tomllib.loads(f"value = {value.strip()}")["value"], text
    except tomllib.TOMLDecodeError:
        return keys, value.strip(), text


def _index(items: list[Any], key: str, text: str) -> int:
    names = [item.get("name") if isinstance(item, dict) else item for item in items]
    if key.isdigit() and int(key) < len(items):
        return int(key)
    if names.count(key) == 1:
        return names.index(key)
    raise SettingsError(f"override {text!r}: the list has no entry {key!r}; it has {', '.join(map(str, names))}")


def find_line(text: str, location: Location) -> int | None:
    """The line, from 1, on which a setting is written; that of the innermost table around it that can be found."""
    lines = text.splitlines()
    if text.lstrip().startswith("{"):
        return _find_nested(lines, location, '"{}"\\s*:')
    if not re.search(r"^\s*[^#\s].*=", text, re.MULTILINE):
        return _find_nested(lines, location, "^\\s*(?:- )?['\"]?{}['\"]?\\s*:")
    best: tuple[int, int] | None = None
    counts: dict[str, int] = {}
    table: Location = ()
    for number, line in enumerate(lines, 1):
        written: Location | None = None
        if match := re.match(r"\s*\[\[\s*([^\]]+?)\s*\]\]", line):
            counts[match[1]] = counts.get(match[1], -1) + 1
            written = table = (*_keys(match[1]), counts[match[1]])
        elif match := re.match(r"\s*\[\s*([^\]]+?)\s*\]", line):
            written = table = _keys(match[1])
        elif match := re.match(r"""\s*([\w."'-]+)\s*=""", line):
            written = (*table, *_keys(match[1]))
        if written and written == location[: len(written)] and (best is None or len(written) > best[0]):
            best = (len(written), number)
    return best[1] if best else None


def _keys(path: str) -> Location:
    return tuple(key.strip().strip("\"'") for key in path.split("."))


def _find_nested(lines: list[str], location: Location, pattern: str) -> int | None:
    found, start = None, 0
    for key in location:
        if isinstance(key, int):
            continue
        for number in range(start, len(lines)):
            if re.search(pattern.format(re.escape(key)), lines[number]):
                found, start = number + 1, number
                break
        else:
            break
    return found
