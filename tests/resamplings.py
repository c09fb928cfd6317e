"""What a metric's own `resampling` must give: the values of the metric computed anew from the resampled rows."""

from __future__ import annotations

import numpy as np
import pytest

from gankit.interfaces import Metric, Pool, Resampling


def assert_computed_anew(metric: Metric, pool: Pool, sizes: tuple[int, ...], tolerance: float) -> Resampling:
    """Compare values of random halves, and values without patients, single images and many images.

    Returns:
        The metric's own resampling of `pool`, 30 real and 22 generated images.
    """
    shared, plain = metric.resampling(pool), Resampling(metric, pool)
    assert type(shared) is not Resampling
    random = np.random.default_rng(0)
    near = {"rel": tolerance, "abs": tolerance}
    for size in sizes:
        order = random.permutation(52)
        real, fake = order[:size], order[-size:]
        assert shared.values(real, fake) == pytest.approx(plain.values(real, fake), **near)
    patients = np.arange(30) // 4
    parts = [pool.real_places[patients == patient] for patient in range(8)]
    parts += [*pool.fake_places[:, None], pool.fake_places[:20]]
    for found, expected in zip(shared.values_without(parts), plain.values_without(parts), strict=True):
        assert found == pytest.approx(expected, **near)
    return shared
