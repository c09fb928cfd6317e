"""Pictures to arrays at full depth: decoding, colour, alpha, orientation and antialiased resizing."""

import hashlib
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL import __version__ as PIL_VERSION

from gankit.errors import DataError, GankitError, cause
from gankit.images import png, tiff
from gankit.images.resizing import Fit, Size, resized
from gankit.images.room import room_for, too_many
from gankit.terminal.text import progress_bar

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
"""What is opened, whatever a file is called; Pillow's readers of other formats may start other programs."""

_GREY = frozenset(["1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"])
_COLOUR = frozenset(["P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"])
_SIDEWAYS = range(5, 9)  # the EXIF orientations that exchange height and width
_OPENING = threading.Lock()  # filters of warnings are the whole process's
PART = 2**20
"""Pixels that are converted at once: of the whole of a large picture, Pillow and NumPy would make several copies."""
NAMED = 5  # pictures with a problem, at most, that a message names
NO_PROGRESS_BAR = 500  # where there are no more pictures than this
FORMAT = 6  # rises when decoding gives other arrays, so that those of older versions in the cache are not read


@dataclass(frozen=True)
class Form:
    """Shape and type of a picture as an array."""

    channels: int
    height: int
    width: int
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width

    @property
    def colour(self) -> str:
        """The word "grey" or "colour"."""
        return "grey" if self.channels == 1 else "colour"


@dataclass(frozen=True)
class Decoder:
    """Pillow images to arrays (c, h, w) of one size and one number of channels.

    Attributes:
        size: (height, width) to resize to, or None to keep each picture's own.
        fit: "crop" fills the size and cuts what sticks out, "pad" shows all with black bars, "stretch" distorts.
        grey: True makes all grey, False all colour, None keeps each picture's own.
    """

    size: Size | None = None
    fit: Fit = "crop"
    grey: bool | None = None

    def form(self, picture: Image.Image, where: str) -> Form:
        """Shape and type of the array that a picture becomes, from the header alone.

        Raises:
            DataError: a kind of picture that cannot be read without loss.
        """
        with damage_as_data_error(where):
            stored = _stored_form(picture, where)
        height, width = self.size or (stored.height, stored.width)
        channels = stored.channels if self.grey is None else 1 if self.grey else 3
        return Form(channels, height, width, stored.dtype)

    def stored(self, picture: Image.Image, where: str) -> NDArray[Any]:
        """(channels, height, width) uint8 or uint16, at the size that is stored.

        Raises:
            DataError: the picture is damaged (in place of a ValueError), or of a kind that cannot be read without loss.
        """
        with damage_as_data_error(where):
            stored = _stored_form(picture, where)
            orientation, inverted = picture.getexif().get(ExifTags.Base.Orientation, 1), False
            if isinstance(picture, tiff.Picture):  # loading turns it upright, but inverts it only up to 8 bits
                orientation, inverted = 1, picture.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == 0
            picture.load()
            deep = stored.dtype.itemsize > 1
            array = _decode_16_bit(picture, where, inverted) if deep else self._decode_8_bit(picture, where)
            array = upright(array, orientation)
            if deep and self.grey is False:
                array = np.repeat(array, 3, axis=0)
            if array.shape[1:] != stored.shape[1:]:
                raise ValueError("its header and its pixels differ in size")
            return array

    def _decode_8_bit(self, picture: Image.Image, where: str) -> NDArray[Any]:
        grey, transparent = picture.mode in _GREY, picture.has_transparency_data
        to_grey = grey if self.grey is None else self.grey
        # Palettes become grey by way of RGB. A mode that is there already is skipped, since Pillow would copy.
        with_alpha = ["LA" if grey else "RGBA"] if transparent else []
        modes = [*with_alpha, *([] if grey else ["RGB"]), "L" if to_grey else "RGB"]
        array = np.empty((picture.height, picture.width, 1 if to_grey else 3), np.uint8)
        colours = len(picture.getpalette() or ()) // 3
        for rows, part in _parts(picture):
            if picture.mode in ("P", "PA") and np.asarray(part.getchannel(0)).max() >= colours:
                raise DataError(f"{where} has pixels of a colour beyond its palette of {colours}; save it as RGB")
            for mode in modes:
                part = part if part.mode == mode else part.convert(mode)
                if mode.endswith("A") and part.getchannel("A").getextrema() != (255, 255):
                    raise DataError(
                        f"{where} is partly transparent: what shows through is not in the file; "
                        "save it without an alpha channel, on the background that you want"
                    )
            array[rows] = np.asarray(part).reshape(array[rows].shape)
        return array.transpose(2, 0, 1)


def _parts(picture: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """A picture in parts of whole rows."""
    count = max(1, PART // picture.width)
    for top in range(0, picture.height, count):
        bottom = min(top + count, picture.height)
        yield slice(top, bottom), picture.crop((0, top, picture.width, bottom))


def upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """An array (c, h, w) as EXIF's orientation wants it shown; a view."""
    array = array.swapaxes(1, 2) if orientation in _SIDEWAYS else array
    down, right = -1 if orientation in (3, 4, 7, 8) else 1, -1 if orientation in (2, 3, 6, 7) else 1
    return array[:, ::down, ::right]


def _stored_form(picture: Image.Image, where: str) -> Form:
    """Shape and type of a picture as it is stored, turned upright."""
    mode = picture.mode
    if mode == "F":
        raise DataError(
            f"{where} is floating-point, which does not define black and white; "
            "save it as 8- or 16-bit PNG, or put the arrays in an npz file with a value_range"
        )
    if mode not in _GREY | _COLOUR:
        raise DataError(f"{where} has colours that gankit does not read (Pillow mode {mode}); save it as RGB or grey")
    if mode == "CMYK" and picture.format == "JPEG" and "adobe" not in picture.info:
        raise DataError(f"{where} has CMYK colours and does not say whether 0 is no ink or all; save it as RGB")
    deep = mode.startswith("I")
    # 16-bit colour opens as 8-bit RGB. The 16 bits of a BMP file are those of all three channels together.
    if not deep and picture.format != "BMP" and any(";16" in str(tile[3]) for tile in getattr(picture, "tile", [])):
        raise DataError(
            f"{where} has 16 bits per channel and colour or alpha, which Pillow can only read as 8 bits; "
            "save it as 8-bit or as 16-bit grey, or put the arrays in an npz file"
        )
    if (mode == "L" or deep) and "transparency" in picture.info:
        # Pillow does not scale the transparent value of less than 8 bits as it scales the pixels.
        raise DataError(f"{where} has a transparent grey value; save it without transparency")
    if picture.format == "PNG":
        png.load(picture)  # as asking for its EXIF would
    pages, orientation = getattr(picture, "n_frames", 1), picture.getexif().get(ExifTags.Base.Orientation)
    # The second picture of an MPO file (some cameras' .jpg) is a preview; other files with many pages hold many images.
    if pages > 1 and picture.format != "MPO":
        raise DataError(f"{where} holds {pages} pages or frames; save each as its own file")
    if isinstance(orientation, (bytes, str)):
        raise DataError(f"{where} says in text or bytes how it lies (Orientation), which Pillow ignores; save it anew")
    width, height = picture.size
    if isinstance(picture, tiff.Picture):
        tiff.prepare(picture, where)
    # Pillow applies a TIFF tag to the size at once, and what an editor's text says only when it loads the picture.
    if orientation in _SIDEWAYS and ExifTags.Base.Orientation not in getattr(picture, "tag_v2", ()):
        width, height = height, width
    return Form(1 if mode in _GREY else 3, height, width, np.dtype(np.uint16 if deep else np.uint8))


@contextmanager
def damage_as_data_error(where: str) -> Iterator[None]:
    """Turn any error of a damaged picture into a DataError; Pillow, and the libraries below it, raise all types."""
    try:
        yield
    except GankitError:
        raise
    except Exception as error:
        advice = "free some memory, or " if isinstance(error, MemoryError) else ""
        raise DataError(f"{where} cannot be decoded ({cause(error)}); {advice}replace it or take it out") from None


def _decode_16_bit(picture: Image.Image, where: str, inverted: bool) -> NDArray[np.uint16]:
    array = np.empty((1, picture.height, picture.width), np.uint16)
    for rows, part in _parts(picture):
        values = np.asarray(part)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > np.iinfo(np.uint16).max:
            raise DataError(
                f"{where} has values from {low} to {high}, outside 16 bits; "
                "rescale to 0..65535, or put the arrays in an npz file with a value_range"
            )
        array[0, rows] = values
    return np.iinfo(np.uint16).max - array if inverted else array


def decode_all(
    names: Sequence[str],
    load: Callable[[int], Image.Image],
    decoder: Decoder,
    *,
    threads: int,
    like: tuple[Form, str] | None = None,
) -> NDArray[Any]:
    """Every picture in one array (n, channels, height, width).

    Args:
        names: what error messages call the pictures.
        load: opens the picture with an index; several threads call it at once unless `threads` is 1.
        decoder: how to decode.
        threads: how many decode at once.
        like: shape and type that all must have, and the name of a picture that has them; by default those of the first.

    Raises:
        DataError: a picture cannot be decoded, or differs from the others in depth, colour or size.
    """
    problems, sizes = dict[int, str](), dict[str, tuple[int, int]]()
    for index, name in enumerate(names):
        if like is not None:
            break
        try:
            with load(index) as picture:
                like = decoder.form(picture, name), name
        except DataError as error:
            problems[index] = str(error)
    if like is None:
        raise DataError(all_told(problems, names))
    first, first_name = like
    if reason := too_many(len(names), first.shape, first.dtype.itemsize):
        raise DataError(f"{first_name} and the others: {reason}")
    result = np.empty((len(names), *first.shape), dtype=first.dtype)

    def decode(index: int) -> None:
        try:
            with ExitStack() as room:
                with load(index) as picture:
                    room.enter_context(room_for(_pixels(picture)))
                    form = decoder.form(picture, names[index])
                    _check_alike(form, names[index], first, first_name)
                    sizes[names[index]] = form.height, form.width
                    if form.shape != first.shape:  # told with those of the others
                        return
                    stored = decoder.stored(picture, names[index])
                del picture  # resizing needs as much memory
                result[index] = stored if decoder.size is None else resized(stored, decoder.size, decoder.fit)
        except DataError as error:
            problems[index] = str(error)

    with ThreadPoolExecutor(threads) as pool:
        try:
            done, few = pool.map(decode, range(len(names))), len(names) <= NO_PROGRESS_BAR
            list(progress_bar(done, "decoding", len(names), unit=" images", delay=2, disable=few))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if problems:
        raise DataError(all_told(problems, names))
    refuse_several_sizes({first_name: (first.height, first.width), **sizes})
    return result


def refuse_several_sizes(sizes: Mapping[str, tuple[int, int]]) -> None:
    """Raise a DataError that names both ends where pictures, (height, width) by name, are of more than one size."""
    if (count := len(set(sizes.values()))) > 1:
        ends = [end(sizes, key=lambda name: (math.prod(sizes[name]), sizes[name])) for end in (min, max)]
        raise DataError(
            f"pictures have {count} sizes, from {' to '.join(f'{sizes[n][0]} x {sizes[n][1]} ({n})' for n in ends)}, "
            "height x width; resize all, as fit says: data.size=64 for an experiment, {name = ..., size = 64} elsewhere"
        )


def all_told(problems: Mapping[int, str], names: Sequence[str]) -> str:
    """The first problem in full, and which pictures have one, where there are several.

    Args:
        problems: what is wrong, by the index of the picture.
        names: of all pictures.
    """
    first, *others = sorted(problems)
    if not others:
        return problems[first]
    listed = ", ".join(names[index] for index in sorted(problems)[:NAMED]) + (", ..." if len(others) >= NAMED else "")
    return f"{problems[first]}; {len(problems)} of {len(names)} pictures have a problem: {listed}"


def _check_alike(form: Form, name: str, first: Form, first_name: str) -> None:
    if form.dtype != first.dtype:
        raise DataError(
            f"{name} has {8 * form.dtype.itemsize} bits per channel where {first_name} has "
            f"{8 * first.dtype.itemsize}: black and white would differ; save all at one depth"
        )
    if form.channels != first.channels:
        raise DataError(
            f"{name} is {form.colour} where {first_name} is {first.colour}; set grey = true (all grey) or "
            "grey = false (all colour): data.grey=true for an experiment, {name = ..., grey = true} elsewhere"
        )


def open_picture(path: Path) -> Image.Image:
    """A picture file, of which only the header is read yet.

    Raises:
        DataError: it is not a picture of a format that is read, or has more pixels than Pillow thinks safe.
    """
    try:
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(path, formats=FORMATS)
            if _pixels(picture) > (Image.MAX_IMAGE_PIXELS or math.inf):
                picture.close()
                raise Image.DecompressionBombError
            return picture
    except UnidentifiedImageError:
        reason = f"no {', '.join(FORMATS)} that Pillow can read"
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"{(Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels, PIL.Image.MAX_IMAGE_PIXELS"
        reason = f"more than {limit}, or than half as many in a WebP file: it may be made to fill the memory"
    except Exception as error:  # Pillow's readers may raise anything for a damaged file
        reason = cause(error)
    raise DataError(f"{path} cannot be read ({reason}); replace it or take it out")


def _pixels(picture: Image.Image) -> int:
    """The pixels of a picture; those of WebP count twice, since its reader takes twice the memory of the others."""
    return picture.width * picture.height * (2 if picture.format == "WEBP" else 1)


def files_digest(files: Sequence[Path], options: object) -> str:
    """A hash of the content of files, in their order, and of the options that decide how they are decoded."""
    digest = hashlib.blake2b(repr((FORMAT, PIL_VERSION, options)).encode(), digest_size=16)
    for file in files:
        digest.update(hashlib.blake2b(file.read_bytes(), digest_size=16).digest())
    return digest.hexdigest()


def decoding_threads() -> int:
    """How many threads decode at once: Pillow frees the interpreter's lock, but many threads wait for the disk."""
    return min(4, os.cpu_count() or 1)
