"""Scores of classifiers from their outputs for one test part, with intervals and differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from gankit.evaluation.classification import (
    Floats,
    Score,
    auc,
    balanced_accuracy,
    brier,
    calibration_error,
    macro_auc,
    macro_f1,
    recall_of,
    reliability,
)
from gankit.evaluation.paired import (
    Cases,
    confusions,
    crossed,
    independent_cases,
    paired_difference,
    score_interval,
)
from gankit.evaluation.uncertainty import wilson

SCORES: dict[str, Score] = {"balanced accuracy": balanced_accuracy, "macro F1": macro_f1}
Values = dict[str, Any]


class Scorer:
    """Scores of classifiers on one test part; all draws are those of one seed, so that classifiers share them.

    Args:
        labels: (n,) true classes.
        groups: (n,) group of each case, or None.
        names: of the classes.
        seed: of the draws.
    """

    def __init__(self, labels: NDArray[np.int64], groups: NDArray[Any] | None, names: Sequence[str], seed: int) -> None:
        self.labels, self.names, self.seed = labels, list(names), seed
        self.cases = Cases.of(labels, groups)

    def counts(self, logits: Floats) -> Floats:
        """(seeds, n, k) logits to (seeds, groups, k, k) counts."""
        return self.cases.counts(logits.argmax(-1), len(self.names))

    def scores(self, logits: Floats, groupings: Mapping[str, Sequence[str]], calibration: bool = False) -> Values:
        """Scores of one classifier, as JSON can hold them.

        Args:
            logits: (seeds, n, k) of its trainings.
            groupings: names with the classes that are positive in each.
            calibration: whether probabilities are judged too.
        """
        counts, predicted = self.counts(logits), logits.argmax(-1)
        probabilities: Floats = softmax(logits, axis=-1)
        values: Values = {}
        for name, score in SCORES.items():
            interval = score_interval(self.cases, counts, score, self.seed)
            values[name] = _entry(*interval, score(confusions(counts)))
        values["AUC"] = self._resample(
            lambda seed, weights: macro_auc(self.labels, probabilities[seed], weights), len(logits)
        )
        values["recall"] = {
            name: self._share(self.labels == label, predicted == label) for label, name in enumerate(self.names)
        }
        values["groupings"] = {name: self._grouping(chosen, probabilities)
                               for name, chosen in groupings.items()}  # fmt: skip
        values["confusion"] = confusions(counts).mean(0).tolist()
        if calibration:
            for name, error in (("Brier score", brier), ("calibration error", calibration_error)):
                values[name] = float(np.mean([error(self.labels, of_seed) for of_seed in probabilities]))
            bins = reliability(np.tile(self.labels, len(logits)), probabilities.reshape(-1, len(self.names)))
            values["reliability"] = [list(row) for row in bins]
        return values

    def _resample(self, score: Callable[[int, Floats | None], Floats], seeds: int) -> Values:
        """A score of probabilities or numbers: `score(seed, weights of the cases)`, drawn over groups and seeds."""
        random = np.random.default_rng(self.seed)
        weights = self.cases.draws(random)[:, self.cases.group]
        by_seed = np.array([score(seed, None)[0] for seed in range(seeds)])
        drawn = np.stack([score(seed, weights) for seed in range(seeds)], 1)
        return _entry(float(by_seed.mean()), *crossed(drawn, random), by_seed)

    def _share(self, among: NDArray[np.bool_], hits: NDArray[np.bool_]) -> Values:
        """A proportion of the (n,) cases `among`, from (seeds, n) hits: Wilson's interval of the mean over seeds."""
        groups = self.cases.groups
        sizes = np.bincount(self.cases.group[among], minlength=groups).astype(np.float64)
        by_group = np.bincount(self.cases.group[among], hits.mean(0)[among], minlength=groups).astype(np.float64)
        n = independent_cases(by_group, sizes)
        share = float(by_group.sum() / sizes.sum())
        low, high = wilson(share * n, n)
        by_seed = hits[:, among].mean(1)
        return {**_entry(share, low, high, by_seed), "n": int(among.sum()), "independent": round(n, 1)}

    def _grouping(self, chosen: Sequence[str], probabilities: Floats) -> Values:
        positive_classes = [self.names.index(name) for name in chosen]
        positive = np.isin(self.labels, positive_classes)
        chance = probabilities[..., positive_classes].sum(-1)
        called = chance > 0.5
        return {
            "positive": list(chosen),
            "sensitivity": self._share(positive, called),
            "specificity": self._share(~positive, ~called),
            "AUC": self._resample(lambda seed, weights: auc(positive, chance[seed], weights), len(chance)),
        }

    def difference(self, logits: Floats, against: Floats, rare: int) -> dict[str, Values]:
        """One classifier less another, on the same cases and seeds, by score.

        Args:
            logits: (seeds, n, k) of the first.
            against: (seeds, n, k) of the second.
            rare: the class whose recall is compared too.
        """
        scores = {**SCORES, f"recall of {self.names[rare]}": recall_of(rare)}
        sides = self.counts(logits), self.counts(against)
        return {name: vars(paired_difference(self.cases, *sides, score)) for name, score in scores.items()}

    def errors(self, predicted: Floats, true: Floats) -> Values:
        """Errors of (seeds, n) numbers from the (n,) true ones, in their own units."""

        def mean(values: Floats, weights: Floats | None) -> Floats:
            weights = np.ones((1, len(values))) if weights is None else weights
            means: Floats = weights @ values / weights.sum(1)
            return means

        def correlation(seed: int, weights: Floats | None) -> Floats:
            x, y = predicted[seed], true
            moments = [mean(values, weights) for values in (x, y, x * y, x * x, y * y)]
            covariance = moments[2] - moments[0] * moments[1]
            spread = (moments[3] - moments[0] ** 2) * (moments[4] - moments[1] ** 2)
            correlations: Floats = np.divide(covariance, np.sqrt(np.maximum(spread, 0)), where=spread > 0,
                                             out=np.full(len(spread), np.nan))  # fmt: skip
            return correlations

        errors, seeds = np.abs(predicted - true), len(predicted)
        squares = errors**2
        return {
            "mean absolute error": self._resample(lambda seed, weights: mean(errors[seed], weights), seeds),
            "root mean square error": self._resample(lambda seed, weights: mean(squares[seed], weights) ** 0.5, seeds),
            "correlation": self._resample(correlation, seeds),
        }


def _entry(value: float, low: float, high: float, by_seed: Floats) -> Values:
    return {"value": value, "low": low, "high": high, "by_seed": by_seed.tolist()}
