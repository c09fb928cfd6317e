"""TIFF tags that change what stored numbers mean, where Pillow does not honour them: mended here, or refused."""

import math
import re
import struct
from typing import IO, Any

from PIL import Image, ImagePalette, TiffImagePlugin

from gankit.errors import DataError

Picture = TiffImagePlugin.TiffImageFile

# Tags by TIFF 6.0's names: https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _FILL_ORDER = 254, 256, 257, 258, 262, 266
_SAMPLES, _PLANES, _COLOR_MAP, _INK_SET, _DOT_RANGE = 277, 284, 320, 332, 336
_CURVES = (291, 301, 433)  # GrayResponseCurve, TransferFunction and Decode
_COMPRESSION, _DESCRIPTION, _ORIENTATION, _TILE_WIDTH, _SUB_IMAGES = 259, 270, 274, 322, 330
_PLACES, _SIZES = (273, 324), (279, 325)  # of strips and of tiles
_DEPTH = 32997  # ImageDepth: how many images a page holds
_METAMORPH = 33629  # has a value for each image; Pillow gives a single one as a number
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _REFERENCE = 338, 339, 532
_NUMBERS = {
    _SUBFILE, _BITS, _PHOTOMETRIC, _FILL_ORDER, _SAMPLES, _PLANES, _INK_SET, _DOT_RANGE, _COMPRESSION, _ORIENTATION,
    _DEPTH, _METAMORPH, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _REFERENCE, *_PLACES, *_SIZES, *_CURVES,
}  # fmt: skip
"""Tags whose values Pillow ignores, or gives as text, where they are of a type that is no number's."""
_POINTERS = (_SUB_IMAGES, 34665, 34853)  # to further directories: SubIFDs, Exif and GPS
_BYTES_OF_TYPE = dict(zip(range(1, 19), (1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8), strict=True))
_PALETTE, _CMYK, _YCBCR = 3, 5, 6
_SEPARATE, _JPEG = 2, 7
_PREVIEW, _MASK = 1, 4  # bits of NewSubfileType
_REFERENCES = ((0, 255) * 3, (0, 255, 128, 255, 128, 255))  # black and white as they are without the tag
_IMAGEJ = re.compile(r"^(images|channels|slices|frames)=(\d{1,18})\s*$", re.MULTILINE)
_OME = re.compile(r"""\bSize[ZCT]=["'](\d{1,18})["']""")
_TIFFFILE = re.compile(r'\{"shape": \[([\d, ]{1,200})\].*"truncated": true', re.DOTALL)
_ADVICE = "save it anew as plain 8-bit, or as 16-bit grey"


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
    listed = _listed(picture)
    odd = [str(tag) for tag in listed if tag in _NUMBERS and not _is_number(tag, tags.get(tag))]
    lost = [str(tag) for tag, values in listed.items() if values.stop > _file_size(picture)]
    if odd and lost:  # Pillow leaves out the tags behind lost values too
        return f"has tags whose values lie beyond its end ({', '.join(lost)}): it is cut off; replace it or take it out"
    if odd:
        return f"has tags of a type that Pillow does not read as a number ({', '.join(odd)}); save it anew"
    if _is_scrambled(picture):
        return "lies on its side and was loaded by Pillow with height and width exchanged; leave it unloaded"
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
    inks = tuple(tags.get(_DOT_RANGE, (0, 255)))
    if kind == _CMYK and (tags.get(_INK_SET, 1) != 1 or {*zip(inks[::2], inks[1::2], strict=False)} != {(0, 255)}):
        return "has other inks or other amounts of ink than CMYK from 0 to 255; save it as RGB"
    if kind == _PALETTE and len(tags.get(_COLOR_MAP, ())) != 3 * 2 ** max(bits):
        return "has a palette of another length than its depth needs; save it as RGB"
    if (
        any(tag in tags for tag in _CURVES)
        or int(tags.get(_SUBFILE, 0)) & _MASK
        or tuple(tags.get(_REFERENCE, ())) not in ((), *_REFERENCES)
    ):
        return "has a mask, a curve of its values or reference values that Pillow does not apply; " + _ADVICE
    if int(tags.get(_SUBFILE, 0)) & _PREVIEW and _SUB_IMAGES in tags:
        return "is a preview of larger images inside it (SubIFDs), which Pillow does not read; save these as own files"
    if not _is_covered(picture):
        return "has no strips or tiles for some of its pixels, or says that they are short; replace it or take it out"
    return None


def _is_scrambled(picture: Picture) -> bool:
    """Whether a picture on its side was read through a memory map, as far as its file still says how it lies."""
    width, height = picture.size
    if width == height or getattr(picture, "map", None) is None:
        return False
    try:
        with Image.open(picture.filename, formats=["TIFF"]) as again:  # Pillow has removed the tag from the picture
            return again.getexif().get(_ORIENTATION) in range(5, 9)
    except OSError:
        return False


def _is_number(tag: int, value: Any) -> bool:
    values = value if tag == _DOT_RANGE and isinstance(value, bytes) else _several(value)
    return not any(each is None or isinstance(each, (str, bytes)) for each in values)


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _file_size(picture: Picture) -> int:
    return 0 if picture.fp is None else picture.fp.seek(0, 2)


def _listed(picture: Picture) -> dict[int, range]:
    """Where the values of all tags lie, in the directory's order; those of a type that is not known have no length."""
    tags, file = picture.tag_v2, picture.fp
    if file is None or tags.offset is None:
        return {}
    order = "<" if tags.prefix == b"II" else ">"
    file.seek(2)
    big = file.read(2) == struct.pack(order + "H", 43)
    counter, length, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
    file.seek(tags.offset)
    (count,) = struct.unpack(order + counter, file.read(struct.calcsize(counter)))
    entries, found = file.read(entry * min(count, 2**16)), dict[int, range]()
    if len(entries) < entry * count:
        raise ValueError("its list of tags is cut off")
    for tag, form, values, place in struct.iter_unpack(order + "HH" + 2 * length, entries):
        size = values * _BYTES_OF_TYPE.get(form, 0)
        if values:  # what fits into the entry is there and at no place of its own
            apart = size > struct.calcsize(length)
            found.setdefault(tag, range(place, place + size) if apart else range(0))  # Pillow, too, takes the first
    return found


def _next(picture: Picture, place: int) -> int:
    """The first place, not before a given one, of a directory or of a tag's values; or else the file's end."""
    tags = picture.tag_v2
    directories = [tags.offset, tags.next, *(each for tag in _POINTERS for each in _several(tags.get(tag)))]
    known = [*directories, *(values.start for values in _listed(picture).values())]
    return min((each for each in known if isinstance(each, int) and each >= place), default=_file_size(picture))


def _is_stack(picture: Picture) -> bool:
    """Whether further images follow the page's own, by its description (which single ones may keep) and the room."""
    tags: Any = picture.tag_v2
    places = tags.get(_PLACES[0]) or tags.get(_PLACES[1])
    if picture.fp is None or not places or tags.get(_COMPRESSION, 1) != 1:  # without a file, the room is not known
        return False
    samples = tags.get(_SAMPLES, 1)
    page = (tags[_WIDTH] * samples * max(tags.get(_BITS, (1,))) + 7) // 8 * tags[_HEIGHT]  # bytes
    behind = min(places) + page
    end = _next(picture, behind)
    # A page of one byte has another byte behind it where something must lie at an even place.
    room = end - behind >= page + (page == 1 and end < _file_size(picture))
    return room and _images(tags.get(_DESCRIPTION, ""), samples, math.prod(picture.size)) > 1


def _images(text: str | bytes, samples: int, pixels: int) -> int:
    """How many images, of so many pixels and samples in each, ImageJ, OME or tifffile say that there are."""
    text = text.decode("latin-1") if isinstance(text, bytes) else str(text)
    if text.startswith("ImageJ="):
        said = dict(_IMAGEJ.findall(text))
        return int(said.pop("images", 0)) or math.prod(map(int, said.values()))
    if shape := _TIFFFILE.match(text):
        return math.prod(map(int, re.findall(r"\d+", shape[1]))) // max(1, samples * pixels)
    # In OME, SizeC counts the samples of colours too.
    return math.prod(map(int, _OME.findall(text))) // max(1, samples) if re.search(r"<(\w+:)?OME\b", text) else 1


def _is_covered(picture: Picture) -> bool:
    """Whether strips or tiles hold all pixels, as far as is known without unpacking them.

    Pillow leaves others black, reads what follows short ones, and takes what is left out for a place. Of JPEG data
    without an end libtiff makes grey.
    """
    tags: Any = picture.tag_v2
    places, sizes = (tags.get(strips) or tags.get(tiles, ()) for strips, tiles in (_PLACES, _SIZES))
    if tags.get(_COMPRESSION) == _JPEG:
        strips, file = {*zip(places, sizes, strict=False)}, picture.fp
        whole = sum(size for _, size in strips) <= _file_size(picture)  # or to look at them could take for ever
        return file is None or (whole and all(_ends(file, place, size) for place, size in strips if size))
    if picture.info.get("compression") != "raw" or not picture.tile:  # which is loaded already
        return True
    layers = tags.get(_SAMPLES, 1) if tags.get(_PLANES, 1) == _SEPARATE else 1
    bits, extents = tags.get(_BITS, (1,))[0] * tags.get(_SAMPLES, 1) // layers, [tile.extents for tile in picture.tile]
    boxes = [(right - left, bottom - top) for left, top, right, bottom in filter(None, extents)]
    needed = [((tags.get(_TILE_WIDTH) or across) * bits + 7) // 8 * down for across, down in boxes]
    short = any(0 < size < least for size, least in zip(sizes, needed, strict=False))  # libtiff, too, computes for 0
    if short and len(places) == 1 and _TILE_WIDTH not in tags:  # and so it does for a single strip
        short = _next(picture, places[0] + 1) < places[0] + needed[0]
    return not short and all(places) and sum(map(math.prod, boxes)) == math.prod(picture.size) * layers


def _ends(file: IO[bytes], place: int, size: int) -> bool:
    """Whether JPEG data have a mark of their end behind the first of a scan; anything may fill them up."""
    file.seek(place)
    return b"\xff\xd9" in file.read(size).partition(b"\xff\xda")[2]
