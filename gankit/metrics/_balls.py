"""Balls around images as wide as the distance to a neighbour: Kynkaanniemi et al. 2019, arXiv 1904.06991, eq. 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from gankit.errors import GankitError
from gankit.interfaces import Indices, Metric, Pool, Resampling
from gankit.metrics._distances import squared_distances
from gankit.metrics._rows import Matrix, digests, pooled, shuffled

Counts = tuple[NDArray[np.bool_], NDArray[np.int64]]


def neighbour(n: int, k: int | None) -> int:
    """Which neighbour makes the balls of n images.

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


def balls(distances: Matrix, own: Indices, other: Indices, k: int) -> Counts:
    """Which balls hold one of the others, and how many balls each of the others lies in.

    Args:
        distances: (centres, N); each centre is one of `own`, at distance 0.
        own: columns of the set that makes the balls.
        other: columns of the other set.
        k: which neighbour.
    """
    radii = np.partition(distances[:, own], k, axis=1)[:, k]
    inside = distances[:, other] <= radii[:, None]
    return np.asarray(inside.any(1)), inside.sum(0)


def scores(
    hold: NDArray[np.bool_], fakes_held: NDArray[np.int64], reals_held: NDArray[np.int64], k: int
) -> dict[str, float]:
    """The four values, from which balls of reals hold a generated image and in how many balls each image lies."""
    return {
        "precision": float((fakes_held > 0).mean()),
        "recall": float((reals_held > 0).mean()),
        "density": float(fakes_held.mean() / k),
        "coverage": float(hold.mean()),
    }


@final
class SharedDistances(Resampling):
    """Values on parts of a pool, from the distances between all its images.

    Args:
        metric: without any batch.
        pool: the images.
        k: which neighbour, or None for the scaled one.
    """

    def __init__(self, metric: Metric, pool: Pool, k: int | None) -> None:
        super().__init__(metric, pool)
        self.k = k
        rows = pooled(pool, 1)
        self.content = digests(rows)
        rows, place = distinct(rows)
        distances = squared_distances(rows, rows)
        self.distances = distances if len(rows) == len(place) else distances[np.ix_(place, place)]
        self.n = len(place)
        # Balls hold few images: of each image, nearest first, those that come into question.
        length = min(self.n - 1, 16 * ((self.k or 5) + 1))
        self.nearest = np.empty((self.n, length), dtype=np.int64)
        self.widths = np.empty((self.n, length))
        for start in range(0, self.n, 512):
            part = self.distances[start : start + 512].copy()
            each = np.arange(len(part))
            part[each, start + each] = np.inf
            near = np.argpartition(part, length - 1, axis=1)[:, :length]
            near = np.take_along_axis(near, np.take_along_axis(part, near, 1).argsort(1), 1)
            self.nearest[start : start + 512] = near
            self.widths[start : start + 512] = np.take_along_axis(part, near, 1)

    def values(self, real: Indices, fake: Indices) -> dict[str, float]:
        return self._values(real, fake, neighbour(min(len(real), len(fake)), self.k))

    def left_out(self, parts: Sequence[Indices]) -> list[dict[str, float]]:
        """With the k of the whole: another k is another quantity, whose change would tell nothing of the error."""
        reals, fakes = self.pool.reals, self.pool.fakes
        k, found = neighbour(min(len(reals), len(fakes)), self.k), []
        for part in parts:
            real, fake = np.setdiff1d(reals, part), np.setdiff1d(fakes, part)
            found.append(self._values(real, fake, neighbour(min(len(real), len(fake)), k)))
        return found

    def _values(self, real: Indices, fake: Indices, k: int) -> dict[str, float]:
        n = min(len(real), len(fake))
        real, fake = (
            side if len(side) == n else side[shuffled([self.content[place] for place in side])[:n]]
            for side in (real, fake)
        )
        hold, fakes_held = self._balls(real, fake, k)
        return scores(hold, fakes_held, self._balls(fake, real, k)[1], k)

    def _balls(self, own: Indices, other: Indices, k: int) -> Counts:
        is_own, is_other = np.zeros(self.n, dtype=bool), np.zeros(self.n, dtype=bool)
        is_own[own] = is_other[other] = True
        nearest, widths = self.nearest[own], self.widths[own]
        passed = is_own[nearest].cumsum(1)
        radii = widths[np.arange(len(own)), (passed >= k).argmax(1)]
        inside = (widths <= radii[:, None]) & is_other[nearest]
        listed = (passed[:, -1] >= k) & ((widths[:, -1] > radii) | (widths.shape[1] == self.n - 1))
        inside &= listed[:, None]
        hold, held = inside.any(1), np.bincount(nearest[inside], minlength=self.n)[other]
        if not listed.all():  # balls that reach beyond the lists
            hold[~listed], more = balls(self.distances[own[~listed]], own, other, k)
            held = held + more
        return hold, held
