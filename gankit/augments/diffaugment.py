"""Differentiable augmentation (Zhao et al. 2020, DiffAugment, arXiv 2006.10738, section 3)."""

from collections.abc import Callable
from typing import Annotated, Final, Literal, final

import torch
from annotated_types import MinLen
from pydantic import BeforeValidator
from torch import Tensor

from gankit.errors import PartError
from gankit.interfaces import Augment

Operation = Literal["color", "translation", "cutout"]


def _split_names(policy: object) -> object:
    return [name.strip() for name in policy.split(",")] if isinstance(policy, str) else policy


Policy = Annotated[tuple[Operation, ...], MinLen(1), BeforeValidator(_split_names)]


@final
class DiffAugment(Augment):
    """Colour, translation and cutout with the paper's ranges, always on, drawn anew for every sample.

    Draws come from torch's global generator. Works for any number of channels and any height and width, in any
    floating type; values may leave [-1, 1], and pixels that a shift or a cutout leaves empty become 0 (mid-grey).

    Args:
        policy: operations in the order in which they are applied; also as a string with commas, "color,cutout".

    Raises:
        PartError: an operation is unknown.
    """

    capturable = True

    def __init__(self, *, policy: Policy = ("color", "translation", "cutout")) -> None:
        super().__init__()
        if unknown := sorted(set(policy) - set(OPERATIONS)):
            raise PartError(f"diffaugment has no {', '.join(unknown)}; it has {', '.join(OPERATIONS)}")
        self.policy = policy

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) in [-1, 1] to the same shape, type and memory format, not clamped; twice differentiable."""
        channels_last = not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last)
        for name in self.policy:
            images = OPERATIONS[name](images)
        return images.contiguous(memory_format=torch.channels_last) if channels_last else images

    def extra_repr(self) -> str:
        """Show the policy."""
        return f"policy={','.join(self.policy)}"


def color(images: Tensor) -> Tensor:
    """Change brightness, then saturation, then contrast of (n, c, h, w) images.

    Brightness adds U(-0.5, 0.5), saturation scales the distance from the mean of the channels by U(0, 2) (one channel
    stays as it is), contrast the distance from the image's mean by U(0.5, 1.5).
    """
    images = images + _uniform(images, -0.5, 0.5)
    if images.shape[1] > 1:
        images = torch.lerp(images.mean(1, keepdim=True), images, _uniform(images, 0.0, 2.0))
    return torch.lerp(images.mean((1, 2, 3), keepdim=True), images, _uniform(images, 0.5, 1.5))


def translation(images: Tensor) -> Tensor:
    """Shift (n, c, h, w) images by whole pixels, up to an eighth (rounded) of each axis; 0 fills the rest."""
    n, channels, height, width = images.shape
    rows, row_outside = _source_pixels(n, height, images.device)
    columns, column_outside = _source_pixels(n, width, images.device)
    source = (rows[:, :, None] * width + columns[:, None, :]).reshape(n, 1, height * width)
    moved = images.flatten(2).gather(2, source.expand(n, channels, height * width)).view(images.shape)
    return moved.masked_fill((row_outside[:, :, None] | column_outside[:, None, :])[:, None], 0)


def cutout(images: Tensor) -> Tensor:
    """Set a box of half (rounded) the height and width to 0, its centre uniform over (n, c, h, w) images."""
    n, _, height, width = images.shape
    rows, columns = (_in_box(n, size, images.device) for size in (height, width))
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


OPERATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {op.__name__: op for op in (color, translation, cutout)}


def _uniform(images: Tensor, low: float, high: float) -> Tensor:
    """One value per sample, drawn in float32: half precision would give only some hundred different values."""
    values = torch.rand(len(images), 1, 1, 1, device=images.device) * (high - low) + low
    return values.to(images.dtype)


def _source_pixels(n: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(n, size) the pixel of an axis that moves to each position, and whether it would lie outside the image."""
    most = int(0.125 * size + 0.5)
    shift = torch.randint(-most, most + 1, (n, 1), device=device)
    source = torch.arange(size, device=device) - shift
    inside = source.clamp(0, size - 1)
    return inside, source != inside


def _in_box(n: int, size: int, device: torch.device) -> Tensor:
    """(n, size) whether a position on an axis is in the box."""
    length = int(0.5 * size + 0.5)
    # A box of even length is centred on an edge between pixels or on an outer edge: one more than there are pixels.
    centre = torch.randint(0, size + 1 - length % 2, (n, 1), device=device)
    start = centre - length // 2
    position = torch.arange(size, device=device)
    return (position >= start) & (position < start + length)
