"""The residual stages of R3GAN (Huang et al. 2024, arXiv 2501.05441, section 3, Config E), for generator and critic.

No layer normalises. Instead, Fix-up initialisation (Zhang et al. 2019, arXiv 1901.09321) keeps the variance: the
last convolution of a block starts at zero, its others are scaled by the number of blocks to the power -1/4.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from gankit.errors import PartError, counted
from gankit.images.spec import ImageSpec
from gankit.nn.double_backward import conv2d, leaky_relu
from gankit.nn.layers import LabelEmbedding

SLOPE = 0.2
"""The negative slope of every leaky ReLU."""
ACTIVATION_GAIN = (2 / (1 + SLOPE**2)) ** 0.5


def stage_widths(levels: int, width: int, widths: list[int] | None, part: str) -> list[int]:
    """Channels of the stages, from the smallest level to the image's.

    Without `widths`, stages have `width` channels up to the level of 32 to 63 pixels, and each doubling beyond halves
    them (appendix, table 9).

    Raises:
        PartError: `widths` has not one number for each level; the error names `part`.
    """
    if widths is None:
        return [max(width >> max(level - 3, 0), 1) for level in range(levels + 1)]
    if len(widths) != levels + 1:
        raise PartError(f"{part}.widths has {counted(len(widths), 'number')}; an image of this size takes {levels + 1}")
    return widths


def group_count(channels: int, group_width: int) -> int:
    """The number of equal groups of at least `group_width` channels each; 1 where there are fewer channels."""
    return next((n for n in range(channels // group_width, 1, -1) if channels % n == 0), 1)


class Convolution(nn.Conv2d):
    """A same-size convolution, drawn from a normal distribution of variance gain^2 / fan-in; biases start at 0."""

    def __init__(
        self, channels_in: int, channels_out: int, size: int, *, gain: float = 1.0, groups: int = 1, bias: bool = False
    ) -> None:
        super().__init__(channels_in, channels_out, size, padding=size // 2, groups=groups, bias=bias)
        draw(self.weight, gain)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(n, i, h, w) to (n, o, h, w)."""
        return conv2d(x, self.weight, self.bias, 1, self.kernel_size[0] // 2, self.groups)


@torch.no_grad()
def draw(weight: Tensor, gain: float = 1.0) -> None:
    """Draw a weight (o, i, ...) from a normal distribution of variance gain^2 / fan-in (He et al. 2015)."""
    weight.normal_(0, gain * weight[0].numel() ** -0.5)


def label_embedding(image: ImageSpec, dim: int, start: float | None, gain: float = 1.0) -> LabelEmbedding:
    """A `LabelEmbedding` that starts as `draw` draws a linear map of one-hot classes or of float conditions."""
    embedding = LabelEmbedding(image, dim, start)
    nn.init.normal_(embedding.table.weight, 0, gain * (image.classes or image.conditions) ** -0.5)
    return embedding


class Halving(nn.Module):
    """Halving without aliasing: a bilinear filter, [1, 3, 3, 1] / 8 along both axes, then every second value.

    Maps count as 0 outside, as in the authors' code.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", (taps[:, None] * taps)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to (n, c, h / 2, w / 2)."""
        return conv2d(x, self.kernel.expand(x.shape[1], -1, -1, -1), None, 2, 1, x.shape[1])


class InvertedBottleneck(nn.Module):
    """x + contract(act(mix(act(expand(x))))): 1x1, grouped 3x3 and 1x1 convolutions with leaky ReLUs between.

    Args:
        channels: of input and output.
        blocks: number of such blocks in the network, for the initialisation.
        expansion: channels between the convolutions, as a multiple of `channels`.
        group_width: channels of each group, or the next larger number that divides all channels.
    """

    def __init__(self, channels: int, blocks: int, expansion: int, group_width: int) -> None:
        super().__init__()
        hidden, gain = expansion * channels, ACTIVATION_GAIN * blocks**-0.25
        self.expand = Convolution(channels, hidden, 1, gain=gain, bias=True)
        self.mix = Convolution(hidden, hidden, 3, gain=gain, groups=group_count(hidden, group_width), bias=True)
        self.contract = Convolution(hidden, channels, 1, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) to the same."""
        inner = leaky_relu(self.mix(leaky_relu(self.expand(x), SLOPE)), SLOPE)
        total: Tensor = x + self.contract(inner)
        return total


def stages(channels: list[int], blocks: int, expansion: int, group_width: int) -> nn.ModuleList:
    """For each level, `blocks` blocks of its width; the other arguments are those of `InvertedBottleneck`."""
    total = blocks * len(channels)
    return nn.ModuleList(
        nn.Sequential(*(InvertedBottleneck(width, total, expansion, group_width) for _ in range(blocks)))
        for width in channels
    )


def transitions(channels: list[int]) -> nn.ModuleList:
    """From each level to the next a 1x1 convolution, or nothing where both are equally wide."""
    return nn.ModuleList(nn.Identity() if a == b else Convolution(a, b, 1) for a, b in pairwise(channels))
