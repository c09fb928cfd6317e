"""The cubic kernel of Binkowski et al. 2018, arXiv 1801.01401, its unbiased mean discrepancy, and that one's variance.

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

    It is 4 of_x / n + 4 of_y / m + 2 between_x / (n (n - 1)) + 2 between_y / (m (m - 1)) + 4 across / (n m).

    Attributes:
        estimate: the squared discrepancy.
        n: rows of the first side.
        m: rows of the second side.
        other: which block the second one is.
        of_x: variance of what a row of the first side is expected to add; below 0 by chance.
        of_y: the same of the second side.
        between_x: variance of the kernel within the first side, centred in either argument.
        between_y: the same of the second side.
        across: the same between the sides.
    """

    estimate: float
    n: int
    m: int
    other: int
    of_x: float
    of_y: float
    between_x: float
    between_y: float
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


def discrepancy(of_real: float, of_fake: float, between: float, n: int, m: int) -> float:
    """The estimate from sums of the kernel over pairs of different rows."""
    return float(of_real / (n * (n - 1)) + of_fake / (m * (m - 1)) - 2 * between / (n * m))


def terms_of(kernel: Matrix, n: int, other: int = 0) -> Terms:
    """Terms of one pair of blocks.

    Args:
        kernel: (n + m, n + m) between n rows of one side and then m of the other, from `cubic_kernel`.
        n: number of rows of the first side.
        other: which block the second one is.
    """
    m = len(kernel) - n
    cross = kernel[:n, n:]
    estimate = discrepancy(kernel[:n, :n].sum(), kernel[n:, n:].sum(), cross.sum(), n, m)
    if min(n, m) < 4:  # too few to tell the terms apart: as if all rows had one distribution
        variance = _centred(kernel)[1]
        return Terms(estimate, n, m, other, 0.0, 0.0, variance, variance, variance)
    mean_x, between_x = _centred(kernel[:n, :n])
    mean_y, between_y = _centred(kernel[n:, n:])
    to_y, to_x = cross.mean(1), cross.mean(0)
    across = _squares(cross - to_y[:, None] - (to_x - to_x.mean())) / ((n - 1) * (m - 1))
    # Means over few partners carry noise of the second order, which is taken off.
    of_x = np.var(mean_x - to_y, ddof=1) - between_x / (n - 2) - across / m
    of_y = np.var(mean_y - to_x, ddof=1) - between_y / (m - 2) - across / n
    return Terms(estimate, n, m, other, float(of_x), float(of_y), between_x, between_y, across)


def _centred(kernel: Matrix) -> tuple[Matrix, float]:
    """Of the kernel within n rows: each row's mean, to a constant, and the variance of the centred kernel.

    A sum over the other rows holds a row's own expectation n - 2 times beside the sum of all rows'; hence the divisor.
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
    estimate, _, _, _, of_x, of_y, between_x, between_y, across = np.mean(terms, axis=0)
    of_x, of_y = max(0.0, of_x), max(0.0, of_y)
    variance = 0.0
    for part in terms:
        own = 4 * of_x / part.n + 2 * between_x / (part.n * (part.n - 1)) + 4 * across / (part.n * part.m)
        variance += own / count**2
    for other in {part.other: part for part in terms}.values():
        share = sum(part.other == other.other for part in terms) / count
        variance += share**2 * (4 * of_y / other.m + 2 * between_y / (other.m * (other.m - 1)))
    return float(estimate), math.sqrt(variance)
