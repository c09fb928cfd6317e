"""Distances to the nearest training image and to others, by brute force."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gankit.interfaces import Result, Rows
from gankit.metrics.memorisation import Memorisation

Array = NDArray[Any]
VALUES = ["memorisation", "near-copies", "authenticity", "memorisation distance"]


def rows(n: int, d: int = 16, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(n, d))


def known(features: Array, groups: Array | None = None, training: Rows | None = None) -> Rows:
    return Rows(features=features, ids=np.arange(len(features)), groups=groups, training=training)


def result(
    real: Array,
    fake: Array,
    training: Array | None = None,
    groups: Array | None = None,
    training_groups: Array | None = None,
) -> Result:
    apart = None if training is None else known(training, training_groups)
    return Memorisation().compute(known(real, groups, apart), known(fake))


def distance(x: Array, y: Array) -> float:
    return math.sqrt(float(np.square(x - y).sum()))


def brute_force(real: Array, fake: Array, training: Array | None, groups: Array | None) -> dict[str, float]:
    train = real if training is None else training
    groups = np.arange(len(real)) if groups is None else groups
    if training is None:
        n = len(real)
        held = [min(distance(real[i], real[j]) for j in range(n) if groups[i] != groups[j]) for i in range(n)]
        rank = 2 * max(1, math.floor((n + 2) / 200))
    else:
        held = [min(distance(x, y) for y in train) for x in real]
        rank = max(1, math.floor((len(real) + 1) / 100))
    near = [[distance(x, y) for y in train] for x in fake]
    closest = [min(line) for line in near]
    own = [min(distance(x, y) for j, y in enumerate(train) if i != j) for i, x in enumerate(train)]
    wins = [(f < h) + (f == h) / 2 for f in closest for h in held]
    cosines = [[abs(x @ y) / math.sqrt((x @ x) * (y @ y)) for y in train] for x in fake]
    return {
        "memorisation": sum(wins) / len(wins),
        "near-copies": float(np.mean([f <= sorted(held)[rank - 1] for f in closest])),
        "authenticity": float(np.mean([f > own[int(np.argmin(line))] for f, line in zip(closest, near, strict=True)])),
        "memorisation distance": float(np.mean([1 - max(line) for line in cosines])),
    }
