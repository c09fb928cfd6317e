"""Grey levels of arrays and tensors from one range to another."""

from typing import Any, TypeVar

from numpy.typing import NDArray
from torch import Tensor

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
