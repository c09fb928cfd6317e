"""Intervals over test cases, in whole groups, and over the seeds of trainings."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Score = Callable[[Floats], Floats]  # (..., k, k) confusion matrices to (...) values

LEVEL = 0.95
DRAWS = 1000


def independent_cases(hits: Floats, sizes: Floats) -> float:
    """The number of independent cases that would give a proportion as exactly as these groups do (Rao, Scott 1992).

    From the (groups,) hits, which may be fractions, and cases of each group; groups without cases are ignored. Between
    1 and the number of cases; the number of groups if the share of hits is 0, 1 or the same in all groups.
    """
    kept = sizes > 0
    hits, sizes = hits[kept], sizes[kept]
    n, groups, share = float(sizes.sum()), int(kept.sum()), float(hits.sum() / sizes.sum())
    if groups == n:
        return n
    variance = groups / max(groups - 1, 1) * float(((hits - share * sizes) ** 2).sum()) / n**2
    if not 0 < share < 1 or variance == 0:
        return float(groups)
    return min(n, max(1.0, share * (1 - share) / variance))


@dataclass(frozen=True)
class Cases:
    """The test cases in their groups; a group's stratum, within which it is drawn, is its most frequent class."""

    labels: NDArray[np.int64]  # (n,) true classes
    group: NDArray[np.int64]  # (n,) number of each case's group, from 0
    stratum: NDArray[np.int64]  # (groups,) class of each group

    @classmethod
    def of(cls, labels: NDArray[np.int64], groups: NDArray[np.generic] | None) -> Self:
        """From (n,) classes and (n,) groups; without groups each case is its own."""
        names = np.arange(len(labels)) if groups is None else groups
        group = np.unique(names, return_inverse=True)[1]
        classes = int(labels.max()) + 1
        counts = np.zeros((int(group.max()) + 1, classes), np.int64)
        np.add.at(counts, (group, labels), 1)
        return cls(labels, group, counts.argmax(1))

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self.stratum)

    def counts(self, predicted: NDArray[np.int64], classes: int) -> Floats:
        """(seeds, n) predicted classes to (seeds, groups, classes, classes) counts, true classes in rows."""
        cells = (self.group * classes + self.labels) * classes
        size = self.groups * classes * classes
        rows = [np.bincount(cells + row, minlength=size) for row in predicted]
        return np.array(rows, dtype=np.float64).reshape(-1, self.groups, classes, classes)

    def draws(self, random: np.random.Generator, draws: int = DRAWS) -> Floats:
        """(draws, groups) how often each group is drawn, with replacement within its stratum."""
        weights = np.zeros((draws, self.groups))
        for label in np.unique(self.stratum):
            members = np.flatnonzero(self.stratum == label)
            chances = np.full(len(members), 1 / len(members))
            weights[:, members] = random.multinomial(len(members), chances, size=draws)
        return weights


def drawn_scores(counts: Floats, score: Score, weights: Floats) -> Floats:
    """(seeds, groups, k, k) counts and (draws, groups) weights from `Cases.draws` to (draws, seeds) scores."""
    seeds, groups, k, _ = counts.shape
    flat = counts.transpose(1, 0, 2, 3).reshape(groups, -1)
    return score((weights @ flat).reshape(len(weights), seeds, k, k))


def student_quantile(freedom: float, level: float = LEVEL) -> float:
    """The half-width of Student's t interval of a level, in standard errors, for these degrees of freedom."""
    return float(stats.t.ppf((1 + level) / 2, freedom))


def crossed(drawn: Floats, random: np.random.Generator, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of a mean over seeds when groups and seeds are both drawn (Owen 2007, arXiv 0712.1111).

    From (draws, seeds) values, whose groups are already drawn; the seeds are drawn here.
    """
    draws, seeds = drawn.shape
    weights = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    tail = (1 - level) / 2
    low, high = np.nanquantile((drawn * weights).sum(1), [tail, 1 - tail])
    return float(low), float(high)


def score_interval(cases: Cases, counts: Floats, score: Score, seed: int) -> tuple[float, float, float]:
    """The mean over seeds of a score of (seeds, groups, k, k) counts, and its `crossed` percentile interval."""
    random = np.random.default_rng(seed)
    low, high = crossed(drawn_scores(counts, score, cases.draws(random)), random)
    return float(score(counts.sum(1)).mean()), low, high


@dataclass(frozen=True)
class PairedDifference:
    """A difference of two arms on the same test cases, with its interval."""

    value: float  # the mean over seeds of the first arm's score less the second's
    low: float  # of the interval
    high: float  # of the interval
    by_seed: list[float]  # one difference a seed
    cases_error: float  # the part of the standard error that other test cases would change
    # the part that other seeds would change; None for one seed, of which the interval then knows nothing
    seeds_error: float | None


def paired_difference(
    cases: Cases, first: Floats, second: Floats, score: Score, level: float = LEVEL
) -> PairedDifference:
    """The paired difference of two arms, with a t interval over test cases and seeds, both taken as samples.

    Both arms have (seeds, groups, k, k) counts, paired by seed. The half-width is sqrt(t_c^2 V_c + t_s^2 V_s). V_c is
    the jackknife variance of the mean over seeds, one group left out at a time within strata (Efron and Stein 1981);
    V_s is the variance of the seeds' differences divided by their number. Either t quantile has its own part's degrees
    of freedom, so that few seeds widen the interval only as far as seeds differ (Howe 1974, JASA 69:789). V_c and V_s
    both contain the randomness of single predictions, so that the interval is rather too wide:
    docs/measured/paired-intervals.md has its measured rates of false positives.
    """
    totals = first.sum(1), second.sum(1)
    by_seed = score(totals[0]) - score(totals[1])
    left_out = (score(totals[0][:, None] - first) - score(totals[1][:, None] - second)).mean(0)
    seeds, value = len(by_seed), float(by_seed.mean())
    strata = [left_out[cases.stratum == label] for label in np.unique(cases.stratum)]
    parts = [  # variances, and their degrees of freedom
        ((n - 1) / n * float(((inside - inside.mean()) ** 2).sum()), n - 1)
        for inside in strata if (n := len(inside)) > 1
    ]  # fmt: skip
    cases_variance = sum(variance for variance, _ in parts)
    squares = 0.0
    if cases_variance > 0:
        df = 1 / sum((variance / cases_variance) ** 2 / df for variance, df in parts)  # Satterthwaite 1946
        squares += student_quantile(df, level) ** 2 * cases_variance
    seeds_error = None
    if seeds > 1:
        seeds_error = math.sqrt(float(by_seed.var(ddof=1)) / seeds)
        squares += (student_quantile(seeds - 1, level) * seeds_error) ** 2
    half = math.sqrt(squares)
    return PairedDifference(value, value - half, value + half, by_seed.tolist(), math.sqrt(cases_variance), seeds_error)
