"""Critics whose slopes are known, in float64, and forty cases of what they are given."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

SHAPES = st.lists(st.integers(1, 4), min_size=0, max_size=4)
COUNTS = st.integers(1, 6)
SEEDS = st.integers(0, 2**32 - 1)


def cases(*strategies):
    """The same forty cases every time."""
    return lambda test: settings(deadline=None, max_examples=40, derandomize=True)(given(*strategies)(test))


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def linear(weight):
    return lambda images: (images * weight)[:, None].flatten(1).sum(1)


def half_square(images):
    """A critic whose slope is the image itself."""
    return images[:, None].flatten(1).square().sum(1) / 2


def network(size, seed=0):
    """A smooth critic with parameters, in float64."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 5), nn.Softplus(), nn.Linear(5, 1)).double()


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)
