"""The generator of R3GAN (Huang et al. 2024, arXiv 2501.05441, section 3), for any size and channels."""

from typing import Annotated

import torch
from annotated_types import Ge, Le, MinLen
from torch import Tensor, nn
from torch.nn import functional as F

from gankit.interfaces import Generator, ImageSpec
from gankit.nn.bottleneck import Convolution, draw, label_embedding, stage_widths, stages, transitions
from gankit.nn.layers import Width, pyramid


class R3GANGenerator(Generator):
    """Learned maps scaled by the latent, then bilinear up-sampling and inverted bottlenecks; no normalisation.

    The shorter side of the image must be 4 to 7 times 2^k, and 2^k must divide the longer. Labels are embedded and
    appended to the latent. At 32x32 it has 833,920 parameters; the paper's networks have width 768 (20.73 million at
    32x32, 23.06 million at 256x256). Unlike the authors' code, it ends on tanh, so that images are in [-1, 1], and
    continues maps beyond their borders by the last value, not by zeros, before it up-samples them.

    Args:
        image: specification of the images to make.
        latent_dim: length of a latent vector.
        width: channels up to the level of 32 to 63 pixels, half as many with each doubling beyond, unless `widths` is
            given.
        widths: channels of the smallest level and after each of the k doublings, k + 1 numbers.
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
        latent_dim: Width = 64,
        width: Width = 128,
        widths: Annotated[list[Width], MinLen(1)] | None = None,
        blocks: Annotated[int, Ge(1), Le(1000)] = 2,
        expansion: Width = 2,
        group_width: Width = 16,
    ) -> None:
        super().__init__()
        levels, height, width_ = pyramid(image, "generator r3gan")
        channels = stage_widths(levels, width, widths, "generator")
        self.latent_dim = latent_dim
        self.embedding = label_embedding(image, latent_dim, None) if image.conditional else None
        self.linear = nn.Linear(latent_dim * (2 if image.conditional else 1), channels[0], bias=False)
        draw(self.linear.weight)
        self.basis = nn.Parameter(torch.randn(channels[0], height, width_))
        self.transitions = transitions(channels)
        self.stages = stages(channels, blocks, expansion, group_width)
        self.conv = Convolution(channels[-1], image.channels, 1)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, latent_dim) and labels to (n, channels, height, width) in [-1, 1]."""
        if self.embedding is not None:
            z = torch.cat([z, self.embedding(labels)], 1)
        x = self.linear(z)[:, :, None, None] * self.basis
        if self.conv.weight.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.stages[0](x)
        for transition, stage in zip(self.transitions, self.stages[1:], strict=True):
            x = stage(F.interpolate(transition(x), scale_factor=2, mode="bilinear"))
        images: Tensor = self.conv(x).tanh()
        return images
