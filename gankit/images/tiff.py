"""TIFF tags that change what stored numbers mean, where Pillow does not honour them: mended here, or refused."""

import math
import re
from typing import Any

from PIL import ImagePalette, TiffImagePlugin

from gankit.errors import DataError

Picture = TiffImagePlugin.TiffImageFile

# Tags by TIFF 6.0's names: https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _FILL_ORDER = 254, 256, 257, 258, 262, 266
_SAMPLES, _PLANES, _COLOR_MAP, _INK_SET, _DOT_RANGE = 277, 284, 320, 332, 336
_CURVES = (291, 301, 433)  # GrayResponseCurve, TransferFunction and Decode
_COMPRESSION, _DESCRIPTION, _STRIPS, _TILES = 259, 270, 273, 324
_DEPTH = 32997  # ImageDepth: how many images a page holds
_METAMORPH = 33629  # has a value for each image; Pillow gives a single one as a number
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _REFERENCE = 338, 339, 532
_PALETTE, _CMYK, _YCBCR = 3, 5, 6
_SEPARATE = 2
_MASK = 4  # a bit of NewSubfileType
_REFERENCES = ((0, 255) * 3, (0, 255, 128, 255, 128, 255))  # black and white as they are without the tag
_STACKS = r'ImageJ=.*?\nimages=(\d{1,18})\b|\{"shape": \[([\d, ]{1,200})\].*"truncated": true'
"""What ImageJ and tifffile say of images that follow each other under one directory, as those of MetaMorph do."""
_ADVICE = "save it anew as plain 8-bit, or as 16-bit grey"


def stored_size(picture: Picture) -> tuple[int, int]:
    """Width and height before the orientation is applied; `size` has it applied in some versions of Pillow."""
    return int(picture.tag_v2[_WIDTH]), int(picture.tag_v2[_HEIGHT])


def white_is_zero(picture: Picture) -> bool:
    """Whether 0 stands for white; Pillow inverts such pictures of up to 8 bits, and leaves deeper ones as negatives."""
    return picture.tag_v2.get(_PHOTOMETRIC) == 0


def prepare(picture: Picture, where: str) -> None:
    """Make Pillow read the pixels as the tags say; to be called before they are read.

    Raises:
        DataError: it cannot, and would give other pixels than are stored.
    """
    if problem := _problem(picture):
        raise DataError(f"{where} {problem}")
    picture.filename = ""  # a memory-mapped file would be read with width and height exchanged if it lies on its side
    if picture.tag_v2[_PHOTOMETRIC] == _PALETTE and max(picture.tag_v2[_COLOR_MAP]) < 256:
        # Colours have 16 bits, but some programs write 8; libtiff, too, takes a palette without larger values as 8-bit.
        picture.palette = ImagePalette.raw("RGB;L", bytes(picture.tag_v2[_COLOR_MAP]))


def _problem(picture: Picture) -> str | None:
    """What cannot be read as it is stored, and what to do; or None."""
    tags = picture.tag_v2
    kind, samples, bits = tags.get(_PHOTOMETRIC), tags.get(_SAMPLES, 1), set(tags.get(_BITS, (1,)))
    if isinstance(tags.get(_METAMORPH), tuple) or tags.get(_DEPTH, 1) != 1 or _is_stack(picture):
        return "holds several images as one page, of which Pillow reads the first; save each as its own file"
    if kind is None:
        return "does not say which of its values is black (PhotometricInterpretation); save it anew"
    if len(bits) > 1 or not bits <= {1, 2, 4, 8, 16, 32}:
        depths = ", ".join(map(str, sorted(bits)))
        return f"has {depths} bits per channel; save it with 8 or 16 bits"
    if bits == {8} and 2 in tags.get(_SAMPLE_FORMAT, ()):
        return "has signed 8-bit values, which say nothing of black and white; save it with unsigned ones"
    if any(extra not in (1, 2) for extra in tags.get(_EXTRA_SAMPLES, ())):
        return "has channels beyond its colours, and does not say what they are (ExtraSamples); save it without them"
    if tags.get(_PLANES, 1) == _SEPARATE and (bits != {8} or tags.get(_FILL_ORDER, 1) != 1 or kind == 0):
        return "keeps its channels apart (PlanarConfiguration 2), which Pillow reads wrongly at this depth; " + _ADVICE
    if kind == _YCBCR and (samples != 3 or picture.info.get("compression") == "raw"):
        return "has uncompressed YCbCr colours, which Pillow reads wrongly; save it as RGB"
    if kind == _CMYK and (tags.get(_INK_SET, 1) != 1 or tuple(tags.get(_DOT_RANGE, (0, 255)))[:2] != (0, 255)):
        return "has other inks or other amounts of ink than CMYK from 0 to 255; save it as RGB"
    if kind == _PALETTE and len(tags.get(_COLOR_MAP, ())) != 3 * 2 ** max(bits):
        return "has a palette of another length than its depth needs; save it as RGB"
    if (
        any(tag in tags for tag in _CURVES)
        or tags.get(_SUBFILE, 0) & _MASK
        or tuple(tags.get(_REFERENCE, ())) not in ((), *_REFERENCES)
    ):
        return "has a mask, a curve of its values or reference values that Pillow does not apply; " + _ADVICE
    if picture.info.get("compression") == "raw" and not _is_covered(picture):
        return "has no strips or tiles for some of its pixels; replace it or take it out"
    return None


def _is_stack(picture: Picture) -> bool:
    """Whether further images follow the page's own, by its description (which single ones may keep) and the room."""
    tags: Any = picture.tag_v2
    said = re.match(_STACKS, str(tags.get(_DESCRIPTION, "")), re.DOTALL)
    if not said or tags.get(_COMPRESSION, 1) != 1:
        return False
    width, height = stored_size(picture)
    values = width * tags.get(_SAMPLES, 1)
    page = (values * max(tags.get(_BITS, (1,))) + 7) // 8 * height  # bytes
    images = int(said[1] or math.prod(map(int, re.findall(r"\d+", said[2]))) // max(1, values * height))
    start, file = min((*tags.get(_STRIPS, ()), *tags.get(_TILES, ())), default=0), picture.fp
    return images > 1 and file is not None and file.seek(0, 2) >= start + images * page


def _is_covered(picture: Picture) -> bool:
    """Whether strips or tiles hold all pixels; Pillow leaves others black, and takes what is left out for a place."""
    width, height = stored_size(picture)
    tags: Any = picture.tag_v2
    boxes: list[Any] = [tile[1] for tile in picture.tile]
    layers = tags.get(_SAMPLES, 1) if tags.get(_PLANES, 1) == _SEPARATE else 1
    pixels = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    return bool(pixels == width * height * layers and all((*tags.get(_STRIPS, ()), *tags.get(_TILES, ()))))
