"""Values of metrics on small random subsets, and how much leaving out some images changes them."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from gankit.errors import GankitError
from gankit.evaluation.uncertainty import influences, standard_errors, variances_of
from gankit.experiments.selection import random_subset
from gankit.interfaces import Indices, Pool, Rows
from gankit.metrics.kid import BLOCK
from gankit.registry import build

KEPT_VALUES = ("frechet", "kid", "precision", "recall")  # one value per question: distances, quality, variety

Values = dict[str, dict[str, Any]]


def values_with_influences(names: Sequence[str], reals: Rows, fakes: Rows) -> Values:
    """Values of metrics from features, with standard errors and the `influences` of blocks of the real images.

    By value: `value`, `standard_error`, `fake_variance` (the generated images' part of the error's square),
    `real_influences` (their squares sum to the real images' part), `n_real`, `n_fake`; None where unknown.
    """
    entries: Values = {}
    for metric_name in names:
        used = reals.take(_one_block(np.arange(reals.count))) if metric_name == "kid" else reals
        resampling = build("metric", metric_name).resampling(Pool(used, fakes))
        values = resampling.whole().values
        real_influences = influences(resampling, "real", values)
        fake_variances = variances_of(influences(resampling, "fake", values))
        errors = standard_errors(resampling, values, [variances_of(real_influences), fake_variances])
        for name, value in values.items():
            if name in KEPT_VALUES:
                of_reals = real_influences.get(name)
                entries[name] = {
                    "value": value, "standard_error": errors[name], "fake_variance": fake_variances.get(name),
                    "real_influences": None if of_reals is None else of_reals.tolist(),
                    "n_real": used.count, "n_fake": fakes.count,
                }  # fmt: skip
    return entries


def spreads(names: Sequence[str], pool: Pool, draws: list[tuple[Indices, Indices]]) -> Values:
    """Mean and standard deviation of values over draws.

    A draw is the (k,) places in the pool of some real images and the (m,) places of some generated ones. A metric that
    cannot judge so few images is left out.
    """
    entries: Values = {}
    for metric_name in names:
        resampling = build("metric", metric_name).resampling(pool)
        used = [(_one_block(real), fake) for real, fake in draws] if metric_name == "kid" else draws
        with contextlib.suppress(GankitError):  # too few images for this metric
            values = [resampling.values(real, fake) for real, fake in used]
            for name in KEPT_VALUES:
                if name in values[0]:
                    numbers = np.array([value[name] for value in values])
                    entries[name] = {"mean": float(numbers.mean()), "sd": float(numbers.std(ddof=1))}
    return entries


def _one_block(real: Indices) -> Indices:
    """At most `BLOCK` of these images, chosen at random: KID of more takes a second for each value."""
    return real if len(real) <= BLOCK else real[random_places(len(real), BLOCK, "block of the kernel distance")]


def random_places(count: int, size: int, stream: str, number: int = 0) -> Indices:
    """(size,) different random numbers below `count`, sorted: a draw of its own for each stream and number."""
    return random_subset(count, size, 0, f"study {stream}", number)


def pooled_variance(samples: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Variance within samples, and its degrees of freedom: (0, 0) where none has several values."""
    several = [np.array(values) for values in samples if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in several)
    return (squares / freedom if freedom else 0.0), freedom
