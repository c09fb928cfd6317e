"""The critic of R3GAN (Huang et al. 2024, arXiv 2501.05441, section 3), for any size and channels."""

from typing import Annotated

import torch
from annotated_types import Ge, Le, MinLen
from torch import Tensor, nn

from gankit.interfaces import Critic, ImageSpec
from gankit.nn.bottleneck import Convolution, Halving, draw, label_embedding, stage_widths, stages, transitions
from gankit.nn.layers import Width, pyramid


class R3GANCritic(Critic):
    """Inverted bottlenecks and bilinear halving, a depthwise convolution over all that is left, a linear head.

    The shorter side of the image must be 4 to 7 times 2^k, and 2^k must divide the longer. With labels the score is the
    projection <embed(label), linear(features)> (appendix, "Class conditioning"). At 32x32 it has 825,856 parameters;
    the paper's networks have width 768 (20.68 million at 32x32, 23.01 million at 256x256).

    Args:
        image: specification of the images to score.
        width: channels up to the level of 32 to 63 pixels, half as many with each doubling beyond, unless `widths` is
            given.
        widths: channels at the image's size and after each of the k halvings, k + 1 numbers.
        blocks: residual blocks of each level.
        expansion: channels inside a block, as a multiple of those outside.
        group_width: channels per group of the 3x3 convolutions, or the next larger number that divides all channels.

    Raises:
        PartError: the size does not fit, or `widths` has the wrong length.
    """

    channels_last = True
    capturable = True

    def __init__(
        self,
        image: ImageSpec,
        *,
        width: Width = 128,
        widths: Annotated[list[Width], MinLen(1)] | None = None,
        blocks: Annotated[int, Ge(1), Le(1000)] = 2,
        expansion: Width = 2,
        group_width: Width = 16,
    ) -> None:
        super().__init__()
        levels, height, width_ = pyramid(image, "critic r3gan")
        channels = stage_widths(levels, width, widths and widths[::-1], "critic")[::-1]
        self.conv = Convolution(image.channels, channels[0], 1)
        self.stages = stages(channels, blocks, expansion, group_width)
        self.transitions = transitions(channels)
        self.halving = Halving()
        dim = channels[-1]
        self.basis = nn.Parameter(torch.empty(dim, height, width_))
        draw(self.basis)
        self.embedding = label_embedding(image, dim, 0.0, dim**-0.5) if image.conditional else None
        self.linear = nn.Linear(dim, dim if image.conditional else 1, bias=False)
        draw(self.linear.weight)

    def features(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) to (n, dim), what the head scores."""
        x = self.stages[0](self.conv(images))
        for transition, stage in zip(self.transitions, self.stages[1:], strict=True):
            x = stage(transition(self.halving(x)))
        pooled: Tensor = (x * self.basis).sum((2, 3))
        return pooled

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, channels, height, width) and labels to (n,) scores."""
        return self.score(self.features(images), labels)

    def score(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, dim) features and labels to (n,) scores."""
        scores: Tensor = self.linear(features)
        if self.embedding is None:
            return scores.squeeze(1)
        projected: Tensor = self.embedding(labels) * scores
        return projected.sum(1)
