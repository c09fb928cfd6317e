"""Files and folders that are there as a whole or not at all, even when the machine stops."""

import csv
import io
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from gankit.errors import GankitError, RunError
from gankit.text import to_cell


def user_path(path: str | Path) -> Path:
    """A path as the user names it, in which `~` stands for the home folder.

    Raises:
        GankitError: there is no such user, or this one has no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise GankitError(f"{path}: ~ stands for no home folder here; write the path in full") from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is either there as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a table, its header first, as a CSV file that is there as a whole or not at all; cells by `to_cell`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([to_cell(cell) for cell in row] for row in rows)
    write_atomically(path, text.getvalue().encode())


def refuse_nonempty(folder: Path, hint: str = "choose another --out") -> None:
    """Refuse to write into a folder that holds something.

    Args:
        folder: accepted if it is missing or empty.
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
        folder: must be missing or empty.
        fill: called with an empty folder, into which it writes everything.

    Raises:
        RunError: the folder holds something.
    """
    refuse_nonempty(folder)
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
