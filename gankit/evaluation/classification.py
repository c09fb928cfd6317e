"""Scores of a classifier from its confusion matrices and from its probabilities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Score = Callable[[Floats], Floats]
BINS = 10
"""Of the calibration error: equal widths of confidence."""


def recalls(counts: Floats) -> Floats:
    """(..., k, k) confusion matrices to the (..., k) share of each class that is found; NaN for one without cases."""
    right, cases = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1)
    found: Floats = np.divide(right, cases, out=np.full(right.shape, np.nan), where=cases > 0)
    return found


def balanced_accuracy(counts: Floats) -> Floats:
    """(..., k, k) confusion matrices to (...) means of the classes' recalls, over the classes that have cases."""
    found = recalls(counts)
    known = ~np.isnan(found)
    mean: Floats = np.where(known, found, 0).sum(-1) / np.maximum(known.sum(-1), 1)
    return mean


def macro_f1(counts: Floats) -> Floats:
    """(..., k, k) confusion matrices to (...) means over classes of 2 TP / (2 TP + FP + FN), 0 where that is 0 / 0."""
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    total = counts.sum(-1) + counts.sum(-2)
    mean: Floats = np.divide(2 * right, total, out=np.zeros(right.shape), where=total > 0).mean(-1)
    return mean


def recall_of(label: int) -> Score:
    """The recall of one class, as a function of (..., k, k) confusion matrices."""
    return lambda counts: recalls(counts)[..., label]


def auc(positive: NDArray[np.bool_], scores: Floats, weights: Floats | None = None) -> Floats:
    """The area under the ROC curve: the chance that a positive case scores above a negative one, ties counting half.

    Args:
        positive: (n,) whether a case is positive.
        scores: (n,) larger is more positive.
        weights: (draws, n) how often each case counts; None for one draw of all.

    Returns:
        (draws,) areas, NaN where a side has no case.
    """
    weights = np.ones((1, len(scores))) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # of runs of equal scores
    sides = [np.add.reduceat(weights[:, order] * side[order], starts, axis=1) for side in (positive, ~positive)]
    above, below = sides
    lower = np.cumsum(below, axis=1) - below / 2
    pairs = above.sum(1) * below.sum(1)
    area: Floats = np.divide((above * lower).sum(1), pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
    return area


def macro_auc(labels: NDArray[np.int64], probabilities: Floats, weights: Floats | None = None) -> Floats:
    """The mean over classes of the area of one class against the rest.

    Args:
        labels: (n,) true classes.
        probabilities: (n, k) of the classes.
        weights: (draws, n) as in `auc`.

    Returns:
        (draws,) areas.
    """
    areas = [auc(labels == label, probabilities[:, label], weights) for label in np.unique(labels)]
    mean: Floats = np.mean(areas, axis=0)
    return mean


def brier(labels: NDArray[np.int64], probabilities: Floats) -> float:
    """The mean over cases of the squared distance between (n, k) probabilities and the (n,) classes (Brier 1950)."""
    return float(((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1).mean())


def reliability(labels: NDArray[np.int64], probabilities: Floats) -> list[tuple[int, float, float]]:
    """(n,) classes and (n, k) probabilities to (cases, mean confidence, share right) of each bin that has cases."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        (int((place == b).sum()), float(confidence[place == b].mean()), float(right[place == b].mean()))
        for b in np.unique(place)
    ]


def calibration_error(labels: NDArray[np.int64], probabilities: Floats) -> float:
    """The expected calibration error of (n,) classes and (n, k) probabilities, in ten bins (arXiv 1706.04599)."""
    bins = reliability(labels, probabilities)
    return sum(cases * abs(right - confidence) for cases, confidence, right in bins) / len(labels)
