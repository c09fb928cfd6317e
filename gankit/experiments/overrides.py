"""Overrides: settings as `key.path=value`, from the command line or a program."""

import os
from typing import Any, NamedTuple

from gankit.errors import SettingsError
from gankit.experiments.values import MAX_DEPTH, copy_values, parse_value
from gankit.registry.messages import shown


class Override(NamedTuple):
    """One setting that replaces what a document says."""

    keys: list[str]  # its path
    value: Any
    text: str  # as the user wrote it, for messages


def parse_override(text: str) -> Override:
    """An override from `key.path=value`.

    Raises SettingsError without "=", for an empty or too long path, and for a value that no experiment can have.
    """
    text = str(text)  # a program may pass anything
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys) or len(keys) > MAX_DEPTH:
        is_folder = os.path.isdir(text)
        example = f"data.name=folder data.path={text}" if is_folder else "training.steps=1000"
        hint = ""
        if not equals and not is_folder:
            hint = '; write no spaces around =, and quote a value that contains spaces: data.path="a b"'
        raise SettingsError(f"override {shown(text)}: write key.path=value, for example {example}{hint}")
    return Override(keys, copy_values(parse_value(value), f"override {shown(text)}"), text)


def names_first(overrides: list[Override]) -> list[Override]:
    """Move each override of a `name` ahead of overrides of other settings, since a new name clears its table.

    It is not moved ahead of another override of a `name`, nor of one that replaces the whole table.
    """
    ordered: list[Override] = []
    for override in overrides:
        index = len(ordered)
        while index and _may_pass(override, ordered[index - 1]):
            index -= 1
        ordered.insert(index, override)
    return ordered


def _may_pass(override: Override, before: Override) -> bool:
    """Whether an override of a `name` may move ahead of the one before it."""
    replaces_table = before.keys == override.keys[: len(before.keys)]
    return override.keys[-1] == "name" and before.keys[-1] != "name" and not replaces_table
