"""The shape of images and of their labels."""

import math
from dataclasses import dataclass

from gankit.errors import DataError

LARGEST = 2**33
"""Most pixel values that may be in memory at a time: 32 GB in float32; networks take many times as much."""


@dataclass(frozen=True)
class ImageSpec:
    """Shape of the images, and kind of the labels, for which networks are built.

    Attributes:
        channels: 1 for grey, 3 for colour; any positive number works.
        height: pixels.
        width: pixels.
        classes: number of classes when networks are conditioned on classes, else 0.
        conditions: number of float conditions per sample when networks are conditioned on them, else 0.

    Raises:
        ValueError: a size below 1, a number below 0, or both classes and conditions.
        DataError: an image that no memory holds.
    """

    channels: int
    height: int
    width: int
    classes: int = 0
    conditions: int = 0

    def __post_init__(self) -> None:
        if min(self.channels, self.height, self.width) < 1 or min(self.classes, self.conditions) < 0:
            raise ValueError(f"not an image: {self}")
        if self.classes and self.conditions:
            raise ValueError("labels are classes or float conditions, not both")
        if math.prod(self.shape) > LARGEST:
            raise DataError(
                f"images of {self.height} x {self.width} pixels do not fit into any memory; set a smaller size"
            )

    @property
    def conditional(self) -> bool:
        """Whether networks receive labels."""
        return self.classes > 0 or self.conditions > 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width
