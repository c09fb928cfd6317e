"""Small pictures and arrays for the tests of data sets."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gankit.errors import DataError

Array = NDArray[Any]


def pixels(*shape: int, seed: int = 0, dtype: Any = np.uint8) -> Array:
    """Random values over the whole range of the type."""
    random = np.random.default_rng(seed)
    return random.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def save(path: Path, array: Array, **options: Any) -> Path:
    """An (h, w) or (h, w, c) array as a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def error(make: Callable[[], object]) -> str:
    """The text of the one-line DataError that `make` raises."""
    with pytest.raises(DataError) as caught:
        make()
    text = str(caught.value)
    assert "\n" not in text
    return text


def sixteen_bit_colour_png(array: Array) -> bytes:
    """Pillow cannot write it: a PNG put together from its chunks."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = array.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
