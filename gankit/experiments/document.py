"""A document of settings: reading it from a recipe or file, applying overrides, and finding where a setting stands."""

from __future__ import annotations

import copy
import json
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from gankit import recipes
from gankit.errors import SettingsError, meant_by
from gankit.experiments.lines import KeyPath, json_lines, toml_lines, yaml_lines
from gankit.experiments.overrides import Override, names_first, parse_override
from gankit.experiments.recipe_files import DEFAULT_RECIPE, fixed_recipe_names, recipe_text
from gankit.experiments.values import MAX_FILE, copy_values, parse_text
from gankit.files import user_path
from gankit.registry import registry
from gankit.registry.messages import shown
from gankit.registry.trust import trust

DATA_SPECIFIC = [("data", "size"), ("data", "flip"), ("evaluation", "count")]
"""Settings, as (table, key), that a recipe chooses for its own data set; dropped when the user names another one."""
BACKSLASH_HINT = "write Windows paths in single quotes or with /"
FORMATS = {".toml": ".toml", ".json": ".json", ".yaml": ".yaml", ".yml": ".yaml"}


@dataclass
class SettingsDocument:
    """The settings of one file, recipe or program, and where each of them was written."""

    label: str  # how errors name the file
    values: dict[str, Any]  # its content, which overrides change
    text: str = ""  # the file's text, without overrides
    format: str = ".toml"  # or ".json" or ".yaml"
    default_tables: set[str] = field(default_factory=set)  # names of those that were taken from the default recipe
    overridden: dict[KeyPath, str] = field(default_factory=dict)  # the text of each override, by the setting's path
    widened: set[KeyPath] = field(default_factory=set)  # paths of parts: a bare name that an override made a table
    computed_by: str = ""  # the recipe that computes the settings from the images, if one does
    is_recipe: bool = False  # with fixed or with computed settings
    chosen_by_recipe: Collection[tuple[str, str]] = ()  # of `DATA_SPECIFIC`, for a document made from an `Experiment`

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any]) -> SettingsDocument:
        """Settings from tables given in Python, copied so that overrides do not change the caller's.

        Raises a SettingsError for a key or value that cannot be one of an experiment.
        """
        return cls("experiment", copy_values(tables, "experiment"))

    @classmethod
    def read(cls, recipe_or_path: str | Path) -> SettingsDocument:
        """A recipe by name, a TOML, JSON or YAML file, or a run folder.

        Raises:
            SettingsError: there is no such recipe, file or run, or the file cannot be parsed; names the line.
        """
        if not isinstance(recipe_or_path, (str, os.PathLike)):
            kinds = "a recipe's name, a file, a run's folder, tables by name, or what gankit.load returned"
            raise SettingsError(f"an experiment is {kinds}, not {shown(recipe_or_path)}")
        path = settings_file(recipe_or_path)
        return cls._read_recipe(str(recipe_or_path)) if path is None else cls._read_file(path)

    @classmethod
    def _read_recipe(cls, name: str) -> SettingsDocument:
        meant = meant_by(name, {*fixed_recipe_names(), *recipes.names()})
        name = meant[0] if len(meant) == 1 else name
        if name in recipes.names() or (name in registry("recipe") and name not in fixed_recipe_names()):
            return cls(f"recipe {name}", {"data": dict(recipes.get(name).data)}, computed_by=name, is_recipe=True)
        if name not in fixed_recipe_names():
            _refuse_path_or_setting(name)
        text = recipe_text(name)  # its error for an unknown name lists the recipes
        return cls(f"recipe {name}", tomllib.loads(text), text, is_recipe=True)

    @classmethod
    def _read_file(cls, path: Path) -> SettingsDocument:
        """A TOML, JSON or YAML file; one of another ending is read as TOML."""
        try:
            with open(path, encoding="utf-8-sig") as file:
                text = file.read(max(MAX_FILE.values()) + 1)  # one too many, so that a longer file is refused
        except (OSError, UnicodeDecodeError) as error:
            reason = "it is not in UTF-8; save it so" if isinstance(error, UnicodeDecodeError) else error.strerror
            raise SettingsError(f"{path}: cannot be read: {reason}") from error
        format = FORMATS.get(path.suffix.lower(), ".toml")
        values = copy_values(_parse(text, format, str(path)), str(path))
        values = {} if values is None else values  # an empty YAML file is like an empty TOML file
        if not isinstance(values, dict):
            raise SettingsError(f"{path}: an experiment is a set of tables; this file holds {shown(values)}")
        return cls(str(path), values, text, format)

    def fill_from_default(self) -> None:
        """Fill in the tables that are missing, from the default recipe; it has no augment, so none is added."""
        for table, values in tomllib.loads(recipe_text(DEFAULT_RECIPE)).items():
            if table not in self.values:
                self.values[table] = values
                self.default_tables.add(table)

    def override(self, overrides: tuple[str, ...], data_specific: Collection[tuple[str, str]] = ()) -> None:
        """Apply `key.path=value` settings; a changed `name` first drops the other settings of its table.

        The settings `data_specific`, as (table, key), suit only the data set that the file names. If the overrides name
        another, these settings are dropped before any override applies.

        Raises:
            SettingsError: an override has no "=", or its path runs through a plain value or a missing list entry.
        """
        settings = names_first([parse_override(text) for text in overrides])
        for override in settings:
            trust(override.value)  # the user has written it, and so names its files
        changed = copy.deepcopy(self)  # a trial, which tells whether the overrides name another data set
        for override in settings:
            changed._set(override)
        if data_specific and not _is_same_name(changed._data_set_name(), self._data_set_name()):
            for table, key in data_specific:
                if isinstance(values := self.values.get(table), dict):  # else it is refused later
                    values.pop(key, None)
        for override in settings:
            self._set(override)

    def _data_set_name(self) -> Any:
        """The name of the data set, from the table `data` or from the name in its place."""
        data = self.values.get("data")
        return data.get("name") if isinstance(data, dict) else data

    def _set(self, override: Override) -> None:
        """Apply one override; tables on the way to its setting are made where they are missing."""
        *tables, last = override.keys
        table: Any = self.values
        path: KeyPath = ()
        for key in tables:
            path = (*path, _key_or_index(table, key, override.text, path))
            table = self._open_table(table, path, override.text)
        path = (*path, _key_or_index(table, last, override.text, path))
        if last == "name" and isinstance(table, dict) and not _is_same_name(override.value, table.get("name")):
            table.clear()
            self._forget_within(path[:-1])
        self._forget_within(path)
        table[path[-1]] = override.value
        self.overridden[path] = override.text

    def _open_table(self, table: Any, path: KeyPath, text: str) -> Any:
        """The table or list at the end of a path; a missing one is made, a part's bare name becomes {name = ...}."""
        inner = table.get(path[-1]) if isinstance(table, dict) else table[path[-1]]
        if inner is None:
            inner = table[path[-1]] = {}
            self.overridden[path] = text
        elif isinstance(inner, str):
            inner = table[path[-1]] = {"name": inner}
            self.widened.add(path)
        if not isinstance(inner, (dict, list)):
            raise SettingsError(f"override {shown(text)}: {'.'.join(map(str, path))} holds a value, not a table")
        return inner

    def take_as_text(self, path: KeyPath) -> bool:
        """Replace an overridden value by its text, such as a folder named 2024-05-01. Returns whether it changed."""
        table: Any = self.values
        for key in path[:-1]:
            table = table[key]
        if path not in self.overridden or isinstance(table[path[-1]], (str, list, dict)):
            return False
        table[path[-1]] = self.overridden[path].partition("=")[2].strip()
        return True

    def refuse_control_characters(self) -> None:
        r"""Refuse settings such as the path "C:\temp\new", in which TOML reads a tab and the end of a line.

        The SettingsError names the first of them.
        """
        for path, value in _texts(self.values, ()):
            if re.search(r"[\x00-\x1f]", value) and path[0] != "run":  # a run's record may hold such names
                hint = BACKSLASH_HINT if "\\" in self._source(path) else "rename the file or folder"
                if "\n" in value and "=" in value:
                    hint = "pass each key=value as an argument of its own"
                setting = ".".join(map(str, path))
                raise SettingsError(f"{self.where(path)}: {setting}: {value!r} has control characters; {hint}")

    def _source(self, path: KeyPath) -> str:
        """The text of the override or of the line that holds a setting; "" for settings from Python."""
        if path in self.overridden:
            return self.overridden[path]
        line = self._lines.get(path)
        return self.text.split("\n")[line - 1] if line else ""

    def _forget_within(self, path: KeyPath) -> None:
        """Forget the overrides inside a table that is replaced."""
        for inner in [key for key in self.overridden if _is_within(key, path) and key != path]:
            del self.overridden[inner]

    @cached_property
    def _lines(self) -> dict[KeyPath, int]:
        return {".toml": toml_lines, ".json": json_lines, ".yaml": yaml_lines}[self.format](self.text)

    def recipe_settings(self) -> list[tuple[str, str]]:
        """Those of `DATA_SPECIFIC` that have a recipe's value and are not overridden."""
        return [
            path for path in DATA_SPECIFIC
            if (self.is_recipe or path in self.chosen_by_recipe or path[0] in self.default_tables)
            and not any(_is_within(path, keys) for keys in self.overridden)
        ]  # fmt: skip

    def where(self, path: KeyPath) -> str:
        """Where a setting is written: an override, or a file with a line.

        For a setting that is not written out, it is the place of the innermost table that contains it; "overrides" if
        several overrides wrote that table.
        """
        if path in self.overridden:
            return f"override {shown(self.overridden[path])}"
        path_and_parents = [path[:length] for length in range(len(path), 0, -1)]
        tables = [keys for keys in path_and_parents if keys in self.overridden]
        if tables or path in self.widened:  # of a widened part, only settings in it were overridden
            table = tables[0] if tables else path
            texts = {text for keys, text in self.overridden.items() if _is_within(keys, table)}
            if len(texts) > 1:
                return "overrides"
            if texts:  # none if a later override chose a new name, and so dropped the earlier ones
                return f"override {shown(texts.pop())}"
        if path and path[0] in self.default_tables:
            return f"recipe {DEFAULT_RECIPE}"
        for keys in path_and_parents:
            if keys in self._lines:
                return f"{self.label}:{self._lines[keys]}"
        return self.label


def _is_within(path: KeyPath, table: KeyPath) -> bool:
    """Whether a path of keys is that of a table, or leads to something in it."""
    return path[: len(table)] == table


def settings_file(name: str | Path) -> Path | None:
    """The experiment or study file that a name stands for: the file itself, or the one in a run's folder; else None."""
    path = user_path(name)
    return next((file for file in (path / "experiment.toml", path) if os.path.isfile(file)), None)


def _refuse_path_or_setting(name: str) -> None:
    """Refuse what is no recipe's name, and looks like a folder, a setting or a file."""
    path = user_path(name)
    if os.path.isdir(path):
        raise SettingsError(
            f"{path} is a folder without an experiment.toml: name a recipe, a file or a run; to train on its pictures, "
            f"name a recipe and add data.name=folder data.path={path}"
        )
    if "=" in name or name.startswith("-"):
        what, setting = "file", name
        if name.startswith("-"):
            what, setting = "option", "training.steps=500"
        comes_after = f"a setting comes after a recipe or a file, for example: demo {setting}"
        raise SettingsError(f"{shown(name)}: there is no such {what}; {comes_after}")
    if path.suffix.lower() in FORMATS or "/" in name:
        raise SettingsError(f"{name}: there is no such experiment file")


def _texts(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Every setting that is a text, with its path. Texts in lists are left out: they name columns and classes."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if not isinstance(item, str):
                yield from _texts(item, (*path, index))


def _parse(text: str, format: str, label: str) -> Any:
    """The values in a text; an error of the parser becomes one line with the file and the line."""
    name = format[1:].upper()
    try:
        return parse_text(text, format)
    except ImportError as error:
        raise SettingsError(f"{label}: YAML files need an extra: pip install 'gankit[yaml]'") from error
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"^(.*) \(at line (\d+), column (\d+)\)$", str(error))
        where, reason = (f"{label}:{match[2]}", match[1]) if match else (label, str(error))
    except json.JSONDecodeError as error:
        where, reason = f"{label}:{error.lineno}", error.msg
    except Exception as error:  # also a YAMLError, whose class exists only if ruamel.yaml is installed
        if format != ".yaml" and not isinstance(error, ValueError):
            raise  # it is not the file's fault
        mark = getattr(error, "problem_mark", None)
        where = f"{label}:{mark.line + 1}" if mark else label
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
    hint = f"; {BACKSLASH_HINT}" if re.search(r"escape|hex value|\\", reason) else ""
    raise SettingsError(f"{where}: not {name}: {reason}{hint}")


def _is_same_name(one: Any, other: Any) -> bool:
    """Whether two names are one in the same or in another spelling."""
    texts = isinstance(one, str) and isinstance(other, str)
    return bool(one == other or (texts and meant_by(one, [other])))


def _key_or_index(table: dict[str, Any] | list[Any], key: str, text: str, path: KeyPath) -> str | int:
    """The key itself in a table; in a list the index of the entry that the key names, by its number or by its name."""
    if isinstance(table, dict):
        return key
    names = [item.get("name") if isinstance(item, dict) else item for item in table]
    if key.isdecimal() and len(key) < 10 and int(key) < len(table):  # int() refuses thousands of digits
        return int(key)
    meant = meant_by(key, [name for name in names if isinstance(name, str)])
    if len(meant) == 1 and names.count(meant[0]) == 1:
        return names.index(meant[0])
    problem = f"has no entry {shown(key)}; it has {', '.join(map(str, names)) or 'none'}"
    if key in names:
        problem = f"has {names.count(key)} entries named {key!r}; give the index of the one you mean, counted from 0"
    raise SettingsError(f"override {shown(text)}: {'.'.join(map(str, path))} {problem}")
