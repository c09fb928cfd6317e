"""Inception score: Salimans et al. 2016, arXiv 1606.03498, section 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, softmax

from gankit.errors import GankitError
from gankit.interfaces import Batch, Indices, Metric, Pool, Resampling
from gankit.metrics._rows import Matrix, checked

NAMES = ("inception-score", "inception-score of reals")


@dataclass(frozen=True)
class _Sums:
    """Of some images: their number, the sum of the entropies of p(y|x) in nats, and the sum of p(y|x)."""

    n: int = 0
    entropy: float = 0.0
    chance: Matrix | None = None

    def __add__(self, other: _Sums) -> _Sums:
        if self.chance is None or other.chance is None:
            return other if self.chance is None else self
        if self.chance.shape != other.chance.shape:
            raise GankitError(
                f"logits of {len(self.chance)} and of {len(other.chance)} classes cannot be joined; use one classifier"
            )
        return _Sums(self.n + other.n, self.entropy + other.entropy, self.chance + other.chance)

    def __sub__(self, other: _Sums) -> _Sums:
        assert self.chance is not None
        assert other.chance is not None
        return _Sums(self.n - other.n, self.entropy - other.entropy, self.chance - other.chance)

    def score(self) -> float:
        assert self.chance is not None
        # Rounding can leave a chance that is 0, or a divergence, a little below 0.
        marginal = float(entr((self.chance / self.n).clip(min=0)).sum())
        return float(np.exp(max(0.0, marginal - self.entropy / self.n)))


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
    return _sums(rows).score()


@final
class InceptionScore(Metric):
    """How sure a classifier is of each generated image, and how many classes it finds: reals beside, for scale.

    Called as in the paper only for Inception's logits. State is sums, so that batches and processes give what one pass
    over all images gives.
    """

    needs = ("logits",)
    better = "higher"

    real: _Sums
    fake: _Sums

    def __init__(self) -> None:
        self.add_state("real", _Sums, _Sums.__add__)
        self.add_state("fake", _Sums, _Sums.__add__)

    def update(self, batch: Batch) -> None:
        """Take in (n, k) logits of real or of generated images.

        Raises:
            GankitError: no logits, not (n, k), another k than before, or values that are not finite.
        """
        logits = self.wanted(batch, "logits")
        sums = _sums(checked(logits, f"logits of the {'real' if batch.real else 'generated'} images"))
        if batch.real:
            self.real += sums
        else:
            self.fake += sums

    def compute(self) -> dict[str, float]:
        """`inception-score` of the generated images; `inception-score of reals` where there are any.

        Raises:
            GankitError: no generated image.
        """
        return _scores(self.fake, self.real)

    def counts(self) -> Mapping[str, tuple[int, int]]:
        """Each value is of one side."""
        return {NAMES[0]: (0, self.fake.n), NAMES[1]: (self.real.n, 0)}

    def cautions(self, real_vs_real: Mapping[str, float]) -> list[str]:
        """Fewer images than classes."""
        classes = 0 if self.fake.chance is None else len(self.fake.chance)
        if self.fake.n >= classes:
            return []
        return [
            f"inception-score: {self.fake.n} images cannot show {classes} classes, so that it is at most {self.fake.n} "
            "and biased downwards; compare at equal n only"
        ]

    def resampling(self, pool: Pool) -> Resampling:
        """Values from each image's prediction, computed once."""
        logits = [rows.fields["logits"] for rows in (pool.real, pool.fake) if "logits" in rows.fields]
        fits = len(logits) == 2 and logits[0].ndim == 2 and logits[0].shape[1:] == logits[1].shape[1:]
        return _Predictions(self, pool) if fits else Resampling(self, pool)


class _Predictions(Resampling):
    def __init__(self, metric: InceptionScore, pool: Pool) -> None:
        super().__init__(metric, pool)
        self.chance = _chances(
            checked(np.concatenate([pool.real.fields["logits"], pool.fake.fields["logits"]]), "logits")
        )
        self.entropy = entr(self.chance).sum(1)

    def values(self, real: Indices, fake: Indices) -> dict[str, float]:
        return _scores(self._of(fake), self._of(real))

    def left_out(self, parts: Sequence[Indices]) -> list[dict[str, float]]:
        n = self.pool.real.count
        real, fake = self._of(self.pool.reals), self._of(self.pool.fakes)
        return [_scores(fake - self._of(part[part >= n]), real - self._of(part[part < n])) for part in parts]

    def _of(self, places: Indices) -> _Sums:
        return _Sums(len(places), float(self.entropy[places].sum()), self.chance[places].sum(0))


def _sums(logits: NDArray[Any]) -> _Sums:
    chance = _chances(logits)
    return _Sums(len(chance), float(entr(chance).sum()), chance.sum(0))


def _chances(logits: NDArray[Any]) -> Matrix:
    """p(y|x) of each row, shifted by its largest logit so that nothing overflows."""
    chances: Matrix = softmax(logits.astype(np.float64), axis=1)
    return chances


def _scores(fake: _Sums, real: _Sums) -> dict[str, float]:
    if not fake.n:
        raise GankitError("the inception-score metric has seen no generated images; it needs at least 1")
    sides = (fake, real) if real.n else (fake,)
    return {name: side.score() for name, side in zip(NAMES, sides, strict=False)}
