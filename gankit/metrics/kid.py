"""Kernel distance (KID): Binkowski et al. 2018, arXiv 1801.01401, section 3; its variance after Hoeffding 1948."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar, NamedTuple, final

import numpy as np
from numpy.typing import ArrayLike

from gankit.interfaces import Indices, Meaning, Metric, Pool, Resampling, Result, Rows
from gankit.metrics._covariance import sum_of_squares
from gankit.metrics._rows import LARGEST_POOL, Matrix, digests, float64_pair, permutation, pooled_features

BLOCK = 2000
"""Rows of one side up to which all pairs are used."""


def kernel_distance(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / d + 1)^3, and its standard error.

    All pairs are used, once, in float64, so that the value is exact and the same on every call. A side of more than
    2,000 rows is divided into blocks of at most 2,000, by the content of the rows and not by their order. Each block of
    the longer side is compared with one of the shorter, in turn, and the estimate is the mean of these values: still
    unbiased, at a cost that is linear in the number of rows.

    The standard error is that of independent rows. Hoeffding's decomposition (1948, Annals of Mathematical Statistics
    19) divides the variance into terms of first and second order. Each is estimated without bias, from kernels centred
    after Székely and Rizzo 2014 (Annals of Statistics 42); those of first order are clamped at 0. The clamp makes the
    error too large, by 6 to 35 percent in simulations, if both sets come from the same distribution. With fewer
    than 4 rows on a side the terms cannot be told apart, and all rows are taken for draws of one distribution.

    Args:
        x: (n, d) finite features, n at least 2, any float or integer type; not modified.
        y: (m, d) finite features, m at least 2.

    Returns:
        The estimate, which may be negative (its mean is 0 for equal distributions), and its standard error.

    Raises:
        GankitError: fewer than 2 rows, different d, or values that are not finite.
    """
    first, second = float64_pair(x, y, min_rows=2)
    if max(len(first), len(second)) > BLOCK and _order(first) < _order(second):
        first, second = second, first  # the first side is the longer one
    blocks, others = _blocks(first, "longer"), _blocks(second, "shorter")
    terms = []
    for place, block in enumerate(blocks):
        partner = place % len(others)
        rows = np.concatenate([block, others[partner]])
        terms.append(terms_of(cubic_kernel(rows), len(block), partner))
    return mean_and_standard_error(terms)


@final
class Kid(Metric):
    """The kernel distance between real and generated images in feature space; unbiased, so it suits few images."""

    better = "lower"
    meanings: ClassVar = {"kid": Meaning("squared kernel distance, without bias: it may be below 0", "lower")}

    def compute(self, real: Rows, fake: Rows) -> Result:
        """`kid`, whose mean is 0 for equal distributions, so that single values may be negative.

        Raises:
            GankitError: as `kernel_distance`.
        """
        return self.resampling(Pool(real, fake)).whole()

    def resampling(self, pool: Pool) -> Resampling:
        """Values on up to 2,000 images a side from one kernel between all images of the pool."""
        return _SharedKernel(self, pool)


class _SharedKernel(Resampling):
    def __init__(self, metric: Kid, pool: Pool) -> None:
        super().__init__(metric, pool)
        self.features = pooled_features(pool, min_rows=2)

    @cached_property
    def kernel(self) -> Matrix:
        return cubic_kernel(self.features)

    def _fits_kernel(self, n: int, m: int) -> bool:
        """Whether values on n and m images come from the kernel between all images."""
        return 2 <= min(n, m) <= max(n, m) <= BLOCK and len(self.features) <= LARGEST_POOL

    @cached_property
    def _value_and_error(self) -> tuple[float, float]:
        """For all images of the pool; the error is that of independent images."""
        n = self.pool.real.count
        if self._fits_kernel(n, self.pool.fake.count):
            return mean_and_standard_error([terms_of(self.kernel, n)])
        return kernel_distance(self.features[:n], self.features[n:])

    def whole(self) -> Result:
        return Result({"kid": self._value_and_error[0]})

    def standard_errors(self) -> dict[str, float]:
        return {"kid": self._value_and_error[1]}

    def values(self, real: Indices, fake: Indices) -> dict[str, float]:
        if not self._fits_kernel(len(real), len(fake)):
            return {"kid": kernel_distance(self.features[real], self.features[fake])[0]}
        sums = self._sums(real, fake)
        value = discrepancy(sums[real, 0].sum(), sums[fake, 1].sum(), sums[real, 1].sum(), len(real), len(fake))
        return {"kid": value}

    def values_without(self, parts: Sequence[Indices]) -> list[Mapping[str, float]]:
        n, m = self.pool.real.count, self.pool.fake.count
        if not self._fits_kernel(n, m):
            return super().values_without(parts)
        sums = self._sums(self.pool.real_places, self.pool.fake_places)
        of_real, of_fake, between = sums[:n, 0].sum(), sums[n:, 1].sum(), sums[:n, 1].sum()
        values: list[Mapping[str, float]] = []
        for part in parts:
            real, fake = part[part < n], part[part >= n]
            value = discrepancy(
                of_real - 2 * sums[real, 0].sum() + self.kernel[np.ix_(real, real)].sum(),
                of_fake - 2 * sums[fake, 1].sum() + self.kernel[np.ix_(fake, fake)].sum(),
                between - sums[real, 1].sum() - sums[fake, 0].sum() + self.kernel[np.ix_(real, fake)].sum(),
                n - len(real),
                m - len(fake),
            )
            values.append({"kid": value})
        return values

    def _sums(self, real: Indices, fake: Indices) -> Matrix:
        """(N, 2): each image's kernel summed over the real and over the generated ones."""
        chosen = np.zeros((len(self.kernel), 2))
        chosen[real, 0] = chosen[fake, 1] = 1
        return self.kernel @ chosen


def _order(rows: Matrix) -> tuple[int, list[bytes]]:
    """A key to sort sides by: by length, and equally long ones by their rows' digests."""
    return len(rows), sorted(digests(rows))


def _blocks(rows: Matrix, shuffle: str) -> list[Matrix]:
    """The rows, or several blocks of at most `BLOCK` of them, from the permutation of this name."""
    count = -(-len(rows) // BLOCK)
    if count == 1:
        return [rows]
    return [rows[part] for part in np.array_split(permutation(digests(rows), shuffle), count)]


class Terms(NamedTuple):
    """The estimate from one block of each side, and unbiased estimates of what its variance is made of.

    The variance of `estimate` is 4 row_variance_x / n + 4 row_variance_y / m
    + 2 pair_variance_x / (n (n - 1)) + 2 pair_variance_y / (m (m - 1)) + 4 cross_variance / (n m).
    """

    estimate: float  # the squared discrepancy
    n: int  # rows of the first side
    m: int  # rows of the second side
    second_block: int  # index of the second side's block; terms that share it are not independent
    row_variance_x: float  # variance of a row's mean contribution, the term of first order; its estimate may be below 0
    row_variance_y: float  # the same of the second side
    pair_variance_x: float  # variance of the kernel within the first side, centred in both arguments
    pair_variance_y: float  # the same of the second side
    cross_variance: float  # the same between the sides


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
    """Terms of one pair of blocks, from the (n + m, n + m) kernel of n rows of one side and then m of the other."""
    m = len(kernel) - n
    cross = kernel[:n, n:]
    estimate = discrepancy(kernel[:n, :n].sum(), kernel[n:, n:].sum(), cross.sum(), n, m)
    if min(n, m) < 4:  # too few to tell the terms apart: as if all rows had one distribution
        variance = _centred(kernel)[1]
        return Terms(estimate, n, m, second_block, 0.0, 0.0, variance, variance, variance)
    mean_x, pair_variance_x = _centred(kernel[:n, :n])
    mean_y, pair_variance_y = _centred(kernel[n:, n:])
    to_y, to_x = cross.mean(1), cross.mean(0)
    cross_variance = sum_of_squares(cross - to_y[:, None] - (to_x - to_x.mean())) / ((n - 1) * (m - 1))
    # The noise of the row means would count as variance between rows: it is subtracted.
    row_variance_x = np.var(mean_x - to_y, ddof=1) - pair_variance_x / (n - 2) - cross_variance / m
    row_variance_y = np.var(mean_y - to_x, ddof=1) - pair_variance_y / (m - 2) - cross_variance / n
    of_rows, of_pairs = (float(row_variance_x), float(row_variance_y)), (pair_variance_x, pair_variance_y)
    return Terms(estimate, n, m, second_block, *of_rows, *of_pairs, cross_variance)


def _centred(kernel: Matrix) -> tuple[Matrix, float]:
    """Of the kernel within n rows: each row's mean up to a common constant, and the variance of the centred kernel.

    If kernel(i, j) = h(i) + h(j) for i != j, row i sums to (n - 2) h(i) + sum(h). Divided by n - 2, that is h(i)
    up to a constant.
    """
    n = len(kernel)
    means = kernel.sum(1) / (n - 2)
    centred = kernel - means[:, None] - (means - means.sum() / (n - 1))
    np.fill_diagonal(centred, 0)
    return means, sum_of_squares(centred) / (n * (n - 3))


def mean_and_standard_error(terms: Sequence[Terms]) -> tuple[float, float]:
    """The mean of the blocks' estimates, and its standard error: rows of different blocks are independent.

    The variance of the mean is a sum over the blocks: each one's part in `Terms`, times its squared share of the mean.
    With k terms, a block of the first side has the share 1 / k; one of the second side has j / k if j terms use it.
    """
    count = len(terms)
    mean = Terms(*np.mean(terms, axis=0))
    row_variance_x, row_variance_y = max(0.0, mean.row_variance_x), max(0.0, mean.row_variance_y)
    variance = 0.0
    for n, m in ((part.n, part.m) for part in terms):
        of_rows, of_pairs = 4 * row_variance_x / n, 2 * mean.pair_variance_x / (n * (n - 1))
        variance += (of_rows + of_pairs + 4 * mean.cross_variance / (n * m)) / count**2
    for block, m in {part.second_block: part.m for part in terms}.items():  # each block once
        share = sum(part.second_block == block for part in terms) / count
        variance += share**2 * (4 * row_variance_y / m + 2 * mean.pair_variance_y / (m * (m - 1)))
    return float(mean.estimate), math.sqrt(variance)
