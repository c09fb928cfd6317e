"""The ResNet generator of Gulrajani et al. 2017 (arXiv 1704.00028, appendix F), for any size and channels."""

import itertools
from typing import Annotated, Literal

import torch
from annotated_types import MinLen
from torch import Tensor, nn
from torch.nn import functional as F

from gankit.errors import PartError
from gankit.interfaces import Generator, ImageSpec
from gankit.nn.layers import Norm, NormName, ResampledConv2d, ResidualBlock, Width, pyramid


class ResNetGenerator(Generator):
    """A linear map to the smallest level, an up-sampling residual block per level, then norm, ReLU, convolution, tanh.

    The shorter side of the image must be 4 to 7 times 2^k, and 2^k must divide the longer; k is the number of blocks.
    With classes or float conditions every normalisation but the last is conditional on them. At 32x32 and width 128
    this is the paper's CIFAR network (1,204,483 parameters); its 64x64 network is the recipe `wgan-gp-64`.

    Args:
        image: specification of the images to make.
        latent_dim: length of a latent vector.
        width: channels of every level, unless `widths` is given.
        widths: channels of the smallest level and after each of the k blocks, k + 1 numbers.
        norm: "batch", "layer" (GroupNorm with one group) or "none"; "none" cannot use labels.
        first_bias: whether each block's first convolution has a bias.
        head: "norm" for norm and ReLU before the last convolution, "plain" for ReLU alone.
        fused: convolutions fused with up-sampling; equal up to rounding, faster.

    Raises:
        PartError: the size does not fit, `widths` has the wrong length, or labels cannot be used.
    """

    channels_last = True
    capturable = True

    def __init__(
        self,
        image: ImageSpec,
        *,
        latent_dim: Width = 128,
        width: Width = 128,
        widths: Annotated[list[Width], MinLen(1)] | None = None,
        norm: NormName = "batch",
        first_bias: bool = True,
        head: Literal["norm", "plain"] = "norm",
        fused: bool = True,
    ) -> None:
        super().__init__()
        levels, height, width_ = pyramid(image, "generator resnet")
        channels = widths or [width] * (levels + 1)
        if len(channels) != levels + 1:
            doublings = len(channels) - 1
            # Advise the image's size halved, if widths are too few; else the nearest that starts from 4 pixels or more.
            nearest = [max(round(side / 2**doublings), 4) for side in (image.height, image.width)]
            fitting = [side << doublings for side in ((height, width_) if levels > doublings else nearest)]
            size = str(fitting) if image.height != image.width else fitting[0]
            raise PartError(
                f"generator.widths has {len(channels)} numbers; a {image.height}x{image.width} image takes "
                f"{levels + 1}: set data.size={size}, give as many widths, or take a recipe that chooses them, such "
                "as resnet-small"
            )
        if image.conditional and norm == "none":
            raise PartError("generator resnet uses labels in its normalisation: set generator.norm to batch or layer")
        self.latent_dim = latent_dim
        self.start = (channels[0], height, width_)
        self.linear = nn.Linear(latent_dim, channels[0] * height * width_)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b, "up", norm, image=image, first_bias=first_bias, fused=fused)
            for a, b in itertools.pairwise(channels)
        )
        self.norm = Norm(norm if head == "norm" else "none", channels[-1])
        self.conv = ResampledConv2d(channels[-1], image.channels, 3)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, latent_dim) and labels to (n, channels, height, width) in [-1, 1]."""
        x = self.linear(z).view(-1, *self.start)
        if self.conv.weight.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x, labels)
        images: Tensor = self.conv(F.relu(self.norm(x))).tanh()
        return images
