"""A contrast of two choices over folds and seeds, its interval, and the word for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from gankit.evaluation.paired import Floats
from gankit.studies.augmentation.folds import Fold

LEVEL = 0.05


def contrast(differences: Sequence[Floats], folds: Sequence[Fold]) -> dict[str, Any]:
    """(generators, seeds) differences of each fold to their mean with intervals, by the corrected resampled t test.

    The variance of a fold's mean is corrected for overlapping training folds (Nadeau and Bengio 2003): one over the
    number of folds plus test cases over training cases. "low" and "high" are of 95 %, "low90" and "high90" of 90 %;
    None where there are fewer than two folds.
    """
    empty = dict.fromkeys(("value", "low", "high", "low90", "high90", "p", "error"))
    if not differences:
        return empty
    by_fold = np.array([each.mean() for each in differences])
    value, n = float(by_fold.mean()), len(by_fold)
    if n < 2:
        return {**empty, "value": value}
    parts = [[len(places) for places in fold.places.values()] for fold in folds]
    ratio = float(np.mean([sizes[0] / sum(sizes[1:]) for sizes in parts]))
    error = math.sqrt((1 / n + ratio) * float(by_fold.var(ddof=1)))
    wide, narrow = (float(stats.t.ppf(1 - tail / 2, n - 1)) * error for tail in (LEVEL, 2 * LEVEL))
    p = float(2 * stats.t.sf(abs(value) / error, n - 1)) if error else float(value == 0)
    return {
        "value": value, "low": value - wide, "high": value + wide, "low90": value - narrow, "high90": value + narrow,
        "p": p, "error": error,
    }  # fmt: skip


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted after Holm (1979) for their number."""
    order, adjusted, least = np.argsort(p_values), [1.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def verdict(primary: Mapping[str, Any], margin: float, has_remedy: bool) -> dict[str, str]:
    """The word for the one contrast, and why, by a rule that was set beforehand.

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
