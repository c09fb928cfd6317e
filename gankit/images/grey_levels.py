"""Ranges of grey levels: whether they are valid, whether images keep to them, and rescaling between them."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gankit.errors import DataError

Images = TypeVar("Images", NDArray[Any], Tensor)


def rescale(images: Images, source: tuple[float, float], target: tuple[float, float]) -> Images:
    """Bring images from one range to another, in place and in their own type; nothing is clipped.

    Args:
        images: floating-point array or tensor of any shape, which is overwritten.
        source: the values of black and white now.
        target: the values of black and white wanted.

    Returns:
        The same array or tensor.
    """
    # Python's floats leave the type of arrays as it is; those of NumPy would not.
    (low, high), (black, white) = map(float, source), map(float, target)
    images -= low
    images *= (white - black) / (high - low)
    images += black
    return images


def check_range(images: NDArray[Any], value_range: tuple[float, float] | None, where: str) -> None:
    """Refuse images of any shape with values that are NaN or outside the declared range, where one is declared.

    Raises:
        DataError: there are such values; the error calls the images `where`. Also as `valid_range`.
    """
    if (value_range := valid_range(value_range)) is None:
        return
    low, high = float(images.min()), float(images.max())
    if not (value_range[0] <= low and high <= value_range[1]):
        values, remedy = f"values go from {low:g} to {high:g}", "widen the range or clip the images"
        if np.isnan(low):
            values, remedy = "some values are NaN", "give each a number, or leave such images out"
        raise DataError(f"{where}: {values}, outside value_range = [{value_range[0]:g}, {value_range[1]:g}]; {remedy}")


def valid_range(value_range: tuple[float, float] | None) -> tuple[float, float] | None:
    """The values of black and white as floats, or None where none are given.

    Raises:
        DataError: not two numbers, the smaller first, between which float32 can tell a thousand levels apart.
    """
    if value_range is None:
        return None
    try:
        low, high = (float(value) for value in value_range)
    except (TypeError, ValueError):
        raise DataError(f"value_range = {value_range!r} must be two finite numbers, black before white") from None
    if not (np.isfinite([low, high]).all() and low < high):
        raise DataError(f"value_range = [{low:g}, {high:g}] must be two finite numbers, black before white")
    # Networks see the levels in float32, whose numbers are about 1e-7 of their size apart.
    if not (max(abs(low), abs(high)) < 1e4 * (high - low) and 1e-30 < high - low < 1e30):
        raise DataError(
            f"value_range = [{low:.10g}, {high:.10g}] leaves float32 too few levels between black and white; subtract "
            "an offset from the images, and bring them nearer to 1"
        )
    return low, high
