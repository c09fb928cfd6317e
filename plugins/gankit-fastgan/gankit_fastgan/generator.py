"""The generator of Liu et al. 2021 (FastGAN, arXiv 2101.04775, section 3.1)."""

from __future__ import annotations

from typing import Annotated, final

import torch
from annotated_types import Ge
from gankit.interfaces import Generator, ImageSpec
from gankit.nn.layers import Norm, ResampledConv2d, pyramid, with_spectral_norm
from torch import Tensor, nn
from torch.nn import functional as F

from gankit_fastgan.layers import GatedUp, SkipLayerExcitation, channels_at

Width = Annotated[int, Ge(1)]


@final
class FastGANGenerator(Generator):
    """A gated convolution per doubling, and gates on large maps that are computed from small ones; batch normalisation.

    The shorter side of the image must be 4 to 7 times 2^k with k at least 1, and 2^k must divide the longer. At 64x64
    and width 64 it has 21,984,839 parameters. Labels choose gain and shift of every normalisation (arXiv 1610.07629).

    Args:
        image: specification of the images to make.
        latent_dim: length of a latent vector.
        width: channels where the shorter side is 64 to 127 pixels; twice as many at half the side.
        reach: number of doublings between a map and the one that it gates; at most k, for smaller images. In the paper
            the sides are 16 times apart (8 and 128, 16 and 256, 32 and 512), which is 4 doublings.
        noise: whether each doubling adds noise; see `gankit.nn.noise.Noise`.
        spectral: spectral normalisation of every convolution and of the first linear map (arXiv 1802.05957).

    Raises:
        PartError: the size does not fit.
    """

    channels_last = True
    capturable = True

    def __init__(
        self,
        image: ImageSpec,
        *,
        latent_dim: Width = 256,
        width: Width = 64,
        reach: Width = 4,
        noise: bool = True,
        spectral: bool = True,
    ) -> None:
        super().__init__()
        levels, height, width_ = pyramid(image, "generator fastgan", 1)
        self.latent_dim = latent_dim
        self.reach = min(reach, levels)
        channels = [channels_at(width, level) for level in range(levels + 1)]
        self.start = (2 * channels[0], height, width_)
        self.linear = nn.Linear(latent_dim, 2 * channels[0] * height * width_, bias=False)
        self.norm = Norm("batch", 2 * channels[0], image)
        sides = [(height << level, width_ << level) if noise else None for level in range(levels + 1)]
        blocks = [
            GatedUp(channels[level - 1], channels[level], noise=sides[level], image=image)
            for level in range(1, levels + 1)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.gates = nn.ModuleList(
            SkipLayerExcitation(channels[level - self.reach], channels[level])
            for level in range(self.reach, levels + 1)
        )
        self.conv = ResampledConv2d(channels[-1], image.channels, 3)
        if spectral:  # not of the tables of gains, whose values would shrink with the number of classes
            for part in (self.linear, *(block.conv for block in blocks), self.gates, self.conv):
                with_spectral_norm(part)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, latent_dim) and labels to (n, channels, height, width) in [-1, 1].

        In training the noise is drawn from torch's global generator; in evaluation it is fixed.
        """
        x = self.linear(z).view(-1, *self.start)
        if self.conv.weight.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous(memory_format=torch.channels_last)
        maps = [F.glu(self.norm(x, labels), 1)]
        for level, block in enumerate(self.blocks, 1):
            x = block(maps[-1], labels)
            if level >= self.reach:
                x = self.gates[level - self.reach](maps[level - self.reach], x)
            maps.append(x)
        images: Tensor = self.conv(maps[-1]).tanh()
        return images
