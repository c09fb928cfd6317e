"""Frechet distances between many subsets of one pool of features, without starting from the rows each time.

The equations that the code refers to, of which (2) to (4) are our own derivation:

(1) The squared distance is |mean x - mean y|^2 + tr(Sx) + tr(Sy) - 2 tr sqrt(Sx Sy). With (n, d) and (m, d) centred
    rows X and Y the last trace is the nuclear norm of M = X Y', tr sqrt(M'M), divided by sqrt((n - 1) (m - 1)).
(2) For positive semi-definite A and B, tr sqrt(A) - tr sqrt(B) is 1 / pi times the integral over s > 0 of
    log det(A + s^2) - log det(B + s^2): both sides are 0 for A = B and have the derivative 1 / (2 sqrt(a)) in an
    eigenvalue a of A, since the integral of 1 / (a + s^2) is pi / (2 sqrt(a)).
(3) Where B is diagonal and A = B - Z'Z, and Z has few rows, the difference of the logarithms is
    log det(I - Z (B + s^2)^-1 Z'), the determinant of a matrix with only as many rows as Z.
(4) Leaving r rows R of X out, whose sum is t, moves the mean by -t / (n - r) and takes R'R + t't / (n - r) from X'X.
    The same rows of M take the same from M'M.

In u = log s the integrand of (2) is analytic in a strip of half width pi / 2, so that the trapezoidal rule with step h
errs by about exp(-pi^2 / h) (Trefethen and Weideman 2014, SIAM Review 56).
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import cast

import numpy as np

from gankit.errors import GankitError, counted
from gankit.interfaces import Indices, Metric, Pool, Resampling
from gankit.metrics._covariance import compact, root, rounding_threshold, sum_of_squares
from gankit.metrics._rows import LARGEST_POOL, Matrix, pooled_features

LARGEST_FOR_SVD = 256
"""Up to this size singular values come from an SVD, above it from eigenvalues, with a relative error of some 1e-8."""
STEP = 0.5
"""Step of the trapezoidal rule: its error is 3e-9 of the integral."""
MARGIN = 18.0
"""How far the rule extends, in log s, beyond the extreme eigenvalues' roots: some e^-18 of the integral is cut off."""
BLOCK = 2_000_000
"""Elements of the arrays that `trace_roots` works on at a time: 16 MB."""
SPURIOUS = 1e-13
"""Eigenvalues below this share of the largest are left out of the integral: they may be rounding errors of zero."""
LARGEST_WITHOUT_INTEGRAL = 64
"""Up to this number of eigenvalues those of the matrix itself are taken: nearly as fast, and more accurate."""


class FrechetResampling(Resampling):
    """Values on subsets come from inner products or covariance factors, those with a part left out from eigenvalues."""

    def __init__(self, metric: Metric, pool: Pool) -> None:
        super().__init__(metric, pool)
        rows = pooled_features(pool, min_rows=1)
        self.rows: Matrix = rows - rows.mean(0)

    @cached_property
    def _products(self) -> Matrix:
        return self.rows @ self.rows.T

    def values(self, real: Indices, fake: Indices) -> dict[str, float]:
        """From inner products of features if there are few images, else from covariance factors."""
        n = min(len(real), len(fake))
        if n < 2:
            raise GankitError(f"{counted(n, 'row')} of features; a covariance needs at least 2")
        if n > self.rows.shape[1] or len(self.rows) > LARGEST_POOL:
            return {"frechet": self._from_rows(real, fake)}
        of_real, of_fake = (self._products[np.ix_(side, side)] for side in (real, fake))
        across = self._products[np.ix_(real, fake)]
        squared_shift = of_real.mean() + of_fake.mean() - 2 * across.mean()
        centred = across - across.mean(0) - across.mean(1)[:, None] + across.mean()
        cross_trace = nuclear_norm(centred) / math.sqrt((len(real) - 1) * (len(fake) - 1))
        spread = _variance(of_real) + _variance(of_fake) - 2 * cross_trace
        return {"frechet": float(max(squared_shift, 0.0) + max(spread, 0.0))}

    def _from_rows(self, real: Indices, fake: Indices) -> float:
        (mean_x, factor_x), (mean_y, factor_y) = (_mean_and_factor(self.rows[side]) for side in (real, fake))
        traces = sum_of_squares(factor_x) + sum_of_squares(factor_y)
        return sum_of_squares(mean_x - mean_y) + max(traces - 2 * nuclear_norm(factor_x @ factor_y.T), 0.0)

    def values_without(self, parts: Sequence[Indices]) -> list[Mapping[str, float]]:
        """From one or two eigendecompositions for all parts: by (4), leaving a part out is a change of low rank."""
        n = self.pool.real.count
        real, fake = _Side.pair(self.rows[:n], self.rows[n:])
        assert all((part < n).all() or (part >= n).all() for part in parts), "each part must be of one side"
        sides = [real if part[0] < n else fake for part in parts]
        values = np.empty(len(parts))
        for offset, side, other in ((0, real, fake), (n, fake, real)):
            numbers = [number for number, side_of_part in enumerate(sides) if side_of_part is side]
            values[numbers] = side.distances_without([parts[number] - offset for number in numbers], other)
        return [{"frechet": float(value)} for value in values]


class _Side:
    """The centred rows of one side, and what leaving some of them out changes.

    Attributes:
        mean: (d,) of the rows.
        centred: (n, d) X, the rows minus their mean.
        total_scatter: tr(X'X).
        eigenvalues: (q,) of M'M, see `_bases`.
        coordinates: (n, q) the rows of M in the basis of the eigenvectors, in which M'M is diagonal.
    """

    def __init__(self, mean: Matrix, centred: Matrix, basis: tuple[Matrix, Matrix]) -> None:
        self.mean, self.centred, (self.eigenvalues, self.coordinates) = mean, centred, basis
        self.total_scatter = sum_of_squares(centred)

    @classmethod
    def pair(cls, x: Matrix, y: Matrix) -> "tuple[_Side, _Side]":
        """Both sides, from their (n, d) and (m, d) rows."""
        means = x.mean(0), y.mean(0)
        centred = x - means[0], y - means[1]
        bases = _bases(*centred)
        return cls(means[0], centred[0], bases[0]), cls(means[1], centred[1], bases[1])

    def distances_without(self, parts: Sequence[Indices], other: "_Side") -> Matrix:
        """(k,) distances (1) to the other side where each of k parts of the rows, given by indices, is left out.

        They are not clamped at 0: a jackknife takes only their differences. At least two rows must remain.
        """
        other_freedom = len(other.centred) - 1
        removed = []  # Z of (3)
        scales = []  # divisors of the last trace of (1)
        shifts_and_traces = []  # the other terms of (1)
        for part in parts:
            rows, left = self.centred[part], len(self.centred) - len(part)
            total = rows.sum(0)
            coordinates = self.coordinates[part]
            removed.append(np.vstack([coordinates, coordinates.sum(0) / math.sqrt(left)]))
            scales.append(math.sqrt((left - 1) * other_freedom))
            squared_shift = sum_of_squares(self.mean - total / left - other.mean)
            total_scatter = self.total_scatter - sum_of_squares(rows) - sum_of_squares(total) / left
            shifts_and_traces.append(squared_shift + total_scatter / (left - 1) + other.total_scatter / other_freedom)
        return cast(Matrix, np.array(shifts_and_traces) - 2 * trace_roots(self.eigenvalues, removed) / np.array(scales))


def _mean_and_factor(rows: Matrix) -> tuple[Matrix, Matrix]:
    """The mean, and A of at most d rows with A'A the covariance."""
    mean = rows.mean(0)
    return mean, compact((rows - mean) / math.sqrt(len(rows) - 1))


def _variance(products: Matrix) -> float:
    """tr(S) of (1) from the (n, n) inner products of n rows."""
    return float((np.trace(products) - products.sum() / len(products)) / (len(products) - 1))


def nuclear_norm(matrix: Matrix) -> float:
    """The sum of singular values."""
    if min(matrix.shape) <= LARGEST_FOR_SVD:
        return float(np.linalg.svd(matrix, compute_uv=False).sum())
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    values: Matrix = np.linalg.eigvalsh(short @ short.T).astype(np.float64, copy=False)
    return float(np.sqrt(values[values > rounding_threshold(values)]).sum())


def _bases(x: Matrix, y: Matrix) -> list[tuple[Matrix, Matrix]]:
    """For each side, with M as in (1): (q,) eigenvalues of M'M, and the (n, q) rows of M in the basis of eigenvectors.

    With few rows, M = X Y' = U S V' serves both sides: in these bases M has the rows U S, and M' has V S. With few
    dimensions each side has its own M = X R', where R'R = Y'Y leaves M M' and so the nuclear norm as they are.
    """
    if min(len(x), len(y)) <= x.shape[1]:
        swapped = len(x) > len(y)
        short, long = (y, x) if swapped else (x, y)
        across = short @ long.T
        values, vectors = np.linalg.eigh(across @ across.T)
        values = values.clip(min=0)
        values[0] = 0.0  # the rows of each side sum to 0
        of_short, of_long = (values, vectors * np.sqrt(values)), (values, across.T @ vectors)
        return [of_long, of_short] if swapped else [of_short, of_long]
    bases = []
    for side, other in ((x, y), (y, x)):
        across = side @ root(other.T @ other).T
        values, vectors = np.linalg.eigh(across.T @ across)
        bases.append((values.clip(min=0), across @ vectors))
    return bases


def trace_roots(values: Matrix, removed: list[Matrix]) -> Matrix:
    """tr sqrt(diag(values) - Z'Z) of (q,) eigenvalues and each of some (k, q) matrices Z, by (2) and (3).

    Each diag(values) - Z'Z must be positive semi-definite. Up to 64 of its eigenvalues, or 3 k, are computed singly:
    standard errors of the distance are then right to some 1e-6, or 1e-4 where spreads of features decay faster than
    with the power 1.5 of their place. If there are more, (2) and (3) give the sum to some 1e-8 of the largest root: Z
    may take a whole direction away, and the root of a rounding error remains.
    """
    if not (values > 0).any():
        return np.zeros(len(removed))
    kept = values > SPURIOUS * values.max()
    of_integral = values[kept]
    low, high = np.log(of_integral.min()) / 2 - MARGIN, np.log(of_integral.max()) / 2 + MARGIN
    nodes = np.exp(np.arange(low, high, STEP))  # the values of s
    inverse_roots = np.sqrt(1 / (of_integral + nodes[:, None] ** 2))  # (nodes, q) diagonals of (B + s^2)^-1/2
    traces = []
    for z in removed:
        if len(values) <= max(LARGEST_WITHOUT_INTEGRAL, 3 * len(z)):  # the matrix itself is as cheap
            eigenvalues = np.linalg.eigvalsh(np.diag(values) - z.T @ z)
            traces.append(float(np.sqrt(eigenvalues[eigenvalues > rounding_threshold(values)]).sum()))
        else:
            rows = z[:, kept]
            at_once = max(1, BLOCK // rows.size)
            blocks = [inverse_roots[start : start + at_once, None] for start in range(0, len(nodes), at_once)]
            logs = np.concatenate([_log_det(rows * block) for block in blocks])
            traces.append(float(np.sqrt(of_integral).sum() + STEP / np.pi * np.dot(logs, nodes)))  # ds = s du
    return np.array(traces)


def _log_det(rows: Matrix) -> Matrix:
    """For (p, k, q) rows R, the p values log det(I - R R'), also where R is so small that 1 - R R' would lose it.

    Rows that span a whole direction have an eigenvalue of 1, which rounding may make slightly larger: it is clipped.
    """
    eigenvalues = np.linalg.eigvalsh(rows @ rows.transpose(0, 2, 1))
    return cast(Matrix, np.log1p(-eigenvalues.clip(max=1 - np.finfo(np.float64).eps)).sum(1))
