"""CSV files with a header line, as spreadsheets of all countries write them."""

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gankit.errors import DataError, first_of
from gankit.files import open_ordinary
from gankit.images.names import as_number, visible
from gankit.terminal.text import from_cell


@dataclass(frozen=True)
class CsvTable:
    """What a CSV file holds.

    Attributes:
        path: the file.
        lines: the number of each row's line.
        columns: the cells of each column, one per row, by title; without white space round them.
        delimiter: between cells.
        written: the columns as the file has them.
    """

    path: Path
    lines: list[int]
    columns: dict[str, list[str]]
    delimiter: str
    written: dict[str, list[str]]

    def where(self, row: int) -> str:
        """The file and the line of a row, for messages."""
        return f"{self.path} line {self.lines[row]}"

    def number(self, cell: str) -> float | None:
        """A cell as a number, or None; where semicolons separate cells, a comma may be the decimal point."""
        return as_number(cell, comma=self.delimiter == ";")


def read_csv(
    path: Path, key: str, *, unify: Callable[[str], str], is_key: Callable[[str], bool] | None = None
) -> CsvTable:
    """Read a CSV file with a header line, in UTF-8 with or without byte order mark; empty lines are skipped.

    A line `sep=;`, by which Excel is told the separator, may come first.

    Args:
        path: the file, separated by comma, semicolon or tab.
        key: the title, unified, of a column that must be there.
        unify: makes spellings of a title equal.
        is_key: whether a unified title may stand for `key`; by default only `key` does. The separator is the one
            that makes such a title appear in the header; of several, the one that gives the most titles.

    Raises:
        DataError: the file cannot be read, has no key, a column twice, no row, a row of another length, or a quotation
            mark in a wrong place.
    """
    is_key = is_key or key.__eq__
    try:
        with io.TextIOWrapper(open_ordinary(path), encoding="utf-8-sig", newline="") as file:
            header, above = file.readline(), 0
            if separator := re.fullmatch(r"sep=([,;\t])", header.strip('\r\n"'), re.IGNORECASE):
                header, above = file.readline(), 1
            headers = {
                mark: [visible(title) for title in next(csv.reader([header], delimiter=mark), [])]
                for mark in (separator[1] if separator else ",;\t")
            }
            delimiter = max(headers, key=lambda m: (any(is_key(unify(t)) for t in headers[m]), len(headers[m])))
            if not any(is_key(unify(title)) for title in headers[delimiter]):
                said = first_of(list(map(repr, headers[delimiter])), 8) or "nothing"
                raise DataError(
                    f"{path} has no column `{key}`; its first line must name the columns: {key},... (it says: {said})"
                )
            reader = csv.reader(itertools.chain([header], file), delimiter=delimiter, strict=True)
            titles = [unify(visible(title)) for title in next(reader)]
            rows = [
                (reader.line_num + above, [from_cell(cell.strip()) for cell in cells])
                for cells in reader
                if "".join(cells).strip()
            ]
    except UnicodeDecodeError:
        raise DataError(f"{path} is not in UTF-8; save it as CSV UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give a CSV file in UTF-8") from None
    except csv.Error as error:
        raise DataError(
            f"{path} cannot be read ({error}): a quotation mark is not closed or in a wrong place, or "
            "this is not a CSV file"
        ) from None
    for line, cells in rows:
        if len(cells) != len(titles):
            raise DataError(
                f"{path} line {line} has {len(cells)} cells where the header has {len(titles)}; "
                "quote cells that hold the separator"
            )
    if repeated := [title for title, count in Counter(titles).items() if count > 1]:
        raise DataError(f"{path} has the column {repeated[0]!r} more than once; rename one")
    if not rows:
        raise DataError(f"{path} has a header and no rows; add one row per image, or remove the file")
    columns = {title: [cells[i] for _, cells in rows] for i, title in enumerate(titles)}
    return CsvTable(path, [line for line, _ in rows], columns, delimiter, columns)
