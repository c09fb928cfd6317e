"""Kernel distance (KID): Binkowski et al. 2018, arXiv 1801.01401, section 3; its variance after Hoeffding 1948."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from gankit.interfaces import Indices, Pool, Resampling
from gankit.metrics._kernel import cubic_kernel, discrepancy, terms_of, with_error
from gankit.metrics._rows import FeatureRows, Matrix, digests, pair, pooled, shuffled

BLOCK = 2000
"""Rows of one side up to which all pairs are used."""


SHARED = 7000
"""Images of the largest pool whose kernel is kept: 400 MB."""


def kernel_distance(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / d + 1)^3, and its standard error.

    All pairs are used, once, in float64, so that the value is exact and the same on every call. Above 2,000 rows a side
    is dealt into blocks of at most 2,000, by the content of the rows and not by their order; each block of the longer
    side meets one of the shorter, in turn, and the mean of their exact values is given: still unbiased, at a cost that
    is linear in the number of rows.

    The standard error is that of independent rows: Hoeffding's (1948, Annals of Mathematical Statistics 19)
    decomposition of the variance into first-order and second-order terms, each estimated without bias (the kernels
    centred after Székely and Rizzo 2014, Annals of Statistics 42) and the first-order ones clamped at 0, so that it is
    about a third too large where both sets have one distribution. With fewer than 4 rows on a side the terms cannot be
    told apart, and all rows are taken for draws of one distribution.

    Args:
        x: (n, d) finite features, n at least 2, any float or integer type; not modified.
        y: (m, d) finite features, m at least 2.

    Returns:
        The estimate, which may be negative (its mean is 0 for equal distributions), and its standard error.

    Raises:
        GankitError: fewer than 2 rows, different d, or values that are not finite.
    """
    first, second = pair(x, y, 2)
    if max(len(first), len(second)) > BLOCK and _place(first) < _place(second):
        first, second = second, first
    blocks, others = _blocks(first, "longer"), _blocks(second, "shorter")
    terms = []
    for place, block in enumerate(blocks):
        other = place % len(others)
        rows = np.concatenate([block, others[other]])
        terms.append(terms_of(cubic_kernel(rows), len(block), other))
    return with_error(terms)


@final
class Kid(FeatureRows):
    """The kernel distance between real and generated images in feature space: fit for few images, since unbiased."""

    better = "lower"

    def compute(self) -> dict[str, float]:
        """`kid`: 0 on average for equal distributions, negative ones included.

        Raises:
            GankitError: as `kernel_distance`.
        """
        return {"kid": kernel_distance(*self.both(2))[0]}

    def resampling(self, pool: Pool) -> Resampling:
        """Values on up to 2,000 images a side from one kernel between all images of the pool."""
        return _SharedKernel(self, pool)


class _SharedKernel(Resampling):
    def __init__(self, metric: Kid, pool: Pool) -> None:
        super().__init__(metric, pool)
        self.rows = pooled(pool, 2)

    @cached_property
    def kernel(self) -> Matrix:
        return cubic_kernel(self.rows)

    def _shares(self, n: int, m: int) -> bool:
        return 2 <= min(n, m) <= max(n, m) <= BLOCK and len(self.rows) <= SHARED

    def values(self, real: Indices, fake: Indices) -> dict[str, float]:
        if not self._shares(len(real), len(fake)):
            return super().values(real, fake)
        sums = self._sums(real, fake)
        value = discrepancy(sums[real, 0].sum(), sums[fake, 1].sum(), sums[real, 1].sum(), len(real), len(fake))
        return {"kid": value}

    def left_out(self, parts: Sequence[Indices]) -> list[dict[str, float]]:
        n, m = self.pool.real.count, self.pool.fake.count
        if not self._shares(n, m):
            return super().left_out(parts)
        sums = self._sums(self.pool.reals, self.pool.fakes)
        of_real, of_fake, between = sums[:n, 0].sum(), sums[n:, 1].sum(), sums[:n, 1].sum()
        values = []
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

    def standard_errors(self) -> dict[str, float] | None:
        n = self.pool.real.count
        if self._shares(n, self.pool.fake.count):
            return {"kid": with_error([terms_of(self.kernel, n)])[1]}
        return {"kid": kernel_distance(self.rows[:n], self.rows[n:])[1]}

    def _sums(self, real: Indices, fake: Indices) -> Matrix:
        """(N, 2): each image's kernel summed over the real and over the generated ones."""
        chosen = np.zeros((len(self.kernel), 2))
        chosen[real, 0] = chosen[fake, 1] = 1
        return self.kernel @ chosen


def _place(rows: Matrix) -> tuple[int, list[bytes]]:
    """The same whichever comes first: the longer side, of equal ones that with the larger content."""
    return len(rows), sorted(digests(rows))


def _blocks(rows: Matrix, which: str) -> list[Matrix]:
    count = -(-len(rows) // BLOCK)
    if count == 1:
        return [rows]
    return [rows[part] for part in np.array_split(shuffled(digests(rows), which), count)]
