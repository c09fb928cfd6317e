"""How far raters agree, and how sure a share is: Krippendorff 2011 (alpha), Wilson 1927 (interval)."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from gankit.errors import GankitError

NORMAL_QUANTILE = 1.959963984540054
"""Of 97.5 %, for intervals of 95 %."""


def wilson(k: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share of k in n (Wilson 1927, J. Am. Stat. Assoc. 22, 209).

    Raises:
        GankitError: k is not between 0 and n, or n is 0.
    """
    if not 0 <= k <= n or n == 0:
        raise GankitError(f"{k} of {n} is no share")
    share, z2 = k / n, NORMAL_QUANTILE**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = NORMAL_QUANTILE / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # Exactly 0 and 1 at the ends, which rounding would miss.
    return (0.0 if k == 0 else middle - half), (1.0 if k == n else middle + half)


def krippendorff_alpha(ratings: ArrayLike, level: Literal["nominal", "interval"]) -> float | None:
    """Krippendorff's alpha: 1 for raters who agree, 0 for chance (Computing Krippendorff's Alpha-Reliability, 2011).

    Args:
        ratings: (raters, images) numbers, NaN where a rater said nothing.
        level: "nominal" tells equal from different, "interval" counts squared differences.

    Returns:
        At most 1; None where fewer than two raters rated any image, or all ratings are equal.
    """
    table = np.asarray(ratings, dtype=np.float64)
    values = np.unique(table[~np.isnan(table)])
    counts = (table[:, :, None] == values).sum(0).astype(np.float64)  # (images, values)
    counts = counts[counts.sum(1) >= 2]
    if not len(counts):
        return None
    apart = values[:, None] - values
    distances = apart**2 if level == "interval" else (apart != 0).astype(np.float64)
    totals, raters = counts.sum(0), counts.sum(1)
    n = totals.sum()
    observed = float((np.einsum("ui,ij,uj->u", counts, distances, counts) / (raters - 1)).sum() / n)
    expected = float(totals @ distances @ totals / (n * (n - 1)))
    return None if expected == 0 else 1 - observed / expected
