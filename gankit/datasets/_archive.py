"""Arrays of an npz file: shapes and types from the headers alone, and values only when they are read."""

from __future__ import annotations

import difflib
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from gankit.errors import DataError


@dataclass(frozen=True)
class Header:
    """Shape and type of a stored array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Archive:
    """An npz file, opened at first use and never unpickled.

    Raises:
        DataError: at first use, where the file is missing or no npz file, or has no such array.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def headers(self) -> dict[str, Header]:
        """Every array's shape and type; reads no values."""
        if not self.path.is_file():
            raise DataError(f"there is no file {self.path}; set path to an npz file ({Path.cwd()} is current)")
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = [name for name in archive.namelist() if name.endswith(".npy")]
                return {name.removesuffix(".npy"): _header(archive, name) for name in members}
        except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError) as error:
            raise DataError(f"{self.path} is no npz file that NumPy can read ({error}); write it by np.savez") from None

    def header(self, key: str) -> Header:
        """Shape and type of one array.

        Raises:
            DataError: there is no such array, or it holds Python objects.
        """
        if key not in self.headers:
            close = difflib.get_close_matches(key, self.headers, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise DataError(f"{self.path} has no array {key!r}; {hint}it has: {', '.join(self.headers) or 'none'}")
        header = self.headers[key]
        if header.dtype.hasobject:
            raise DataError(
                f"{self.path}: {key!r} holds Python objects, which are code to load; save it with a plain type, "
                "such as .astype(str)"
            )
        return header

    def read(self, key: str) -> NDArray[Any]:
        """One array.

        Raises:
            DataError: as `header`, or the values are damaged.
        """
        self.header(key)
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                array: NDArray[Any] = arrays[key]
                return array
        except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError) as error:
            raise DataError(f"{self.path}: {key!r} cannot be read ({error}); get the file anew") from None


def _header(archive: zipfile.ZipFile, member: str) -> Header:
    with archive.open(member) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
        return Header(shape, dtype)
