"""Precision, recall, density and coverage against their definitions; the choice of k."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gankit import GankitError, build
from gankit.interfaces import Pool, Resampling, Result, Rows
from gankit.metrics import _distances
from gankit.metrics._distances import squared_distances
from gankit.metrics._rows import digests, permutation
from gankit.metrics.precision_recall import PrecisionRecall, precision_recall

Array = NDArray[Any]
NAMES = ["precision", "recall", "density", "coverage"]


def rows(n: int, d: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(n, d))


def pool(real: Array, fake: Array) -> Pool:
    return Pool(Rows(features=real), Rows(features=fake))


def result(real: Array, fake: Array, k: int | None = None) -> Result:
    return PrecisionRecall(k=k).compute(Rows(features=real), Rows(features=fake))


def by_loops(real: Array, fake: Array, k: int) -> dict[str, float]:
    """The definitions, pair by pair, of sets of equal size."""

    def apart(a: Array, b: Array) -> float:
        return float(((a - b) ** 2).sum())

    def radii(x: Array) -> list[float]:
        return [sorted(apart(a, b) for j, b in enumerate(x) if j != i)[k - 1] for i, a in enumerate(x)]

    of_real, of_fake = radii(real), radii(fake)
    held = [[apart(r, f) <= radius for f in fake] for r, radius in zip(real, of_real, strict=True)]
    return {
        "precision": sum(any(row[j] for row in held) for j in range(len(fake))) / len(fake),
        "recall": sum(any(apart(r, f) <= radius for f, radius in zip(fake, of_fake, strict=True)) for r in real)
        / len(real),
        "density": sum(map(sum, held)) / (k * len(fake)),
        "coverage": sum(map(any, held)) / len(real),
    }


@pytest.mark.parametrize(("n", "d", "k"), [(3, 2, 1), (10, 1, 3), (25, 3, 5), (40, 30, 2), (7, 4, 5)])
def test_equals_the_definitions(n: int, d: int, k: int) -> None:
    real, fake = rows(n, d, 1), rows(n, d, 2) * 1.2 + 0.2
    assert precision_recall(real, fake, k=k) == pytest.approx(by_loops(real, fake, k), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(3, 20), d=st.integers(1, 6), seed=st.integers(0, 2**32 - 1), whole=st.booleans(), data=st.data()
)  # fmt: skip
def test_properties(n: int, d: int, seed: int, whole: bool, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n - 2))
    random = np.random.default_rng(seed)
    real, fake = random.normal(size=(n, d)), random.normal(size=(n, d)) * 1.3
    if whole:  # a lattice, full of ties, of equal rows too
        real, fake = real.round(), fake.round()
    values = precision_recall(real, fake, k=k)
    assert list(values) == NAMES
    assert values == pytest.approx(by_loops(real, fake, k), abs=1e-12)
    assert all(0 <= values[name] <= 1 for name in ("precision", "recall", "coverage"))
    assert 0 <= values["density"] <= n / k
    assert values["coverage"] <= min(1, values["density"] * k)
    # Turned round, precision is recall.
    turned = precision_recall(fake, real, k=k)
    assert (turned["precision"], turned["recall"]) == (values["recall"], values["precision"])
    assert precision_recall(random.permutation(real), random.permutation(fake), k=k) == values
    assert precision_recall(real * 4, fake * 4, k=k) == values
    if not whole:
        turn = np.linalg.qr(random.normal(size=(d, d)))[0]
        assert precision_recall(real @ turn, fake @ turn, k=k) == values
        assert precision_recall(real + 100, fake + 100, k=k) == values


def test_precision_and_recall_are_not_swapped() -> None:
    # A collapsed generator: one good image, many times nearly the same. A peer gave precision 4e-5 and recall 0.99.
    real = rows(300, 8, 1)
    collapsed = real[np.square(real).sum(1).argmin()] + rows(300, 8, 2) * 1e-3
    values = precision_recall(real, collapsed, k=5)
    assert values["precision"] == 1
    assert values["recall"] < 0.02
    assert values["coverage"] < 0.3
    scattered = precision_recall(real, rows(300, 8, 3) * 5, k=5)
    assert scattered["precision"] < 0.1
    assert scattered["density"] < 0.1
    assert scattered["recall"] > 0.9


def test_constant_features() -> None:
    # A peer compared with < and gave 0, 0, 0, 0.
    same = np.full((20, 4), 0.1)
    assert precision_recall(same, same, k=2) == {"precision": 1, "recall": 1, "density": 20 / 2, "coverage": 1}
    assert precision_recall(same, same + 1, k=2) == dict.fromkeys(NAMES, 0.0)


def test_copies_lie_in_the_balls_of_their_originals() -> None:
    # Also in those whose radius they are: k + 1 of them, the centre's own copy with the k neighbours'.
    for offset in (0.0, 1e6):
        real = rows(60, 40) + offset
        for k in (1, 3, 5):
            values = precision_recall(real, real[::-1], k=k)
            assert values == {"precision": 1, "recall": 1, "density": pytest.approx((k + 1) / k), "coverage": 1}


def test_k_larger_than_n() -> None:
    for n, k in ((6, 5), (3, 2), (5, 50)):
        with pytest.raises(
            GankitError, match=f"k = {k} needs at least {k + 2} images on each side, and one side has {n}"
        ):
            precision_recall(rows(n, 2), rows(30, 2), k=k)
        with pytest.raises(GankitError, match="lower k"):
            precision_recall(rows(30, 2), rows(n, 2), k=k)
    assert precision_recall(rows(7, 2), rows(7, 2, 1), k=5)
    results = [PrecisionRecall().compute(*[Rows(features=rows(n, 2))] * 2) for n in (3, 19, 20, 35, 49, 50, 500)]
    assert [result.details["k"] for result in results] == [1, 1, 2, 3, 4, 5, 5]


def test_the_scaled_k_is_not_saturated_for_few_images() -> None:
    """What the docstring says: one distribution on both sides."""
    scale = np.arange(1, 1281) ** -0.6
    means = {}
    for k in (5, None):
        random = np.random.default_rng(1)
        found = [
            precision_recall(random.normal(size=(25, 1280)) * scale, random.normal(size=(25, 1280)) * scale, k=k)
            for _ in range(30)
        ]
        means[k] = {name: np.mean([values[name] for values in found]) for name in NAMES}
    assert means[5]["precision"] > 0.93
    assert means[5]["coverage"] > 0.95
    assert 0.7 < means[None]["precision"] < 0.88
    assert 0.65 < means[None]["coverage"] < 0.85
    assert means[None]["density"] == pytest.approx(1, abs=0.1)


def test_unequal_sizes_are_drawn_alike_whatever_the_order() -> None:
    real, fake = rows(90, 5, 1), rows(40, 5, 2)
    values = precision_recall(real, fake)
    random = np.random.default_rng(0)
    for _ in range(3):
        assert precision_recall(random.permutation(real), random.permutation(fake)) == values
    drawn = real[permutation(digests(real))[:40]]
    assert values == pytest.approx(by_loops(drawn, fake, 4), abs=1e-12)
    found = result(real, fake)
    assert found.counts == dict.fromkeys(NAMES, (40, 40))
    assert found.details == {"k": 4}


def test_the_draw_is_fair() -> None:
    content = digests(np.arange(2000.0)[:, None])
    order = permutation(content)
    np.testing.assert_array_equal(np.sort(order), np.arange(2000))
    assert abs(order[:1000].mean() - 999.5) < 60
    assert abs(np.corrcoef(order, np.arange(2000))[0, 1]) < 0.08
    assert digests(np.array([[0.0]])) == digests(np.array([[-0.0]]))
    copies = permutation(digests(np.repeat([[1.0], [2.0]], 500, axis=0)))
    assert abs((copies[:500] < 500).sum() - 250) < 60


class TestDistances:
    def test_equal_rows_are_at_exactly_zero(self) -> None:
        # Float32 products put them up to 0.02 apart; here neither an offset nor the block matters.
        for offset in (0.0, 1e6):
            x = rows(70, 300) + offset
            squared = squared_distances(x[10:], x)
            assert (squared[np.arange(60), np.arange(10, 70)] == 0).all()
            assert (squared > 0).sum() == 60 * 69

    @pytest.mark.parametrize("step", [1e-12, 1e-8, 1e-5, 1e-3, 1.0])
    def test_near_rows(self, step: float, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_distances, "_CHUNK", 1000)
        monkeypatch.setattr(_distances, "_BLOCK", 600)
        x = rows(50, 90)
        y = x + rows(50, 90, 1) * step
        expected = np.square(x[:, None] - y).sum(2)
        np.testing.assert_allclose(squared_distances(x, y), expected, rtol=1e-8)

    def test_whole_numbers_are_exact(self) -> None:
        x, y = (np.random.default_rng(seed).integers(-50, 50, (40, 30)) + 1000.0 for seed in (1, 2))
        np.testing.assert_array_equal(squared_distances(x, y), np.square(x[:, None] - y).sum(2))

    @pytest.mark.slow
    def test_speed(self) -> None:
        x = rows(1000, 1024)
        start = time.perf_counter()
        squared_distances(x, x)
        assert time.perf_counter() - start < 5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_short_lists_in_small_steps_give_the_values_of_all_distances(
    monkeypatch: pytest.MonkeyPatch, scale: float, dtype: type
) -> None:
    from gankit.metrics import precision_recall as module

    real, fake = rows(50, 4, 1).astype(dtype), (scale * rows(50, 4, 2)).astype(dtype)
    fake[:5] = real[10:15]
    monkeypatch.setattr(module, "LISTED", 1)
    monkeypatch.setattr(module, "CENTRES", 7)
    monkeypatch.setattr(module, "COLUMNS", 11)
    x, y = real.astype(np.float64), fake.astype(np.float64)
    radius = {name: np.sort(np.linalg.norm(a[:, None] - a, axis=2), 1)[:, 3] for name, a in (("real", x), ("fake", y))}
    apart = np.linalg.norm(x[:, None] - y, axis=2)
    in_real, in_fake = apart <= radius["real"][:, None], apart <= radius["fake"]
    expected = {"precision": in_real.any(0).mean(), "recall": in_fake.any(1).mean(),
                "density": in_real.sum(0).mean() / 3, "coverage": in_real.any(1).mean()}  # fmt: skip
    assert precision_recall(real, fake, k=3) == pytest.approx(expected, abs=1e-12)


class TestMetric:
    real, fake = rows(60, 5, 1), rows(45, 5, 2) * 1.2

    def test_facts(self) -> None:
        metric = build("metric", "precision-recall", k=3)
        assert (metric.needs, metric.better, metric.k) == (("features",), "higher", 3)
        assert build("metric", "precision-recall").k is None
        with pytest.raises(GankitError, match="k: input should be greater than or equal to 1"):
            build("metric", "precision-recall", k=0)
        with pytest.raises(GankitError, match="k = 0: the nearest neighbour is k = 1"):
            precision_recall(rows(5, 2), rows(5, 2), k=0)

    def test_values_are_those_of_the_function(self) -> None:
        for real, fake in ((self.real, self.fake), (self.real.astype(np.float32), self.fake.astype(np.float32))):
            assert result(real, fake).values == precision_recall(real, fake)
            assert PrecisionRecall().resampling(pool(real, fake)).whole() == result(real, fake)

    def test_warnings(self) -> None:
        assert result(self.real[:20], self.fake[:20]).warnings == []
        (large,) = result(self.real[:20], self.fake[:20], k=5).warnings
        assert "k = 5 is more than a fifth of 20 images" in large
        metric = PrecisionRecall()
        assert metric.warnings({}) == metric.warnings({"precision": 0.97}) == []
        (saturated,) = metric.warnings({"precision": 0.985, "recall": 1.0})
        assert "precision between real images is 0.985 already" in saturated

    @pytest.mark.parametrize("k", [None, 1, 4])
    @pytest.mark.parametrize("kind", ["plain", "collapsed", "copies", "lattice"])
    def test_resampling_equals_a_fresh_metric(self, k: int | None, kind: str) -> None:
        real, fake = self.real, self.fake
        if kind == "collapsed":  # balls around reals hold all images or none, which no list of neighbours holds
            real, fake = rows(150, 5, 1), rows(1, 5, 3) * 0.1 + rows(140, 5, 2) * 1e-3
        elif kind == "copies":
            fake = np.concatenate([real[:20], real[:20], real[:5]])
        elif kind == "lattice":
            real, fake = real.round(), fake.round()
        everything = pool(real, fake)
        shared, plain = PrecisionRecall(k=k).resampling(everything), Resampling(PrecisionRecall(k=k), everything)
        assert type(shared) is not Resampling
        random = np.random.default_rng(0)
        for n, m in ((6, 6), (20, 30), (50, 40)):
            order = random.permutation(len(real) + len(fake))
            assert shared.values(order[:n], order[-m:]) == plain.values(order[:n], order[-m:])
        patients = np.arange(len(real)) // 9
        parts = [everything.real_places[patients == patient] for patient in range(patients[-1] + 1)]
        parts += list(everything.fake_places[:12, None])
        assert shared.values_without(parts) == plain.values_without(parts)
        with pytest.raises(GankitError, match="needs at least"):
            shared.values(np.arange(2), np.arange(10, 40))

    def test_few_images_beside_many_are_not_listed(self) -> None:
        assert type(PrecisionRecall().resampling(pool(rows(200, 5), self.fake[:10]))) is Resampling


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "real: 1 row; at least 3"),
        (np.zeros((5, 3)), np.zeros((0, 3)), "fake: 0 rows"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "differ in dimension"),
        (np.zeros(5), np.zeros((5, 4)), r"real must be \(n, d\)"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "real have values that are NaN"),
    ],
)
def test_refused(real: Array, fake: Array, message: str) -> None:
    with pytest.raises(GankitError, match=message):
        precision_recall(real, fake)


def test_metric_errors() -> None:
    with pytest.raises(GankitError, match="real images: 0 rows; at least 3"):
        result(rows(0, 3), rows(5, 3))
    with pytest.raises(GankitError, match="the generated images have no features"):
        PrecisionRecall().compute(Rows(features=rows(5, 3)), Rows())
