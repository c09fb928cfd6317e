"""Rows of features whose moments are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def rows(n: int, d: int, seed: int = 0, decay: float = 0.0) -> Array:
    return np.random.default_rng(seed).normal(size=(n, d)) * np.arange(1, d + 1) ** -decay


def rotation(d: int, seed: int = 0) -> Array:
    return np.linalg.qr(rows(d, d, seed))[0]


def moments(x: Array) -> tuple[Array, Array]:
    return x.mean(0), np.atleast_2d(np.cov(x.T))


def whitened(n: int, d: int, seed: int) -> Array:
    """Rows whose sample mean is 0 and whose sample covariance is the identity."""
    x = rows(n, d, seed)
    x -= x.mean(0)
    return np.linalg.qr(x)[0] * math.sqrt(n - 1)
