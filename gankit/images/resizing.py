"""Resizing of single images of 8 or 16 bits, for data sets that decode pictures themselves."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Size = tuple[int, int]
Fit = Literal["crop", "pad", "stretch"]


def resized(image: NDArray[Any], size: Size, fit: Fit = "stretch") -> NDArray[Any]:
    """An image at another size: bicubic with antialiasing, computed in float32 and rounded.

    8-bit images are clipped to 0 and 255, deeper ones to the smallest and largest value of the image itself.

    Args:
        image: (channels, height, width) uint8 or uint16.
        size: (height, width).
        fit: "crop" fills the size and cuts what sticks out evenly, "pad" shows all between bars of 0, "stretch"
            distorts.

    Returns:
        (channels, *size) of the same type.
    """
    height, width = image.shape[1:]
    if (height, width) == size:
        return image
    inner, box = size, (0.0, 0.0, float(width), float(height))
    scales = size[0] / height, size[1] / width
    if fit == "crop":
        # Rounding could bring one of them below 0.
        cut_y, cut_x = max(height - size[0] / max(scales), 0), max(width - size[1] / max(scales), 0)
        box = (cut_x / 2, cut_y / 2, width - cut_x / 2, height - cut_y / 2)
    elif fit == "pad":
        inner = (max(1, round(height * min(scales))), max(1, round(width * min(scales))))
    result = np.zeros((len(image), *size), dtype=image.dtype)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    for channel, target in zip(image, result, strict=True):
        # A name for the picture between would keep it in memory beside the next channel's.
        values = np.asarray(
            Image.fromarray(channel).convert("F").resize(inner[::-1], Image.Resampling.BICUBIC, box=box)
        )
        # Bicubic weights overshoot at edges. What is white in a deep image is not known here: keep to its own values.
        low, high = (image.min(), image.max()) if image.dtype.itemsize > 1 else (0, 255)
        values = values.round().clip(low, high)
        target[top : top + inner[0], left : left + inner[1]] = values
    return result
