"""Frechet distance of two Gaussian fits: Heusel et al. 2017, arXiv 1706.08500, eq. 6; Dowson and Landau 1982."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from gankit.errors import GankitError
from gankit.interfaces import Batch, Indices, Metric, Pool, Resampling
from gankit.metrics._covariance import UNIT, Matrix, compact, covariance_term, root, squared
from gankit.metrics._frechet_parts import FrechetParts
from gankit.metrics._gathered import Gathered
from gankit.metrics._rows import pair

NEGATIVE_SHARE = 1e-10
"""The largest negative part of a covariance's spectrum, as a share of its trace, that rounding explains."""


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
    first, second = pair(x, y, 2)
    mean_x, mean_y = first.mean(0), second.mean(0)
    shift = _shift(mean_x, mean_y, len(first) * np.abs(first).mean(0) + len(second) * np.abs(second).mean(0))
    root_x = (first - mean_x) / math.sqrt(len(first) - 1)
    root_y = (second - mean_y) / math.sqrt(len(second) - 1)
    if min(len(first), len(second)) > first.shape[1]:
        # With a short side, A B' is thin, and cheaper than any factorisation of the long side.
        root_x, root_y = compact(root_x), compact(root_y)
    return shift + covariance_term(root_x, root_y)


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
    return squared(mean1 - mean2) + covariance_term(root1, root2)


@final
class Frechet(Metric):
    """The Frechet distance between real and generated images in feature space.

    Called FID only for Inception features with clean-fid's resize. Rows are kept while they are fewer than twice the
    dimension, then mean and co-moment: memory does not grow with the number of images, and merged metrics give what
    one pass gives.
    """

    better = "lower"
    takes_moments = True

    real: Gathered
    fake: Gathered

    def __init__(self) -> None:
        self.add_state("real", Gathered, Gathered.merge)
        self.add_state("fake", Gathered, Gathered.merge)

    def update(self, batch: Batch) -> None:
        """Take in (n, d) features of real or of generated images, or the moments of all of them."""
        side = self.real if batch.real else self.fake
        if batch.moments is not None:
            _moments(batch.moments.mean, batch.moments.covariance, " of the statistics")
            side.set_moments(batch.moments)
        else:
            side.add(self.wanted(batch, "features"))

    def compute(self) -> dict[str, float]:
        """`frechet`, at least 0.

        Raises:
            GankitError: as `frechet_distance`, or a side without images.
        """
        for side, name in ((self.real, "real"), (self.fake, "fake")):
            if side.n == 0:
                raise GankitError(f"the frechet metric has seen no {name} images; it needs at least 2 of each side")
        x, y = self.real.rows(), self.fake.rows()
        if x is not None and y is not None:
            return {"frechet": frechet_distance(x, y)}
        (mean_x, root_x), (mean_y, root_y) = self.real.mean_and_factor(), self.fake.mean_and_factor()
        if mean_x.shape != mean_y.shape:
            raise GankitError(f"features differ in dimension: {len(mean_x)} of real and {len(mean_y)} of fake images")
        slack = sum(
            (side.n or 1) * np.sqrt(np.square(mean) + np.square(factor).sum(0))
            for side, mean, factor in ((self.real, mean_x, root_x), (self.fake, mean_y, root_y))
        )
        return {"frechet": _shift(mean_x, mean_y, slack) + covariance_term(root_x, root_y)}

    def cautions(self, real_vs_real: Mapping[str, float]) -> list[str]:
        """Fewer images than dimensions."""
        n = min((side.n for side in (self.real, self.fake) if side.n is not None), default=0)
        if n >= self.real.dim:
            return []
        return [
            f"{n} images in {self.real.dim} dimensions: the Frechet distance is mostly bias; read it beside the "
            "real-against-real value and at equal n only"
        ]

    def resampling(self, pool: Pool) -> Resampling:
        """Values on parts of a pool from inner products of its features; leave-outs from one eigendecomposition."""
        return _FrechetResampling(self, pool)


class _FrechetResampling(Resampling):
    def __init__(self, metric: Metric, pool: Pool) -> None:
        super().__init__(metric, pool)
        features = pool.column("features")
        assert features is not None
        self.parts = FrechetParts(features)

    def values(self, real: Indices, fake: Indices) -> dict[str, float]:
        return {"frechet": self.parts.distance(real, fake)}

    def left_out(self, parts: Sequence[Indices]) -> list[dict[str, float]]:
        values = self.parts.left_out(self.pool.reals, self.pool.fakes, parts)
        return [{"frechet": float(value)} for value in values]


def _shift(mean_x: Matrix, mean_y: Matrix, sizes: Matrix) -> float:
    """The squared distance of two means; a mean of n values is off by n rounding errors of their average size."""
    shift = squared(mean_x - mean_y)
    return 0.0 if shift <= squared(UNIT * sizes) else shift


def _moments(mu: ArrayLike, sigma: ArrayLike, which: str) -> tuple[Matrix, Matrix]:
    """A mean, and a root R of a covariance: R'R is the covariance."""
    mean, covariance = np.asarray(mu, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    if mean.ndim != 1 or mean.size == 0 or covariance.shape != (mean.size, mean.size):
        raise GankitError(
            f"mu{which} must be (d,) and sigma{which} (d, d); their shapes are {mean.shape} and {covariance.shape}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise GankitError(f"mu{which} or sigma{which} has values that are NaN or infinite")
    tolerance = NEGATIVE_SHARE * np.abs(np.diagonal(covariance)).sum()
    if np.abs(covariance - covariance.T).max() > tolerance:
        raise GankitError(f"sigma{which} is not symmetric, so it is no covariance")
    values = np.linalg.eigvalsh(covariance)
    if -values[values < 0].sum() > tolerance:
        raise GankitError(
            f"sigma{which} is no covariance: its negative eigenvalues sum to {values[values < 0].sum():.3g} "
            f"beside a trace of {np.trace(covariance):.3g}; compute it in float64"
        )
    return mean, root(covariance)
