"""Layers of both networks: equalised rates, filtered resampling, modulated convolutions, batch statistics."""

from __future__ import annotations

from typing import Literal

import torch
from gankit.nn.layers import conv2d, leaky_relu
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2
"""The negative slope of every leaky ReLU."""
EPSILON = 1e-8


def channels_at(width: int, most: int, level: int) -> int:
    """Channels of a map whose shorter side is 4 to 7 times 2^level: `width` at level 4, halved with each doubling.

    Never more than `most`. With 512 for both these are the channels of config F.
    """
    return max(min(16 * width >> level, most), 1)


def activate(x: Tensor) -> Tensor:
    """(n, ...) leaky ReLU times the square root of 2, which keeps the variance of the inputs."""
    return leaky_relu(x, SLOPE) * 2**0.5


def normalise(x: Tensor) -> Tensor:
    """(n, d) divided by the root of each row's mean square (arXiv 1710.10196, section 4.2)."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + EPSILON)


class EqualLinear(nn.Module):
    """A linear map with equalised rate (Karras et al. 2018, arXiv 1710.10196, section 4.1).

    Weights are drawn from a standard normal distribution and divided by the root of the fan-in at each use, so that
    optimisers such as Adam change all layers at the same relative speed.

    Args:
        dim_in: length of an input.
        dim_out: length of an output.
        bias: at the start.
        rate: of this layer, relative to the others.
    """

    def __init__(self, dim_in: int, dim_out: int, *, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim_out, dim_in) / rate)
        self.bias = nn.Parameter(torch.full((dim_out,), bias / rate))
        self.rate, self.scale = rate, rate * dim_in**-0.5

    def forward(self, x: Tensor) -> Tensor:
        """(n, dim_in) to (n, dim_out)."""
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class Filter(nn.Module):
    """The low-pass filter [1, 3, 3, 1] in both directions, alone or with resampling (arXiv 1912.04958, appendix B).

    Maps count as 0 outside.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", (taps[:, None] * taps)[None, None], persistent=False)

    def forward(self, x: Tensor, padding: int, stride: int = 1, gain: float = 1.0) -> Tensor:
        """(n, c, h, w) to (n, c, h', w'): every `stride`-th value of the filtered map, times `gain`."""
        kernel = (self.kernel * gain).expand(x.shape[1], -1, -1, -1)
        return F.conv2d(x, kernel, stride=stride, padding=padding, groups=x.shape[1])

    def double_size(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to (n, c, 2 h, 2 w)."""
        kernel = (self.kernel * 4).expand(x.shape[1], -1, -1, -1)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])

    def halve(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to (n, c, h / 2, w / 2)."""
        halved: Tensor = self(x, padding=1, stride=2)
        return halved


class EqualConv2d(nn.Module):
    """A same-size or halving convolution with equalised rate.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        size: of the kernel.
        resample: "down" halves the map, filtered.
        bias: whether there is one.
    """

    def __init__(
        self, channels_in: int, channels_out: int, size: int, resample: Literal["down"] | None = None,
        *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, size, size))
        self.bias = nn.Parameter(torch.zeros(channels_out)) if bias else None
        self.scale, self.padding = self.weight[0].numel() ** -0.5, size // 2
        self.filter = Filter() if resample == "down" else None

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels_in, h, w) to (n, channels_out, h', w')."""
        weight = self.weight * self.scale
        if self.filter is None:
            return conv2d(x, weight, self.bias, 1, self.padding)
        if self.padding == 0:  # a 1x1 convolution of what is left after halving
            return conv2d(self.filter.halve(x), weight, self.bias, 1, 0)
        return conv2d(self.filter(x, padding=2), weight, self.bias, 2, 0)


class ModulatedConv2d(nn.Module):
    """A convolution whose weights each sample's style scales by input channel (arXiv 1912.04958, section 2.2).

    Equation 1 modulates: w'_ijk = s_i w_ijk. Equation 3 demodulates: w''_ijk = w'_ijk / sqrt(sum_ik w'_ijk^2 + eps),
    so that inputs of unit variance give outputs of unit variance. As a convolution is linear, inputs are scaled by s
    and outputs over the root, around one convolution with weights that all samples share; a grouped convolution, with
    weights for each sample, gives the same and takes longer.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        size: of the kernel.
        style_dim: length of a style.
        up: doubles the map, filtered.
        demodulate: whether equation 3 applies.
    """

    def __init__(
        self, channels_in: int, channels_out: int, size: int, style_dim: int, *, up: bool = False,
        demodulate: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, size, size))
        self.style = EqualLinear(style_dim, channels_in, bias=1.0)
        self.scale, self.padding, self.demodulate = self.weight[0].numel() ** -0.5, size // 2, demodulate
        self.filter = Filter() if up else None

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(n, channels_in, h, w) and (n, style_dim) to (n, channels_out, h', w')."""
        factors, weight = self.style(style), self.weight * self.scale
        x = x * factors[:, :, None, None]
        if self.filter is None:
            y = conv2d(x, weight, None, 1, self.padding)
        else:
            y = self.filter(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), padding=1, gain=4.0)
        if self.demodulate:
            power = factors.square() @ weight.square().sum((2, 3)).T
            y = y * torch.rsqrt(power + EPSILON)[:, :, None, None]
        return y


class MinibatchStatistics(nn.Module):
    """Adds a map with the spread of features over groups of samples (arXiv 1710.10196, section 3).

    Groups are neighbours in the batch: as many of `group` samples as fit, or of the next smaller number that divides
    the batch. In evaluation the map holds the running mean of training, so that a score depends on its image alone.

    Args:
        group: samples of a group; with 1 the map is constant.
    """

    running: Tensor

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group
        self.register_buffer("running", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to (n, c + 1, h, w)."""
        n, _, height, width = x.shape
        if not self.training:
            return torch.cat([x, self.running.to(x).expand(n, 1, height, width)], 1)
        group = next(size for size in range(min(self.group, n), 0, -1) if n % size == 0)
        groups = x.view(n // group, group, *x.shape[1:])
        spread = (groups.var(1, correction=0) + EPSILON).sqrt().mean((1, 2, 3))
        with torch.no_grad():
            self.running.lerp_(spread.mean().to(self.running), 0.01)
        maps = spread[:, None].expand(-1, group).reshape(n, 1, 1, 1)
        return torch.cat([x, maps.expand(-1, -1, height, width)], 1)
