"""PNG data that end before the picture does, which Pillow fills with black without a word."""

import io
import os
import struct
import zlib
from contextlib import AbstractContextManager, nullcontext
from typing import IO, Any

import numpy as np
from PIL import Image

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by kind of colour
_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row of each pass, and the steps between them: https://www.w3.org/TR/png-3/#8Interlace"""
_AT_ONCE = 2**16  # bytes read, and unpacked


def load(picture: Image.Image) -> None:
    """Read a PNG picture that is not read yet, and unpack its data again to count them if they may be too few.

    That may be where the last row is black, or the picture interlaced; it takes the time of unpacking once more.

    Raises:
        ValueError: there are fewer than the header says.
    """
    file: Any = getattr(picture, "fp", None)
    with _kept_open(file) as kept:
        picture.load()
        last = picture.crop((0, picture.height - 1, picture.width, picture.height))
        suspicious = picture.info.get("interlace") or not np.asarray(last).any()
        # A copy shares its position with the file: it is read only where Pillow has closed that one.
        again = kept if kept is None or file.closed else file
        if again and not again.closed and suspicious and _is_short(again):
            raise ValueError("its data end before its last row")


def _kept_open(file: Any) -> AbstractContextManager[IO[bytes] | None]:
    """The file, for when Pillow closes the one that it opened: by then its name may be another file's."""
    if isinstance(file, io.BytesIO):
        return io.BytesIO(file.getvalue())  # which copies nothing until one of the two is written to
    try:
        number = file.fileno()
    except (AttributeError, ValueError):  # such as one in an archive, which Pillow leaves open
        return nullcontext(file)
    return os.fdopen(os.dup(number), "rb")


def _is_short(file: IO[bytes]) -> bool:
    file.seek(16)
    width, height, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", file.read(13))
    missing = 0
    for left, top, across, down in _ADAM7 if interlaced else _WHOLE:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        # Each row begins with the number of its filter. A pass without columns has no rows.
        missing += max(rows, 0) * (1 + (columns * bits * _CHANNELS[kind] + 7) // 8) if columns > 0 else 0
    inflate = zlib.decompressobj()
    file.seek(4, 1)
    while missing > 0 and len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        end = file.tell() + length + 4
        while name == b"IDAT" and missing > 0 and (packed := file.read(min(length, _AT_ONCE))):
            length -= len(packed)
            while packed and missing > 0:
                missing -= len(inflate.decompress(packed, _AT_ONCE))
                packed = inflate.unconsumed_tail
        file.seek(end)
    return missing > 0
