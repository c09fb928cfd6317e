"""Total variance of generated over that of real features: the traces in Heusel et al. 2017, arXiv 1706.08500, eq. 6."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gankit.errors import GankitError
from gankit.interfaces import Batch, Indices, Metric, Moments, Pool, Resampling
from gankit.metrics._rows import Matrix, checked, pair, pooled


def variance_ratio(real: ArrayLike, fake: ArrayLike) -> float:
    """tr(S_fake) / tr(S_real) with unbiased covariances.

    Args:
        real: (n, d) finite features, n at least 2; not modified.
        fake: (m, d) finite features, m at least 2.

    Returns:
        At least 0. 1 is ideal; below 1 the generated images vary less than real ones, as a collapsed generator's do.

    Raises:
        GankitError: fewer than 2 rows, different d, values that are not finite, or real features that are constant.
    """
    x, y = pair(real, fake, 2, ("real", "fake"))
    return _ratio(_Spread.of(x), _Spread.of(y))


@dataclass(frozen=True)
class _Spread:
    """Number of rows, their mean and their summed squared deviations, a dimension each.

    Where moments came without a number of rows, n is None and the variance takes the place of the sums.
    """

    n: int | None = 0
    mean: Matrix | None = None
    squares: Matrix | None = None

    @classmethod
    def of(cls, rows: NDArray[Any]) -> _Spread:
        if not len(rows):
            return cls()
        # Deviations from a row: those of equal rows are 0 exactly, and an offset costs no digits.
        steps = rows.astype(np.float64) - rows[0]
        mean = steps.mean(0)
        return cls(len(rows), rows[0] + mean, np.square(steps - mean).sum(0))

    @classmethod
    def of_moments(cls, moments: Moments) -> _Spread:
        variance = np.diagonal(moments.covariance).astype(np.float64)
        checked(np.stack([moments.mean, variance]), "means and variances of the statistics")
        return cls(moments.n, moments.mean, variance if moments.n is None else variance * (moments.n - 1))

    def __add__(self, other: _Spread) -> _Spread:
        """Chan, Golub and LeVeque 1983, American Statistician 37."""
        if self.n == 0 or other.n == 0:
            return self if other.n == 0 else other
        if self.n is None or other.n is None:
            raise GankitError("variance-ratio: statistics without a number of images cannot be joined with others")
        assert self.mean is not None
        assert other.mean is not None
        assert self.squares is not None
        assert other.squares is not None
        if len(self.mean) != len(other.mean):
            raise GankitError(
                f"features of {len(self.mean)} and of {len(other.mean)} dimensions cannot be joined; use one extractor"
            )
        n, step = self.n + other.n, other.mean - self.mean
        squares = self.squares + other.squares + np.square(step) * (self.n * other.n / n)
        return _Spread(n, self.mean + step * (other.n / n), squares)

    def variance(self, name: str) -> float:
        """Summed over the dimensions."""
        if self.squares is None or (self.n is not None and self.n < 2):
            raise GankitError(f"variance-ratio: {self.n} {name} images; at least 2 are needed")
        return float(self.squares.sum() / (1 if self.n is None else self.n - 1))


def _ratio(real: _Spread, fake: _Spread) -> float:
    whole, part = real.variance("real"), fake.variance("generated")
    if real.mean is not None and fake.mean is not None and len(real.mean) != len(fake.mean):
        raise GankitError(
            f"features differ in dimension: {len(real.mean)} of real and {len(fake.mean)} of generated images"
        )
    return _divided(part, whole)


def _divided(fake: float, real: float) -> float:
    if real <= 0:
        raise GankitError("variance-ratio: the real images' features are constant; look at the images or the extractor")
    return fake / real


@final
class VarianceRatio(Metric):
    """How much generated images vary in feature space beside real ones: exposes collapse.

    The Frechet distance between few images understates exactly this, since a shrunken covariance also shrinks its bias.
    The state grows with neither the number of images nor of batches.
    """

    takes_moments = True

    real: _Spread
    fake: _Spread

    def __init__(self) -> None:
        self.add_state("real", _Spread, _Spread.__add__)
        self.add_state("fake", _Spread, _Spread.__add__)

    def update(self, batch: Batch) -> None:
        """Take in (n, d) features of real or of generated images, or the moments of all of them.

        Raises:
            GankitError: neither, not (n, d), another d than before, or values that are not finite.
        """
        name = "real" if batch.real else "generated"
        if batch.moments is not None:
            spread = _Spread.of_moments(batch.moments)
        else:
            spread = _Spread.of(checked(self.wanted(batch, "features"), f"features of the {name} images"))
        if batch.real:
            self.real += spread
        else:
            self.fake += spread

    def compute(self) -> dict[str, float]:
        """`variance-ratio`, at least 0 and ideally 1.

        Raises:
            GankitError: as `variance_ratio`.
        """
        return {"variance-ratio": _ratio(self.real, self.fake)}

    def resampling(self, pool: Pool) -> Resampling:
        """Values from sums of rows and of their squares."""
        return _Sums(self, pool) if min(pool.real.count, pool.fake.count) else Resampling(self, pool)


class _Sums(Resampling):
    def __init__(self, metric: VarianceRatio, pool: Pool) -> None:
        super().__init__(metric, pool)
        rows = pooled(pool, 1)
        self.rows = rows - rows.mean(0)
        self.squares = np.einsum("ij,ij->i", self.rows, self.rows)

    def values(self, real: Indices, fake: Indices) -> dict[str, float]:
        chosen = np.zeros((2, len(self.rows)))
        chosen[0, real] = chosen[1, fake] = 1
        value = self._value(chosen @ self.rows, chosen @ self.squares, len(real), len(fake))
        return super().values(real, fake) if value is None else value

    def left_out(self, parts: Sequence[Indices]) -> list[dict[str, float]]:
        n, m = self.pool.real.count, self.pool.fake.count
        sums = np.stack([self.rows[:n].sum(0), self.rows[n:].sum(0)])
        squares = np.array([self.squares[:n].sum(), self.squares[n:].sum()])
        values = []
        for part in parts:
            sides = part[part < n], part[part >= n]
            value = self._value(
                sums - [self.rows[side].sum(0) for side in sides],
                squares - [self.squares[side].sum() for side in sides],
                n - len(sides[0]),
                m - len(sides[1]),
            )
            values.append(super().left_out([part])[0] if value is None else value)
        return values

    def _value(self, sums: Matrix, squares: Matrix, n: int, m: int) -> dict[str, float] | None:
        """None where so little is left of the squares that the rows themselves must tell, or there are too few."""
        if min(n, m) < 2:
            return None
        count = np.array([n, m])
        left = squares - np.square(sums).sum(1) / count
        if (left <= 1e-6 * self.squares.sum()).any():
            return None
        real, fake = left / (count - 1)
        return {"variance-ratio": _divided(float(fake), float(real))}
