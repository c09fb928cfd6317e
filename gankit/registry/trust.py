"""Files that hold programs, such as TorchScript archives: they are loaded only where the user names them.

A program in such a file can read and write all that the user can. A file of settings may come from others, so it is
not enough that such a file names the program: the user names it in Python, on the command line, or in `GANKIT_TRUST`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gankit.errors import GankitError, PartError
from gankit.files import user_path

VARIABLE = "GANKIT_TRUST"
"""Holds the paths of trusted files, separated as in PATH. A variable, so that child processes inherit it."""


def trust(value: Any) -> None:
    """Trust every file that a value from the user names: a path, or paths in tables and lists."""
    if isinstance(value, (str, Path)):
        if _is_file(value) and not _is_trusted(path := _absolute(value)):
            os.environ[VARIABLE] = f"{os.environ.get(VARIABLE, '')}{os.pathsep}{path}".removeprefix(os.pathsep)
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            trust(item)


def check_trust(file: str | Path, who: str) -> None:
    """Refuse a program file that is named only in a file of settings, and not by the user.

    The PartError names the file and `who`, the part that would load it.
    """
    if not _is_file(file):
        return  # the part that would load it says that it is missing
    path = _absolute(file)
    if not _is_trusted(path):
        raise PartError(
            f"{who}: {path} holds a program, which can read and write your files, and only a file of settings names "
            f"it; if you trust it, name it on the command line, or set {VARIABLE}={path}"
        )


def _is_trusted(path: str) -> bool:
    # Not split: a path may contain the separator, such as a folder named 10:30.
    return f"{os.pathsep}{path}{os.pathsep}" in f"{os.pathsep}{os.environ.get(VARIABLE, '')}{os.pathsep}"


def _is_file(path: str | Path) -> bool:
    try:
        return user_path(path).is_file()
    except (OSError, ValueError, GankitError):  # too long, with a null byte, or in the home of an unknown user
        return False


def _absolute(path: str | Path) -> str:
    return str(user_path(path).resolve())
