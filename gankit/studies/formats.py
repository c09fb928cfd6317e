"""Numbers as the tables of a study's report show them."""

from collections.abc import Mapping
from typing import Any

NONE = "-"
"""Stands where there is no value."""


def number(value: float | None, digits: int = 3) -> str:
    """A value, where there is one."""
    return NONE if value is None else f"{value:.{digits}f}"


def interval(entry: Mapping[str, Any], signed: bool = False, digits: int = 3) -> str:
    """The "value" of an entry and, unless both are None, the ends of its interval, "low" and "high".

    An end that is None alone is infinite.
    """
    form = f"{'+' if signed else ''}.{digits}f"
    value, low, high = (None if entry[key] is None else format(entry[key], form) for key in ("value", "low", "high"))
    return value or NONE if low is high is None else f"{value} [{low or '-inf'}, {high or 'inf'}]"
