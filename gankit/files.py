"""Files and folders that are there as a whole or not at all, even when the machine stops."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from gankit.errors import DataError, RunError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is either there as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a table, its header first, as a CSV file that is there as a whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(path, text.getvalue().encode())


@dataclass(frozen=True)
class CsvTable:
    """What a CSV file holds.

    Attributes:
        path: the file.
        lines: the number of each row's line.
        columns: the cells of each column, one per row, by title; without white space round them.
    """

    path: Path
    lines: list[int]
    columns: dict[str, list[str]]

    def where(self, row: int) -> str:
        """The file and the line of a row, for messages."""
        return f"{self.path} line {self.lines[row]}"


def read_csv(path: Path, key: Collection[str], *, fold: Callable[[str], str], strict: bool = False) -> CsvTable:
    """Read a CSV file with a header line, in UTF-8 with or without byte order mark; empty lines are skipped.

    Args:
        path: the file, separated by comma, semicolon or tab.
        key: titles, folded, of which the header must have one; it tells which separator it is.
        fold: makes spellings of a title equal.
        strict: whether a quotation mark in a wrong place is an error.

    Raises:
        DataError: the file cannot be read, has no key, a column twice, no row, or a row of another length.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            for delimiter in ",;\t":
                if any(fold(title.strip()) in key for title in next(csv.reader([header], delimiter=delimiter), [])):
                    break
            else:
                name = next(iter(key))
                raise DataError(f"{path} has no column `{name}`; its first line must name the columns: {name},...")
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=strict)
            titles = [fold(title.strip()) for title in next(reader)]
            rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if "".join(cells).strip()]
    except UnicodeDecodeError:
        raise DataError(f"{path} is not in UTF-8; save it as CSV UTF-8") from None
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read ({reason}); give a CSV file in UTF-8") from None
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
    return CsvTable(path, [line for line, _ in rows], columns)


def check_free(folder: Path, hint: str = "choose another --out") -> None:
    """Refuse to write into a folder that holds something.

    Args:
        folder: it may be missing or empty.
        hint: what to do instead, for the error.

    Raises:
        RunError: the folder holds something, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; choose another --out")
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} is not empty; {hint}")


def write_folder(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Write a folder that is either there as a whole or not at all.

    Args:
        folder: it must not exist, or be empty.
        fill: called with an empty folder, into which it writes everything.

    Raises:
        RunError: the folder holds something.
    """
    check_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    new.mkdir()
    try:
        fill(new)
        if folder.exists():
            folder.rmdir()
        new.rename(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return folder
