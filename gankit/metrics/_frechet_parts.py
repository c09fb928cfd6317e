"""Frechet distances between many parts of one pool of features, without starting each time from the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gankit.errors import GankitError
from gankit.metrics._covariance import Matrix, compact, root, rounding_threshold, squared
from gankit.metrics._leave_out import trace_roots

LARGEST_POOL = 7000
"""Rows of the largest pool whose inner products are kept: 400 MB."""
LARGEST_FOR_SVD = 256
"""Up to this size singular values are computed as such; above, as roots of eigenvalues, some 1e-8 less exact."""


class FrechetParts:
    """Distances between parts of (n, d) features, for standard errors, splits and permutations.

    Attributes:
        rows: (n, d) float64, centred by the mean of all.
        dim: d.
    """

    def __init__(self, features: Matrix) -> None:
        self.rows: Matrix = features - features.mean(0)
        self.dim = self.rows.shape[1]
        self.has_products = len(self.rows) <= LARGEST_POOL

    @cached_property
    def _products(self) -> Matrix:
        return self.rows @ self.rows.T

    def distance(self, x: NDArray[np.int64], y: NDArray[np.int64]) -> float:
        """The distance of two sets of rows, from their inner products if there are few, else from covariance factors.

        Raises:
            GankitError: fewer than 2 rows.
        """
        if min(len(x), len(y)) < 2:
            raise GankitError(f"{min(len(x), len(y))} rows of features; a covariance needs at least 2")
        if min(len(x), len(y)) > self.dim or not self.has_products:
            return self._from_rows(x, y)
        within, across = [self._products[np.ix_(part, part)] for part in (x, y)], self._products[np.ix_(x, y)]
        shift = within[0].mean() + within[1].mean() - 2 * across.mean()
        traces = [(np.trace(products) - products.sum() / len(products)) / (len(products) - 1) for products in within]
        centred = across - across.mean(0) - across.mean(1)[:, None] + across.mean()
        scale = math.sqrt((len(x) - 1) * (len(y) - 1))
        return float(max(shift, 0.0) + max(sum(traces) - 2 * nuclear_norm(centred) / scale, 0.0))

    def _from_rows(self, x: NDArray[np.int64], y: NDArray[np.int64]) -> float:
        means, factors = [], []
        for part in (x, y):
            rows = self.rows[part]
            mean = rows.mean(0)
            means.append(mean)
            factors.append(compact((rows - mean) / math.sqrt(len(rows) - 1)))
        norm = nuclear_norm(factors[0] @ factors[1].T)
        return squared(means[0] - means[1]) + max(sum(map(squared, factors)) - 2 * norm, 0.0)

    def distances_without(
        self, x: NDArray[np.int64], y: NDArray[np.int64], parts: Sequence[NDArray[np.int64]]
    ) -> Matrix:
        """For each part, a subset of x or of y: the distance with that part left out.

        One or two eigendecompositions serve all parts: in the eigenbasis, leaving a part out is a change of low rank of
        a diagonal matrix.
        """
        sides = [self.rows[x], self.rows[y]]
        means = [side.mean(0) for side in sides]
        centred = [side - mean for side, mean in zip(sides, means, strict=True)]
        scatter = [squared(side) for side in centred]
        bases = _bases(*centred)
        is_first = np.isin(np.concatenate([*parts, np.empty(0, np.int64)]), x)
        places = {int(place): i for side in (x, y) for i, place in enumerate(side)}
        removed: tuple[list[Matrix], list[Matrix]] = ([], [])
        pending: tuple[list[tuple[int, float, float]], list[tuple[int, float, float]]] = ([], [])
        values, start = np.empty(len(parts)), 0
        for number, part in enumerate(parts):
            side = 0 if is_first[start] else 1
            start += len(part)
            rows = np.array([places[int(place)] for place in part])
            n, k = len(sides[side]), len(rows)
            gone = centred[side][rows]
            total = gone.sum(0)
            # Without these rows the mean moves by -total / (n - k), and the scatter falls by their squares and by
            # |total|^2 / (n - k).
            trace = (scatter[side] - squared(gone) - squared(total) / (n - k)) / (n - k - 1)
            other = scatter[1 - side] / (len(sides[1 - side]) - 1)
            mean = means[side] - total / (n - k)
            basis = bases[side][1][rows]
            removed[side].append(np.vstack([basis, basis.sum(0) / math.sqrt(n - k)]))
            scale = math.sqrt((n - k - 1) * (len(sides[1 - side]) - 1))
            pending[side].append((number, squared(mean - means[1 - side]) + trace + other, scale))
        for side in (0, 1):
            traces = trace_roots(bases[side][0], removed[side])
            for (number, fixed, scale), value in zip(pending[side], traces, strict=True):
                values[number] = fixed - 2 * value / scale
        return values


def nuclear_norm(matrix: Matrix) -> float:
    """The sum of singular values."""
    if min(matrix.shape) <= LARGEST_FOR_SVD:
        return float(np.linalg.svd(matrix, compute_uv=False).sum())
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    values: Matrix = np.linalg.eigvalsh(short @ short.T).astype(np.float64, copy=False)
    return float(np.sqrt(values[values > rounding_threshold(values)]).sum())


def _bases(x: Matrix, y: Matrix) -> list[tuple[Matrix, Matrix]]:
    """For each side: the eigenvalues of M'M, and the side's rows in the basis of the eigenvectors.

    M is X Y', or where there are fewer dimensions than rows X times a root of Y'Y. With M = U S V', the side of x is
    U S, that of y V S; both have the diagonal Gram matrix S^2.
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
