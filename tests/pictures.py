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
TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B", 9: "i", 12: "d", 16: "Q", 17: "q"}
"""How struct packs numbers of TIFF's types."""


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


def png(header: tuple[int, ...], *chunks: tuple[bytes, bytes], interlaced: bool = False) -> bytes:
    """A PNG of a header (width, height, bits, kind of colour) and chunks, which Pillow may not be able to write."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, interlaced)), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )


def sixteen_bit_colour_png(array: Array) -> bytes:
    """Of (h, w, 3) uint16."""
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    return png((array.shape[1], array.shape[0], 16, 2), (b"IDAT", zlib.compress(lines)))


def palette_png(colours: list[tuple[int, int, int]], bits: int, row: bytes) -> bytes:
    """One row of packed pixels, which may point beyond the colours."""
    palette = bytes(value for colour in colours for value in colour)
    return png((len(row) * 8 // bits, 1, bits, 3), (b"PLTE", palette), (b"IDAT", zlib.compress(b"\0" + row)))


def palette_bmp(colours: list[tuple[int, int, int]], bits: int, row: bytes) -> bytes:
    """As `palette_png`."""
    palette = b"".join(bytes([blue, green, red, 0]) for red, green, blue in colours)
    start = 54 + len(palette)
    row = row.ljust(-(-len(row) // 4) * 4, b"\0")
    file = b"BM" + struct.pack("<IHHI", start + len(row), 0, 0, start)
    return file + struct.pack("<IiiHHIIiiII", 40, 4, 1, 1, bits, 0, len(row), 1, 1, len(colours), 0) + palette + row


def tiff(
    stored: Array, bits: int = 8, photometric: int = 1, *, planes: int = 1, order: str = "<", big: bool = False,
    rows: int | None = None, tile: int | None = None, kind: str = "u",
    tags: dict[int, tuple[int, list[int]]] | None = None,
) -> bytes:  # fmt: skip
    """A TIFF without compression, put together from its tags; Pillow cannot write most of these.

    Args:
        stored: (h, w) or (h, w, c) numbers as they are to stand in the file.
        bits: of each.
        photometric: what they mean.
        planes: 1 keeps the channels of a pixel together, 2 apart.
        order: "<" or ">".
        big: BigTIFF.
        rows: of a strip; all by default.
        tile: height and width of tiles in place of strips.
        kind: "u", "i" or "f".
        tags: type and values of further tags, or of those to replace; a tag without values is left out.
    """
    cube = stored.reshape(*stored.shape[:2], -1)
    height, width, channels = cube.shape
    parts = [cube[..., i : i + 1] for i in range(channels)] if planes == 2 else [cube]
    blocks = []
    for part in parts:
        if tile:
            for y, x in np.ndindex(-(-height // tile), -(-width // tile)):
                block = part[y * tile : (y + 1) * tile, x * tile : (x + 1) * tile]
                blocks.append(np.pad(block, ((0, tile - block.shape[0]), (0, tile - block.shape[1]), (0, 0))))
        else:
            blocks += [part[y : y + (rows or height)] for y in range(0, height, rows or height)]

    def packed(block: Array) -> bytes:
        lines = block.reshape(len(block), -1)
        if bits % 8 == 0:
            return lines.astype(f"{order}{kind}{bits // 8}").tobytes()
        ones = (lines[..., None] >> np.arange(bits)[::-1]) & 1
        return np.packbits(ones.reshape(len(lines), -1).astype(bool), axis=1).tobytes()

    start, contents, offsets = 16 if big else 8, b"", []
    for block in blocks:
        contents += b"\0" * (len(contents) % 2)
        offsets.append(start + len(contents))
        contents += packed(block)
    contents += b"\0" * (len(contents) % 2)
    counts = [len(packed(block)) for block in blocks]
    place = {322: (3, [tile]), 323: (3, [tile]), 324: (4, offsets), 325: (4, counts)} if tile else {
        273: (4, offsets), 278: (4, [rows or height]), 279: (4, counts)}  # fmt: skip
    entries: dict[int, tuple[int, list[Any]]] = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * channels), 259: (3, [1]), 262: (3, [photometric]),
        277: (3, [channels]), 284: (3, [planes]), 339: (3, [{"u": 1, "i": 2, "f": 3}[kind]] * channels),
        **place, **(tags or {}),
    }  # fmt: skip
    entries = {tag: entries[tag] for tag in sorted(entries) if entries[tag][1]}
    number, room = ("Q", 8) if big else ("I", 4)
    at, listed, beyond = start + len(contents), b"", b""
    after = at + (8 if big else 2) + len(entries) * (20 if big else 12) + room
    for tag, (form, values) in entries.items():
        raw = struct.pack(f"{order}{len(values)}{TYPES[form]}", *values)
        listed += struct.pack(f"{order}HH{number}", tag, form, len(values))
        if len(raw) <= room:
            listed += raw.ljust(room, b"\0")
        else:
            listed += struct.pack(order + number, after + len(beyond))
            beyond += raw + b"\0" * (len(raw) % 2)
    mark = (b"II" if order == "<" else b"MM") + (
        struct.pack(order + "HHHQ", 43, 8, 0, at) if big else struct.pack(order + "HI", 42, at)
    )
    length = struct.pack(order + ("Q" if big else "H"), len(entries))
    return mark + contents + length + listed + b"\0" * room + beyond
