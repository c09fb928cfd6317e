"""Contrasts: the difference of two choices' gains over folds and seeds, its interval, and the verdict on it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gankit.evaluation.design import ROUNDING, Estimate, Floats, cross_validated, student_quantile, variance_split

LEVEL = 0.05
UNKNOWN = dict.fromkeys(("value", "low", "high", "low90", "high90", "p", "visible", "variances"))
"""A contrast of which nothing is known."""


def contrast(
    differences: Sequence[Floats], test_to_train: float, patient_variances: Sequence[float] = (0.0,),
    patient_step: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """The mean of the differences of all folds, its intervals, and the sources of its variance.

    "low" and "high" are the ends of the 95 % interval, "low90" and "high90" those of the 90 % interval; "visible" is
    the smallest true difference that such a study would find with a probability of 80 %. Without any fold all entries
    are None; with a single one, or where neither folds nor patients make a difference, all but "value".

    Args:
        differences: of gains, one (generators, seeds) array for each fold; every fold has seeds of its own.
        test_to_train: images of a fold's test part, divided by all its other images, learnt from or not: where
            validation and reserve are set aside too, the parts that folds learn from have less in common, not more.
            docs/measured/interval-coverage.md has how such intervals cover.
        patient_variances: for each fold, what its test patients contribute to the variance of its mean difference.
        patient_step: by how much a single patient changes the gain of a fold.
    """
    if not differences:
        return dict(UNKNOWN)
    generators = max(map(len, differences))
    table = np.full((len(differences), generators, differences[0].shape[1]), np.nan)
    for place, of_fold in enumerate(differences):  # the source chosen in one fold may have more generators
        table[place, : len(of_fold)] = of_fold
    of_folds = cross_validated(table, test_to_train)
    overlap = 1 / len(differences) + test_to_train  # as in `cross_validated`
    # As if the folds differed by as much as their patients make them differ: the variance of patients within folds does
    # not know of the overlap either
    of_patients = overlap * float(np.mean(patient_variances))
    of_one_patient = overlap * patient_step**2 / len(differences)
    if len(differences) < 2 or not (estimate := _widen(of_folds, of_patients, of_one_patient)).varies:
        return {**UNKNOWN, "value": of_folds.value}
    (low, high), (low90, high90) = estimate.interval(), estimate.interval(1 - 2 * LEVEL)
    return {
        "value": estimate.value, "low": low, "high": high, "low90": low90, "high90": high90, "p": estimate.p_value,
        "visible": estimate.detectable(), "variances": variance_split(table),
    }  # fmt: skip


def _widen(estimate: Estimate, of_patients: float, of_one_patient: float) -> Estimate:
    """The variance of a mean difference over folds, raised to that of folds which differ by their test patients alone.

    A few folds can agree by chance, and then Student's interval over folds is far too short. It is therefore made at
    least as wide as the normal interval of `of_patients`, the variance that test patients would cause; and if patients
    make no difference either, as wide as if one patient of one fold had been judged otherwise (`of_one_patient`). All
    three variances are corrected for the overlap of the folds.
    """
    # Student's interval of a variance times this is as wide as the normal interval of the variance itself
    folds = estimate.parts["folds"]
    normal_to_student = (student_quantile(math.inf) / student_quantile(folds.freedom)) ** 2
    variance = max(folds.variance, normal_to_student * of_patients)
    widened = replace(folds, variance=variance if variance >= ROUNDING**2 else of_one_patient)
    return replace(estimate, parts={"folds": widened})


def verdict(primary: Mapping[str, Any], margin: float, has_remedy: bool) -> dict[str, str]:
    """The word for the primary contrast, and why, by a rule that was set beforehand.

    "equivalent" where the 90 % interval lies within the margin; else "helps" or "hurts" where p is below 0.05, by the
    sign, and a remedy for imbalance was among the baselines of every fold; else "no evidence".
    """
    value, p = primary["value"], primary["p"]
    if value is None or p is None:
        several = len(primary["chosen"]) > 1
        why = "the folds hardly differ, so its error is unknown" if several else "too few folds have both sides"
        return {"word": "no evidence", "why": why}
    if -margin < primary["low90"] and primary["high90"] < margin:
        return {"word": "equivalent", "why": f"the 90 % interval lies within {margin:g} of no difference"}
    if p >= LEVEL:
        return {"word": "no evidence", "why": f"p = {p:.3g}, and the 90 % interval is not within the margin"}
    if not has_remedy:
        return {"word": "no evidence", "why": "no remedy for imbalance was among the baselines of every fold"}
    return {"word": "helps" if value > 0 else "hurts", "why": f"p = {p:.3g}"}
