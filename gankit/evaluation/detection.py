"""How well readers tell two kinds of images apart, over readers and cases together: signal detection theory."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from gankit.evaluation.classification import auc
from gankit.evaluation.design import ROUNDING, Estimate, Floats
from gankit.evaluation.paired import Cases, crossed_estimate

Kinds = NDArray[np.bool_]  # for each case, whether it is of the kind to be detected
FEWEST_GROUPS = 20  # with fewer, intervals of agreement miss the true value too often
Measure = Callable[[Floats, Kinds], Floats]
"""From (readers, n) answers and (n,) kinds to (readers,) values; NaN stands for a missing answer or value."""


def share(right: Floats, kinds: Kinds) -> Floats:
    """The share of 1 among answers of 0 or 1, whatever the kinds."""
    count = (~np.isnan(right)).sum(1)
    return _known(count, np.nansum(right, 1) / np.maximum(count, 1))


def accuracy(calls: Floats, kinds: Kinds) -> Floats:
    """The mean of two shares: of True cases that are called 1, and of False cases that are called 0; 0.5 is chance."""
    return (share(calls[:, kinds], kinds) + 1 - share(calls[:, ~kinds], kinds)) / 2


def discrimination(calls: Floats, kinds: Kinds) -> Floats:
    """d': z(share called 1 of the cases whose kind is True) - z(share called 1 of the others); 0 is chance.

    Half a call is added to each count, and a whole one to each number of images (the log-linear correction of Hautus
    1995, Behavior Research Methods 27:46), so that shares of 0 and 1 have a value too.
    """
    return _z(calls[:, kinds]) - _z(calls[:, ~kinds])


def pair_discrimination(right: ArrayLike, pairs: ArrayLike | None = None) -> Floats:
    """d' from 2-alternative forced choice: sqrt(2) z(share right); 0 is chance, infinite for a share of 0 or 1.

    Args:
        right: (...) shares of pairs in which the right image was chosen.
        pairs: (...) their numbers, for the correction of `discrimination`; None corrects nothing.
    """
    shares = np.asarray(right, np.float64)
    if pairs is not None:
        count = np.asarray(pairs, np.float64)
        shares = (shares * count + 0.5) / (count + 1)
    return np.asarray(math.sqrt(2) * ndtri(shares))


def area(scores: Floats, kinds: Kinds) -> Floats:
    """The AUC: the share of pairs in which the case whose kind is True scores above the other; ties count half."""
    readers = zip(scores, ~np.isnan(scores), strict=True)
    return np.array([float(auc(kinds[answered], row[answered])[0]) for row, answered in readers])


def _z(calls: Floats) -> Floats:
    """(readers,) normal quantiles of the shares called 1, with the correction of `discrimination`."""
    count = (~np.isnan(calls)).sum(1)
    return _known(count, ndtri((np.nansum(calls, 1) + 0.5) / (count + 1)))


def _known(count: NDArray[np.int64], values: Floats) -> Floats:
    """The values of readers who gave any answer, NaN for the others."""
    return np.asarray(np.where(count > 0, values, np.nan))


@dataclass(frozen=True)
class OverReaders:
    """A measure of several readers on the same cases."""

    by_reader: Floats  # (readers,) NaN for one who answered fewer than two cases of a kind
    estimate: Estimate | None  # of the mean over readers; None without a reader
    groups: int  # number of independent cases

    @property
    def readers(self) -> int:
        """How many readers have a value."""
        return int((~np.isnan(self.by_reader)).sum())

    def interval(self, bounded: bool) -> tuple[float, float] | None:
        """The 95 % interval over readers and cases; with one reader, over cases only.

        None without an estimate; also where all answers are alike and the measure is not `bounded` by 0 and 1.
        """
        if self.estimate is None or not (bounded or self.estimate.varies):
            return None
        return self.estimate.share_interval(self.groups) if bounded else self.estimate.interval()


def over_readers(measure: Measure, answers: Floats, kinds: ArrayLike, groups: NDArray[np.generic]) -> OverReaders:
    """A measure of each reader, and of their mean with an interval over readers and cases, as in `crossed_estimate`.

    Args:
        measure: one of this module.
        answers: (readers, n), NaN where a reader did not answer.
        kinds: (n,) booleans: the kind of each case.
        groups: (n,) what cases of one patient share.
    """
    kinds = np.asarray(kinds, np.bool_)
    cases = Cases.of(kinds.astype(np.int64), groups)
    answered = [(~np.isnan(answers[:, kinds == kind])).sum(1) for kind in np.unique(kinds)]
    enough = np.all([count > 1 for count in answered], axis=0)
    by_reader = np.where(enough, measure(answers, kinds), np.nan)
    of_these = answers[enough]
    if not len(of_these):
        return OverReaders(by_reader, None, cases.n_groups)
    left_out = _left_out(cases, lambda kept: float(measure(of_these[:, kept], kinds[kept]).mean()))
    return OverReaders(by_reader, crossed_estimate(cases, by_reader[enough], left_out), cases.n_groups)


def _left_out(cases: Cases, value: Callable[[NDArray[np.bool_]], float | None]) -> Floats:
    """(groups,) values, each without one group; NaN where there is none."""
    return np.array([value(cases.group_of_case != group) for group in range(cases.n_groups)], np.float64)


def agreement_interval(
    agreement: Callable[[Floats], float | None],
    answers: Floats,
    kinds: Sequence[str],
    groups: NDArray[np.generic],
    is_share: bool = False,
) -> tuple[float, float] | None:
    """The 95 % interval of how far these readers agree, over cases alone: it says nothing of other readers.

    A jackknife over groups, as the part "cases" of `crossed_estimate`, with Student's t; for a share
    `Estimate.share_interval`. Near the ends of their range values are skewed. So the lower end is computed for
    log(1 - value), the upper one for log(value - least), and transformed back; both lie farther out than ends
    computed for the value itself. The least value is -1 / (answers - 1), of the case with the fewest answers.

    Args:
        agreement: from (readers, n) answers to a value of at most 1; None where it is not defined.
        answers: (readers, n), NaN where a reader did not answer.
        kinds: (n,) the kind of each case; how many there are of each was decided beforehand.
        groups: (n,) what cases of one patient share.
        is_share: whether values are shares of cases.

    Returns:
        None where there is no value or fewer than `FEWEST_GROUPS`, or where no group changes a value that is no share.
    """
    cases = Cases.of(np.unique(kinds, return_inverse=True)[1], groups)
    value = agreement(answers)
    if value is None or cases.n_groups < FEWEST_GROUPS:
        return None
    left_out = _left_out(cases, lambda kept: agreement(answers[:, kept]))
    estimate = crossed_estimate(cases, np.array([value]), left_out)
    if is_share:
        return estimate.share_interval(cases.n_groups)
    if not estimate.varies:
        return None
    answered = np.isfinite(answers).sum(0)
    half, least = estimate.half_width(), -1 / (answered[answered > 1].min() - 1)
    low = 1 - _farther(1 - value, half)
    return max(low, min(least, value)), min(least + _farther(value - least, half), 1.0)


def _farther(distance: float, half_width: float) -> float:
    """The upper end of the interval of a distance from an end of its range, computed for its logarithm.

    Where the half-width is over 3 times the distance, the logarithm says nothing: then it is linear, continuous at 3.
    """
    relative = half_width / max(distance, ROUNDING)
    return distance * math.exp(relative) if relative < 3 else distance + half_width * math.expm1(3) / 3


def fleiss_kappa(calls: ArrayLike) -> float | None:
    """Fleiss' kappa of (readers, images) calls, each a category's number (Fleiss 1971, Psychological Bulletin 76:378).

    1 for readers who agree, 0 for chance. Images that a reader did not call (NaN) do not count. None where no image is
    left, with fewer than two readers, and where all calls are equal.
    """
    table = np.asarray(calls, np.float64)
    table = table[:, ~np.isnan(table).any(0)]
    readers = len(table)
    counts = np.array([(table == category).sum(0) for category in np.unique(table)])  # (categories, images)
    if readers < 2 or len(counts) < 2:
        return None
    observed = float(((counts**2).sum(0) - readers).mean() / (readers * (readers - 1)))
    expected = float((counts.mean(1) ** 2).sum() / readers**2)
    return (observed - expected) / (1 - expected)
