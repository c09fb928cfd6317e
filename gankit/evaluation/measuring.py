"""A fact that the data set can measure on pixels, and how far the measurement can be trusted at the images' size."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gankit.interfaces import Dataset, Measurement

USEFUL = 0.3
"""Sensitivity plus specificity less 1 (Youden's index), from which the measurement is of use."""


@final
class Estimator:
    """A measurement that was tried on real images whose values are known.

    Attributes:
        measurement: what is measured.
        limit: absolute value from which an image counts as positive.
        trial: what the trial gave: n, median error, sensitivity, specificity, and the shares that could not be measured
            and that truly are positive.
    """

    def __init__(self, measurement: Measurement, limit: float, images: Dataset) -> None:
        self.measurement, self.limit = measurement, limit
        values = measurement.measure(images.read(np.arange(len(images))))
        truth, measured = images.facts[measurement.fact], np.isfinite(values)
        negative = [images.class_names.index(name) for name in measurement.negative_classes]
        positive = ~np.isin(np.asarray(images.labels), negative)
        sides, called = (measured & positive, measured & ~positive), np.abs(values) >= limit
        self.trial: dict[str, float] = {}
        if all(side.any() for side in sides):
            self.trial = {
                "n": len(values),
                "median_error": float(np.median(np.abs(values - truth)[measured])),
                "sensitivity": float(called[sides[0]].mean()),
                "specificity": float((~called[sides[1]]).mean()),
                "not_measured": float(1 - measured.mean()),
                "truly": float(positive.mean()),
            }

    @property
    def useful(self) -> bool:
        """Whether the measurement tells positive images from others at this size."""
        return bool(self.trial) and self.trial["sensitivity"] + self.trial["specificity"] - 1 >= USEFUL

    def count(self, images: NDArray[Any]) -> dict[str, int]:
        """Of (n, c, h, w) images: n, how many could be measured, and how many of these are positive, by its word."""
        values = self.measurement.measure(images)
        measured = np.isfinite(values)
        positive = np.abs(values[measured]) >= self.limit
        return {"n": len(values), "measured": int(measured.sum()), self.measurement.positive: int(positive.sum())}
