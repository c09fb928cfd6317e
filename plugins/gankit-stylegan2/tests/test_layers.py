"""Layers against values computed by hand or in another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gankit.nn.noise import Noise
from torch.nn import functional as F

from gankit_stylegan2.layers import (
    EqualConv2d,
    EqualLinear,
    Filter,
    MinibatchStatistics,
    ModulatedConv2d,
    activate,
    channels_at,
    normalise,
)

DOUBLE = torch.float64
KERNEL = torch.outer(*[torch.tensor([1, 3, 3, 1], dtype=DOUBLE) / 8] * 2)


def insert_zeros(x):
    """(n, c, h, w) to twice the size, with zeros after each value."""
    larger = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    larger[:, :, ::2, ::2] = x
    return larger


def filtered(x, before, after):
    """The map with zeros around, filtered."""
    return F.conv2d(F.pad(x.flatten(0, 1)[:, None], (before, after) * 2), KERNEL[None, None]).view(
        *x.shape[:2], *(side + before + after - 3 for side in x.shape[2:])
    )


def grouped(layer, x, style):
    """A modulated convolution as the paper writes it: every sample has weights of its own (equations 1 and 3)."""
    weight = layer.weight * layer.scale * layer.style(style)[:, None, :, None, None]
    if layer.demodulate:
        weight = weight / (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    n, channels_out, channels_in, size, _ = weight.shape
    flat = x.reshape(1, n * channels_in, *x.shape[2:])
    if layer.filter is None:
        y = F.conv2d(flat, weight.flatten(0, 1), padding=size // 2, groups=n)
        return y.view(n, channels_out, *y.shape[2:])
    transposed = weight.transpose(1, 2).flatten(0, 1)
    y = F.conv_transpose2d(flat, transposed, stride=2, groups=n)
    return 4 * filtered(y.view(n, channels_out, *y.shape[2:]), 1, 1)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_scaling_equals_a_grouped_convolution(up, demodulate):
    """Inputs and outputs are scaled in place of weights."""
    torch.manual_seed(0)
    layer = ModulatedConv2d(3, 5, 3, 4, up=up, demodulate=demodulate).double()
    x, style = torch.randn(2, 3, 4, 6, dtype=DOUBLE), torch.randn(2, 4, dtype=DOUBLE)
    torch.testing.assert_close(layer(x, style), grouped(layer, x, style))


def test_demodulated_outputs_have_unit_variance():
    """Whatever the style, for inputs of unit variance: the assumption of equation 3."""
    torch.manual_seed(0)
    layer = ModulatedConv2d(64, 32, 3, 8)
    x, style = torch.randn(16, 64, 24, 24), 3 * torch.randn(16, 8)
    with torch.no_grad():
        variance = layer(x, style)[:, :, 1:-1, 1:-1].var((2, 3))
        plain = layer.style(style).square().mean(1)
    assert plain.max() > 4 * plain.min(), "styles differ in strength"
    np.testing.assert_allclose(variance.mean(1), 1, atol=0.1)


@pytest.mark.parametrize("up", [False, True])
def test_modulated_convolutions_have_right_first_and_second_derivatives(up):
    """By the map, the style and the weight, beside finite differences."""
    torch.manual_seed(0)
    layer = ModulatedConv2d(2, 2, 3, 2, up=up).double()
    x = torch.randn(1, 2, 3, 3, dtype=DOUBLE, requires_grad=True)
    style = torch.randn(1, 2, dtype=DOUBLE, requires_grad=True)

    def images(x, style, weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x, style)).tanh()

    inputs = (x, style, layer.weight)
    assert torch.autograd.gradcheck(images, inputs)
    assert torch.autograd.gradgradcheck(images, inputs)


def test_resampling_is_that_of_the_filter():
    """Zeros between the values, then [1, 3, 3, 1] in both directions; to halve, every second value of it."""
    torch.manual_seed(0)
    layer, x = Filter().double(), torch.randn(2, 3, 6, 8, dtype=DOUBLE)
    torch.testing.assert_close(layer.double_size(x), 4 * filtered(insert_zeros(x), 2, 1))
    torch.testing.assert_close(layer.halve(x), filtered(x, 1, 1)[:, :, ::2, ::2])
    constant = layer.double_size(torch.ones(1, 1, 6, 6, dtype=DOUBLE))
    torch.testing.assert_close(constant[:, :, 1:-1, 1:-1], torch.ones(1, 1, 10, 10, dtype=DOUBLE))


@pytest.mark.parametrize("size", [1, 3])
def test_a_halving_convolution_sees_the_filtered_map(size):
    """The filter first, then every second position of the convolution."""
    torch.manual_seed(0)
    layer = EqualConv2d(3, 5, size, "down").double()
    x = torch.randn(2, 3, 6, 8, dtype=DOUBLE)
    before = size // 2 + 1
    expected = F.conv2d(filtered(x, before, before), layer.weight * layer.scale, layer.bias)[:, :, ::2, ::2]
    torch.testing.assert_close(layer(x), expected)


def test_an_up_sampling_convolution_sees_zeros_between_the_values():
    """A 3x3 convolution of the map with zeros, then the filter."""
    torch.manual_seed(0)
    layer = ModulatedConv2d(3, 5, 3, 4, up=True, demodulate=False).double()
    torch.nn.init.zeros_(layer.style.weight)  # so that every factor is 1
    x = torch.randn(2, 3, 4, 6, dtype=DOUBLE)
    convolved = F.conv2d(F.pad(insert_zeros(x), (2, 1, 2, 1)), layer.weight.flip(2, 3) * layer.scale)
    torch.testing.assert_close(layer(x, torch.zeros(2, 4, dtype=DOUBLE)), 4 * filtered(convolved, 1, 1))


@pytest.mark.parametrize("layer", [EqualLinear(400, 300), EqualLinear(400, 300, rate=0.01)])
def test_equalised_layers_keep_the_variance_whatever_their_rate(layer):
    """Activated inputs of unit mean square give outputs of unit variance."""
    torch.manual_seed(0)
    x = activate(torch.randn(200, 400))
    assert x.square().mean().item() == pytest.approx(1.04, rel=0.05)
    assert layer(x).var().item() == pytest.approx(1.04, rel=0.1)


def test_the_rate_scales_what_a_step_changes():
    """A step of one size in every weight changes the output by the rate."""
    changes = []
    for rate in (1.0, 0.01):
        layer, x = EqualLinear(4, 1, rate=rate, bias=2.0), torch.ones(1, 4)
        before = layer(x)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(1.0)
        changes.append((layer(x) - before).item())
    assert changes == pytest.approx([3.0, 0.03], rel=1e-3)


def test_normalised_latents_have_unit_mean_square():
    """Row by row; zeros stay zeros."""
    x = torch.cat([5 * torch.randn(3, 8), torch.zeros(1, 8)])
    assert normalise(x).square().mean(1).tolist() == pytest.approx([1, 1, 1, 0], abs=1e-5)


def test_statistics_are_those_of_neighbours():
    """Groups of four; the mean over features of their standard deviation, the same for all samples of a group."""
    torch.manual_seed(0)
    layer, x = MinibatchStatistics(4), torch.randn(8, 3, 2, 5)
    made = layer(x)
    assert torch.equal(made[:, :3], x)
    for first in (0, 4):
        spread = x[first : first + 4].numpy().std(0).mean()
        np.testing.assert_allclose(made[first : first + 4, 3], np.full((4, 2, 5), spread), rtol=1e-5)


def test_statistics_have_right_first_and_second_derivatives():
    """Through the spread, from every sample of a group to every other."""
    layer, x = MinibatchStatistics(2).double(), torch.randn(4, 1, 2, 2, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x).tanh(), x)
    assert torch.autograd.gradgradcheck(lambda x: layer(x).tanh(), x)


@pytest.mark.parametrize(("n", "group"), [(6, 3), (5, 1), (2, 2), (1, 1), (12, 4)])
def test_groups_divide_the_batch(n, group):
    """The largest number up to four that does."""
    torch.manual_seed(0)
    x = torch.randn(n, 2, 3, 3)
    made = MinibatchStatistics(4)(x)[:, 2, 0, 0]
    assert made[:group].unique().numel() == 1
    assert made[0].item() == pytest.approx(x[:group].numpy().std(0).mean(), abs=1e-3)


def test_statistics_in_evaluation_are_those_of_training():
    """Their running mean, so that a score depends on its image alone."""
    torch.manual_seed(0)
    layer = MinibatchStatistics(4)
    for _ in range(600):
        layer(3 * torch.randn(8, 2, 4, 4))
    spread = layer.eval()(torch.zeros(1, 2, 4, 4))[0, 2]
    assert spread.unique().numel() == 1
    assert spread[0, 0].item() == pytest.approx(2.4, rel=0.1)


def test_noise_is_fresh_in_training_and_fixed_in_evaluation():
    """One map a sample for all channels, from torch's global generator; one map for all samples when sampling."""
    torch.manual_seed(0)
    noise, x = Noise(4, 6), torch.zeros(3, 2, 4, 6)
    assert not noise(x).any(), "the factor starts at 0"
    torch.nn.init.constant_(noise.factor, 0.5)
    first = noise(x)
    assert torch.equal(first[:, 0], first[:, 1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(noise(x), first)
    assert torch.equal(noise.eval()(x), (0.5 * noise.fixed).expand(3, 2, 4, 6))


def test_channels_of_config_f():
    """512 up to 64 pixels, then half as many with each doubling."""
    assert [channels_at(512, 512, level) for level in range(9)] == [512] * 5 + [256, 128, 64, 32]
    assert channels_at(1, 8, 9) == 1
