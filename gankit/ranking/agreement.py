"""Agreement between raters (Krippendorff 2011)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike


def krippendorff_alpha(ratings: ArrayLike, level: Literal["nominal", "interval"]) -> float | None:
    """Krippendorff's alpha: 1 for raters who agree, 0 for chance (Computing Krippendorff's Alpha-Reliability, 2011).

    Args:
        ratings: (raters, images) numbers, NaN where a rater has not rated an image.
        level: how two ratings are compared: "nominal" by whether they differ, "interval" by their squared difference.

    Returns:
        At most 1; None where no image has two ratings, or all ratings are equal.
    """
    table = np.asarray(ratings, dtype=np.float64)
    values = np.unique(table[~np.isnan(table)])
    counts = (table[:, :, None] == values).sum(0).astype(np.float64)  # (images, values)
    counts = counts[counts.sum(1) >= 2]
    if not len(counts):
        return None
    differences = values[:, None] - values
    distances = differences**2 if level == "interval" else (differences != 0).astype(np.float64)
    totals, raters = counts.sum(0), counts.sum(1)
    n = totals.sum()
    observed = float((np.einsum("ui,ij,uj->u", counts, distances, counts) / (raters - 1)).sum() / n)
    expected = float(totals @ distances @ totals / (n * (n - 1)))
    return None if expected == 0 else 1 - observed / expected
