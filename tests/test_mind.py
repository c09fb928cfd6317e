"""The Monge inception distance beside optimal assignments, closed forms and the paper's formula."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

import gankit
from gankit import GankitError, build
from gankit.interfaces import Pool, Resampling, Rows
from gankit.metrics import mind
from gankit.metrics.mind import Mind, monge_distance

Array = NDArray[Any]


def rows(n: int, d: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5


def directions(d: int, count: int) -> Array:
    return np.concatenate(list(mind._directions(d, count, 7)), axis=1)


def by_assignment(x: Array, y: Array, count: int) -> float:
    """The cheapest pairing of rows, as often as needed for equal sides, on each direction."""
    d, common = x.shape[1], math.lcm(len(x), len(y))
    x, y = x.repeat(common // len(x), 0), y.repeat(common // len(y), 0)
    total = 0.0
    for u in directions(d, count).T:
        costs = np.square((x @ u)[:, None] - (y @ u)[None])
        total += costs[linear_sum_assignment(costs)].mean()
    return 3 * d * total / count


@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 1), (5, 5, 3), (4, 6, 2), (3, 7, 5), (1, 4, 2)])
def test_equals_the_cheapest_assignment(n: int, m: int, d: int) -> None:
    x, y = rows(n, d, 1), rows(m, d, 2) * 1.4 + 0.3
    assert monge_distance(x, y, projections=20) == pytest.approx(by_assignment(x, y, 20), rel=1e-12)


def test_equals_the_formula_of_the_paper_in_torch() -> None:
    x, y = torch.tensor(rows(50, 8, 1)), torch.tensor(rows(50, 8, 2) + 0.5)
    u = torch.tensor(directions(8, 100))
    gaps = (x @ u).sort(dim=0).values - (y @ u).sort(dim=0).values
    assert monge_distance(x, y, projections=100) == pytest.approx(3 * 8 * float(gaps.square().mean()), rel=1e-12)


def test_one_dimension_by_hand() -> None:
    # Sorted, 0 meets 1 and 4 meets 2; of one row against two, 1 meets half of 0 and half of 4.
    assert monge_distance([[4], [0]], [[1], [2]]) == pytest.approx(3 * (1 + 4) / 2)
    assert monge_distance([[1]], [[4], [0]]) == pytest.approx(3 * (1 + 9) / 2)


def test_closed_forms_of_a_shift_and_a_scale() -> None:
    x = rows(400, 16, 1)
    shift = np.linspace(-1, 1, 16)
    # The mean of (u.shift)^2 over all directions is |shift|^2 / d; 10,000 directions come within some per cent.
    assert monge_distance(x, x + shift, projections=10_000) == pytest.approx(3 * (shift @ shift), rel=0.05)
    # On every direction the order is kept, so that W^2 = (s - 1)^2 mean (x.u)^2, and the mean of (x.u)^2 is |x|^2 / d.
    expected = 3 * 0.5**2 * np.square(x).sum(1).mean()
    assert monge_distance(x, 1.5 * x, projections=10_000) == pytest.approx(expected, rel=0.05)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 12), m=st.integers(1, 12), d=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_properties(n: int, m: int, d: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(n, d)), random.normal(size=(m, d)) * 3
    value = monge_distance(x, y, projections=30)
    assert value >= 0
    for first, second in (
        (y, x),
        (random.permutation(x), random.permutation(y)),
        (x + 7, y + 7),
        (np.repeat(x, 3, 0), y),
    ):
        assert monge_distance(first, second, projections=30) == pytest.approx(value, rel=1e-9, abs=1e-10)
    assert monge_distance(x, random.permutation(x), projections=30) == pytest.approx(0, abs=1e-20)


def test_many_rows_are_projected_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rows(40, 5, 1), rows(25, 5, 2)
    whole = monge_distance(x, y, projections=50)
    monkeypatch.setattr(mind, "VALUES_AT_ONCE", 200)
    assert monge_distance(x, y, projections=50) == pytest.approx(whole, rel=1e-12)
    pool, metric = Pool(Rows(features=x), Rows(features=y)), Mind(projections=50)
    assert metric.resampling(pool).whole().values["mind"] == pytest.approx(whole, rel=1e-12)
    monkeypatch.setattr(mind, "LARGEST_POOL", 60)
    assert type(metric.resampling(pool)) is Resampling


def test_it_sees_what_moments_do_not() -> None:
    # Two points and a normal distribution of the same mean and variance: the Frechet distance is 0 but for noise.
    normal = rows(2000, 1, 1)
    points = np.sign(normal) * normal.std() + normal.mean()
    assert gankit.metrics.frechet.frechet_distance(normal, points) < 0.01
    # W^2 = E (|z| - 1)^2 = 2 - 2 sqrt(2 / pi) = 0.404
    assert monge_distance(normal, points) == pytest.approx(3 * 0.404, rel=0.1)


def test_a_real_evaluation_gives_it_with_an_error_and_a_baseline() -> None:
    draw = np.random.default_rng(0)
    real, fake = (draw.integers(low, 256, (40, 3, 8, 8), dtype=np.uint8) for low in (0, 100))
    entry = gankit.evaluate(fake, real, [{"name": "mind", "projections": 50}], "pixels")["metrics"]["mind"]
    baseline = entry["real_vs_real"]
    assert baseline["fake_value_at_n"] > 1.5 * baseline["value"] > 0
    assert entry["standard_error"] > 0


def test_mistakes_are_named() -> None:
    with pytest.raises(GankitError, match="projections"):
        build("metric", "mind", projections=0)
    with pytest.raises(GankitError, match="0 rows; at least 1"):
        monge_distance(np.zeros((0, 2)), np.zeros((3, 2)))
    with pytest.raises(GankitError, match="differ in dimension"):
        monge_distance(np.zeros((3, 2)), np.zeros((3, 3)))
