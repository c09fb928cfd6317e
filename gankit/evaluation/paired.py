"""Intervals over test cases, in whole groups, and over the seeds of trainings."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gankit.evaluation.design import Estimate, Floats, Part, variance_of_mean
from gankit.evaluation.uncertainty import number_groups

Score = Callable[[Floats], Floats]  # (..., k, k) confusion matrices to (...) values


@dataclass(frozen=True)
class Cases:
    """The test cases in their groups; a group's stratum, within which it is drawn, is its most frequent class."""

    labels: NDArray[np.int64]  # (n,) true classes
    group: NDArray[np.int64]  # (n,) number of each case's group, from 0
    stratum: NDArray[np.int64]  # (groups,) class of each group

    @classmethod
    def of(cls, labels: NDArray[np.int64], groups: NDArray[np.generic] | None) -> Self:
        """From (n,) classes and (n,) groups; without groups each case is its own."""
        group = number_groups(groups, len(labels))
        counts = np.zeros((int(group.max()) + 1, int(labels.max()) + 1), np.int64)
        np.add.at(counts, (group, labels), 1)
        return cls(labels, group, counts.argmax(1))

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self.stratum)

    def counts(self, predicted: NDArray[np.int64], classes: int) -> Floats:
        """(seeds, n) predicted classes to (seeds, groups, classes, classes) counts, true classes in rows."""
        # Each case adds 1 to the cell [group, true class, predicted class], numbered row by row.
        first_of_row = (self.group * classes + self.labels) * classes
        size = self.groups * classes * classes
        rows = [np.bincount(first_of_row + of_seed, minlength=size) for of_seed in predicted]
        return np.array(rows, dtype=np.float64).reshape(-1, self.groups, classes, classes)


def part_of_cases(cases: Cases, left_out: Floats) -> Part:
    """What test cases contribute to the variance of a value, from (groups,) values where one group is left out.

    The jackknife variance within strata (Efron and Stein 1981), with the degrees of freedom of Satterthwaite 1946.
    Values that are NaN, and strata of one group, contribute nothing; without another stratum nothing is known.
    """
    strata = [left_out[(cases.stratum == label) & ~np.isnan(left_out)] for label in np.unique(cases.stratum)]
    parts = [Part((len(inside) - 1) ** 2 / len(inside) * float(inside.var(ddof=1)), len(inside) - 1)
             for inside in strata if len(inside) > 1]  # fmt: skip
    variance = sum(part.variance for part in parts)
    if variance == 0:
        return Part(0.0, sum(part.freedom for part in parts))
    return Part(variance, 1 / sum((part.variance / variance) ** 2 / part.freedom for part in parts))


def crossed_estimate(cases: Cases, by_seed: Floats, left_out: Floats) -> Estimate:
    """The mean over seeds of a value on test cases, both taken as samples: parts "cases" and "seeds".

    The part of the seeds is the variance of their values, divided by their number; with one seed it is missing, and the
    interval leaves the seeds out. Both parts contain the randomness of single predictions, so that the interval tends
    to be too wide.

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
    seeds_error: float | None  # the part from the seeds; None for one seed, and the interval then leaves it out


def paired_difference(cases: Cases, first: Floats, second: Floats, score: Score) -> PairedDifference:
    """The paired difference of two arms, with a 95 % t interval over test cases and seeds, as in `crossed_estimate`.

    Both arms have (seeds, groups, k, k) counts, paired by seed, and scores between 0 and 1. Where neither cases nor
    seeds make a difference, which happens by chance, the error is what a single group could have changed. With one
    group of each class nothing is known, and the interval is from -1 to 1. docs/measured/paired-intervals.md has the
    measured rates of false positives.
    """
    totals = first.sum(1), second.sum(1)
    by_seed = score(totals[0]) - score(totals[1])
    left_out = (score(totals[0][:, None] - first) - score(totals[1][:, None] - second)).mean(0)
    estimate = crossed_estimate(cases, by_seed, left_out)
    seeds, of_cases = estimate.parts.get("seeds"), estimate.parts["cases"]
    low, high = estimate.interval()
    if not (estimate.varies and of_cases.freedom):
        most = max(_most_of_a_group(arm, score) for arm in (first, second))
        half = Estimate(estimate.value, {"cases": Part(most**2, of_cases.freedom)}).half_width()
        low, high = max(-1.0, estimate.value - half), min(1.0, estimate.value + half)
    errors = math.sqrt(of_cases.variance), math.sqrt(seeds.variance) if seeds else None
    return PairedDifference(estimate.value, low, high, by_seed.tolist(), *errors)


def _most_of_a_group(counts: Floats, score: Score) -> float:
    """The largest change of a score, on average over seeds, if all cases of one group were called the next class."""
    totals = counts.sum(1)
    changed_totals = totals[:, None] - counts + np.roll(counts, 1, axis=-1)
    return float(np.abs(score(changed_totals) - score(totals)[:, None]).mean(0).max())
