"""Rows of features to simulate with, independent or alike within a patient, and a metric of known errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gankit.interfaces import Metric, Pool, Rows

Array = NDArray[Any]
Draw = Callable[[np.random.Generator], Pool]


def rows(features: Array, groups: Array | None = None) -> Rows:
    return Rows(features=features, groups=groups, ids=np.arange(len(features)))


def patients(random: np.random.Generator, count: int, images: int, dim: int) -> tuple[Array, Array]:
    """Features of images that are alike within a patient, and whose they are, in no order."""
    alike = np.repeat(random.normal(size=(count, dim)), images, axis=0)
    features, groups = alike + 0.3 * random.normal(size=alike.shape), np.repeat(np.arange(count), images)
    order = random.permutation(len(groups))
    return features[order], groups[order]


def untold(pool: Pool) -> Pool:
    """The same images, and nobody knows whose they are."""
    return Pool(rows(pool.real.required("features")), rows(pool.fake.required("features")))


class Mean(Metric):
    """The mean of the first generated feature."""

    def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
        return {"mean": float(fake.required("features")[:, 0].mean())}
