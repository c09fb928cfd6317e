"""The cubic kernel of Binkowski et al. 2018, arXiv 1801.01401, the unbiased squared MMD with it, and its variance.

The variance after Hoeffding 1948, Annals of Mathematical Statistics 19; kernels centred without bias after Székely and
Rizzo 2014, Annals of Statistics 42.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gankit.metrics._rows import Matrix


class Terms(NamedTuple):
    """The estimate from one block of either side, and unbiased estimates of what its variance is made of.

    The variance of `estimate` is
    4 rows_x / n + 4 rows_y / m + 2 pairs_x / (n (n - 1)) + 2 pairs_y / (m (m - 1)) + 4 across / (n m).

    Attributes:
        estimate: the squared discrepancy.
        n: rows of the first side.
        m: rows of the second side.
        second_block: number of the second side's block; terms that share it are not independent.
        rows_x: variance of a row's mean contribution, the term of first order; its estimate may be below 0.
        rows_y: the same of the second side.
        pairs_x: variance of the kernel within the first side, centred in either argument.
        pairs_y: the same of the second side.
        across: the same between the sides.
    """

    estimate: float
    n: int
    m: int
    second_block: int
    rows_x: float
    rows_y: float
    pairs_x: float
    pairs_y: float
    across: float


def cubic_kernel(rows: Matrix) -> Matrix:
    """(n, n) values of the kernel; 0 where a row meets itself, which enters no sum."""
    base = rows @ rows.T
    base /= rows.shape[1]
    base += 1
    kernel: Matrix = base * base
    kernel *= base
    np.fill_diagonal(kernel, 0)
    return kernel


def discrepancy(sum_real: float, sum_fake: float, sum_cross: float, n: int, m: int) -> float:
    """The estimate from sums of the kernel over pairs of different rows."""
    return float(sum_real / (n * (n - 1)) + sum_fake / (m * (m - 1)) - 2 * sum_cross / (n * m))


def terms_of(kernel: Matrix, n: int, second_block: int = 0) -> Terms:
    """Terms of one pair of blocks.

    Args:
        kernel: (n + m, n + m) between n rows of one side and then m of the other, from `cubic_kernel`.
        n: number of rows of the first side.
        second_block: number of the second side's block.
    """
    m = len(kernel) - n
    cross = kernel[:n, n:]
    estimate = discrepancy(kernel[:n, :n].sum(), kernel[n:, n:].sum(), cross.sum(), n, m)
    if min(n, m) < 4:  # too few to tell the terms apart: as if all rows had one distribution
        variance = _centred(kernel)[1]
        return Terms(estimate, n, m, second_block, 0.0, 0.0, variance, variance, variance)
    mean_x, pairs_x = _centred(kernel[:n, :n])
    mean_y, pairs_y = _centred(kernel[n:, n:])
    to_y, to_x = cross.mean(1), cross.mean(0)
    across = _squares(cross - to_y[:, None] - (to_x - to_x.mean())) / ((n - 1) * (m - 1))
    # Row means are averages over finitely many rows: the variance of that noise is subtracted.
    rows_x = np.var(mean_x - to_y, ddof=1) - pairs_x / (n - 2) - across / m
    rows_y = np.var(mean_y - to_x, ddof=1) - pairs_y / (m - 2) - across / n
    return Terms(estimate, n, m, second_block, float(rows_x), float(rows_y), pairs_x, pairs_y, across)


def _centred(kernel: Matrix) -> tuple[Matrix, float]:
    """Of the kernel within n rows: each row's mean up to a common constant, and the variance of the centred kernel.

    The sum over j != i of h(i) + h(j) is (n - 2) h(i) and the sum of all h; hence the divisor.
    """
    n = len(kernel)
    means = kernel.sum(1) / (n - 2)
    centred = kernel - means[:, None] - (means - means.sum() / (n - 1))
    np.fill_diagonal(centred, 0)
    return means, _squares(centred) / (n * (n - 3))


def _squares(values: Matrix) -> float:
    return float(np.vdot(values, values))


def with_error(terms: Sequence[Terms]) -> tuple[float, float]:
    """The mean of the blocks' estimates, and its standard error: rows of different blocks are independent."""
    count = len(terms)
    estimate, _, _, _, rows_x, rows_y, pairs_x, pairs_y, across = np.mean(terms, axis=0)
    rows_x, rows_y = max(0.0, rows_x), max(0.0, rows_y)
    variance = 0.0
    for part in terms:
        of_block = 4 * rows_x / part.n + 2 * pairs_x / (part.n * (part.n - 1)) + 4 * across / (part.n * part.m)
        variance += of_block / count**2
    for block, m in {part.second_block: part.m for part in terms}.items():
        share = sum(part.second_block == block for part in terms) / count
        variance += share**2 * (4 * rows_y / m + 2 * pairs_y / (m * (m - 1)))
    return float(estimate), math.sqrt(variance)
