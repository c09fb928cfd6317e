"""Numbers as the tables of a study's report show them, and the tables as LaTeX."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gankit.evaluation.latex import Table, tabular
from gankit.files import write_atomically

NONE = "-"  # stands where there is no value


def number(value: float | None, digits: int = 3) -> str:
    """A value with so many digits after the point; `NONE` for None."""
    return NONE if value is None else f"{value:.{digits}f}"


def interval(entry: Mapping[str, Any], signed: bool = False, digits: int = 3) -> str:
    """The "value" of an entry and, in brackets, its interval from "low" to "high".

    Where one end alone is None, it is infinite. An entry with neither end has no interval, unless it says that both are
    "infinite". `signed` writes a + before positive numbers.
    """
    form = f"{'+' if signed else ''}.{digits}f"
    value = NONE if entry["value"] is None else format(entry["value"], form)
    if entry["low"] is None and entry["high"] is None and not entry.get("infinite"):
        return value
    low = "-inf" if entry["low"] is None else format(entry["low"], form)
    high = "inf" if entry["high"] is None else format(entry["high"], form)
    return f"{value} [{low}, {high}]"


def write_latex(folder: Path, tables: Mapping[str, Table], notes: Mapping[str, str]) -> None:
    """Write tables of text, each with a header first, as NAME.tex; `notes` are comments above some of them.

    A table of a header alone has no file, not even an earlier one.
    """
    for name, rows in tables.items():
        path = folder / f"{name}.tex"
        if len(rows) > 1:
            write_atomically(path, tabular(rows[0], [("", rows[1:])], notes.get(name, "")))
        else:
            path.unlink(missing_ok=True)
