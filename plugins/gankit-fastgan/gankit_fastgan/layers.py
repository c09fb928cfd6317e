"""Layers of both networks: gated up-sampling, skip-layer excitation, residual down-sampling, crops."""

from __future__ import annotations

from collections import OrderedDict

import torch
from gankit.interfaces import ImageSpec
from gankit.nn.layers import Norm, NormName, ResampledConv2d
from gankit.nn.noise import Noise
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2
"""The negative slope of every leaky ReLU."""


def channels_at(width: int, level: int) -> int:
    """Channels of a map whose shorter side is 4 to 7 times 2^level: halved with each doubling, never below 3.

    The paper gives only one number of channels: three where the side is 512 or more.
    """
    return max(16 * width >> level, 3)


def level_name(level: int) -> str:
    """The name of the layer whose output has that level."""
    return f"level{level}"


class GatedUp(nn.Module):
    """Nearest up-sampling, one 3x3 convolution, noise, normalisation and a gated linear unit (arXiv 1612.08083).

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        norm: the normalisation.
        noise: height and width of the output where noise is added, else None.
        image: makes the normalisation conditional where it has labels.
    """

    def __init__(
        self, channels_in: int, channels_out: int, norm: NormName = "batch", noise: tuple[int, int] | None = None,
        image: ImageSpec | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = ResampledConv2d(channels_in, 2 * channels_out, 3, "up", bias=norm == "none")
        self.noise = nn.Identity() if noise is None else Noise(*noise)
        self.norm = Norm(norm, 2 * channels_out, image)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, channels_in, h, w) and labels to (n, channels_out, 2 h, 2 w)."""
        return F.glu(self.norm(self.noise(self.conv(x)), labels), 1)


class SkipLayerExcitation(nn.Module):
    """Gates the channels of a large map by a small one: y = F(small) * large (section 3.1, equation 1).

    F pools the small map to 4x4; a 4x4 convolution makes it 1x1, a leaky ReLU and a 1x1 convolution follow, and a
    sigmoid gives one gate per channel.

    Args:
        channels_small: channels of the small map.
        channels_large: channels of the large map.
    """

    def __init__(self, channels_small: int, channels_large: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels_small, channels_large, 4)
        self.excite = nn.Conv2d(channels_large, channels_large, 1)

    def forward(self, small: Tensor, large: Tensor) -> Tensor:
        """(n, channels_small, h, w) and (n, channels_large, h', w') to (n, channels_large, h', w')."""
        inner = F.leaky_relu(self.squeeze(_pooled(small)), SLOPE)
        gates: Tensor = self.excite(inner).sigmoid()
        return large * gates


def _pooled(maps: Tensor) -> Tensor:
    """The means of (n, c, h, w) maps over 4x4 fields."""
    height, width = maps.shape[2:]
    if height % 4 or width % 4:
        return F.adaptive_avg_pool2d(maps, 4)  # whose derivative on a GPU does not always compute the same
    return F.avg_pool2d(maps, (height // 4, width // 4))


class ResidualDown(nn.Module):
    """Halves a map on two paths and takes their mean: two convolutions, or pooling and a 1x1 convolution.

    Every convolution is followed by normalisation and a leaky ReLU.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        norm: the normalisation.
    """

    def __init__(self, channels_in: int, channels_out: int, norm: NormName) -> None:
        super().__init__()
        bias = norm == "none"
        self.conv1 = nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1, bias=bias)
        self.norm1 = Norm(norm, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=bias)
        self.norm2 = Norm(norm, channels_out)
        self.shortcut = ResampledConv2d(channels_in, channels_out, 1, "down", bias=bias)
        self.norm3 = Norm(norm, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels_in, h, w) to (n, channels_out, h / 2, w / 2)."""
        inner = F.leaky_relu(self.norm1(self.conv1(x)), SLOPE)
        inner = F.leaky_relu(self.norm2(self.conv2(inner)), SLOPE)
        return (inner + F.leaky_relu(self.norm3(self.shortcut(x)), SLOPE)) / 2


class Decoder(nn.Module):
    """Feature maps to a small image: gated up-sampling `doublings` times, a 3x3 convolution, tanh (section 3.2).

    Args:
        width: as the critic's.
        level: of the maps; channels follow `channels_at`.
        channels_in: channels of the maps.
        channels_out: channels of the image.
        doublings: how often the side is doubled; 4 in the paper.
        norm: the normalisation.
    """

    def __init__(
        self, width: int, level: int, channels_in: int, channels_out: int, doublings: int, norm: NormName
    ) -> None:
        super().__init__()
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for n in range(level + 1, level + doublings + 1):
            channels = channels_at(width, n)
            blocks[level_name(n)] = GatedUp(channels_in, channels, norm)
            channels_in = channels
        self.blocks = nn.Sequential(blocks)
        self.conv = ResampledConv2d(channels_in, channels_out, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels_in, h, w) to (n, channels_out, h * 2^doublings, w * 2^doublings) in [-1, 1]."""
        images: Tensor = self.conv(self.blocks(x)).tanh()
        return images


def crop_quarters(maps: Tensor, corners: Tensor, grid: tuple[int, int]) -> Tensor:
    """Crop every sample to half its height and width, at whole cells of a grid.

    With equal corners and grids, feature maps and images are cropped to the same region.

    Args:
        maps: (n, c, h, w), where h and w are multiples of the grid's sides.
        corners: (n, 2) in [0, 1): where the crop lies, from top to bottom and from left to right.
        grid: even numbers of cells in height and width.

    Returns:
        (n, c, h / 2, w / 2).
    """
    positions = []
    for axis, cells in enumerate(grid):
        size = maps.shape[2 + axis]
        # In half precision a draw may be rounded up to 1.
        first = (corners[:, axis] * (cells // 2 + 1)).long().clamp(max=cells // 2) * (size // cells)
        positions.append(first[:, None] + torch.arange(size // 2, device=maps.device))
    sample = torch.arange(len(maps), device=maps.device)[:, None, None]
    rows, columns = positions
    return maps[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
