"""Scores of a classifier from its confusion matrices and probabilities, with intervals and differences."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from gankit.evaluation.design import ROUNDING, Estimate, Floats
from gankit.evaluation.paired import Cases, Score, crossed_estimate, paired_difference, score_estimate

BINS = 10  # for the calibration error, of equal width in confidence
BLOCK = 256  # leave-one-group-out weightings that are computed in one batch


def _ratio(part: Floats, whole: Floats, otherwise: float = np.nan) -> Floats:
    """part / whole, or `otherwise` where whole is not above 0."""
    return cast(Floats, np.divide(part, whole, out=np.full(part.shape, otherwise), where=whole > 0))


def recalls(counts: Floats) -> Floats:
    """(..., k, k) confusion matrices to the (..., k) share of each class that is found; NaN for one without cases."""
    return _ratio(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1))


def balanced_accuracy(counts: Floats) -> Floats:
    """(..., k, k) confusion matrices to (...) means of recalls over the classes with cases; NaN without any."""
    shares = recalls(counts)
    known = ~np.isnan(shares)
    return _ratio(np.where(known, shares, 0).sum(-1), known.sum(-1))


def macro_f1(counts: Floats) -> Floats:
    """(..., k, k) confusion matrices to (...) means over classes of 2 TP / (2 TP + FP + FN), 0 where that is 0 / 0."""
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    return cast(Floats, _ratio(2 * right, counts.sum(-1) + counts.sum(-2), otherwise=0.0).mean(-1))


def recall_of(label: int) -> Score:
    """The recall of one class, as a function of (..., k, k) confusion matrices."""
    return lambda counts: recalls(counts)[..., label]


def auc(positive: NDArray[np.bool_], scores: Floats, weights: Floats | None = None) -> Floats:
    """The area under the ROC curve: the chance that a positive case scores above a negative one, ties counting half.

    Args:
        positive: (n,) whether a case is positive.
        scores: (n,) of the cases.
        weights: (draws, n) how often each draw has each case; None for one draw that has each once.

    Returns:
        (draws,) areas; NaN for a draw without positive or without negative cases.
    """
    weights = np.ones((1, len(scores))) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    starts = np.unique(scores[order], return_index=True)[1]  # the first place of each run of equal scores
    positives, negatives = (
        np.add.reduceat(weights[:, order] * side[order], starts, axis=1) for side in (positive, ~positive)
    )  # (draws, runs)
    negatives_below = np.cumsum(negatives, axis=1) - negatives / 2  # and half of those in the same run
    return _ratio((positives * negatives_below).sum(1), positives.sum(1) * negatives.sum(1))


def macro_auc(labels: NDArray[np.int64], probabilities: Floats, weights: Floats | None = None) -> Floats:
    """The (draws,) means over classes of the area of each class against the rest; NaN for a draw that lacks one.

    From (n,) classes, (n, k) probabilities, and weights as in `auc`.
    """
    areas = [auc(labels == label, probabilities[:, label], weights) for label in np.unique(labels)]
    return cast(Floats, np.mean(areas, axis=0))


def correlation(x: Floats, y: Floats, weights: Floats | None = None) -> Floats:
    """Pearson's (draws,) correlations of (n,) and (n,) numbers; NaN where a side is constant. Weights as in `auc`."""
    x, y = x - x.mean(), y - y.mean()
    mean_x, mean_y, mean_xy, mean_xx, mean_yy = (_weighted_mean(each, weights) for each in (x, y, x * y, x * x, y * y))

    def variance(mean_square: Floats, mean: Floats) -> Floats:
        difference = mean_square - mean**2
        return np.where(difference > ROUNDING * mean_square, difference, 0)  # equal numbers leave a rounding error

    return _ratio(mean_xy - mean_x * mean_y, np.sqrt(variance(mean_xx, mean_x) * variance(mean_yy, mean_y)))


def brier(labels: NDArray[np.int64], probabilities: Floats) -> float:
    """Brier 1950: mean squared distance, 0 to 2, of (n, k) probabilities from the (n,) classes as one-hot vectors."""
    return float(((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1).mean())


def reliability(labels: NDArray[np.int64], probabilities: Floats) -> list[tuple[int, float, float]]:
    """(n,) classes and (n, k) probabilities to (cases, mean confidence, share right) of each bin that has cases."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = [place == number for number in np.unique(place)]
    return [(int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean())) for inside in bins]


def calibration_error(labels: NDArray[np.int64], probabilities: Floats) -> float:
    """The expected calibration error of (n,) classes and (n, k) probabilities, in ten bins (arXiv 1706.04599)."""
    bins = reliability(labels, probabilities)
    return sum(cases * abs(right - confidence) for cases, confidence, right in bins) / len(labels)


SCORES: dict[str, Score] = {"balanced accuracy": balanced_accuracy, "macro F1": macro_f1}
Values = dict[str, Any]


class Scorer:
    """Scores of classifiers on a test part of (n,) true classes and (n,) groups, where there are any."""

    def __init__(self, labels: NDArray[np.int64], groups: NDArray[Any] | None, names: Sequence[str]) -> None:
        self.labels, self.names = labels, list(names)
        self.cases = Cases.of(labels, groups)

    def counts(self, logits: Floats) -> Floats:
        """(seeds, n, k) logits to (seeds, groups, k, k) counts."""
        return self.cases.counts(logits.argmax(-1), len(self.names))

    def scores(self, logits: Floats, groupings: Mapping[str, Sequence[str]], calibration: bool = False) -> Values:
        """Scores of one classifier from the (seeds, n, k) logits of its trainings, as JSON can hold them.

        "balanced accuracy", "macro F1" and "AUC" are `{"value", "low", "high", "by_seed"}` with a 95 % interval; so is
        each class in "recall", and each measure in "groupings", of which `groupings` names the positive classes.
        "confusion" is (k, k). `calibration` adds "Brier score", "calibration error" and the rows of "reliability".
        """
        counts, predicted = self.counts(logits), logits.argmax(-1)
        probabilities: Floats = softmax(logits, axis=-1)
        values: Values = {}
        for name, score in SCORES.items():
            values[name] = self._bounded_entry(score_estimate(self.cases, counts, score), score(counts.sum(1)))
        areas = self._jackknife(lambda seed, weights: macro_auc(self.labels, probabilities[seed], weights), len(logits))
        values["AUC"] = self._bounded_entry(*areas)
        values["recall"] = {
            name: self._share_entry(self.labels == label, predicted == label) for label, name in enumerate(self.names)
        }
        values["groupings"] = {name: self._grouping(chosen, probabilities) for name, chosen in groupings.items()}
        values["confusion"] = counts.sum(1).mean(0).tolist()
        if calibration:
            for name, error in (("Brier score", brier), ("calibration error", calibration_error)):
                values[name] = float(np.mean([error(self.labels, of_seed) for of_seed in probabilities]))
            bins = reliability(np.tile(self.labels, len(logits)), probabilities.reshape(-1, len(self.names)))
            values["reliability"] = [list(row) for row in bins]
        return values

    def _jackknife(self, score: Callable[[int, Floats | None], Floats], seeds: int) -> tuple[Estimate, Floats]:
        """The mean over seeds of `score(seed, weights of the cases)` with its error, and the value of each seed."""
        by_seed = np.array([score(seed, None)[0] for seed in range(seeds)])
        left_out = []
        for start in range(0, self.cases.n_groups, BLOCK):
            block = np.arange(start, min(start + BLOCK, self.cases.n_groups))
            weights = (self.cases.group_of_case != block[:, None]).astype(np.float64)  # 0 in the group left out
            left_out.append(np.mean([score(seed, weights) for seed in range(seeds)], axis=0))
        return crossed_estimate(self.cases, by_seed, np.concatenate(left_out)), by_seed

    def _share_entry(self, among: NDArray[np.bool_], hits: NDArray[np.bool_]) -> Values:
        """The share of (seeds, n) hits in the cases that (n,) `among` selects."""
        estimate, by_seed = self._jackknife(
            lambda seed, weights: _weighted_mean(hits[seed][among], None if weights is None else weights[:, among]),
            len(hits),
        )
        n, groups = int(among.sum()), len(np.unique(self.cases.group_of_case[among]))
        return {**_entry(estimate.value, estimate.share_interval(groups, n), by_seed), "n": n}

    def _bounded_entry(self, estimate: Estimate, by_seed: Floats) -> Values:
        """An entry of a score in [0, 1] that is a mean over classes."""
        groups = np.unique(self.cases.stratum, return_counts=True)[1]
        # The mean of k equal shares, of n_i groups each, varies like a single share of k^2 / sum(1 / n_i) groups.
        equivalent = len(groups) ** 2 / float((1 / groups).sum())
        return _entry(estimate.value, estimate.share_interval(equivalent), by_seed)

    def _grouping(self, chosen: Sequence[str], probabilities: Floats) -> Values:
        positive_classes = [self.names.index(name) for name in chosen]
        positive = np.isin(self.labels, positive_classes)
        probability = probabilities[..., positive_classes].sum(-1)
        called = probability > 0.5
        area, by_seed = self._jackknife(lambda seed, weights: auc(positive, probability[seed], weights), len(called))
        positive_groups = int(np.isin(self.cases.stratum, positive_classes).sum())
        rarer = min(positive_groups, self.cases.n_groups - positive_groups)  # it limits how sure an area is
        return {
            "positive": list(chosen),
            "sensitivity": self._share_entry(positive, called),
            "specificity": self._share_entry(~positive, ~called),
            "AUC": _entry(area.value, area.share_interval(rarer), by_seed),
        }

    def difference(self, logits: Floats, against: Floats, label: int) -> dict[str, Values]:
        """Each score, and the recall of one class, minus the other classifier's; both arguments are (seeds, n, k)."""
        scores = {**SCORES, f"recall of {self.names[label]}": recall_of(label)}
        sides = self.counts(logits), self.counts(against)
        return {name: vars(paired_difference(self.cases, *sides, score)) for name, score in scores.items()}

    def errors(self, predicted: Floats, true: Floats) -> Values:
        """Errors of (seeds, n) predicted numbers, in the units of the (n,) true ones, and the correlation of both.

        Where an interval is not known, its ends are 0 and None for an error, and -1 and 1 for a correlation. A seed
        that predicts one number for all has None as its correlation; so have the mean over seeds and its interval.
        """
        errors, seeds = np.abs(predicted - true), len(predicted)
        squares = errors**2
        scores: dict[str, Callable[[int, Floats | None], Floats]] = {
            "mean absolute error": lambda seed, weights: _weighted_mean(errors[seed], weights),
            "root mean square error": lambda seed, weights: _weighted_mean(squares[seed], weights) ** 0.5,
            "correlation": lambda seed, weights: correlation(predicted[seed], true, weights),
        }
        entries = {}
        for name, score in scores.items():
            estimate, by_seed = self._jackknife(score, seeds)
            low, high = estimate.interval()
            ends = (max(low, -1.0), min(high, 1.0)) if name == "correlation" else (max(low, 0.0), high)
            entries[name] = _entry(estimate.value, ends, by_seed)
        return entries


def _entry(value: float, ends: tuple[float, float], by_seed: Floats) -> Values:
    """Numbers as JSON can hold them: None for those that are not finite."""
    numbers = [number if math.isfinite(number) else None for number in (value, *ends, *by_seed.tolist())]
    return {"value": numbers[0], "low": numbers[1], "high": numbers[2], "by_seed": numbers[3:]}


def _weighted_mean(values: NDArray[Any], weights: Floats | None) -> Floats:
    """The (draws,) means of (n,) values; weights as in `auc`. NaN where a draw's weights sum to 0."""
    weights = np.ones((1, len(values))) if weights is None else weights
    return _ratio(weights @ values, weights.sum(1))
