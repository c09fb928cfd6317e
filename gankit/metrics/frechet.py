"""Frechet distance of two Gaussian fits: Heusel et al. 2017, arXiv 1706.08500, eq. 6; Dowson and Landau 1982.

With A = (X - mean) / sqrt(n - 1) and B likewise, the covariances are A'A and B'B, and the troublesome trace of
sqrt(A'A B'B) is the nuclear norm of A B': real, not negative, and free of the square roots of rounding errors that
forming the product of covariances brings. One path serves all inputs, since only factors of the covariances matter:
rows themselves, their triangular factors, or the roots that an eigendecomposition gives.
"""

from __future__ import annotations

import math
import operator
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gankit.errors import GankitError
from gankit.interfaces import Batch, Metric

_Matrix = NDArray[np.float64]

_NEGATIVE_SHARE = 1e-10
"""The largest negative part of a covariance's spectrum, as a share of its trace, that rounding explains."""

_UNIT = float(np.finfo(np.float64).eps)


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Squared Frechet distance between the Gaussian fits of two sets of features.

    Exact for any number of rows, in float64. Sets that cannot be told apart within rounding (equal ones, in any
    order of rows) give exactly 0. The value is biased upwards for few rows: never compare values of different n.

    Args:
        x: (n, d) finite features, any float or integer type; not modified.
        y: (m, d) finite features.

    Returns:
        |mean(x) - mean(y)|^2 + tr(Sx + Sy - 2 sqrt(Sx Sy)) with unbiased covariances, in squared feature units.

    Raises:
        GankitError: fewer than 2 rows, different d, or values that are not finite.
    """
    first, second = _features(x, "x"), _features(y, "y")
    if first.shape[1] != second.shape[1]:
        raise GankitError(f"features differ in dimension: x is {first.shape}, y is {second.shape}; use one extractor")
    mean_x, mean_y = first.mean(0), second.mean(0)
    # A mean of n values is off by n rounding errors of their average size, at most.
    slack = _UNIT * (len(first) * np.abs(first).mean(0) + len(second) * np.abs(second).mean(0))
    shift = _squared(mean_x - mean_y)
    if shift <= _squared(slack):
        shift = 0.0
    root_x = (first - mean_x) / math.sqrt(len(first) - 1)
    root_y = (second - mean_y) / math.sqrt(len(second) - 1)
    if min(root_x.shape[0], root_y.shape[0]) >= root_x.shape[1]:
        # The triangular factors have the same A'A and are no longer than wide. With a short side, A B' is thin, and
        # cheaper than any factorisation of the long side.
        root_x, root_y = np.linalg.qr(root_x, mode="r"), np.linalg.qr(root_y, mode="r")
    return shift + _covariance_term(root_x, root_y)


def frechet_distance_from_moments(mu1: ArrayLike, sigma1: ArrayLike, mu2: ArrayLike, sigma2: ArrayLike) -> float:
    """Squared Frechet distance between two Gaussians.

    Equal arguments give exactly 0. Where rows are at hand, `frechet_distance` is more accurate.

    Args:
        mu1: (d,) mean.
        sigma1: (d, d) covariance.
        mu2: (d,) mean.
        sigma2: (d, d) covariance.

    Returns:
        |mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 sqrt(sigma1 sigma2)).

    Raises:
        GankitError: shapes that do not fit, values that are not finite, or a matrix that is no covariance: not
            symmetric, or with a negative part above 1e-10 of its trace.
    """
    mean1, root1 = _moments(mu1, sigma1, "1")
    mean2, root2 = _moments(mu2, sigma2, "2")
    if mean1.shape != mean2.shape:
        raise GankitError(f"moments differ in dimension: mu1 is {mean1.shape}, mu2 is {mean2.shape}")
    return _squared(mean1 - mean2) + _covariance_term(root1, root2)


@final
class Frechet(Metric):
    """The Frechet distance between real and generated images in feature space.

    Called FID only for Inception features with clean-fid's resize. Feature rows of both sides are kept, so that merged
    metrics give what one pass gives.
    """

    real: list[NDArray[Any]]
    fake: list[NDArray[Any]]

    def __init__(self) -> None:
        self.add_state("real", list, operator.add)
        self.add_state("fake", list, operator.add)

    def update(self, batch: Batch) -> None:
        """Take in (n, d) features of real or of generated images."""
        if batch.features is None:
            raise GankitError("the frechet metric needs features, and this batch has none")
        # A copy: the caller may fill its buffer again.
        (self.real if batch.real else self.fake).append(np.array(batch.features))

    def compute(self) -> dict[str, float]:
        """`frechet`, at least 0.

        Raises:
            GankitError: as `frechet_distance`, or a side without images.
        """
        if not self.real or not self.fake:
            side = "fake" if self.real else "real"
            raise GankitError(f"the frechet metric has seen no {side} images; it needs at least 2 of each side")
        return {"frechet": frechet_distance(np.concatenate(self.real), np.concatenate(self.fake))}


def _features(values: ArrayLike, name: str) -> _Matrix:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise GankitError(f"{name} must be (n, d) features, its shape is {rows.shape}")
    if len(rows) < 2:
        raise GankitError(f"{name} has {len(rows)} rows of features; a covariance needs at least 2")
    if not np.isfinite(rows).all():
        raise GankitError(f"{name} has features that are NaN or infinite; look for the images that cause them")
    return rows


def _moments(mu: ArrayLike, sigma: ArrayLike, which: str) -> tuple[_Matrix, _Matrix]:
    """A mean, and a root R of a covariance: R'R is the covariance."""
    mean, covariance = np.asarray(mu, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    if mean.ndim != 1 or mean.size == 0 or covariance.shape != (mean.size, mean.size):
        raise GankitError(
            f"mu{which} must be (d,) and sigma{which} (d, d); their shapes are {mean.shape} and {covariance.shape}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise GankitError(f"mu{which} or sigma{which} has values that are NaN or infinite")
    tolerance = _NEGATIVE_SHARE * np.abs(np.diagonal(covariance)).sum()
    if np.abs(covariance - covariance.T).max() > tolerance:
        raise GankitError(f"sigma{which} is not symmetric, so it is no covariance")
    values, vectors = np.linalg.eigh(covariance)
    if -values[values < 0].sum() > tolerance:
        raise GankitError(
            f"sigma{which} is no covariance: its negative eigenvalues sum to {values[values < 0].sum():.3g} "
            f"beside a trace of {np.trace(covariance):.3g}; compute it in float64"
        )
    return mean, np.sqrt(values.clip(min=0))[:, None] * vectors.T


def _squared(values: _Matrix) -> float:
    return float(np.square(values).sum())


def _covariance_term(a: _Matrix, b: _Matrix) -> float:
    """tr(A'A) + tr(B'B) - 2 |A B'|_nuclear of (n, d) and (m, d) factors; 0 within its own rounding error.

    The exact value is never negative. The rounding error of the nuclear norm: a perturbation E moves it by at most
    sqrt(k) |E|_F with k = min(n, m). The product's error is sqrt(d) u |A|_F |B|_F and the singular value
    decomposition is exact for a matrix that far off with sqrt(n + m) in place of sqrt(d) (the usual bounds, with square
    roots because rounding errors of either sign cancel: Higham and Mary 2019, SIAM J. Sci. Comput. 41). As
    2 |A|_F |B|_F <= tr(A'A) + tr(B'B), the whole term is off by at most
    u sqrt(k) (sqrt(d) + sqrt(n + m)) (tr(A'A) + tr(B'B)); twice that leaves room for the sums.
    """
    traces = _squared(a) + _squared(b)
    singular = np.linalg.svd(a @ b.T, compute_uv=False)
    term = traces - 2 * float(singular.sum())
    bound = 2 * _UNIT * math.sqrt(len(singular)) * (math.sqrt(a.shape[1]) + math.sqrt(len(a) + len(b))) * traces
    return 0.0 if abs(term) <= bound else term
