"""Balls around images, as far as their k-th nearest neighbour: Kynkaanniemi et al. 2019, arXiv 1904.06991, eq. 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from gankit.errors import GankitError
from gankit.interfaces import Indices, Metric, Pool, Resampling, Result
from gankit.metrics._distances import squared_distances
from gankit.metrics._rows import Matrix, digests, pooled_features, shuffled

BallCounts = tuple[NDArray[np.bool_], NDArray[np.int64]]


def checked_k(n: int, k: int | None) -> int:
    """The k for n images: the given one, or 5, but at most a tenth of the images and at least 1.

    Raises:
        GankitError: fewer than k + 2 images, or k below 1.
    """
    if k is None:
        k = min(5, max(1, n // 10))
    if k < 1:
        raise GankitError(f"k = {k}: the nearest neighbour is k = 1")
    if n < k + 2:
        raise GankitError(f"k = {k} needs at least {k + 2} images of either side, and one has {n}; lower k")
    return k


def distinct(rows: Matrix) -> tuple[Matrix, Indices]:
    """The distinct rows, and which of them each row is."""
    places: dict[bytes, int] = {}
    place = np.array([places.setdefault(content, len(places)) for content in digests(rows)], dtype=np.int64)
    return (rows if len(places) == len(rows) else rows[np.unique(place, return_index=True)[1]]), place


def balls(distances: Matrix, own: Indices, other: Indices, k: int) -> BallCounts:
    """Which balls hold one of the others, and how many balls each of the others lies in.

    Args:
        distances: (centres, N); each centre is one of `own`, at distance 0, so that it is its own nearest one.
        own: columns of the set that makes the balls.
        other: columns of the other set.
        k: which neighbour.
    """
    radii = np.partition(distances[:, own], k, axis=1)[:, k]
    inside = distances[:, other] <= radii[:, None]
    return np.asarray(inside.any(1)), inside.sum(0)


def scores(
    real_balls_hit: NDArray[np.bool_],
    real_balls_of_fakes: NDArray[np.int64],
    fake_balls_of_reals: NDArray[np.int64],
    k: int,
) -> dict[str, float]:
    """The four values.

    Args:
        real_balls_hit: (n,) whether the ball of a real image holds a generated one.
        real_balls_of_fakes: (n,) how many balls of real images each generated image lies in.
        fake_balls_of_reals: (n,) how many balls of generated images each real image lies in.
        k: which neighbour.
    """
    return {
        "precision": float((real_balls_of_fakes > 0).mean()),
        "recall": float((fake_balls_of_reals > 0).mean()),
        "density": float(real_balls_of_fakes.mean() / k),
        "coverage": float(real_balls_hit.mean()),
    }


def with_k(values: dict[str, float], n: int, k: int) -> Result:
    """The values of n images of either side as a result, with a warning where k is large for them."""
    warning = f"precision: k = {k} is more than a fifth of {n} images: balls hold most images; lower k"
    return Result(values, dict.fromkeys(values, (n, n)), {"k": k}, [warning] if 5 * k > n else [])


@final
class SharedDistances(Resampling):
    """Values on parts of a pool, from the distances between all its images.

    Args:
        metric: whose values.
        pool: the images.
        k: which neighbour, or None for the default, which grows with the number of images.
    """

    def __init__(self, metric: Metric, pool: Pool, k: int | None) -> None:
        super().__init__(metric, pool)
        self.k = k
        rows = pooled_features(pool, 1)
        self.content = digests(rows)
        rows, place = distinct(rows)
        distances = squared_distances(rows, rows)
        self.distances = distances if len(rows) == len(place) else distances[np.ix_(place, place)]
        self.n = len(place)
        # Balls hold few images, so for each image only its nearest ones are listed, nearest first.
        length = min(self.n - 1, 16 * ((self.k or 5) + 1))
        self.listed = np.empty((self.n, length), dtype=np.int64)
        self.listed_distances = np.empty((self.n, length))
        for start in range(0, self.n, 512):
            part = self.distances[start : start + 512].copy()
            rows_of_part = np.arange(len(part))
            part[rows_of_part, start + rows_of_part] = np.inf
            near = np.argpartition(part, length - 1, axis=1)[:, :length]
            near = np.take_along_axis(near, np.take_along_axis(part, near, 1).argsort(1), 1)
            self.listed[start : start + 512] = near
            self.listed_distances[start : start + 512] = np.take_along_axis(part, near, 1)

    def _whole_k(self) -> tuple[int, int]:
        """Images of the smaller side, and the k for them."""
        n = min(self.pool.real.count, self.pool.fake.count)
        return n, checked_k(n, self.k)

    def whole(self) -> Result:
        n, k = self._whole_k()
        return with_k(self._values(self.pool.real_places, self.pool.fake_places, k), n, k)

    def values(self, real: Indices, fake: Indices) -> dict[str, float]:
        return self._values(real, fake, checked_k(min(len(real), len(fake)), self.k))

    def values_without(self, parts: Sequence[Indices]) -> list[Mapping[str, float]]:
        """With the k of the whole pool: another k is another quantity, whose change says nothing of the error."""
        k, values = self._whole_k()[1], []
        for part in parts:
            real, fake = (np.setdiff1d(side, part) for side in (self.pool.real_places, self.pool.fake_places))
            values.append(self._values(real, fake, checked_k(min(len(real), len(fake)), k)))
        return list(values)

    def _values(self, real: Indices, fake: Indices, k: int) -> dict[str, float]:
        n = min(len(real), len(fake))
        # The larger side is cut to n images, in an order that depends on their content alone.
        real, fake = (
            side if len(side) == n else side[shuffled([self.content[place] for place in side])[:n]]
            for side in (real, fake)
        )
        real_balls_hit, real_balls_of_fakes = self._balls(real, fake, k)
        return scores(real_balls_hit, real_balls_of_fakes, self._balls(fake, real, k)[1], k)

    def _balls(self, own: Indices, other: Indices, k: int) -> BallCounts:
        is_own, is_other = np.zeros(self.n, dtype=bool), np.zeros(self.n, dtype=bool)
        is_own[own] = is_other[other] = True
        listed, distances = self.listed[own], self.listed_distances[own]
        own_so_far = is_own[listed].cumsum(1)
        radii = distances[np.arange(len(own)), (own_so_far >= k).argmax(1)]
        inside = (distances <= radii[:, None]) & is_other[listed]
        within_list = (own_so_far[:, -1] >= k) & ((distances[:, -1] > radii) | (distances.shape[1] == self.n - 1))
        inside &= within_list[:, None]
        hit, counts = inside.any(1), np.bincount(listed[inside], minlength=self.n)[other]
        if not within_list.all():  # balls that reach beyond the lists
            hit[~within_list], more = balls(self.distances[own[~within_list]], own, other, k)
            counts = counts + more
        return hit, counts
