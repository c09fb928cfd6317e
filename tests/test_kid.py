"""The kernel distance against a double loop and closed forms: without bias, with a variance that is right."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from resamplings import assert_computed_anew

from gankit import GankitError, build
from gankit.interfaces import Pool, Result, Rows
from gankit.metrics import kid
from gankit.metrics.kid import Kid, cubic_kernel, kernel_distance, mean_and_standard_error, terms_of

Array = NDArray[Any]


def rows(n: int, d: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5


def pool(real: Array, fake: Array) -> Pool:
    return Pool(Rows(features=real), Rows(features=fake))


def value(real: Array, fake: Array) -> float:
    return Kid().compute(Rows(features=real), Rows(features=fake)).values["kid"]


def by_loops(x: Array, y: Array) -> float:
    """The definition, pair by pair."""

    def kernel(a: Array, b: Array) -> float:
        return (sum(float(p) * float(q) for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within_x = math.fsum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = math.fsum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_x + within_y - 2 * math.fsum(kernel(a, b) for a in x for b in y) / (n * m)


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (2, 9, 3), (7, 3, 4), (12, 12, 20), (20, 5, 2)])
def test_equals_a_double_loop(n: int, m: int, d: int) -> None:
    x, y = rows(n, d, 1), rows(m, d, 2) * 1.4 + 0.3
    assert kernel_distance(x, y)[0] == pytest.approx(by_loops(x, y), rel=1e-12, abs=1e-13)


def test_two_rows_each_by_hand() -> None:
    # Kernels (x.y / 1 + 1)^3: of 0 and 1 it is 1, of 2 and 3 it is 343; across 1, 1, 27, 64.
    assert kernel_distance([[0], [1]], [[2], [3]])[0] == 1 + 343 - 2 * (1 + 1 + 27 + 64) / 4


def test_the_mean_difference_in_closed_form() -> None:
    # Point masses: the kernel's own mean element, without any noise.
    x, y = np.full((5, 2), 1.0), np.full((4, 2), 2.0)
    value, error = kernel_distance(x, y)
    assert value == 2**3 + 5**3 - 2 * 3**3
    assert error == pytest.approx(0, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 12), m=st.integers(2, 12), d=st.integers(1, 10), seed=st.integers(0, 2**32 - 1),
    scale=st.floats(0.1, 10),
)  # fmt: skip
def test_properties(n: int, m: int, d: int, seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(n, d)), random.normal(size=(m, d)) * scale
    value, error = kernel_distance(x, y)
    # Rounding is relative to the kernel's values, not to their difference.
    tolerance = 1e-12 * (1 + max(np.square(x).sum(1).max(), np.square(y).sum(1).max()) / d) ** 3
    assert value == pytest.approx(by_loops(x, y), abs=tolerance)
    assert error >= 0
    assert math.isfinite(error)
    turn = np.linalg.qr(random.normal(size=(d, d)))[0]
    for first, second in ((y, x), (random.permutation(x), random.permutation(y)), (x @ turn, y @ turn)):
        other, other_error = kernel_distance(first, second)
        assert other == pytest.approx(value, abs=tolerance)
        assert other_error == pytest.approx(error, rel=1e-6, abs=tolerance)


def test_scores_are_deterministic_and_leave_the_global_generator_alone() -> None:
    x, y = rows(60, 8, 1), rows(200, 8, 2)
    state = np.random.get_state()[1].copy()
    assert len({kernel_distance(x, y) for _ in range(5)}) == 1
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_kid_of_equal_n_uses_no_subsets_and_unequal_n_uses_all_rows() -> None:
    # Peers draw subsets of min(n, m, 1000) rows: of equal sizes the whole sets again and again, of unequal ones a part.
    for n, m in ((60, 60), (60, 200)):
        x, y = rows(n, 5, 1), rows(m, 5, 2)
        value = kernel_distance(x, y)[0]
        assert value == pytest.approx(by_loops(x, y), rel=1e-11)
        changed = y.copy()
        changed[-1] += 0.1
        assert kernel_distance(x, changed)[0] != value


def test_kid_is_not_called_exact_in_float32() -> None:
    x, y = rows(40, 64, 1).astype(np.float32) * 5, rows(40, 64, 2).astype(np.float32) * 5
    exact = kernel_distance(x.astype(np.float64), y.astype(np.float64))
    assert kernel_distance(x, y) == exact
    assert x.dtype == np.float32


@pytest.mark.parametrize(("n", "m"), [(10, 25), (40, 40)])
def test_kid_is_unbiased_over_seeds_within_its_own_error(n: int, m: int) -> None:
    found = np.array([kernel_distance(rows(n, 6, seed), rows(m, 6, seed + 10**6)) for seed in range(600)])
    assert abs(found[:, 0].mean()) < 3 * found[:, 0].std() / math.sqrt(len(found))
    assert found[:, 0].min() < 0 < found[:, 0].max()
    # The errors are conservative under the null: more than the nominal share is within two of them.
    assert (np.abs(found[:, 0]) < 2 * found[:, 1]).mean() > 0.94


@pytest.mark.parametrize("alternative", [False, True])
@pytest.mark.parametrize(("n", "m"), [(6, 9), (30, 18)])
def test_variance_estimate_is_unbiased_before_it_is_clamped(n: int, m: int, alternative: bool) -> None:
    random = np.random.default_rng(5)
    values, estimates, clamped = [], [], []
    for _ in range(4000 if n < 10 else 1500):
        x, y = random.normal(size=(n, 4)), random.normal(size=(m, 4))
        if alternative:
            y = y * 1.3 + 0.3
        terms = terms_of(cubic_kernel(np.concatenate([x, y])), n)
        of_rows = np.array([terms.row_variance_x / n, terms.row_variance_y / m])
        of_pairs = terms.pair_variance_x / (n * (n - 1)) + terms.pair_variance_y / (m * (m - 1))
        second = 2 * of_pairs + 4 * terms.cross_variance / (n * m)
        values.append(terms.estimate)
        estimates.append(second + 4 * of_rows.sum())
        clamped.append(mean_and_standard_error([terms])[1] ** 2)
        assert clamped[-1] == pytest.approx(second + 4 * of_rows.clip(min=0).sum())
    truth = np.var(values, ddof=1)
    noise = math.hypot(np.std(np.square(values - np.mean(values))), np.std(estimates)) / math.sqrt(len(values))
    assert abs(np.mean(estimates) - truth) < 3.5 * noise
    assert np.mean(clamped) > 0.9 * truth
    assert np.mean(clamped) < 2.5 * truth


def test_standard_error_with_too_few_rows_for_its_terms() -> None:
    random = np.random.default_rng(3)
    found = np.array([kernel_distance(random.normal(size=(2, 4)), random.normal(size=(30, 4))) for _ in range(3000)])
    assert np.mean(found[:, 1] ** 2) == pytest.approx(found[:, 0].var(), rel=0.12)


class TestBlocks:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kid, "BLOCK", 20)

    def test_order_changes_nothing(self) -> None:
        x, y = rows(75, 4, 1), rows(50, 4, 2)
        x[10:30] = x[0]
        value = kernel_distance(x, y)
        random = np.random.default_rng(0)
        for _ in range(3):
            assert kernel_distance(random.permutation(x), random.permutation(y)) == value
        assert kernel_distance(y, x) == value

    def test_equals_the_mean_of_the_blocks(self) -> None:
        x, y = rows(75, 4, 1), rows(15, 4, 2)
        parts = kid._blocks(x, "longer")
        assert [len(part) for part in parts] == [19, 19, 19, 18]
        assert sorted(map(tuple, np.concatenate(parts))) == sorted(map(tuple, x))
        assert kernel_distance(x, y)[0] == pytest.approx(np.mean([by_loops(part, y) for part in parts]), rel=1e-12)

    @pytest.mark.parametrize(("n", "m"), [(60, 45), (70, 12)])
    def test_unbiased_with_an_error_that_fits(self, n: int, m: int) -> None:
        random = np.random.default_rng(7)
        shift = 0.25
        found, truth = [], []
        for _ in range(500):
            x, y = random.normal(size=(n, 3)), random.normal(size=(m, 3)) + shift
            found.append(kernel_distance(x, y))
            truth.append(terms_of(cubic_kernel(np.concatenate([x, y])), n).estimate)
        values, errors = np.array(found).T
        assert values.mean() == pytest.approx(np.mean(truth), abs=3 * values.std() / math.sqrt(len(values)))
        assert 0.75 < np.mean(errors**2) / values.var() < 1.75

    def test_copies_of_one_row_are_dealt_as_independent_draws_are(self) -> None:
        # Dealing copies apart (or together) would make pairs of them too rare (too common) within blocks.
        random = np.random.default_rng(8)
        values = []
        for _ in range(1500):
            points = random.normal(size=(6, 2))
            values.append(kernel_distance(points[random.integers(0, 6, 40)], points[random.integers(0, 6, 40)])[0])
        assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))

    def test_copies_of_the_reals_meet_their_originals_as_often_as_others(self) -> None:
        random = np.random.default_rng(9)
        found, truth = [], []
        for _ in range(400):
            x = random.normal(size=(50, 2))
            found.append(kernel_distance(x, x[::-1])[0])
            truth.append(terms_of(cubic_kernel(np.concatenate([x, x])), 50).estimate)
        difference = np.subtract(found, truth)
        assert abs(difference.mean()) < 3 * difference.std() / math.sqrt(len(difference))

    def test_resampling_of_more_rows_than_a_block(self) -> None:
        everything = pool(rows(30, 3, 1), rows(15, 3, 2))
        resampling = Kid().resampling(everything)
        real, fake = np.arange(0, 30), np.arange(30, 45)
        assert resampling.values(real, fake) == {"kid": value(rows(30, 3, 1), rows(15, 3, 2))}
        assert resampling.standard_errors() == {"kid": kernel_distance(rows(30, 3, 1), rows(15, 3, 2))[1]}
        small = pool(rows(18, 3, 1), rows(18, 3, 2))
        real, fake = np.arange(0, 30), np.arange(30, 36)
        both = np.concatenate([rows(18, 3, 1), rows(18, 3, 2)])
        assert Kid().resampling(small).values(real, fake) == {"kid": value(both[:30], both[30:])}


class TestMetric:
    real, fake = rows(30, 6, 1), rows(22, 6, 2) * 1.3

    def test_value(self) -> None:
        metric = build("metric", "kid")
        assert (metric.needs, metric.better) == (("features",), "lower")
        result = metric.compute(Rows(features=self.real), Rows(features=self.fake))
        assert result == Result({"kid": kernel_distance(self.real, self.fake)[0]})

    def test_resampling_equals_a_fresh_metric(self) -> None:
        everything = pool(self.real, self.fake)
        shared = assert_computed_anew(Kid(), everything, (2, 11, 25), 1e-12)
        errors = shared.standard_errors()
        assert errors is not None
        assert errors["kid"] == pytest.approx(kernel_distance(self.real, self.fake)[1], rel=1e-9)
        with pytest.raises(GankitError, match="1 row; at least 2"):
            shared.values(np.array([0]), np.array([5, 6]))

    def test_jackknife_and_closed_form_agree(self) -> None:
        real, fake = rows(60, 6, 3), rows(80, 6, 4) * 1.5 + 0.3
        everything = pool(real, fake)
        resampling = Kid().resampling(everything)
        variance = 0.0
        for side in (everything.real_places, everything.fake_places):
            left = np.array([each["kid"] for each in resampling.values_without(list(side[:, None]))])
            variance += (len(left) - 1) / len(left) * ((left - left.mean()) ** 2).sum()
        closed = resampling.standard_errors()
        assert closed is not None
        assert closed["kid"] == pytest.approx(math.sqrt(variance), rel=0.1)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "x: 1 row; at least 2"),
        (np.zeros((5, 3)), np.zeros((0, 3)), "y: 0 rows"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "differ in dimension: 3 and 4"),
        (np.zeros(5), np.zeros((5, 4)), r"x must be \(n, d\)"),
        (np.zeros((5, 0)), np.zeros((5, 0)), r"x must be \(n, d\)"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "x have values that are NaN"),
        (np.zeros((5, 3)), np.full((5, 3), -np.inf), "y have values that are NaN or infinite"),
        (np.zeros((5, 3)), np.full((5, 3), -1e30), "y have values beyond"),
    ],
)
def test_refused(x: Array, y: Array, message: str) -> None:
    with pytest.raises(GankitError, match=message):
        kernel_distance(x, y)


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (np.zeros((0, 2)), np.zeros((3, 2)), "real images: 0 rows; at least 2"),
        (None, np.zeros((3, 2)), "the real images have no features, which the metric needs"),
        (np.zeros((3, 2)), None, "the generated images have no features"),
        (np.zeros((3, 2)), np.full((2, 2), np.nan), "features of the generated images have values that are NaN"),
        (np.zeros((3, 2)), np.zeros((3, 4)), "differ in dimension: 2 and 4"),
    ],
)
def test_metric_errors(real: Array | None, fake: Array | None, message: str) -> None:
    for call in (Kid().compute, lambda x, y: Kid().resampling(Pool(x, y))):
        with pytest.raises(GankitError, match=message):
            call(Rows(features=real), Rows(features=fake))
