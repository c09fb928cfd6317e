"""Frechet distances between many parts of one pool of features, without starting from the rows each time.

Traces of matrix square roots after some rows have been left out come from one eigendecomposition (own derivation).
For positive semi-definite A and B, tr sqrt(A) - tr sqrt(B) = (1 / pi) * integral over s > 0 of
log det(A + s^2) - log det(B + s^2), since the integral of 1 / (a + s^2) is pi / (2 sqrt(a)). With B diagonal and
A = B - Z'Z of few rows Z, the difference of the logarithms is log det(I - Z (B + s^2)^-1 Z'), the determinant of a
matrix with only as many rows as Z. In u = log s the integrand is analytic in a strip of half width pi / 2, so that the
trapezoidal rule with step h errs by about exp(-pi^2 / h) (Trefethen and Weideman 2014, SIAM Review 56).
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from gankit.errors import GankitError
from gankit.interfaces import Indices, Metric, Pool, Resampling
from gankit.metrics._covariance import compact, root, rounding_threshold, sum_of_squares
from gankit.metrics._rows import LARGEST_POOL, Matrix, pooled_features

LARGEST_FOR_SVD = 256
"""Up to this size singular values come from an SVD, above it from eigenvalues, with a relative error of some 1e-8."""
STEP = 0.5
"""Step of the trapezoidal rule: its error is 3e-9 of the integral."""
MARGIN = 18.0
"""How far the rule extends, in log s, beyond the roots of the extreme eigenvalues: it misses e^-18 of the integral."""
BLOCK = 2_000_000
"""Elements of the arrays that `trace_roots` works on at a time: 16 MB."""
SPURIOUS = 1e-13
"""Eigenvalues below this share of the largest are rounding errors of zero."""


class FrechetResampling(Resampling):
    """Values on parts of a pool from inner products of its features; those without a part from eigenvalues."""

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
            raise GankitError(f"{n} rows of features; a covariance needs at least 2")
        if n > self.rows.shape[1] or len(self.rows) > LARGEST_POOL:
            return {"frechet": self._from_rows(real, fake)}
        within = [self._products[np.ix_(side, side)] for side in (real, fake)]
        across = self._products[np.ix_(real, fake)]
        shift = within[0].mean() + within[1].mean() - 2 * across.mean()
        traces = [(np.trace(products) - products.sum() / len(products)) / (len(products) - 1) for products in within]
        centred = across - across.mean(0) - across.mean(1)[:, None] + across.mean()
        scale = math.sqrt((len(real) - 1) * (len(fake) - 1))
        return {"frechet": float(max(shift, 0.0) + max(sum(traces) - 2 * nuclear_norm(centred) / scale, 0.0))}

    def _from_rows(self, real: Indices, fake: Indices) -> float:
        means, factors = [], []
        for side in (real, fake):
            rows = self.rows[side]
            means.append(rows.mean(0))
            factors.append(compact((rows - means[-1]) / math.sqrt(len(rows) - 1)))
        norm = nuclear_norm(factors[0] @ factors[1].T)
        return sum_of_squares(means[0] - means[1]) + max(sum(map(sum_of_squares, factors)) - 2 * norm, 0.0)

    def values_without(self, parts: Sequence[Indices]) -> list[Mapping[str, float]]:
        """One or two eigendecompositions serve all parts.

        In the eigenbasis, leaving a part out is a change of low rank of a diagonal matrix.
        """
        n = self.pool.real.count
        sides = [self.rows[:n], self.rows[n:]]
        means = [side.mean(0) for side in sides]
        centred = [side - mean for side, mean in zip(sides, means, strict=True)]
        scatter = [sum_of_squares(side) for side in centred]
        values = np.empty(len(parts))
        for side, (eigenvalues, coordinates) in enumerate(_bases(*centred)):
            # Every part is of one side
            numbers = [number for number, part in enumerate(parts) if int(part[0] >= n) == side]
            other_freedom = len(sides[1 - side]) - 1
            removed, scales, other_terms = [], [], []
            for number in numbers:
                rows = parts[number] - n * side
                n_left, total = len(sides[side]) - len(rows), centred[side][rows].sum(0)
                # Without these rows the mean moves by -total / n_left, and the scatter falls by their squares and by
                # |total|^2 / n_left, for which one more row is appended to them.
                removed.append(np.vstack([coordinates[rows], coordinates[rows].sum(0) / math.sqrt(n_left)]))
                remaining = scatter[side] - sum_of_squares(centred[side][rows]) - sum_of_squares(total) / n_left
                shift = sum_of_squares(means[side] - total / n_left - means[1 - side])
                other_terms.append(shift + remaining / (n_left - 1) + scatter[1 - side] / other_freedom)
                scales.append(math.sqrt((n_left - 1) * other_freedom))
            values[numbers] = np.array(other_terms) - 2 * trace_roots(eigenvalues, removed) / np.array(scales)
        return [{"frechet": float(value)} for value in values]


def nuclear_norm(matrix: Matrix) -> float:
    """The sum of singular values."""
    if min(matrix.shape) <= LARGEST_FOR_SVD:
        return float(np.linalg.svd(matrix, compute_uv=False).sum())
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    values: Matrix = np.linalg.eigvalsh(short @ short.T).astype(np.float64, copy=False)
    return float(np.sqrt(values[values > rounding_threshold(values)]).sum())


def _bases(x: Matrix, y: Matrix) -> list[tuple[Matrix, Matrix]]:
    """For each side: the eigenvalues of M'M, and the side's rows in the basis of the eigenvectors.

    With few rows, M = X Y' = U S V' serves both: the rows of x are U S, those of y are V S. With few dimensions, each
    side has its own M = X R' = U S V', R'R = Y'Y, and its rows are U S. The Gram matrix of these rows is S^2.
    """
    if min(len(x), len(y)) <= x.shape[1]:
        swapped = len(x) > len(y)
        short, long = (y, x) if swapped else (x, y)
        across = short @ long.T
        values, vectors = np.linalg.eigh(across @ across.T)
        values = values.clip(min=0)
        of_short, of_long = (values, vectors * np.sqrt(values)), (values, across.T @ vectors)
        return [of_long, of_short] if swapped else [of_short, of_long]
    bases = []
    for side, other in ((x, y), (y, x)):
        across = side @ root(other.T @ other).T
        values, vectors = np.linalg.eigh(across.T @ across)
        bases.append((values.clip(min=0), across @ vectors))
    return bases


def trace_roots(values: Matrix, removed: list[Matrix]) -> Matrix:
    """tr sqrt(diag(values) - Z'Z) of (q,) eigenvalues and (k, q) matrices Z.

    Each diag(values) - Z'Z must be positive semi-definite. Where few rows are removed, the error is some 1e-8 of the
    change that removing them makes.
    """
    kept = values > SPURIOUS * values.max(initial=0.0)
    values = values[kept]
    whole = float(np.sqrt(values).sum())
    if not len(values):
        return np.zeros(len(removed))
    low, high = np.log(values.min()) / 2 - MARGIN, np.log(values.max()) / 2 + MARGIN
    nodes = np.exp(np.arange(low, high, STEP))
    inverse_roots = np.sqrt(1 / (values + nodes[:, None] ** 2))  # (nodes, q)
    traces = []
    for rows in removed:
        part = rows[:, kept]
        if 3 * len(part) > len(values):
            eigenvalues = np.linalg.eigvalsh(np.diag(values) - part.T @ part)
            traces.append(float(np.sqrt(eigenvalues.clip(min=0)).sum()))
            continue
        at_once = max(1, BLOCK // part.size)
        blocks = [inverse_roots[start : start + at_once, None] for start in range(0, len(nodes), at_once)]
        logs = [_log_det(part * block) for block in blocks]
        traces.append(whole + STEP / np.pi * float(np.dot(np.concatenate(logs), nodes)))
    return np.array(traces)


def _log_det(rows: Matrix) -> Matrix:
    """For (p, k, q) rows R, the p values log det(I - R R').

    Rows that span a whole direction leave an eigenvalue of 0, which rounding may make slightly negative: it is clipped.
    """
    eigenvalues = np.linalg.eigvalsh(np.eye(rows.shape[1]) - rows @ rows.transpose(0, 2, 1))
    logs: Matrix = np.log(eigenvalues.clip(min=np.finfo(np.float64).eps)).sum(1)
    return logs
