"""Layers beside the authors' code, for equal weights, in float64.

Where a clone of that code is here, which is no longer under its first name: `FASTGAN=CLONE pytest`.
Their spectral normalisation is taken away, and excitation has their activation and no biases.
"""

from __future__ import annotations

import importlib
import os
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gankit_fastgan import layers

CLONE = os.environ.get("FASTGAN")
pytestmark = pytest.mark.skipif(not CLONE, reason="FASTGAN names no clone of the authors' code")


@pytest.fixture
def models(monkeypatch):
    """Their networks' module."""
    monkeypatch.syspath_prepend(CLONE)
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield importlib.import_module("models")
    torch.set_default_dtype(torch.float)
    del sys.modules["models"]


def assert_alike(theirs, ours, *inputs):
    """Outputs and slopes for equal weights, which both have in one order."""
    for module in theirs.modules():
        if hasattr(module, "weight_orig"):
            nn.utils.remove_spectral_norm(module)
    convolutions = [
        [module for module in network.modules() if isinstance(module, nn.Conv2d)] for network in (theirs, ours)
    ]
    for their, our in zip(*convolutions, strict=True):
        our.weight.data.copy_(their.weight.data)
        if our.bias is not None:
            our.bias.data.zero_()
    expected, found = theirs(*inputs), ours(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    weights = torch.randn_like(found)
    slopes = [torch.autograd.grad((maps * weights).sum(), inputs) for maps in (expected, found)]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-10, atol=1e-12)


def test_layers_that_double_and_halve_maps_are_theirs(models):
    """Those of the paper, which have one convolution and no noise, and the residual ones."""
    x = torch.randn(3, 6, 8, 8, requires_grad=True)
    assert_alike(models.UpBlock(6, 5), layers.GatedUp(6, 5), x)
    assert_alike(models.DownBlockComp(6, 10), layers.ResidualDown(6, 10, "batch"), x)


def test_excitation_is_theirs_but_for_the_activation(models, monkeypatch):
    """Swish in the place of a leaky ReLU."""
    x, large = torch.randn(3, 6, 8, 8, requires_grad=True), torch.randn(3, 4, 32, 32, requires_grad=True)
    theirs, ours = models.SEBlock(6, 4), layers.SkipLayerExcitation(6, 4)
    with pytest.raises(AssertionError):
        assert_alike(theirs, ours, x, large)
    monkeypatch.setattr(F, "leaky_relu", lambda x, slope: F.silu(x))
    assert_alike(theirs, ours, x, large)
