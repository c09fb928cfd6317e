"""The difference between what two choices gain, over folds and seeds: its interval, and the verdict on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gankit.evaluation.design import (
    ROUNDING,
    Estimate,
    Floats,
    Part,
    cross_validated,
    student_quantile,
    variance_split,
)

LEVEL = 0.05
NOTHING = dict.fromkeys(("value", "low", "high", "low90", "high90", "p", "visible", "variances"))


def contrast(
    differences: Sequence[Floats], test_to_train: float, of_patients: Sequence[float] = (0.0,), step: float = 0.0
) -> dict[str, Any]:
    """The mean of the (generators, seeds) differences of all folds, its intervals, and the sources of its variance.

    "low" and "high" are of 95 %, "low90" and "high90" of 90 %, "visible" is the smallest true difference that such a
    study would see in 80 % of all cases; None where fewer than two folds have values. Every fold has seeds of its own.

    Few folds are alike by chance now and then, and then Student's interval is far too short. So it is at least as wide
    as the normal one of the error that test patients alone make, and if these make none either, as if one patient of
    one fold had been judged otherwise.

    Args:
        differences: of gains, one array for each fold.
        test_to_train: images of a fold's test part, divided by all its other images.
        of_patients: for each fold, the variance of its mean difference that its patients make.
        step: by how much a single patient changes the value of a fold.
    """
    if not differences:
        return dict(NOTHING)
    generators = max(map(len, differences))
    table = np.full((len(differences), generators, differences[0].shape[1]), np.nan)
    for place, of_fold in enumerate(differences):  # the source chosen in one fold may have more generators
        table[place, : len(of_fold)] = of_fold
    estimate = cross_validated(table, test_to_train)
    if len(differences) < 2:
        return {**NOTHING, "value": estimate.value}
    folds, count = estimate.parts["folds"], len(differences)
    overlap = 1 / count + test_to_train
    normal = (student_quantile(math.inf) / student_quantile(folds.freedom)) ** 2
    variance = max(folds.variance, normal * overlap * float(np.mean(of_patients)))
    if variance < ROUNDING**2:
        variance = overlap * step**2 / count
    estimate = Estimate(estimate.value, {"folds": Part(variance, folds.freedom)})
    (low, high), (low90, high90) = estimate.interval(), estimate.interval(1 - 2 * LEVEL)
    return {
        "value": estimate.value, "low": low, "high": high, "low90": low90, "high90": high90, "p": estimate.p_value,
        "visible": estimate.detectable(), "variances": variance_split(table),
    }  # fmt: skip


def verdict(primary: Mapping[str, Any], margin: float, has_remedy: bool) -> dict[str, str]:
    """The word for the primary contrast, and why, by a rule that was set beforehand.

    "equivalent" where the 90 % interval lies within the margin; else "helps" or "hurts" where p is below 0.05, by the
    sign, and a remedy of imbalance was among the baselines of every fold; else "no evidence".
    """
    value, p = primary["value"], primary["p"]
    if value is None or p is None:
        return {"word": "no evidence", "why": "too few folds have both sides"}
    if -margin < primary["low90"] and primary["high90"] < margin:
        return {"word": "equivalent", "why": f"the 90 % interval lies within {margin:g} of no difference"}
    if p >= LEVEL:
        return {"word": "no evidence", "why": f"p = {p:.3g}, and the 90 % interval is not within the margin"}
    if not has_remedy:
        return {"word": "no evidence", "why": "no remedy of imbalance was among the baselines of every fold"}
    return {"word": "helps" if value > 0 else "hurts", "why": f"p = {p:.3g}"}
