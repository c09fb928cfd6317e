"""The ratio of variances against traces of covariances; collapse at any number of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from resamplings import assert_computed_anew

from gankit import GankitError, build
from gankit.cache import row_blocks
from gankit.interfaces import Moments, Pool, Resampling, Rows
from gankit.metrics.variance_ratio import VarianceRatio, variance_ratio

Array = NDArray[Any]


def rows(n: int, d: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5


def value(real: Array, fake: Array) -> float:
    return VarianceRatio().compute(Rows(features=real), Rows(features=fake))["variance-ratio"]


def reference(real: Array, fake: Array) -> float:
    return float(np.trace(np.atleast_2d(np.cov(fake.T))) / np.trace(np.atleast_2d(np.cov(real.T))))


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (2, 30, 4), (50, 20, 6), (10, 12, 100)])
def test_equals_the_traces_of_covariances(n: int, m: int, d: int) -> None:
    real, fake = rows(n, d, 1) + 3, rows(m, d, 2) * 0.7 - 1
    assert variance_ratio(real, fake) == pytest.approx(reference(real, fake), rel=1e-12)
    assert value(real, fake) == variance_ratio(real, fake)


def test_by_hand() -> None:
    # Variances 2 + 0 and 8 + 2.
    assert variance_ratio([[0, 5], [2, 5]], [[0, 0], [4, 2]]) == 5


def test_a_shrunken_set_is_told_at_any_number_of_images() -> None:
    # The Frechet distance between few images understates exactly this.
    for n in (10, 100):
        found = [variance_ratio(rows(n, 50, seed), rows(n, 50, seed + 1000) * 0.5) for seed in range(200)]
        assert np.mean(found) == pytest.approx(0.25, rel=0.03)
    x = rows(20, 5)
    assert variance_ratio(x, x[::-1]) == pytest.approx(1, rel=1e-14)
    assert variance_ratio(x, np.full((7, 5), 0.1)) == 0.0


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 30), m=st.integers(2, 30), d=st.integers(1, 8), seed=st.integers(0, 2**32 - 1),
    scale=st.floats(0.01, 100), offset=st.floats(-1e4, 1e4),
)  # fmt: skip
def test_properties(n: int, m: int, d: int, seed: int, scale: float, offset: float) -> None:
    random = np.random.default_rng(seed)
    real, fake = random.normal(size=(n, d)), random.normal(size=(m, d)) * scale
    expected = variance_ratio(real, fake)
    assert expected == pytest.approx(reference(real, fake), rel=1e-9)
    assert variance_ratio(fake, real) == pytest.approx(1 / expected, rel=1e-9)
    turn = np.linalg.qr(random.normal(size=(d, d)))[0]
    assert variance_ratio(real @ turn, fake @ turn) == pytest.approx(expected, rel=1e-9)
    assert variance_ratio(random.permutation(real), random.permutation(fake)) == pytest.approx(expected, rel=1e-9)
    assert value(real + offset, fake - offset) == pytest.approx(expected, rel=1e-6)


def test_an_offset_of_a_million_changes_nothing() -> None:
    # A peer's sums of products lose every digit here.
    real, fake = rows(50, 20, 1), rows(60, 20, 2)
    expected = variance_ratio(real, fake)
    assert value(real + 1e6, fake + 1e6) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("size", [1, 7, 60])
def test_blocks_of_any_size_give_the_same(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = rows(50, 20, 1), rows(60, 20, 2)
    expected = variance_ratio(real, fake)
    monkeypatch.setattr("gankit.metrics.variance_ratio.row_blocks", lambda array: row_blocks(array, size))
    assert value(real, fake) == pytest.approx(expected, rel=1e-12)


def moments(x: Array, n: int | None) -> Moments:
    return Moments(n, x.mean(0), np.cov(x.T))


@pytest.mark.parametrize("n", [50, None])
def test_statistics_stand_for_rows(n: int | None) -> None:
    real, fake = rows(50, 6, 1), rows(40, 6, 2)
    stored = Rows(statistics=moments(real, n))
    found = VarianceRatio().compute(stored, Rows(features=fake))["variance-ratio"]
    assert found == pytest.approx(variance_ratio(real, fake), rel=1e-12)


def test_metric_facts() -> None:
    metric = build("metric", "variance-ratio")
    assert (metric.needs, metric.better, metric.takes_moments) == (("features",), None, True)


def test_resampling_equals_a_fresh_metric() -> None:
    real, fake = rows(30, 6, 1), rows(22, 6, 2) * 0.8 + 1
    pool = Pool(Rows(features=real), Rows(features=fake))
    shared = assert_computed_anew(VarianceRatio(), pool, (2, 11, 26), 1e-10)
    assert shared.standard_errors() is None
    with pytest.raises(GankitError, match="1 real image;"):
        shared.values(np.array([0]), np.array([4, 5]))


def test_resampling_of_collapsed_and_constant_parts() -> None:
    real = np.concatenate([rows(10, 4, 1), np.full((5, 4), 0.1)])
    fake = rows(8, 4, 2) * 1e-5 + 100
    pool = Pool(Rows(features=real), Rows(features=fake))
    shared, plain = VarianceRatio().resampling(pool), Resampling(VarianceRatio(), pool)
    assert shared.values(pool.real_places, pool.fake_places) == plain.values(pool.real_places, pool.fake_places)
    assert shared.values_without([pool.fake_places[:3]]) == plain.values_without([pool.fake_places[:3]])
    with pytest.raises(GankitError, match="constant"):
        shared.values(np.arange(10, 15), pool.fake_places)
    with pytest.raises(GankitError, match="constant"):
        shared.values_without([np.arange(10)])


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "real: 1 row; at least 2"),
        (np.zeros((5, 3)), np.zeros((0, 3)), "fake: 0 rows"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "differ in dimension"),
        (np.full((5, 3), np.inf), np.zeros((5, 3)), "real have values that are NaN or infinite"),
        (np.full((9, 3), 0.1), rows(5, 3), "real images' features are constant"),
    ],
)
def test_refused(real: Array, fake: Array, message: str) -> None:
    with pytest.raises(GankitError, match=message):
        variance_ratio(real, fake)


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (rows(0, 3), rows(5, 3), "0 real images; at least 2"),
        (None, rows(5, 3), "the real images have no features"),
        (np.full((2, 2), np.nan), rows(5, 2), "real images have values that are NaN"),
        (rows(1, 3), rows(5, 3), "1 real image; at least 2"),
        (rows(2, 3), rows(0, 3), "0 generated images"),
        (rows(2, 3), rows(2, 4), "3 of real and 4 of generated"),
        # 0.1 has no exact mean of many, and the features are constant all the same.
        (np.full((1000, 3), 0.1), rows(5, 3), "constant"),
    ],
)
def test_metric_errors(real: Array | None, fake: Array, message: str) -> None:
    with pytest.raises(GankitError, match=message):
        VarianceRatio().compute(Rows(features=real), Rows(features=fake))
