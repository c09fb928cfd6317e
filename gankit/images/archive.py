"""Arrays in an npz or npy file, read without unpickling and never larger than the file can hold."""

import math
import os
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from gankit.errors import DataError, cause, suggestion

_LARGE, _DENSE = 2**30, 100  # above so many bytes, an array may unpack to at most so many times its packed size


@final
@dataclass(frozen=True)
class Header:
    """Shape and type of a stored array, and the bytes that it takes in the file and unpacked."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    packed: int
    unpacked: int


@final
class Archive:
    """An npz file, or an npy file as if it held one array named `images`; opened at first use and never unpickled.

    Raises:
        DataError: at first use; the file is missing, is neither npz nor npy, or has no such array.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def headers(self) -> dict[str, Header]:
        """Every array's shape and type; no values are read."""
        if self.path.is_dir():
            raise DataError(f'{self.path} is a folder; name = "folder" reads pictures in folders, "npz" one npz file')
        if not self.path.is_file():
            raise DataError(
                f"there is no file {self.path.absolute()}; set path to an npz file, or go to the folder that holds it"
            )
        try:
            with self.path.open("rb") as file:
                self._stamp = _stamp(file)
                return _headers(file)
        except Exception as error:  # zipfile and NumPy meet damage with errors of any type
            raise DataError(
                f"{self.path} is not an npz file that NumPy can read ({cause(error)}); write it with np.savez"
            ) from None

    def header(self, key: str) -> Header:
        """Shape and type of one array.

        Raises:
            DataError: there is no such array, it holds Python objects, or more than the file can hold.
        """
        if key not in self.headers:
            near = suggestion(key, self.headers, list_all=True)
            raise DataError(f"{self.path} has no array {key[:200]!r}; {near}")
        header = self.headers[key]
        if header.dtype.hasobject:
            raise DataError(
                f"{self.path}: {key!r} holds Python objects, which run code when they are loaded; save it "
                "with a plain type, such as .astype(str)"
            )
        needed = math.prod(header.shape) * header.dtype.itemsize
        if min(header.shape, default=0) < 0 or needed > header.unpacked:
            raise DataError(f"{self.path}: {key!r} is cut off, or its header is damaged; get the file anew")
        if header.unpacked > max(_LARGE, _DENSE * header.packed):
            raise DataError(
                f"{self.path}: {key!r} unpacks to {header.unpacked / 1e9:.1f} GB from {header.packed / 1e6:.1f} MB, "
                "which no images do; save it with np.savez if they are images"
            )
        return header

    def read(self, key: str) -> NDArray[Any]:
        """One array, of any shape; text in bytes becomes text.

        Raises:
            DataError: as `header`, or the values are damaged, or the file has changed since it was opened.
        """
        self.header(key)
        try:
            with self.path.open("rb") as file:
                if _stamp(file) != self._stamp or _headers(file) != self.headers:
                    raise DataError(f"{self.path} has changed since it was opened; load it anew")
                with file if _is_npy(file) else zipfile.ZipFile(file).open(f"{key}.npy") as member:
                    array = npy.read_array(member, allow_pickle=False)
            return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
        except (DataError, MemoryError):  # neither of which is damage
            raise
        except Exception as error:
            raise DataError(f"{self.path}: {key!r} cannot be read ({cause(error)}); get the file anew") from None


def _stamp(file: IO[bytes]) -> tuple[int, int]:
    """Its size in bytes, and when it was last changed in nanoseconds."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _headers(file: IO[bytes]) -> dict[str, Header]:
    (size, _), headers = _stamp(file), {}
    if _is_npy(file):
        return {"images": Header(*_shape_and_type(file), size, size)}
    archive = zipfile.ZipFile(file)
    for member in archive.infolist():
        if member.filename.endswith(".npy"):
            with archive.open(member) as array:
                form = _shape_and_type(array)
            packed = min(member.compress_size, size)
            headers[member.filename.removesuffix(".npy")] = Header(*form, packed, member.file_size)
    return headers


def _is_npy(file: IO[bytes]) -> bool:
    """Whether a file begins as npy, whatever lies behind; leaves it at its beginning."""
    file.seek(0)
    begin = file.read(len(npy.MAGIC_PREFIX))
    file.seek(0)
    return begin == npy.MAGIC_PREFIX


def _shape_and_type(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    first_version = npy.read_magic(file) == (1, 0)
    shape, _, dtype = (npy.read_array_header_1_0 if first_version else npy.read_array_header_2_0)(file)
    return shape, dtype
