"""Inception score: Salimans et al. 2016, arXiv 1606.03498, section 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, softmax

from gankit.errors import GankitError
from gankit.interfaces import Indices, Metric, Pool, Resampling, Result, Rows
from gankit.metrics._rows import Matrix, checked

NAMES = ("inception-score", "inception-score of reals")


def inception_score(logits: NDArray[Any]) -> float:
    """exp of the mean divergence of p(y|x) from p(y), over all images at once, without splits.

    Args:
        logits: (n, k) finite class logits of any float type, n at least 1; not modified.

    Returns:
        In [1, min(n, k)]: 1 where every image gives the same prediction, k where every image is surely of one class
        and all classes come equally often. Biased downwards for few images: compare at equal n only.

    Raises:
        GankitError: no row, or values that are not finite.
    """
    rows = checked(logits, "logits")
    if not len(rows):
        raise GankitError("logits: there are no rows; at least 1 is needed")
    return _Sums.of(*_probabilities(rows)).score()


def _probabilities(logits: NDArray[Any]) -> tuple[Matrix, Matrix]:
    """(n, k) p(y|x) of each row, and their (n,) entropies in nats."""
    probabilities: Matrix = softmax(logits.astype(np.float64), axis=1)
    return probabilities, entr(probabilities).sum(1)


@dataclass(frozen=True, eq=False)
class _Sums:
    """Of some images: their number, the sum of p(y|x), and the sum of its entropies in nats."""

    n: int
    probabilities: Matrix
    entropies: float

    @classmethod
    def of(cls, probabilities: Matrix, entropies: Matrix) -> _Sums:
        return cls(len(probabilities), probabilities.sum(0), float(entropies.sum()))

    def __sub__(self, other: _Sums) -> _Sums:
        return _Sums(self.n - other.n, self.probabilities - other.probabilities, self.entropies - other.entropies)

    def score(self) -> float:
        # Rounding can push a probability of 0, or the divergence, slightly below 0.
        marginal = float(entr((self.probabilities / self.n).clip(min=0)).sum())
        return float(np.exp(max(0.0, marginal - self.entropies / self.n)))


def _scores(fake: _Sums, real: _Sums) -> dict[str, float]:
    if not fake.n:
        raise GankitError("inception-score: there are no generated images; at least 1 is needed")
    sides = (fake, real) if real.n else (fake,)
    return {name: side.score() for name, side in zip(NAMES, sides, strict=False)}


@final
class InceptionScore(Metric):
    """How sure a classifier is of each generated image, and how many classes it finds in them all.

    Also given for the real images, as a reference. Comparable with published scores only for Inception's logits.
    """

    needs = ("logits",)
    better = "higher"

    def compute(self, real: Rows, fake: Rows) -> Result:
        """`inception-score` of the generated images; `inception-score of reals` where there are any.

        Raises:
            GankitError: no generated image, no logits, or logits that are not finite or of unlike numbers of classes.
        """
        return self.resampling(Pool(real, fake)).whole()

    def resampling(self, pool: Pool) -> Resampling:
        """Values from each image's prediction, computed once."""
        return _Predictions(self, pool)


class _Predictions(Resampling):
    def __init__(self, metric: InceptionScore, pool: Pool) -> None:
        super().__init__(metric, pool)
        real, fake = (
            checked(rows.required("logits", f"the {side}"), f"logits of the {side} images")
            for rows, side in ((pool.real, "real"), (pool.fake, "generated"))
        )
        if real.shape[1] != fake.shape[1]:
            raise GankitError(
                f"logits of {real.shape[1]} classes for real and of {fake.shape[1]} for generated images; use one "
                "classifier"
            )
        self.probabilities, self.entropies = _probabilities(np.concatenate([real, fake]))

    def whole(self) -> Result:
        """With a warning if there are fewer generated images than classes."""
        n, m, classes = self.pool.real.count, self.pool.fake.count, self.probabilities.shape[1]
        warning = (
            f"inception-score: {m} images cannot show {classes} classes, so that it is at most {m} and biased "
            "downwards; compare at equal n only"
        )
        values = self.values(self.pool.real_places, self.pool.fake_places)
        counts = dict(zip(NAMES, ((0, m), (n, 0)), strict=True))
        return Result(values, {name: counts[name] for name in values}, warnings=[warning] if m < classes else [])

    def values(self, real: Indices, fake: Indices) -> dict[str, float]:
        return _scores(self._sums(fake), self._sums(real))

    def values_without(self, parts: Sequence[Indices]) -> list[Mapping[str, float]]:
        n = self.pool.real.count
        real, fake = self._sums(self.pool.real_places), self._sums(self.pool.fake_places)
        return [_scores(fake - self._sums(part[part >= n]), real - self._sums(part[part < n])) for part in parts]

    def _sums(self, places: Indices) -> _Sums:
        return _Sums.of(self.probabilities[places], self.entropies[places])
