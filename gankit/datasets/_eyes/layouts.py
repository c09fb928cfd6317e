"""How two eyes lie in one picture, and at which millimetres each of its points looks."""

from dataclasses import dataclass
from math import ceil, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gankit.errors import DataError

CROP_WIDTH = 34.0
STRIP_WIDTH = 110.0
# Skin is drawn at points at most this wide (mm), the open eye at twice as many along each axis, so that lashes, limbus
# and reflexes are sampled alike in every layout.
_SKIN_POINT = 0.55


@dataclass(frozen=True)
class Layout:
    """A picture of two eyes."""

    height: int  # pixels of the whole picture
    width: int  # pixels of the whole picture
    strip: bool  # whether one strip shows both eyes side by side; else the subject's right eye is above the left

    @property
    def pixel(self) -> float:
        """Millimetres per pixel."""
        return STRIP_WIDTH / self.width if self.strip else CROP_WIDTH / self.width

    @property
    def eye_shape(self) -> tuple[int, int]:
        """(height, width) in pixels of the part that holds one eye."""
        return (self.height, self.width // 2) if self.strip else (self.height // 2, self.width)

    @property
    def finer(self) -> int:
        """Points of skin per pixel, along each axis; a power of two."""
        return int(2 ** ceil(log2(max(1.0, self.pixel / _SKIN_POINT))))

    def split(self, pictures: NDArray[Any]) -> NDArray[Any]:
        """(n, ..., height, width) pictures to (n, 2, ..., h, w) eyes: right eye first, seen on the left or above."""
        return np.stack(np.split(pictures, 2, axis=-1 if self.strip else -2), axis=1)

    def join(self, eyes: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `split`."""
        return np.concatenate([eyes[:, 0], eyes[:, 1]], axis=-1 if self.strip else -2)

    @property
    def mirrored(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of the looking-glass picture: the right eye becomes a left one and takes its place."""
        rows = np.arange(self.height)
        return rows if self.strip else np.roll(rows, self.height // 2), np.arange(self.width)[::-1].copy()


def layout_of(height: int, width: int) -> Layout:
    """The layout of pictures of this size: two crops, one above the other, if square; one strip if twice as wide.

    Raises:
        DataError: no layout has this size.
    """
    if height >= 16 and height % 2 == 0 and width in (height, 2 * height):
        return Layout(height, width, strip=width != height)
    raise DataError(
        f"eyes: no layout is {height} high and {width} wide; take size = [s, s] (two crops, one above the other) "
        "or [s, 2 s] (one strip of both eyes) with an even s of at least 16"
    )
