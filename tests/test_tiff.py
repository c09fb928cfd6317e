"""TIFF tags that change what stored numbers mean: honoured, or refused."""

from __future__ import annotations

import io
import struct
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import Array, error, pixels, tiff
from PIL import Image

from gankit import ImageSpec
from gankit.datasets.folder import Folder
from gankit.images.decoding import Decoder

TURNS = {1: 0, 3: 2, 6: 3, 8: 1}  # of np.rot90, which make the picture upright


def read(folder: Path, *written: Any, **options: Any) -> Array:
    (folder / "a.tif").write_bytes(tiff(*written, **options))
    return Folder(path=folder).images[0]


def refusal(folder: Path, *written: Any, **options: Any) -> str:
    return error(lambda: read(folder, *written, **options))


def whole_range(bits: int, *shape: int) -> Array:
    return pixels(*shape, dtype=np.uint32) % 2**bits


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("layout", [{}, {"rows": 7}, {"tile": 16}], ids=["one strip", "strips", "tiles"])
def test_grey_of_every_depth(tmp_path: Path, bits: int, layout: dict[str, int]) -> None:
    stored, top = whole_range(bits, 20, 28), 2**bits - 1
    for order, orientation in product("<>", TURNS):
        kept = read(tmp_path, stored, bits, order=order, tags={274: (3, [orientation])}, **layout)
        expected = stored if bits == 16 else stored * 255 // top
        np.testing.assert_array_equal(kept[0], np.rot90(expected, TURNS[orientation]))


@pytest.mark.parametrize("bits", [1, 4, 8, 16])
def test_where_zero_is_white(tmp_path: Path, bits: int) -> None:
    stored, top = whole_range(bits, 9, 8), 2**bits - 1
    negative = read(tmp_path, stored, bits, 0)
    np.testing.assert_array_equal(negative, read(tmp_path, top - stored, bits, 1))


def laid_down(upright: Array, orientation: int) -> Array:
    """The rows of a picture as they are stored under an orientation that exchanges height and width."""
    turned = np.rot90(upright, {5: 1, 6: 1, 7: 3, 8: 3}[orientation])
    return np.ascontiguousarray(turned[::-1] if orientation in (5, 7) else turned)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_pictures_on_their_side_are_not_memory_mapped(tmp_path: Path, mode: str, orientation: int) -> None:
    grey = pixels(24, 32, dtype=np.uint16 if mode == "I;16" else np.uint8)
    picture = Image.fromarray(laid_down(grey, orientation))
    (picture if mode == "I;16" else picture.convert(mode)).save(tmp_path / "a.tif", tiffinfo={274: orientation})
    data = Folder(path=tmp_path)
    assert data.image.shape[1:] == (24, 32)
    np.testing.assert_array_equal(data.images[0, 0], grey)


@pytest.mark.parametrize(
    ("stored", "written"),
    [
        (pixels(4, 6), {}),
        (pixels(4, 6), {"rows": 1}),
        (pixels(4, 6, dtype=np.uint16), {"bits": 16, "photometric": 0}),
        (pixels(4, 6), {"photometric": 3, "tags": {320: (3, list(range(256)) * 3)}}),
        (pixels(4, 6, 3), {"photometric": 2, "planes": 2}),
    ],
)
@pytest.mark.parametrize("orientation", [1, 3, 5, 6])
def test_pictures_that_are_loaded_already(
    tmp_path: Path, stored: Array, written: dict[str, Any], orientation: int
) -> None:
    content = tiff(stored, **{**written, "tags": written.get("tags", {}) | {274: (3, [orientation])}})
    (tmp_path / "a.tif").write_bytes(content)
    expected = Folder(path=tmp_path).images[0]
    with Image.open(io.BytesIO(content)) as picture:
        for _ in range(3):
            np.testing.assert_array_equal(Decoder().stored(picture, "a"), expected)
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        np.testing.assert_array_equal(Decoder().stored(picture, "a"), expected)


def test_orientation_in_the_text_of_an_editor_is_applied_once(tmp_path: Path) -> None:
    stored, note = pixels(4, 6), {700: (1, list(b'<x tiff:Orientation="6"/>'))}
    np.testing.assert_array_equal(read(tmp_path, stored, tags=note | {274: (3, [6])})[0], np.rot90(stored, 3))
    alone = read(tmp_path, stored, tags=note)[0]
    with Image.open(tmp_path / "a.tif") as picture:  # older versions of Pillow do not look there
        np.testing.assert_array_equal(alone, np.asarray(picture))


@pytest.mark.parametrize(("photometric", "channels"), [(2, 3), (2, 4), (5, 4)])
def test_channels_together_or_apart(tmp_path: Path, photometric: int, channels: int) -> None:
    stored = pixels(20, 28, channels)
    tags = {}
    if (photometric, channels) == (2, 4):
        stored[..., 3], tags = 255, {338: (3, [2])}
    together = read(tmp_path, stored, 8, photometric, tags=tags)
    if photometric == 2:
        np.testing.assert_array_equal(together, stored[..., :3].transpose(2, 0, 1))
    for layout in ({}, {"rows": 7}, {"tile": 16}):
        np.testing.assert_array_equal(read(tmp_path, stored, 8, photometric, planes=2, tags=tags, **layout), together)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("photometric", "channels"), [(2, 3), (2, 4), (5, 4)])
@pytest.mark.parametrize("planes", [1, 2])
def test_sixteen_bit_colour_is_refused(
    tmp_path: Path, order: str, photometric: int, channels: int, planes: int
) -> None:
    stored = pixels(6, 5, channels, dtype=np.uint16)
    for layout in ({}, {"rows": 2}):
        text = refusal(tmp_path, stored, 16, photometric, planes=planes, order=order, **layout)
        assert "16-bit grey" in text or "that Pillow can read" in text


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_any_map(tmp_path: Path, bits: int) -> None:
    stored, colours = whole_range(bits, 6, 8), pixels(3, 2**bits)
    for scale in (257, 256, 1):  # 16 bits, 8 bits shifted, and 8 bits as they are
        kept = read(tmp_path, stored, bits, 3, tags={320: (3, (colours.astype(int) * scale).ravel().tolist())})
        np.testing.assert_array_equal(kept, colours[:, stored])
    short = colours.astype(int).ravel().tolist()[:-3]
    assert "a palette of another length" in refusal(tmp_path, stored, bits, 3, tags={320: (3, short)})


def text_tag(text: str) -> tuple[int, list[int]]:
    return 2, list(text.encode() + b"\0")


FIRST_OF_FIVE = {257: (4, [20]), 278: (4, [20]), 279: (4, [20 * 28])}
"""Tags of a page of 20 rows of 28 pixels, with room for more where more rows are stored."""


@pytest.mark.parametrize(
    "said",
    [
        "ImageJ=1.54f\nimages=5\nslices=5\n",
        "ImageJ=1.54f\nhyperstack=true\nimages=5",
        '{"shape": [5, 20, 28], "truncated": true}',
    ],
)
def test_stacks_in_one_page(tmp_path: Path, said: str) -> None:
    stack, tags = pixels(100, 28), {270: text_tag(said)}
    for rows in (100, 40):  # all five, and two of them
        assert "several images as one page" in refusal(tmp_path, stack[:rows], tags=FIRST_OF_FIVE | tags)
    for order, big in (("<", False), ("<", True), (">", False)):
        assert "one page" in refusal(
            tmp_path,
            stack.astype(np.uint16),
            16,
            tags={**FIRST_OF_FIVE, 279: (4, [20 * 56]), **tags},
            order=order,
            big=big,
        )
    np.testing.assert_array_equal(read(tmp_path, stack[:20], tags=tags)[0], stack[:20])  # an image that was taken out
    Image.fromarray(stack[:20]).save(tmp_path / "a.tif", compression="tiff_lzw", description=said)
    with (tmp_path / "a.tif").open("ab") as file:
        file.write(bytes(5 * 20 * 28))
    np.testing.assert_array_equal(Folder(path=tmp_path).images[0, 0], stack[:20])


@pytest.mark.parametrize("said", ["ImageJ=1.54f\nimages=1", '{"shape": [1, 20, 28], "truncated": true}', "images=5"])
def test_room_for_more_than_the_one_image(tmp_path: Path, said: str) -> None:
    stored = pixels(100, 28)
    np.testing.assert_array_equal(read(tmp_path, stored, tags=FIRST_OF_FIVE | {270: text_tag(said)})[0], stored[:20])


OME = '<?xml version="1.0"?><OME><Image><Pixels SizeX="28" SizeZ="{}" SizeC="{}" SizeT="1"/></Image></OME>'


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("said", ["ImageJ=1.54f\nimages=3\nchannels=3\n", OME.format(1, 3)])
def test_colours_that_are_counted_as_images(tmp_path: Path, said: str, planes: int) -> None:
    stored, tags = pixels(20, 28, 3), {270: text_tag(said)}
    np.testing.assert_array_equal(read(tmp_path, stored, 8, 2, tags=tags, planes=planes), stored.transpose(2, 0, 1))


def test_colours_of_ome(tmp_path: Path) -> None:
    """Where there is room for more, as behind a small picture: its samples are no images, and several images are."""
    stack = pixels(100, 28, 3)
    tags = FIRST_OF_FIVE | {279: (4, [20 * 84])}
    one = read(tmp_path, stack, 8, 2, tags=tags | {270: text_tag(OME.format(1, 3))})
    np.testing.assert_array_equal(one, stack[:20].transpose(2, 0, 1))
    for count in ((5, 3), (1, 15)):
        text = refusal(tmp_path, stack, 8, 2, tags=tags | {270: text_tag(OME.format(*count))})
        assert "several images as one page" in text
    assert "one page" in refusal(tmp_path, pixels(60, 28), tags=FIRST_OF_FIVE | {270: text_tag(OME.format(1, 3))})


def test_a_page_that_is_one_image(tmp_path: Path) -> None:
    for said in ("ImageJ=1.54f\nimages=1\n", "ImageJ=1.54f\nmin=0.0\n", '{"shape": [4, 5]}', "images=7"):
        tags = {270: text_tag(said), 33629: (4, [1])}
        np.testing.assert_array_equal(read(tmp_path, pixels(4, 5), tags=tags)[0], pixels(4, 5))


@pytest.mark.parametrize(
    ("stored", "written", "tags", "reason"),
    [
        (pixels(4, 5) % 9, {"bits": 12}, {}, "12 bits per channel"),
        (pixels(4, 5), {}, {262: (3, [])}, "which of its values is black"),
        (pixels(4, 5) // 2, {"kind": "i"}, {}, "signed 8-bit"),
        (pixels(4, 5, 4), {"photometric": 2}, {338: (3, [0])}, "ExtraSamples"),
        (pixels(4, 5, 2), {}, {338: (3, [0])}, "ExtraSamples"),
        (pixels(4, 5, 5), {"photometric": 2}, {338: (3, [2, 0])}, "ExtraSamples"),
        (pixels(4, 5, 4), {"photometric": 2}, {338: (3, [1])}, "partly transparent"),
        (pixels(4, 5, 4), {"photometric": 2}, {}, "partly transparent"),
        (pixels(4, 5), {"photometric": 0, "planes": 2}, {}, "PlanarConfiguration 2"),
        (pixels(4, 5, dtype=np.uint16), {"bits": 16, "planes": 2}, {}, "PlanarConfiguration 2"),
        (pixels(4, 5, 3), {"photometric": 6}, {530: (3, [1, 1])}, "uncompressed YCbCr"),
        (pixels(4, 5, 3), {"photometric": 8}, {}, "Pillow mode LAB"),
        (pixels(4, 5, 4), {"photometric": 5}, {332: (3, [2])}, "other inks"),
        (pixels(4, 5, 4), {"photometric": 5}, {336: (3, [16, 235])}, "other inks"),
        (pixels(4, 5, 4), {"photometric": 5}, {336: (1, [16, 235])}, "other inks"),
        (pixels(4, 5, 4), {"photometric": 5}, {336: (1, [0, 255, 0, 255, 0, 255, 0, 200])}, "other inks"),
        (pixels(4, 5), {}, {291: (3, list(range(256)))}, "a curve of its values"),
        (pixels(4, 5), {}, {301: (3, list(range(65535, -1, -257)))}, "a curve of its values"),
        (pixels(4, 5), {}, {254: (4, [4])}, "a mask"),
        (pixels(4, 5, 3), {"photometric": 2}, {532: (4, [16, 235] * 3)}, "reference values"),
        (pixels(4, 5), {"rows": 1}, {273: (4, [8, 14])}, "no strips or tiles for some"),
        (pixels(4, 5), {"rows": 2}, {273: (4, [8, 0])}, "no strips or tiles for some"),
        (pixels(20, 28), {"tile": 16}, {324: (4, [8, 0, 520, 776])}, "no strips or tiles for some"),
        (pixels(4, 5), {}, {257: (4, [6])}, "says that they are short"),  # the directory lies in its last rows
        (pixels(4, 5), {"tile": 16}, {325: (4, [63])}, "says that they are short"),
        (pixels(4, 5), {}, {33629: (4, [1] * 5)}, "several images as one page"),
        (pixels(4, 5), {}, {32997: (4, [5])}, "several images as one page"),
        (pixels(4, 5), {}, {256: (4, [2**31 - 1]), 257: (4, [2**31 - 1])}, "million pixels"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, stored: Array, written: dict[str, Any], tags: dict[int, Any], reason: str
) -> None:
    text = refusal(tmp_path, stored, tags=tags, **written)
    assert reason in text or "that Pillow can read" in text  # which its older versions cannot


def test_big_tiff(tmp_path: Path) -> None:
    stored = pixels(6, 5, dtype=np.uint16)
    np.testing.assert_array_equal(read(tmp_path, stored, 16, 0, big=True)[0], 65535 - stored)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed(tmp_path: Path, compression: str) -> None:
    for stored, mode in ((pixels(20, 28), "L"), (pixels(20, 28, dtype=np.uint16), "I;16"), (pixels(20, 28, 3), "RGB")):
        Image.fromarray(stored).save(tmp_path / "a.tif", compression=compression, tiffinfo={274: 6})
        data = Folder(path=tmp_path)
        assert data.image == ImageSpec(3 if mode == "RGB" else 1, 28, 20)
        np.testing.assert_array_equal(data.images[0].transpose(1, 2, 0).squeeze(), np.rot90(stored, 3))


@pytest.mark.parametrize("form", [1, 3], ids=["bytes", "shorts"])
@pytest.mark.parametrize("times", [1, 4], ids=["all inks", "each ink"])
def test_the_whole_range_of_inks(tmp_path: Path, form: int, times: int) -> None:
    stored = pixels(4, 5, 4)
    plain = read(tmp_path, stored, 8, 5)
    np.testing.assert_array_equal(read(tmp_path, stored, 8, 5, tags={336: (form, [0, 255] * times)}), plain)


BYTES, TEXT, UNDEFINED, UNKNOWN = 1, 2, 7, 17  # Pillow leaves tags of types that it does not know out
NUMBERS = {"long": 4, "signed long": 9, "double": 12, "long8": 16}
AT_ONCE = "that Pillow can read"  # said when the file is opened


@pytest.mark.parametrize(
    ("tag", "values", "written", "others"),
    [
        (274, [6], {}, {BYTES: "lies (Orientation)", TEXT: "lies (Orientation)", UNDEFINED: "lies (Orientation)"}),
        *(
            (tag, values, {"photometric": 0} if tag == 262 else {}, dict.fromkeys((BYTES, TEXT, UNDEFINED), AT_ONCE))
            for tag, values in {258: [8], 259: [1], 262: [0], 266: [1], 277: [1], 338: [2], 339: [2]}.items()
        ),
        (273, [8], {}, {UNKNOWN: AT_ONCE}),
        (284, [2], {"planes": 2}, {}),
        *((tag, [4], {}, {}) for tag in (254, 279, 332, 32997)),
        *((tag, [9] * 6, {}, {}) for tag in (291, 301, 433, 532, 33629)),
    ],
)
def test_tags_of_types_that_are_no_numbers(
    tmp_path: Path, tag: int, values: list[int], written: dict[str, Any], others: dict[int, str]
) -> None:
    for form in (BYTES, TEXT, UNDEFINED, UNKNOWN):
        text = refusal(tmp_path, pixels(4, 5), tags={tag: (form, values)}, **written)
        own = f"has tags of a type that Pillow does not read as a number ({tag}); save it anew"
        assert others.get(form, own) in text, form


def test_an_amount_of_ink_of_another_type(tmp_path: Path) -> None:
    for form in (TEXT, UNDEFINED, UNKNOWN):
        text = refusal(tmp_path, pixels(4, 5, 4), 8, 5, tags={336: (form, [0, 255])})
        assert "does not read as a number (336)" in text, form


@pytest.mark.filterwarnings("ignore")  # Pillow's own
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("tag", "form", "values"),
    [(301, 3, [9] * 40), (336, 3, [0, 255] * 5), (33629, 4, [1] * 10), (532, 4, [0, 255] * 3)],
)
def test_values_beyond_the_end(tmp_path: Path, tag: int, form: int, values: list[int], big: bool) -> None:
    whole = tiff(pixels(4, 5), tags={tag: (form, values), 339: (3, [])}, big=big)
    (tmp_path / "a.tif").write_bytes(whole[:-2])
    text = error(lambda: Folder(path=tmp_path).images)
    assert f"has tags whose values lie beyond its end ({tag}): it is cut off; replace it or take it out" in text


@pytest.mark.filterwarnings("ignore")
def test_a_directory_that_is_cut_off(tmp_path: Path) -> None:
    whole = tiff(pixels(4, 5), order=">", tags={33629: (4, [1]), 33630: (4, [1])})
    for less in (4, 16, 20, 28):  # whole, and without its last entries or parts of them
        (tmp_path / "a.tif").write_bytes(whole[:-less])
        if less == 4:
            np.testing.assert_array_equal(Folder(path=tmp_path).images[0, 0], pixels(4, 5))
        else:
            assert "its list of tags is cut off" in error(lambda: Folder(path=tmp_path).images), less


@pytest.mark.parametrize("form", NUMBERS.values(), ids=NUMBERS)
def test_numbers_of_other_types(tmp_path: Path, form: int) -> None:
    stored, big = pixels(4, 6), form == 16
    turned = read(tmp_path, stored, tags={274: (form, [6])}, big=big)[0]
    np.testing.assert_array_equal(turned, np.rot90(stored, 3))
    negative = read(tmp_path, stored, 8, 0, tags={262: (form, [0])}, big=big)[0]
    np.testing.assert_array_equal(negative, 255 - stored)
    assert "signed 8-bit" in refusal(tmp_path, stored // 2, tags={339: (form, [2])}, big=big)
    assert "a mask" in refusal(tmp_path, stored, tags={254: (form, [4])}, big=big)


def test_a_palette_of_bytes(tmp_path: Path) -> None:
    stored, colours = pixels(6, 8), pixels(3, 256)
    kept = read(tmp_path, stored, 8, 3, tags={320: (BYTES, colours.ravel().tolist())})
    np.testing.assert_array_equal(kept, colours[:, stored])


@pytest.mark.parametrize("suffix", ["JPEG", "PNG", "WEBP"])
def test_orientation_in_bytes_in_other_formats(tmp_path: Path, suffix: str) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01"  # one entry: Orientation
    for form, refused in ((3, False), (1, True), (7, True)):
        entry = struct.pack("<HII", form, 1, 6) + bytes(4)
        options = {"lossless": True} if suffix == "WEBP" else {}
        Image.fromarray(pixels(4, 6)).convert("RGB").save(tmp_path / "a.png", suffix, exif=exif + entry, **options)
        if refused:
            assert "how it lies (Orientation)" in error(lambda: Folder(path=tmp_path).images)
        else:
            assert Folder(path=tmp_path).image == ImageSpec(3, 6, 4)


def one_directory(images: Array, said: str, form: int = TEXT, behind: bool = False) -> bytes:
    """A file as ImageJ writes it: the directory first, all images behind it; its tags are those of the first image.

    The description lies before the images, or behind them, as Bio-Formats leaves one that it has changed.
    """
    begin = tiff(images[0], tags={270: (form, text_tag(said)[1])})
    start = struct.unpack_from("<I", begin, 4)[0]
    at = 8 + len(begin) - start
    end = at + images.size + images.size % 2
    moved = bytearray(begin[:4] + struct.pack("<I", 8) + begin[start:])
    for place in range(10, 10 + 12 * struct.unpack_from("<H", moved, 8)[0], 12):
        tag, _, count, value = struct.unpack_from("<HHII", moved, place)
        if tag == 273:
            struct.pack_into("<I", moved, place + 8, at)
        elif tag == 270 and count > 4:
            struct.pack_into("<I", moved, place + 8, end if behind else value - start + 8)
    return bytes(moved) + images.tobytes() + (bytes(images.size % 2) + said.encode() + b"\0" if behind else b"")


@pytest.mark.parametrize(
    "said",
    [
        "ImageJ=1.54f\nimages=5\nslices=5\n",
        "ImageJ=1.54f\nslices=5\n",
        "ImageJ=1.54f\nchannels=5\nframes=1\n",
        '<?xml version="1.0"?><OME><Pixels SizeZ="5" SizeC="1" SizeT="1"/></OME>',
        "<ome:OME xmlns:ome='http://x'><ome:Pixels SizeZ='1' SizeC='5' SizeT='1'/></ome:OME>",
        '{"shape": [5, 3, 4], "truncated": true}',
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (3, 4), (20, 28)])
def test_small_stacks_whole_or_cut_off(tmp_path: Path, said: str, size: tuple[int, int]) -> None:
    stack, path = pixels(5, *size), tmp_path / "a.tif"
    said = said.replace("3, 4", f"{size[0]}, {size[1]}")
    for count in (5, 4, 2):
        for form, behind in product((TEXT, BYTES), (False, True)):
            if (size, count, behind) == ((1, 1), 2, True):
                continue  # the second byte may as well be there to fill up
            path.write_bytes(one_directory(stack[:count], said, form, behind))
            assert "several images as one page" in error(lambda: Folder(path=tmp_path).images), (count, behind)
    for behind in (False, True):
        path.write_bytes(one_directory(stack[:1], said, TEXT, behind))  # the only image of five that were
        np.testing.assert_array_equal(Folder(path=tmp_path).images[0, 0], stack[0])
    path.write_bytes(tiff(stack[0], tags={270: text_tag(said)}))  # whose directory takes more room than it
    np.testing.assert_array_equal(Folder(path=tmp_path).images[0, 0], stack[0])


def test_a_preview_of_images_inside(tmp_path: Path) -> None:
    stored = pixels(4, 5)
    assert "preview of larger images" in refusal(tmp_path, stored, tags={254: (4, [1]), 330: (4, [8])})
    for tags in ({254: (4, [1])}, {330: (4, [8])}):  # taken out of a pyramid; its smaller images inside
        np.testing.assert_array_equal(read(tmp_path, stored, tags=tags)[0], stored)
