"""Intervals over test cases, in whole groups, and over the seeds of trainings."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gankit.evaluation.design import Estimate, Floats, VariancePart, variance_of_mean
from gankit.evaluation.uncertainty import number_groups

Score = Callable[[Floats], Floats]  # (..., k, k) confusion matrices to (...) values


@dataclass(frozen=True)
class Cases:
    """The test cases in their groups, which are stratified by their most frequent class."""

    labels: NDArray[np.int64]  # (n,) true classes
    group_of_case: NDArray[np.int64]  # (n,) from 0
    stratum: NDArray[np.int64]  # (groups,) class of each group

    @classmethod
    def of(cls, labels: NDArray[np.int64], groups: NDArray[np.generic] | None) -> Self:
        """From (n,) classes and (n,) groups; without groups each case is its own."""
        group = number_groups(groups, len(labels))
        counts = np.zeros((int(group.max()) + 1, int(labels.max()) + 1), np.int64)
        np.add.at(counts, (group, labels), 1)
        return cls(labels, group, counts.argmax(1))

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(self.stratum)

    def counts(self, predicted: NDArray[np.int64], n_classes: int) -> Floats:
        """(seeds, groups, k, k) counts from (seeds, n) predicted classes, true classes in rows."""
        # Each case adds 1 to the cell [group, true class, predicted class], numbered row by row.
        first_of_row = (self.group_of_case * n_classes + self.labels) * n_classes
        size = self.n_groups * n_classes**2
        rows = [np.bincount(first_of_row + of_seed, minlength=size) for of_seed in predicted]
        return np.array(rows, dtype=np.float64).reshape(-1, self.n_groups, n_classes, n_classes)


def part_of_cases(cases: Cases, left_out: Floats) -> VariancePart:
    """What test cases contribute to the variance of a value, from (groups,) values where one group is left out.

    The jackknife variance within strata (Efron and Stein 1981), with the degrees of freedom of Satterthwaite 1946.
    NaN values and strata of one group contribute nothing; where no stratum has two groups, the freedom is 0.
    """
    strata = [left_out[(cases.stratum == label) & ~np.isnan(left_out)] for label in np.unique(cases.stratum)]
    parts = [VariancePart((len(inside) - 1) ** 2 / len(inside) * float(inside.var(ddof=1)), len(inside) - 1)
             for inside in strata if len(inside) > 1]  # fmt: skip
    variance = sum(part.variance for part in parts)
    if variance == 0:
        return VariancePart(0.0, sum(part.freedom for part in parts))
    return VariancePart(variance, 1 / sum((part.variance / variance) ** 2 / part.freedom for part in parts))


def crossed_estimate(cases: Cases, by_seed: Floats, left_out: Floats) -> Estimate:
    """The mean over seeds of a value on test cases, both taken as samples: parts "cases" and "seeds".

    The part of the seeds is the variance of their values, divided by their number; with one seed it is missing, and the
    interval leaves the seeds out. The noise of single predictions is in both parts, so counted twice: the interval
    tends to be too wide.

    Args:
        cases: the test cases.
        by_seed: (seeds,) values.
        left_out: (groups,) the mean over seeds where a group is left out; NaN where there is no such value.
    """
    sources = {"cases": part_of_cases(cases, left_out)}
    if len(by_seed) > 1:
        sources["seeds"] = variance_of_mean(by_seed)
    return Estimate(float(by_seed.mean()), sources)


def score_estimate(cases: Cases, counts: Floats, score: Score) -> Estimate:
    """The mean over seeds of a score of (seeds, groups, k, k) counts."""
    totals = counts.sum(1)
    return crossed_estimate(cases, score(totals), score(totals[:, None] - counts).mean(0))


@dataclass(frozen=True)
class PairedDifference:
    """A difference of two arms on the same test cases, with its interval."""

    value: float  # the mean over seeds of the first arm's score minus the second's
    low: float  # lower end of the interval
    high: float  # upper end
    by_seed: list[float]  # one difference per seed
    cases_error: float  # the part of the standard error from the choice of test cases
    seeds_error: float | None  # the part from the seeds; None for one seed: the interval then leaves it out


def paired_difference(cases: Cases, first: Floats, second: Floats, score: Score) -> PairedDifference:
    """The paired difference of two arms, with a 95 % t interval over test cases and seeds, as in `crossed_estimate`.

    Both arms have (seeds, groups, k, k) counts, paired by seed, and scores between 0 and 1. Where neither cases nor
    seeds make a difference, which happens by chance, the error of the cases is what a single group could have changed.
    With one group of each class nothing is known, and the interval is from -1 to 1, which no interval exceeds.
    docs/measured/paired-intervals.md has the measured rates of false positives.
    """
    totals = first.sum(1), second.sum(1)
    by_seed = score(totals[0]) - score(totals[1])
    left_out = (score(totals[0][:, None] - first) - score(totals[1][:, None] - second)).mean(0)
    estimate = crossed_estimate(cases, by_seed, left_out)
    if not estimate.varies:
        change = max(_largest_change(arm, score) for arm in (first, second))
        parts = {**estimate.parts, "cases": VariancePart(change**2, estimate.parts["cases"].freedom)}
        estimate = Estimate(estimate.value, parts)
    low, high = estimate.interval()
    errors = {source: math.sqrt(part.variance) for source, part in estimate.parts.items()}
    low, high = max(low, -1.0), min(high, 1.0)
    return PairedDifference(estimate.value, low, high, by_seed.tolist(), errors["cases"], errors.get("seeds"))


def _largest_change(counts: Floats, score: Score) -> float:
    """The largest change of a score, on average over seeds, if each case of one group had been called another class.

    The other class is the next one. So every right call becomes wrong, and with two classes every wrong one right.
    """
    totals = counts.sum(1)
    changed_totals = totals[:, None] - counts + np.roll(counts, 1, axis=-1)
    return float(np.abs(score(changed_totals) - score(totals)[:, None]).mean(0).max())
