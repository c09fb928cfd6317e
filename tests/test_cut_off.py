"""Pictures whose data end early in a file that is whole: refused, where Pillow would fill the rest without a word."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import Array, error, pixels, png, save, tiff
from PIL import Image

from gankit.datasets.folder import Folder
from gankit.images.decoding import Decoder, open_picture

KINDS = [(0, bits) for bits in (1, 2, 4, 8, 16)] + [(2, 8), (3, 1), (3, 2), (3, 4), (3, 8), (4, 8), (6, 8)]
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
CUT_OFF = "its data end before its last row"


def lines(array: Array, bits: int, interlaced: bool) -> list[bytes]:
    """The rows of (h, w, c) numbers as a PNG holds them, without filters; those of Adam7 pass by pass."""
    made = []
    for left, top, across, down in PASSES if interlaced else [(0, 0, 1, 1)]:
        part = array[top::down, left::across]
        for row in part if part.size else ():
            ones = (row.reshape(-1, 1) >> np.arange(bits)[::-1]) & 1
            made.append(b"\0" + np.packbits(ones.astype(bool)).tobytes())
    return made


@pytest.mark.parametrize(("kind", "bits"), KINDS)
@pytest.mark.parametrize("interlaced", [False, True])
def test_rows_that_a_png_lacks(tmp_path: Path, kind: int, bits: int, interlaced: bool) -> None:
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    palette = pixels(2**bits, 3)
    colours = [(b"PLTE", palette.tobytes())] if kind == 3 else []
    for (height, width), black in [((1, 1), False), ((9, 1), True), ((5, 3), False), ((13, 11), True)]:
        stored = pixels(height, width, channels, dtype=np.uint32) % 2**bits
        stored[height // 2 :] *= not black
        if channels in (2, 4):
            stored[..., -1] = 255
        rows = lines(stored, bits, interlaced)
        header = (width, height, bits, kind)
        for kept in sorted({0, len(rows) // 2, len(rows) - 1, len(rows)}):
            data = (b"IDAT", zlib.compress(b"".join(rows[:kept])))
            (tmp_path / "a.png").write_bytes(png(header, *colours, data, interlaced=interlaced))
            if kept < len(rows):
                text = error(lambda: Folder(path=tmp_path).images)
                assert CUT_OFF in text or "truncated" in text
            else:
                shown = stored[..., : channels - (channels in (2, 4))] * (255 // (2**bits - 1) or 1)
                expected = palette[stored[..., 0]] if kind == 3 else shown
                np.testing.assert_array_equal(Folder(path=tmp_path).images[0].transpose(1, 2, 0), expected)


def cut_png(rows: int) -> bytes:
    """20 rows of 28 pixels, in several chunks, of which so many are there."""
    packed = zlib.compress(b"".join(lines(pixels(20, 28, 1).astype(int), 8, False)[:rows]))
    return png((28, 20, 8, 0), *((b"IDAT", packed[i : i + 50]) for i in range(0, len(packed), 50)))


def test_pictures_that_are_no_files(tmp_path: Path) -> None:
    for source in (io.BytesIO(cut_png(12)), tmp_path / "a.png"):
        (tmp_path / "a.png").write_bytes(cut_png(12))
        with Image.open(source) as picture:
            assert CUT_OFF in error(lambda: Decoder().stored(picture, "a"))
    black = Image.new("L", (4, 4))
    black.save(tmp_path / "b.png")
    with (tmp_path / "b.png").open("rb") as file, Image.open(file) as picture:
        picture.load()
    (tmp_path / "b.png").unlink()  # nothing is left to look at: the picture is taken as it is
    assert not Decoder().stored(picture, "b").any()
    assert not Decoder().stored(black, "b").any()


class Unseekable(io.BytesIO):
    """As a download: Pillow reads it into memory first."""

    def seek(self, *args: Any) -> int:
        raise io.UnsupportedOperation


@pytest.mark.parametrize("rows", [12, 20])
@pytest.mark.parametrize("interlaced", [False, True])
def test_the_open_file_is_judged_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, interlaced: bool
) -> None:
    """Neither another folder, nor another file of this name, nor none: rows that are there are read as they are."""
    stored = pixels(20, 28)
    stored[-1] = 0
    packed = zlib.compress(b"".join(lines(stored[..., None].astype(int), 8, interlaced)[: rows * (1 + interlaced)]))
    content = png((28, 20, 8, 0), (b"IDAT", packed), interlaced=interlaced)
    (tmp_path / "else").mkdir()
    other = cut_png(12) if rows == 20 else written(stored, "PNG")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", content)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, archive.open("a.png") as member:
        for source in ("moved", "replaced", "gone", Unseekable(content), io.BytesIO(content), member):
            monkeypatch.chdir(tmp_path)
            Path("a.png").write_bytes(content)
            with open_picture(Path("a.png")) if isinstance(source, str) else Image.open(source) as picture:
                if source == "moved":
                    monkeypatch.chdir("else")
                elif isinstance(source, str):
                    Path("a.png").unlink()
                if source == "replaced":
                    Path("a.png").write_bytes(other)
                if rows == 20:
                    np.testing.assert_array_equal(Decoder().stored(picture, "a")[0], stored)
                else:
                    text = error(lambda: Decoder().stored(picture, "a"))
                    assert CUT_OFF in text or "truncated" in text, source


def test_only_suspicious_pngs_are_unpacked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gankit.images.png._is_short", lambda file: True)
    stored = pixels(6, 5)
    save(tmp_path / "a.png", stored)
    np.testing.assert_array_equal(Folder(path=tmp_path).images[0, 0], stored)
    stored[-1] = 0
    save(tmp_path / "a.png", stored)
    assert CUT_OFF in error(lambda: Folder(path=tmp_path).images)


def change(content: bytes, tag: int, value: Callable[[int], int]) -> bytes:
    """A TIFF file that Pillow wrote, with another value of a tag that has one, such as 279 (StripByteCounts)."""
    made = bytearray(content)
    (at,) = struct.unpack_from("<I", made, 4)
    for place in range(at + 2, at + 2 + 12 * struct.unpack_from("<H", made, at)[0], 12):
        found, _, count, old = struct.unpack_from("<HHII", made, place)
        if found == tag:
            assert count == 1
            struct.pack_into("<HHII", made, place, tag, 4, 1, value(old))
            return bytes(made)
    raise AssertionError


def written(array: Array, suffix: str, **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(array).save(content, suffix, **options)
    return content.getvalue()


@pytest.mark.parametrize("compression", [None, "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_strips_that_are_said_to_be_short(tmp_path: Path, compression: str | None, channels: int) -> None:
    """Where nothing else lies in its way, a single strip has the pixels of its rows, however many are said."""
    stored = pixels(20, 28, channels).squeeze()
    whole = written(stored, "TIFF", compression=compression)
    with Image.open(io.BytesIO(whole)) as picture:
        expected = np.asarray(picture)
    for short in (lambda count: count // 2, lambda count: count - 8, lambda _: 1, lambda _: 0):
        (tmp_path / "a.tif").write_bytes(change(whole, 279, short))
        if short(9) == 0 or compression is None:  # for 0 libtiff, too, computes the count
            image = Folder(path=tmp_path).images[0].transpose(1, 2, 0).squeeze()
            np.testing.assert_array_equal(image, expected)
        else:
            reason = "says that they are short" if compression == "jpeg" else "cannot be decoded"
            assert reason in error(lambda: Folder(path=tmp_path).images)


def test_one_strip_or_tile_of_several(tmp_path: Path) -> None:
    stored = pixels(20, 28)
    for layout, tag, counts in (({"rows": 7}, 279, [196, 196, 168]), ({"tile": 16}, 325, [256] * 4)):
        (tmp_path / "a.tif").write_bytes(tiff(stored, tags={tag: (4, counts)}, **layout))
        np.testing.assert_array_equal(Folder(path=tmp_path).images[0, 0], stored)
        for place in range(len(counts)):
            short = [count - 230 * (i == place) for i, count in enumerate(counts)]
            (tmp_path / "a.tif").write_bytes(tiff(stored, tags={tag: (4, [max(1, s) for s in short])}, **layout))
            text = error(lambda: Folder(path=tmp_path).images)
            assert "says that they are short" in text, place


def test_jpeg_strips_that_are_zeros_at_the_end(tmp_path: Path) -> None:
    whole = written(pixels(64, 64), "TIFF", compression="jpeg", strip_size=64 * 16)
    with Image.open(io.BytesIO(whole)) as picture:
        place, count = picture.tag_v2[273][-1], picture.tag_v2[279][-1]
    (tmp_path / "a.tif").write_bytes(whole)
    assert Folder(path=tmp_path).images.shape == (1, 1, 64, 64)
    damaged = whole[: place + count // 2] + bytes(count - count // 2) + whole[place + count :]
    (tmp_path / "a.tif").write_bytes(damaged)
    assert "says that they are short" in error(lambda: Folder(path=tmp_path).images)


FILLINGS = [b"", bytes(1), bytes(64), bytes(5000), b" ", b"\n", b"\xff", b"\xff\0", b"left over"]


@pytest.mark.parametrize("filling", FILLINGS, ids=lambda filling: f"{len(filling)} of {filling[:1]!r}")
@pytest.mark.parametrize("channels", [1, 3])
def test_what_fills_up_a_jpeg_strip(tmp_path: Path, filling: bytes, channels: int) -> None:
    whole = written(pixels(32, 32, channels).squeeze(), "TIFF", compression="jpeg")
    with Image.open(io.BytesIO(whole)) as picture:
        (place,), (count,), expected = picture.tag_v2[273], picture.tag_v2[279], np.asarray(picture)
    for kept in (count, count // 2):
        moved = whole + whole[place : place + kept] + filling
        moved = change(change(moved, 273, lambda _: len(whole)), 279, lambda _, kept=kept: kept + len(filling))
        (tmp_path / "a.tif").write_bytes(moved)
        if kept == count:
            image = Folder(path=tmp_path).images[0].transpose(1, 2, 0).squeeze()
            np.testing.assert_array_equal(image, expected)
        else:
            assert "says that they are short" in error(lambda: Folder(path=tmp_path).images)


def bmp(rows: list[Array], height: int) -> bytes:
    content = b"".join(row.tobytes() for row in rows)
    head = struct.pack("<IHHI", 54 + 1024 + len(content), 0, 0, 54 + 1024)
    about = struct.pack("<IiiHHIIiiII", 40, rows[0].size, height, 1, 8, 0, len(content), 1, 1, 256, 0)
    return b"BM" + head + about + b"".join(bytes([i, i, i, 0]) for i in range(256)) + content


def webp(cut: int) -> bytes:
    content = bytearray(written(pixels(64, 64, 3), "WEBP", lossless=True))
    del content[len(content) - cut :]
    struct.pack_into("<I", content, 4, len(content) - 8)
    struct.pack_into("<I", content, 16, len(content) - 20)
    return bytes(content)


JPEG, PROGRESSIVE = (written(pixels(64, 64), "JPEG", progressive=late) for late in (False, True))


@pytest.mark.parametrize(
    ("name", "whole", "cut"),
    [
        ("a.bmp", bmp(list(pixels(20, 28)), 20), [bmp(list(pixels(12, 28)), 20)]),
        ("a.webp", webp(0), [webp(100), webp(6000)]),
        ("a.jpg", JPEG, [JPEG[:-2], JPEG[:1500]]),
        ("a.jpg", PROGRESSIVE, [PROGRESSIVE[:-2], PROGRESSIVE[:1500]]),
    ],
)
def test_other_formats(tmp_path: Path, name: str, whole: bytes, cut: list[bytes]) -> None:
    """Of lossy JPEG, Pillow itself says what its pixels are."""
    stored = {"a.bmp": pixels(20, 28)[None, ::-1], "a.webp": pixels(64, 64, 3).transpose(2, 0, 1)}.get(name)
    with Image.open(io.BytesIO(whole)) as picture:
        expected = np.asarray(picture)[None] if stored is None else stored
    (tmp_path / name).write_bytes(whole)
    image = Folder(path=tmp_path, grey=len(expected) == 1).images[0]
    np.testing.assert_array_equal(image, expected)
    for content in cut:
        (tmp_path / name).write_bytes(content)
        assert "cannot be decoded" in error(lambda: Folder(path=tmp_path).images)
