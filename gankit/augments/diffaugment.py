"""Differentiable augmentation (Zhao et al. 2020, DiffAugment, arXiv 2006.10738, section 3)."""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, final

import torch
from annotated_types import MinLen
from pydantic import BeforeValidator
from torch import Tensor
from torch.nn import functional as F

from gankit.errors import PartError
from gankit.interfaces import Augment
from gankit.nn.modes import uses_torch

Operation = Literal["color", "translation", "cutout"]


def _split_names(policy: Any) -> Any:
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
        policy = tuple(_split_names(policy))
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
    # Draws are float32 whatever the type of the images: half precision would give only some hundred different values.
    colour = images.shape[1] > 1
    draws = torch.rand(3 if colour else 2, len(images), 1, 1, 1, device=images.device)
    images = images + (draws[0] - 0.5).to(images.dtype)
    if colour:
        images = torch.lerp(images.mean(1, keepdim=True), images, (draws[1] * 2).to(images.dtype))
    return torch.lerp(images.mean((1, 2, 3), keepdim=True), images, (draws[-1] + 0.5).to(images.dtype))


def translation(images: Tensor) -> Tensor:
    """Shift (n, c, h, w) images by whole pixels, up to an eighth (rounded) of each axis; 0 fills the rest."""
    n, _, height, width = images.shape
    most = _eighth(height), _eighth(width)
    down, right = (torch.randint(-m, m + 1, (n, 1), device=images.device) for m in most)
    # Pixels are numbered in images with a margin, where a shift changes all numbers by the same distance.
    across = width + 2 * most[1]
    pixels = torch.arange((height + 2 * most[0]) * across, device=images.device).view(-1, across)
    pixels = pixels[most[0] : most[0] + height, most[1] : most[1] + width].reshape(1, -1)
    distances = torch.add(right, down, alpha=across)
    if uses_torch():  # no other function is allowed now, or no graph is made
        return _shifted(images, pixels - distances)
    moved: Tensor = _Shifted.apply(images, pixels, distances)
    return moved


def _eighth(size: int) -> int:
    return int(0.125 * size + 0.5)


def _shifted(images: Tensor, sources: Tensor) -> Tensor:
    """(n, c, h, w) images gathered from these images with a margin of zeros, by pixel numbers `sources` (n, h w)."""
    n, channels, height, width = images.shape
    rows, columns = _eighth(height), _eighth(width)
    padded = F.pad(images, (columns, columns, rows, rows)).flatten(2)
    return padded.gather(2, sources[:, None].expand(n, channels, height * width)).view(images.shape)


class _Shifted(torch.autograd.Function):
    """Images shifted by `distances` (n, 1), differences of pixel numbers; their gradient is shifted back.

    Torch would add gradients pixel by pixel, and on a GPU sort all indices first, so that sums are always the same.
    """

    @staticmethod
    def forward(context: Any, images: Tensor, pixels: Tensor, distances: Tensor) -> Tensor:
        context.save_for_backward(pixels, distances)
        return _shifted(images, pixels - distances)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        pixels, distances = context.saved_tensors
        return _Shifted.apply(gradient, pixels, -distances), None, None


def cutout(images: Tensor) -> Tensor:
    """Set a box of half (rounded) the height and width to 0, its centre uniform over (n, c, h, w) images."""
    n, _, height, width = images.shape
    rows, columns = (_in_box(n, size, images.device) for size in (height, width))
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


OPERATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {op.__name__: op for op in (color, translation, cutout)}


def _in_box(n: int, size: int, device: torch.device) -> Tensor:
    """(n, size) whether a position on an axis is in the box."""
    length = int(0.5 * size + 0.5)
    # A box of even length is centred on one of the size + 1 edges of pixels, of odd length on one of the size pixels.
    centre = torch.randint(0, size + 1 - length % 2, (n, 1), device=device)
    position = torch.arange(length // 2, length // 2 + size, device=device) - centre  # 0 where the box begins
    return position.clamp(0, length - 1) == position
