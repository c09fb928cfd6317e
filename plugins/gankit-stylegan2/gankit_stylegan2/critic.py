"""The critic of Karras et al. 2020 (StyleGAN2, arXiv 1912.04958, section 4.1): a residual network."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, final

from annotated_types import Ge
from gankit.interfaces import Critic, ImageSpec
from gankit.nn.layers import LabelEmbedding, pyramid
from torch import Tensor, nn

from gankit_stylegan2.layers import EqualConv2d, EqualLinear, MinibatchStatistics, activate, channels_at

Width = Annotated[int, Ge(1)]


class ResidualDown(nn.Module):
    """Two 3x3 convolutions, of which the second halves, beside a halving 1x1 convolution; over the square root of 2.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = EqualConv2d(channels_in, channels_in, 3)
        self.conv2 = EqualConv2d(channels_in, channels_out, 3, "down")
        self.shortcut = EqualConv2d(channels_in, channels_out, 1, "down", bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels_in, h, w) to (n, channels_out, h / 2, w / 2)."""
        total: Tensor = activate(self.conv2(activate(self.conv1(x)))) + self.shortcut(x)
        return total * 2**-0.5


@final
class StyleGAN2Critic(Critic):
    """Residual halvings down to 4 to 7 pixels, statistics of the minibatch, a convolution and two linear layers.

    The shorter side of the image must be 4 to 7 times 2^k, and 2^k must divide the longer. With labels the head adds
    the projection <e(label), features>, over the root of the features' number (arXiv 1802.05637, equation 4). At
    256x256 it has 28,864,129 parameters, as config F.

    Args:
        image: specification of the images to score.
        width: channels where the shorter side is 64 to 127 pixels; twice as many at half the side.
        max_width: the most channels of any level.
        group: number of samples over which statistics are taken; with 1 a score depends on its image alone.

    Raises:
        PartError: the size does not fit.
    """

    channels_last = True
    capturable = True

    def __init__(self, image: ImageSpec, *, width: Width = 512, max_width: Width = 512, group: Width = 4) -> None:
        super().__init__()
        levels, height, width_ = pyramid(image, "critic stylegan2")
        channels = [channels_at(width, max_width, level) for level in range(levels, -1, -1)]
        self.from_image = EqualConv2d(image.channels, channels[0], 1)
        self.blocks = nn.ModuleList(ResidualDown(a, b) for a, b in pairwise(channels))
        self.statistics = MinibatchStatistics(group)
        dim = channels[-1]
        self.conv = EqualConv2d(dim + 1, dim, 3)
        self.hidden = EqualLinear(dim * height * width_, dim)
        self.linear = EqualLinear(dim, 1)
        self.projection = LabelEmbedding(image, dim, None) if image.conditional else None

    def features(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) to (n, dim), what the head scores."""
        x = activate(self.from_image(images))
        for block in self.blocks:
            x = block(x)
        x = activate(self.conv(self.statistics(x)))
        return activate(self.hidden(x.flatten(1)))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, channels, height, width) and labels to (n,) scores."""
        return self.score(self.features(images), labels)

    def score(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, dim) features and labels to (n,) scores."""
        scores: Tensor = self.linear(features).squeeze(1)
        if self.projection is None:
            return scores
        projected: Tensor = self.projection(labels) * features * features.shape[1] ** -0.5
        return scores + projected.sum(1)
