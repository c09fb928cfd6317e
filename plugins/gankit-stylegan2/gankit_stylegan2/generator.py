"""The generator of Karras et al. 2020 (StyleGAN2, arXiv 1912.04958, sections 2 and 4.1)."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Annotated, Self, final

import torch
from annotated_types import Ge, Le
from gankit.interfaces import Generator, ImageSpec
from gankit.nn.layers import LabelEmbedding, pyramid
from gankit.nn.noise import Noise
from torch import Tensor, nn

from gankit_stylegan2.layers import EqualLinear, Filter, ModulatedConv2d, activate, channels_at, normalise

Width = Annotated[int, Ge(1)]
MAPPING_RATE = 0.01
"""The rate of the mapping network relative to the others (arXiv 1812.04948, appendix C)."""
MEAN_RATE = 0.005
"""How fast the mean style follows the styles of each batch."""


class StyledLayer(nn.Module):
    """A modulated 3x3 convolution, noise, a bias and a leaky ReLU.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        style_dim: length of a style.
        up: doubles the map.
        noise: height and width of the output where noise is added, else None.
    """

    def __init__(
        self, channels_in: int, channels_out: int, style_dim: int, *, up: bool = False,
        noise: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = ModulatedConv2d(channels_in, channels_out, 3, style_dim, up=up)
        self.noise = nn.Identity() if noise is None else Noise(*noise)
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(n, channels_in, h, w) and (n, style_dim) to (n, channels_out, h', w')."""
        return activate(self.noise(self.conv(x, style)) + self.bias[:, None, None])


class ToImage(nn.Module):
    """A modulated 1x1 convolution without demodulation, and a bias.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the image.
        style_dim: length of a style.
    """

    def __init__(self, channels_in: int, channels_out: int, style_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(channels_in, channels_out, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(n, channels_in, h, w) and (n, style_dim) to (n, channels_out, h, w)."""
        images: Tensor = self.conv(x, style) + self.bias[:, None, None]
        return images


@final
class StyleGAN2Generator(Generator):
    """Latents become styles, which scale the weights of every convolution; each level adds to the image (output skips).

    The shorter side of the image must be 4 to 7 times 2^k, and 2^k must divide the longer. Labels are embedded and join
    the latent before the mapping network (arXiv 2006.06676, appendix C). At 256x256 it has 30,034,338 parameters, as
    config F. Unlike the paper's, it ends on tanh, so that images are in [-1, 1].

    Args:
        image: specification of the images to make.
        latent_dim: length of a latent vector.
        style_dim: length of a style, and of the layers of the mapping network.
        mapping_layers: number of those layers.
        width: channels where the shorter side is 64 to 127 pixels; twice as many at half the side.
        max_width: the most channels of any level.
        mixing: probability that a training sample takes its later layers' styles from a second latent.
        noise: whether each convolution adds noise; see `gankit.nn.noise.Noise`.

    Raises:
        PartError: the size does not fit.
    """

    channels_last = True
    capturable = True
    mean_style: Tensor
    truncation: float = 1.0

    def __init__(
        self,
        image: ImageSpec,
        *,
        latent_dim: Width = 512,
        style_dim: Width = 512,
        mapping_layers: Width = 8,
        width: Width = 512,
        max_width: Width = 512,
        mixing: Annotated[float, Ge(0), Le(1)] = 0.9,
        noise: bool = True,
    ) -> None:
        super().__init__()
        levels, height, width_ = pyramid(image, "generator stylegan2")
        self.latent_dim, self.mixing, self.style_layers = latent_dim, mixing, 2 * levels + 2
        self.embedding = _label_embedding(image, style_dim) if image.conditional else None
        dims = [latent_dim + (style_dim if image.conditional else 0), *[style_dim] * mapping_layers]
        self.mapping_network = nn.ModuleList(EqualLinear(a, b, rate=MAPPING_RATE) for a, b in pairwise(dims))
        self.register_buffer("mean_style", torch.zeros(style_dim))
        channels = [channels_at(width, max_width, level) for level in range(levels + 1)]
        self.start = nn.Parameter(torch.randn(channels[0], height, width_))
        self.layers, self.to_image = nn.ModuleList(), nn.ModuleList()
        for level, channels_out in enumerate(channels):
            size = (height << level, width_ << level) if noise else None
            if level:
                self.layers.append(StyledLayer(channels[level - 1], channels_out, style_dim, up=True, noise=size))
            self.layers.append(StyledLayer(channels_out, channels_out, style_dim, noise=size))
            self.to_image.append(ToImage(channels_out, image.channels, style_dim))
        self.filter = Filter()

    def mapping(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, latent_dim) latents and labels to (n, style_dim) styles, never truncated."""
        x = normalise(z)
        if self.embedding is not None:
            x = torch.cat([x, normalise(self.embedding(labels))], 1)
        for layer in self.mapping_network:
            x = activate(layer(x))
        return x

    def synthesis(self, styles: Tensor) -> Tensor:
        """(n, style_layers, style_dim), a style for each layer, to (n, channels, height, width) in [-1, 1].

        In training the noise is drawn from torch's global generator; in evaluation it is fixed.
        """
        style = styles.unbind(1)
        x = self.start.expand(len(styles), -1, -1, -1)
        if self.layers[0].get_parameter("conv.weight").is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.layers[0](x, style[0])
        images: Tensor = self.to_image[0](x, style[1])
        for level in range(1, len(self.to_image)):
            x = self.layers[2 * level - 1](x, style[2 * level - 1])
            x = self.layers[2 * level](x, style[2 * level])
            images = self.filter.double_size(images) + self.to_image[level](x, style[2 * level + 1])
        return images.tanh()

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, latent_dim) and labels to (n, channels, height, width) in [-1, 1].

        In training styles are mixed and their mean is followed; in evaluation they are truncated.
        """
        style = self.mapping(z, labels)
        if self.training:
            with torch.no_grad():
                self.mean_style.lerp_(style.mean(0).to(self.mean_style), MEAN_RATE)
            if self.mixing:
                return self.synthesis(self._mixed(style, labels))
        elif self.truncation != 1:
            style = torch.lerp(self.mean_style, style, self.truncation)
        return self.synthesis(style[:, None].expand(-1, self.style_layers, -1))

    def _mixed(self, style: Tensor, labels: Tensor | None) -> Tensor:
        """Styles of all layers, the later ones of some samples from second latents (arXiv 1812.04948, section 3.1)."""
        n, device = len(style), style.device
        other = self.mapping(torch.randn(n, self.latent_dim, dtype=style.dtype, device=device), labels)
        first = torch.randint(1, self.style_layers, (n, 1), device=device)
        late = torch.arange(self.style_layers, device=device) >= first
        mixes = torch.rand(n, 1, device=device) < self.mixing
        return torch.where((late & mixes)[:, :, None], other[:, None], style[:, None])

    def truncated(self, truncation: float) -> Self:
        """The generator with the same weights whose styles keep this share of their distance from the mean style.

        Karras et al. 2019, arXiv 1812.04948, appendix B.
        """
        other = copy.copy(self)
        other.truncation = truncation
        return other


def _label_embedding(image: ImageSpec, dim: int) -> LabelEmbedding:
    """Vectors of labels that are drawn as every weight with equalised rate; they are normalised before they are used.

    Of a float condition the bias is drawn too. Without it a vector's direction would be all that tells conditions
    apart, and half of a condition as good as the whole.
    """
    embedding = LabelEmbedding(image, dim, 0.0)
    for parameter in embedding.parameters():
        nn.init.normal_(parameter)
    return embedding
