"""Estimates whose errors have several sources: test cases, folds, seeds of generators and of classifiers.

Averages of few seeds and folds need Student's t. Parts of an error with different degrees of freedom are each
multiplied by their own quantile before they are added (Howe 1974, JASA 69:789), so that a part that is small by chance
does not make an interval too short. docs/measured/interval-coverage.md has how often such intervals cover the true
value.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Floats = NDArray[np.float64]

LEVEL = 0.95
POWER = 0.8
ROUNDING = 1e-9  # smaller standard errors are rounding errors
DISAGREEMENT = 0.2
"""The share of cases that one of two arms gets right and the other wrong, as assumed before anything is measured."""


@dataclass(frozen=True)
class VariancePart:
    """What one source contributes to the variance of an estimate."""

    variance: float
    freedom: float  # its degrees of freedom


@dataclass(frozen=True)
class Estimate:
    """A value with the parts of its variance by source, such as "cases" and "seeds"."""

    value: float
    parts: Mapping[str, VariancePart]

    @property
    def error(self) -> float:
        """The standard error, from all parts."""
        return math.sqrt(sum(part.variance for part in self.parts.values()))

    @property
    def varies(self) -> bool:
        """Whether any source makes a difference beyond rounding; with few cases it may happen that none does."""
        return self.error > ROUNDING

    def half_width(self, level: float = LEVEL) -> float:
        """Half the width of the interval of a level; infinite where a part has no degrees of freedom."""
        parts = self.parts.values()
        if any(part.freedom <= 0 for part in parts):
            return math.inf
        # A part without variance adds nothing, whatever its quantile.
        squares = [student_quantile(part.freedom, level) ** 2 * part.variance for part in parts if part.variance > 0]
        return math.sqrt(sum(squares))

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The interval of a level."""
        return self.value - self.half_width(level), self.value + self.half_width(level)

    def share_interval(self, fallback_n: float, max_n: float = math.inf) -> tuple[float, float]:
        """The 95 % interval of a value in [0, 1]: Wilson's, for the n independent cases that give this half-width.

        Args:
            fallback_n: n where the half-width gives none: the value is 0 or 1, or nothing varies.
            max_n: the largest n otherwise.
        """
        half, spread = self.half_width(), self.value * (1 - self.value)
        if half == math.inf:
            return 0.0, 1.0
        n = fallback_n
        if self.varies and spread > 0:
            n = min(max_n, student_quantile(math.inf) ** 2 * spread / half**2)
        return wilson(self.value * n, n)

    @property
    def p_value(self) -> float:
        """The two-sided p-value of a true value of 0: 1 minus the level whose interval ends at 0, at least 1e-12.

        It is 1 where the variance is unknown: a part has no degrees of freedom, or nothing varies.
        """
        if self.value == 0 or not self.varies or not self.half_width() < math.inf:
            return 1.0
        if self.half_width(1 - 1e-12) < abs(self.value):
            return 1e-12
        level = optimize.brentq(lambda level: self.half_width(level) - abs(self.value), 0, 1 - 1e-12)
        return float(1 - level)

    def detectable(self) -> float:
        """The smallest true difference whose interval excludes 0 with probability 0.8 (0.74 for a freedom of 2)."""
        return self.half_width() + float(special.ndtri(POWER)) * self.error


def wilson(hits: float, n: float) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22, 209).

    Args:
        hits: cases that count, 0 to n, not necessarily whole.
        n: independent cases, not necessarily whole; of none the interval is (0, 1).
    """
    if not n:
        return 0.0, 1.0
    z, share = float(special.ndtri(0.975)), hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Exactly 0 and 1 at the ends, which rounding would miss.
    return (0.0 if hits <= 0 else middle - half), (1.0 if hits >= n else middle + half)


def student_quantile(freedom: float, level: float = LEVEL) -> float:
    """The half-width of Student's t interval of a level, in standard errors, for these degrees of freedom."""
    share = (1 + level) / 2
    return float(special.ndtri(share) if math.isinf(freedom) else special.stdtrit(freedom, share))


def variance_of_mean(values: Floats, factor: float | None = None) -> VariancePart:
    """The variance of the mean of (k,) independent values, with its degrees of freedom; NaN values are left out.

    `factor` is what the values' variance is multiplied by; by default 1 / k.
    """
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return VariancePart(0.0, 0)
    return VariancePart(float(known.var(ddof=1)) * (1 / len(known) if factor is None else factor), len(known) - 1)


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are neither None nor NaN; None where none is."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return float(np.mean(known)) if known else None


def cross_validated(values: Floats, test_to_train: float) -> Estimate:
    """The mean of a score, or of a paired difference of two arms' scores, over folds and seeds.

    Folds are of whole patients, so that the spread of the folds' means covers how alike images of a patient are. As the
    training parts of folds overlap, their variance is multiplied by 1 / folds + n_test / n_train instead of 1 / folds
    (Nadeau and Bengio 2003, Machine Learning 52:239). Seeds interact with arms, so a difference is taken within fold
    and seed before this is called. Give each fold seeds of its own: then the spread of the folds covers that of seeds.

    Args:
        values: (folds, generator seeds, classifier seeds), where "folds" counts those of all repeats; an axis has
            length 1 where there is one seed, or no generator. NaN for a cell that failed.
        test_to_train: images of the test part of a fold, divided by those of its training part.

    Returns:
        The mean over folds of their means over seeds, with the part "folds". With fewer than 2 folds that have values
        its interval is infinite.
    """
    of_folds = _means(np.asarray(values, np.float64), (1, 2))
    known = of_folds[~np.isnan(of_folds)]
    part = variance_of_mean(known, 1 / max(len(known), 1) + test_to_train)
    return Estimate(float(np.mean(known)) if len(known) else math.nan, {"folds": part})


def variance_split(values: Floats) -> dict[str, float | None]:
    """The variances of folds, of generator seeds and of classifier seeds, each without those nested in it.

    These are the components of a nested analysis of variance. With g generators in each fold and c classifiers for each
    generator, the variances that can be measured (left) are sums of the components that are returned (right):

        values of one generator              = classifiers
        means of the generators of a fold    = generators + classifiers / c
        means of the folds                   = folds + generators / g + classifiers / (g c)

    Args:
        values: (folds, generator seeds, classifier seeds), as for `cross_validated`.

    Returns:
        "folds", "generators" and "classifiers", at least 0. None for a source of which there is one: the next outer
        component then includes its variance. Approximate where cells failed, since g and c count these too.
    """
    table = np.asarray(values, np.float64)
    _, g, c = table.shape
    within_generators = _mean_variance(table.reshape(-1, c))
    between_generators = _mean_variance(_means(table, (2,)))
    between_folds = _mean_variance(_means(table, (1, 2))[None])
    of_classifiers = within_generators or 0.0
    generators = None if between_generators is None else max(0.0, between_generators - of_classifiers / c)
    of_generators = generators or 0.0
    nested = of_generators / g + of_classifiers / (g * c)
    folds = None if between_folds is None else max(0.0, between_folds - nested)
    return {"folds": folds, "generators": generators, "classifiers": within_generators}


def _means(table: Floats, axes: tuple[int, ...]) -> Floats:
    """Means over axes of what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(table)
    count = known.sum(axes)
    return np.where(count > 0, np.where(known, table, 0).sum(axes) / np.maximum(count, 1), np.nan)


def _mean_variance(rows: Floats) -> float | None:
    """The mean over (m, k) rows of the variance within each, of rows with two values or more; None without one."""
    variances = [float(known.var(ddof=1)) for row in rows if len(known := row[~np.isnan(row)]) > 1]
    return float(np.mean(variances)) if variances else None


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values of several secondary comparisons, at most 1 (Holm 1979, Scand. J. Stat. 6:65).

    Comparisons with an adjusted value below 0.05 are significant; the probability of one or more false
    positives is at most 5 %.
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def visible_difference(counts: Sequence[int], folds: int = 1) -> float:
    """Roughly the smallest difference of balanced accuracy that a study of so many cases can tell from chance.

    "Can tell" is a 95 % interval that excludes 0 with probability 0.8. It can be computed before anything is trained:
    the arms are assumed to disagree about a fifth of the cases. Arms that disagree about fewer need fewer cases; the
    differences between seeds come on top.

    Args:
        counts: independent test cases (patients) of each class; with folds those of all folds together.
        folds: of the cross-validation; 1 for a single split.
    """
    variance = sum(DISAGREEMENT / max(count, 1) for count in counts) / len(counts) ** 2
    if folds > 1:
        # One fold has folds * variance; `cross_validated` multiplies this by 1 / folds + n_test / n_train, and here
        # n_test / n_train is 1 / (folds - 1).
        variance *= 1 + folds / (folds - 1)
    freedom = folds - 1 if folds > 1 else sum(counts) - len(counts)
    return (student_quantile(max(freedom, 1)) + float(special.ndtri(POWER))) * math.sqrt(variance)
