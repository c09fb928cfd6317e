"""Folders that appear only when they are complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from gankit.errors import RunError


def check_folder(folder: Path) -> None:
    """
    Raises:
        RunError: something is there already, or there is no place for it.
    """  # fmt: skip
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is not empty; choose another --out")


def write_folder(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Make a folder that is there as a whole or not at all.

    Args:
        folder: it must not exist, or be empty.
        fill: writes what it holds into the folder that it is given.

    Raises:
        RunError: the folder is taken.
    """
    check_folder(folder)
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
