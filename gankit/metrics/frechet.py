"""Frechet distance of two Gaussian fits: Heusel et al. 2017, arXiv 1706.08500, eq. 6; Dowson and Landau 1982."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast, final

import numpy as np
from numpy.typing import ArrayLike

from gankit.errors import GankitError, counted
from gankit.interfaces import Meaning, Metric, Pool, Resampling, Result, Rows
from gankit.metrics._covariance import EPS, compact, covariance_term, root, sum_of_squares
from gankit.metrics._frechet_resampling import FrechetResampling
from gankit.metrics._rows import Matrix, float64_pair, read_rows

COVARIANCE_TOLERANCE = 1e-10
"""Share of a covariance's trace up to which asymmetry and the sum of negative eigenvalues are taken for rounding."""


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
    first, second = float64_pair(x, y, min_rows=2)
    return _distance(_Gaussian.of_rows(first), _Gaussian.of_rows(second))


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
            symmetric, or with negative eigenvalues that sum to more than 1e-10 of its trace.
    """
    mean1, root1 = _mean_and_root(mu1, sigma1, "1")
    mean2, root2 = _mean_and_root(mu2, sigma2, "2")
    if mean1.shape != mean2.shape:
        raise GankitError(f"moments differ in dimension: mu1 is {mean1.shape}, mu2 is {mean2.shape}")
    return sum_of_squares(mean1 - mean2) + covariance_term(root1, root2)


@final
class Frechet(Metric):
    """The Frechet distance between real and generated images in feature space.

    Called FID only for Inception features with clean-fid's resize. A side of fewer than 2 d images in d dimensions is
    held in memory. A larger one may be memory-mapped: only its mean and covariance are held.
    """

    better = "lower"
    meanings: ClassVar = {"frechet": Meaning("distance between Gaussian fits of both sides' features", "lower")}
    takes_moments = True

    def compute(self, real: Rows, fake: Rows) -> Result:
        """`frechet`, at least 0.

        Raises:
            GankitError: as `frechet_distance`, or as `frechet_distance_from_moments` for statistics.
        """
        first, second = _Gaussian.of(real, "real"), _Gaussian.of(fake, "generated")
        dim = len(first.mean)
        if dim != len(second.mean):
            raise GankitError(f"features differ in dimension: {dim} of real and {len(second.mean)} of generated images")
        known_counts = [side.n for side in (first, second) if side.n is not None]
        warnings = []
        if known_counts and min(known_counts) < dim:
            warnings.append(
                f"{min(known_counts)} images in {dim} dimensions: the Frechet distance is mostly bias; read it beside "
                "the real-against-real value and at equal n only"
            )
        return Result({"frechet": _distance(first, second)}, warnings=warnings)

    def resampling(self, pool: Pool) -> Resampling:
        """Shared work for subsets (permutations) and for leaving rows out (the jackknife)."""
        return FrechetResampling(self, pool)


@dataclass(frozen=True, eq=False)
class _Gaussian:
    """The Gaussian fit of one side."""

    n: int | None  # number of images; None where statistics do not say
    mean: Matrix  # (d,)
    factor: Matrix  # A, (k, d), with A'A the covariance

    @classmethod
    def of(cls, rows: Rows, side: str) -> _Gaussian:
        if moments := rows.statistics:
            return cls(moments.n, *_mean_and_root(moments.mean, moments.covariance, " of the statistics"))
        features = read_rows(rows, side)
        if len(features) < 2:
            raise GankitError(f"features of the {side} images: {counted(len(features), 'row')}; at least 2 are needed")
        if len(features) < 2 * features.shape[1]:  # less memory than a covariance and its root
            return cls.of_rows(features.astype(np.float64))
        return cls(len(features), rows.moments.mean, root(rows.moments.covariance))

    @classmethod
    def of_rows(cls, rows: Matrix) -> _Gaussian:
        mean = rows.mean(0)
        return cls(len(rows), mean, (rows - mean) / math.sqrt(len(rows) - 1))

    @property
    def mean_error(self) -> Matrix:
        """(d,) bound of the mean's rounding error: n (1 if unknown) EPS times each feature's root mean square."""
        return cast(Matrix, EPS * (self.n or 1) * np.sqrt(np.square(self.mean) + np.square(self.factor).sum(0)))


def _distance(first: _Gaussian, second: _Gaussian) -> float:
    factors = [first.factor, second.factor]
    # This saves time only where both factors have more rows than columns: otherwise A B' is small already.
    if min(map(len, factors)) > len(first.mean):
        factors = [compact(factor) for factor in factors]
    shift = sum_of_squares(first.mean - second.mean)
    if shift <= sum_of_squares(first.mean_error + second.mean_error):
        shift = 0.0
    return shift + covariance_term(*factors)


def _mean_and_root(mu: ArrayLike, sigma: ArrayLike, which: str) -> tuple[Matrix, Matrix]:
    """A mean, and a root R of a covariance: R'R is the covariance."""
    mean, covariance = np.asarray(mu, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    if mean.ndim != 1 or mean.size == 0 or covariance.shape != (mean.size, mean.size):
        raise GankitError(
            f"mu{which} must be (d,) and sigma{which} (d, d); their shapes are {mean.shape} and {covariance.shape}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise GankitError(f"mu{which} or sigma{which} has values that are NaN or infinite")
    tolerance = COVARIANCE_TOLERANCE * np.abs(np.diagonal(covariance)).sum()
    if np.abs(covariance - covariance.T).max() > tolerance:
        raise GankitError(f"sigma{which} is not symmetric, so it is not a covariance matrix")
    values = np.linalg.eigvalsh(covariance)
    if -values[values < 0].sum() > tolerance:
        raise GankitError(
            f"sigma{which} is not a covariance matrix: its negative eigenvalues sum to {values[values < 0].sum():.3g} "
            f"beside a trace of {np.trace(covariance):.3g}; compute it in float64"
        )
    return mean, root(covariance)
