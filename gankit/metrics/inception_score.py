"""Inception score: Salimans et al. 2016, arXiv 1606.03498, section 4."""

from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, softmax

from gankit.errors import GankitError
from gankit.interfaces import Meaning, Metric, Pool, Resampling, Result, Rows
from gankit.metrics._rows import Matrix, SumsResampling, check_rows, read_rows

NAMES = ("inception-score", "inception-score of reals")


def inception_score(logits: NDArray[Any]) -> float:
    """exp of the mean divergence of p(y|x) from p(y), over all images at once, without splits.

    Args:
        logits: (n, k) finite class logits of any float type, n at least 1; not modified.

    Returns:
        In [1, min(n, k)]: 1 within rounding if all predictions are the same, k if each image is assigned to one class
        with certainty and all classes come equally often. Biased downwards for few images: compare at equal n only.

    Raises:
        GankitError: no row, or values that are not finite.
    """
    rows = check_rows(logits, "logits")
    if not len(rows):
        raise GankitError("logits: there are no rows; at least 1 is needed")
    return _score(_predictions(rows).sum(0))


def _predictions(logits: NDArray[Any]) -> Matrix:
    """(n, 1 + k + 1): a column of ones, whose sum counts images; then p(y|x); last its entropy in nats."""
    probabilities = softmax(logits.astype(np.float64), axis=1)
    return np.column_stack([np.ones(len(logits)), probabilities, entr(probabilities).sum(1)])


def _score(sums: Matrix) -> float:
    """The score from the sum of rows of `_predictions`."""
    # Where rows were subtracted from a sum, rounding can leave a probability, or the divergence, slightly below 0.
    means = sums / sums[0]
    return float(np.exp(max(0.0, entr(means[1:-1].clip(min=0)).sum() - means[-1])))


@final
class InceptionScore(Metric):
    """How sure a classifier is of each generated image, and how many classes it finds in them all.

    Also given for the real images, as a reference. Comparable with published scores only for Inception's logits.
    """

    needs = ("logits",)
    better = "higher"
    meanings: ClassVar = {
        NAMES[0]: Meaning("how sure and how varied the predicted classes are", "higher"),
        NAMES[1]: Meaning("the same of the real images"),
    }

    def compute(self, real: Rows, fake: Rows) -> Result:
        """`inception-score` of the generated images; `inception-score of reals` where there are any.

        Raises:
            GankitError: no generated images or no logits; or logits not finite, or of different numbers of classes.
        """
        return self.resampling(Pool(real, fake)).whole()

    def resampling(self, pool: Pool) -> Resampling:
        """Values from each image's prediction, computed once."""
        return _ScoreResampling(self, pool)


class _ScoreResampling(SumsResampling):
    def __init__(self, metric: InceptionScore, pool: Pool) -> None:
        super().__init__(metric, pool)
        real, fake = read_rows(pool.real, "real", "logits"), read_rows(pool.fake, "generated", "logits")
        if real.shape[1] != fake.shape[1]:
            raise GankitError(
                f"logits of {real.shape[1]} classes for real and of {fake.shape[1]} for generated images; use one "
                "classifier"
            )
        self.summands = _predictions(np.concatenate([real, fake]))

    def whole(self) -> Result:
        """With a warning if there are fewer generated images than classes."""
        n, m, classes = self.pool.real.count, self.pool.fake.count, self.summands.shape[1] - 2
        warning = (
            f"inception-score: {m} images cannot show {classes} classes, so that it is at most {m} and biased "
            "downwards; compare at equal n only"
        )
        values = self.values(self.pool.real_places, self.pool.fake_places)
        counts = {"inception-score": (0, m), "inception-score of reals": (n, 0)}
        return Result(values, {name: counts[name] for name in values}, warnings=[warning] if m < classes else [])

    def from_sums(self, real: Matrix, fake: Matrix) -> dict[str, float]:
        if not fake[0]:
            raise GankitError("inception-score: there are no generated images; at least 1 is needed")
        return {name: _score(sums) for name, sums in zip(NAMES, (fake, real), strict=True) if sums[0]}
