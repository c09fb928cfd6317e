"""Layers against values computed by hand or in another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gankit_fastgan.layers import (
    SLOPE,
    Decoder,
    GatedUp,
    Noise,
    SkipLayerExcitation,
    _pooled,
    channels_at,
    crop_quarters,
)


def test_excitation_against_loops():
    """Equation 1 of the paper, written out in NumPy: pool to 4x4, 4x4 convolution, leaky ReLU, 1x1, sigmoid, times."""
    torch.manual_seed(0)
    layer = SkipLayerExcitation(3, 2).double()
    small, large = torch.randn(2, 3, 8, 12, dtype=torch.float64), torch.randn(2, 2, 5, 7, dtype=torch.float64)
    made = layer(small, large).detach().numpy()
    squeeze, excite = layer.squeeze.weight.detach().numpy(), layer.excite.weight.detach().numpy()
    biases = layer.squeeze.bias.detach().numpy(), layer.excite.bias.detach().numpy()
    for n in range(2):
        pooled = np.zeros((3, 4, 4))
        for c in range(3):
            for i in range(4):
                for j in range(4):
                    pooled[c, i, j] = small[n, c, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3].mean()
        inner = [float((squeeze[o] * pooled).sum()) + biases[0][o] for o in range(2)]
        inner = [value if value > 0 else SLOPE * value for value in inner]
        for o in range(2):
            sum_ = sum(excite[o, c, 0, 0] * inner[c] for c in range(2)) + biases[1][o]
            gate = 1 / (1 + math.exp(-sum_))
            np.testing.assert_allclose(made[n, o], gate * large[n, o].numpy(), rtol=1e-12)


def test_excitation_by_known_numbers():
    """Weights of one sixteenth give the mean of the small map: here 2, so a gate of 1 / (1 + e^-2)."""
    layer = SkipLayerExcitation(1, 1)
    for parameter, value in zip(layer.parameters(), (1 / 16, 0.0, 1.0, 0.0), strict=True):
        torch.nn.init.constant_(parameter, value)
    small = torch.tensor([1.0, 3.0]).repeat(32).view(1, 1, 8, 8)
    assert layer(small, torch.full((1, 1, 3, 3), 10.0)).flatten().tolist() == pytest.approx([8.807970779] * 9)
    assert layer(-small, torch.full((1, 1, 1, 1), 10.0)).item() == pytest.approx(10 / (1 + math.exp(0.4)))


@pytest.mark.parametrize("sides", [(4, 4), (8, 12), (5, 8), (6, 6)])
def test_excitation_pools_by_what_is_deterministic_where_fields_are_equal(sides, monkeypatch):
    """As torch's adaptive pooling, whose derivative on a GPU is not."""
    maps, plain = torch.randn(2, 3, *sides), F.adaptive_avg_pool2d
    expected, used = plain(maps, 4), []
    monkeypatch.setattr(F, "adaptive_avg_pool2d", lambda *given: used.append(given) or plain(*given))
    torch.testing.assert_close(_pooled(maps), expected)
    assert bool(used) == (sides in ((5, 8), (6, 6)))


def test_gated_up_is_a_gated_convolution_of_the_larger_map():
    """The first half of the channels times the sigmoid of the second; here without normalisation and noise."""
    torch.manual_seed(0)
    layer = GatedUp(3, 5, "none").double()
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    values = F.conv2d(F.interpolate(x, scale_factor=2), layer.conv.weight, layer.conv.bias, padding=1)
    torch.testing.assert_close(layer(x), values[:, :5] / (1 + (-values[:, 5:]).exp()))


def test_noise_is_fresh_in_training_and_fixed_in_evaluation():
    """One map a sample for all channels, from torch's global generator; one map for all samples when sampling."""
    torch.manual_seed(0)
    noise = Noise(4, 6)
    x = torch.zeros(3, 2, 4, 6)
    assert not noise(x).any(), "the factor starts at 0"
    torch.nn.init.constant_(noise.factor, 0.5)
    torch.manual_seed(1)
    first = noise(x)
    assert torch.equal(first[:, 0], first[:, 1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(noise(x), first)
    torch.manual_seed(1)
    assert torch.equal(noise(x), first)
    torch.testing.assert_close(first[:, 0], 0.5 * torch.randn(3, 1, 4, 6, generator=torch.manual_seed(1))[:, 0])
    noise.eval()
    state = torch.get_rng_state()
    fixed = noise(x)
    assert torch.equal(fixed, (0.5 * noise.fixed).expand(3, 2, 4, 6))
    assert torch.equal(torch.get_rng_state(), state), "evaluation draws nothing"
    other = Noise(4, 6)
    other.load_state_dict(noise.state_dict())
    assert torch.equal(other.eval()(x), fixed), "the map is kept with the weights"


def test_channels_halve_with_each_doubling():
    """Down to three, which the paper keeps at 512 pixels and more."""
    assert [channels_at(64, level) for level in range(9)] == [1024, 512, 256, 128, 64, 32, 16, 8, 4]
    assert channels_at(8, 8) == 3


@pytest.mark.parametrize("grid", [(4, 4), (4, 10)])
def test_quarters_are_slices_at_whole_cells(grid):
    """Every place that a corner can give, against plain slicing."""
    n = 40
    corners = torch.rand(n, 2, generator=torch.Generator().manual_seed(0))
    corners[0], corners[1] = torch.zeros(2), torch.ones(2)
    maps = torch.arange(n * 2 * grid[0] * 3 * grid[1] * 3).view(n, 2, grid[0] * 3, grid[1] * 3)
    made = crop_quarters(maps, corners, grid)
    assert made.shape == (n, 2, grid[0] * 3 // 2, grid[1] * 3 // 2)
    seen = set()
    for i in range(n):
        top, left = (min(int(corners[i, a] * (grid[a] // 2 + 1)), grid[a] // 2) for a in (0, 1))
        rows, columns = slice(3 * top, 3 * (top + grid[0] // 2)), slice(3 * left, 3 * (left + grid[1] // 2))
        assert torch.equal(made[i], maps[i, :, rows, columns])
        seen.add((top, left))
    assert {top for top, _ in seen} == {0, 1, 2}


def test_quarters_show_the_same_part_at_every_resolution():
    """What a cell holds is the mean of its pixels, so that cropping and pooling commute."""
    torch.manual_seed(0)
    images, corners = torch.randn(8, 3, 32, 48), torch.rand(8, 2)
    small = crop_quarters(F.avg_pool2d(images, 4), corners, (8, 12))
    torch.testing.assert_close(small, F.avg_pool2d(crop_quarters(images, corners, (8, 12)), 4))


def test_decoder_doubles_as_often_as_asked():
    """Four doublings take 8x8 to the paper's 128x128."""
    decoder = Decoder(4, 1, 32, 3, 4, "batch")
    images = decoder(torch.randn(2, 32, 8, 8))
    assert images.shape == (2, 3, 128, 128)
    assert images.abs().max() <= 1
    assert [block.conv.out_channels // 2 for block in decoder.blocks] == [16, 8, 4, 3]
