"""Image arrays as files at full depth, and as 8-bit pictures and grids to look at."""

import base64
import io
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, from_numpy
from torch.nn import functional

from gankit.images.grey_levels import rescale

SHOWN = 16
"""Images that a notebook shows of a run or of a data set."""


def to_pixels(images: Tensor, dtype: str, value_range: tuple[float, float]) -> NDArray[Any]:
    """(n, c, h, w) images in [-1, 1] to the type and range of the data, clipped, and rounded for integer types."""
    values = rescale(images.detach().cpu().double().clamp(-1, 1), (-1.0, 1.0), value_range).numpy()
    return (np.rint(values) if np.dtype(dtype).kind == "u" else values).astype(dtype)


def to_8bit(images: NDArray[Any], value_range: tuple[float, float]) -> NDArray[np.uint8]:
    """(n, c, h, w) images of any type as uint8, with black and white of `value_range` at 0 and 255, clipped."""
    if images.dtype == np.uint8 and value_range == (0.0, 255.0):
        return images
    levels = rescale(images.astype(np.float64), value_range, (0.0, 255.0))
    return np.asarray(np.rint(levels).clip(0, 255), np.uint8)


def grid(images: NDArray[np.uint8], columns: int | None = None, scale: int = 1) -> Image.Image:
    """A picture of (n, c, h, w) uint8 images side by side, each enlarged `scale` times without smoothing.

    Images of two channels show the first, those of more than three the first three.
    """
    n, channels, height, width = images.shape
    columns = columns or max(min(n, math.ceil(math.sqrt(n * height / width))), 1)
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + 1) + 1, (i % columns) * (width + 1) + 1
        sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    picture = Image.fromarray(sheet[..., :3] if channels >= 3 else sheet[..., 0])
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def enlargement(height: int, width: int) -> int:
    """How many times small images are enlarged in a grid."""
    return max(1, 128 // max(height, width))


def grid_png(images: NDArray[Any], value_range: tuple[float, float], columns: int | None = None) -> bytes:
    """A grid of (n, c, h, w) images as the bytes of a PNG; small images are enlarged."""
    return _png(grid(to_8bit(images, value_range), columns, enlargement(*images.shape[2:])))


def grid_html(images: NDArray[Any], value_range: tuple[float, float]) -> str:
    """A grid of (n, c, h, w) images as an HTML picture that needs no file, at most 16 images of 64 pixels a side."""
    step = max(1, max(images.shape[2:]) // 64)
    png = grid_png(images[:SHOWN, :, ::step, ::step], value_range, SHOWN // 2)
    return f'<img src="{png_uri(png)}" alt="images" style="max-width: 100%">'


def png_uri(png: bytes) -> str:
    """A PNG as a data URI, which a page can show without a file."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def image_png(image: NDArray[Any], value_range: tuple[float, float]) -> bytes:
    """One (c, h, w) image as the bytes of an 8-bit PNG without metadata.

    Images of two channels show the first, those of more than three the first three.
    """
    pixels = to_8bit(image[None], value_range)[0]
    shown = pixels[:3].transpose(1, 2, 0) if len(pixels) >= 3 else pixels[0]
    return _png(Image.fromarray(np.ascontiguousarray(shown)))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # Grids repeat pixels: these settings make smaller files than zlib's own, and write up to six times as fast.
    picture.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def pairs_png(
    upper: NDArray[Any], upper_range: tuple[float, float], lower: NDArray[Any], lower_range: tuple[float, float]
) -> bytes:
    """Two rows of (n, c, h, w) images as the bytes of a PNG; the lower ones are resized to the size of the upper."""
    rows = [to_8bit(upper, upper_range), to_8bit(lower, lower_range)]
    if rows[0].shape[2:] != rows[1].shape[2:]:
        resized = functional.interpolate(
            from_numpy(rows[1].astype(np.float32)), rows[0].shape[2:], mode="bicubic", antialias=True
        )
        rows[1] = resized.round().clamp(0, 255).numpy().astype(np.uint8)
    channels = max(row.shape[1] for row in rows)
    rows = [np.repeat(row, channels, 1) if row.shape[1] == 1 else row for row in rows]
    return grid_png(np.concatenate(rows), (0.0, 255.0), len(upper))


def fits_png(dtype: np.dtype[Any], channels: int) -> bool:
    """Whether PNG files made here hold images of this type: uint8 grey and colour, and uint16 grey."""
    return (dtype == np.uint8 and channels in (1, 3)) or (dtype == np.uint16 and channels == 1)


def save_image(path: Path, image: NDArray[Any]) -> Path:
    """Write one (c, h, w) image at its own depth: as PNG where it `fits_png`, else as NPY."""
    if fits_png(image.dtype, len(image)):
        path = path.with_suffix(".png")
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(path)
    else:
        path = path.with_suffix(".npy")
        np.save(path, image, allow_pickle=False)
    return path
