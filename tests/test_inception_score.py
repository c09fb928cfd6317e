from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gankit import Batch, GankitError, build
from gankit.interfaces import Pool, Resampling, Rows
from gankit.metrics.inception_score import InceptionScore, inception_score

Array = NDArray[Any]


def logits(n: int, k: int, seed: int = 0, scale: float = 2.0) -> Array:
    return np.random.default_rng(seed).normal(size=(n, k)) * scale


def filled(real: Array | None, fake: Array) -> InceptionScore:
    metric = InceptionScore()
    if real is not None:
        metric.update(Batch(real=True, logits=real))
    metric.update(Batch(real=False, logits=fake))
    return metric


def by_loops(z: Array) -> float:
    """The definition, number by number."""
    chances = []
    for row in z.tolist():
        powers = [math.exp(value) for value in row]
        chances.append([power / math.fsum(powers) for power in powers])
    marginal = [math.fsum(column) / len(z) for column in zip(*chances, strict=True)]
    divergences = [
        math.fsum(p * (math.log(p) - math.log(q)) for p, q in zip(row, marginal, strict=True)) for row in chances
    ]
    return math.exp(math.fsum(divergences) / len(z))


@pytest.mark.parametrize(("n", "k"), [(1, 3), (2, 2), (7, 5), (40, 10)])
def test_equals_the_definition(n: int, k: int) -> None:
    assert inception_score(logits(n, k)) == pytest.approx(by_loops(logits(n, k)), rel=1e-12)


def test_known_truths() -> None:
    sure = np.eye(5) * 100
    assert inception_score(np.repeat(sure, 3, axis=0)) == pytest.approx(5, rel=1e-12)
    assert inception_score(sure[:2]) == pytest.approx(2, rel=1e-12)
    assert inception_score(np.zeros((9, 5))) == 1.0
    assert inception_score(np.tile(logits(1, 7), (30, 1))) == pytest.approx(1, abs=1e-14)
    # Chances (0.9, 0.1) and (0.1, 0.9): log 2 less the entropy of either.
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    both = np.log([[0.9, 0.1], [0.1, 0.9]])
    assert inception_score(both) == pytest.approx(math.exp(math.log(2) - entropy), rel=1e-14)


def test_large_logits_do_not_overflow() -> None:
    assert inception_score(np.array([[1e6, 0.0], [0.0, 1e6]])) == pytest.approx(2)
    assert inception_score(np.array([[3e4, -3e4], [-3e4, 3e4]], dtype=np.float16)) == pytest.approx(2)
    assert inception_score(logits(20, 6) + 1e5) == pytest.approx(inception_score(logits(20, 6)), rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 30), k=st.integers(1, 12), seed=st.integers(0, 2**32 - 1), scale=st.floats(0, 50))
def test_properties(n: int, k: int, seed: int, scale: float) -> None:
    z = logits(n, k, seed, scale)
    value = inception_score(z)
    assert 1 <= value <= min(n, k) * (1 + 1e-12)
    random = np.random.default_rng(seed)
    assert inception_score(random.permutation(z)) == pytest.approx(value, rel=1e-12)
    assert inception_score(z[:, random.permutation(k)]) == pytest.approx(value, rel=1e-12)
    assert inception_score(z + random.normal(size=(n, 1))) == pytest.approx(value, rel=1e-11)
    assert inception_score(np.concatenate([z, z])) == pytest.approx(value, rel=1e-12)


def test_batches_and_merged_metrics_are_one_pass() -> None:
    real, fake = logits(50, 8, 1), logits(41, 8, 2)
    whole = filled(real, fake).compute()
    for size in (1, 7, 41):
        metric = InceptionScore()
        for start in range(0, 50, size):
            metric.update(Batch(real=True, logits=real[start : start + size]))
            metric.update(Batch(real=False, logits=fake[start : start + size]))
        assert metric.compute() == pytest.approx(whole, rel=1e-12)
    first, second = filled(real[:9], fake[:30]), filled(real[9:], fake[30:])
    first.merge(second)
    assert first.compute() == pytest.approx(whole, rel=1e-12)
    assert second.compute() == pytest.approx(filled(real[9:], fake[30:]).compute())
    first.reset()
    first.merge(filled(real, fake))
    assert first.compute() == whole


def test_scores_are_deterministic_and_use_no_splits() -> None:
    fake = logits(8, 5)
    assert len({filled(None, fake).compute()["inception-score"] for _ in range(5)}) == 1
    # Peers split in tens, which leaves nothing of fewer images (NaN).
    assert filled(None, fake[:1]).compute() == {"inception-score": 1.0}


def test_each_side_has_its_own_score() -> None:
    # A peer's first model was scored on the reference set.
    real, fake = logits(60, 6, 1, scale=6), logits(60, 6, 2, scale=0.5)
    values = filled(real, fake).compute()
    assert list(values) == ["inception-score", "inception-score of reals"]
    assert values["inception-score"] == inception_score(fake)
    assert values["inception-score of reals"] == inception_score(real)
    assert values["inception-score"] < values["inception-score of reals"]


def test_metric_facts() -> None:
    metric = build("metric", "inception-score")
    assert (metric.needs, metric.better) == (("logits",), "higher")
    metric = filled(logits(9, 12), logits(5, 12))
    metric.compute()
    assert metric.counts() == {"inception-score": (0, 5), "inception-score of reals": (9, 0)}
    assert "5 images cannot show 12 classes" in metric.cautions({})[0]
    assert filled(None, logits(12, 12)).cautions({}) == []


def test_resampling_equals_a_fresh_metric() -> None:
    pool = Pool(Rows({"logits": logits(30, 6, 1)}, 30), Rows({"logits": logits(22, 6, 2)}, 22))
    shared, plain = InceptionScore().resampling(pool), Resampling(InceptionScore(), pool)
    assert type(shared) is not Resampling
    random = np.random.default_rng(0)
    for size in (1, 11, 26):
        order = random.permutation(52)
        real, fake = order[:size], order[-size:]
        assert shared.values(real, fake) == pytest.approx(plain.values(real, fake), rel=1e-12)
    patients = np.arange(30) // 4
    parts = [pool.reals[patients == patient] for patient in range(8)] + [*pool.fakes[:, None], pool.fakes[:20]]
    for found, expected in zip(shared.left_out(parts), plain.left_out(parts), strict=True):
        assert found == pytest.approx(expected, rel=1e-12)
    assert shared.standard_errors() is None


def test_sure_predictions_left_out() -> None:
    # Sums less a part may fall below 0 by rounding, of which no logarithm must be taken.
    sure = np.repeat(np.eye(3) * 200, 7, axis=0) + logits(21, 3)
    pool = Pool(Rows({"logits": sure}, 21), Rows({"logits": sure}, 21))
    left = InceptionScore().resampling(pool).left_out([pool.fakes[:7], pool.fakes[7:]])
    assert [each["inception-score"] for each in left] == pytest.approx([2, 1])


def test_errors() -> None:
    metric = InceptionScore()
    with pytest.raises(GankitError, match="no generated images"):
        metric.compute()
    with pytest.raises(GankitError, match="needs logits, and the generated images have none"):
        metric.update(Batch(real=False))
    with pytest.raises(GankitError, match="logits of the real images have values that are NaN"):
        metric.update(Batch(real=True, logits=np.array([[np.nan, 0.0]])))
    with pytest.raises(GankitError, match=r"must be \(n, d\)"):
        metric.update(Batch(real=True, logits=np.zeros(3)))
    with pytest.raises(GankitError, match="no rows"):
        inception_score(np.zeros((0, 3)))
    metric.update(Batch(real=False, logits=np.zeros((0, 3))))
    metric.update(Batch(real=False, logits=np.zeros((2, 3))))
    with pytest.raises(GankitError, match="3 and of 4 classes"):
        metric.update(Batch(real=False, logits=np.zeros((2, 4))))
    unequal = Pool(Rows({"logits": logits(4, 3)}, 4), Rows({"logits": logits(4, 2)}, 4))
    resampling = InceptionScore().resampling(unequal)
    assert resampling.values(np.arange(4), np.arange(4, 8)) == filled(logits(4, 3), logits(4, 2)).compute()
    with pytest.raises(GankitError, match="cannot be joined"):
        resampling.values(np.array([0, 1, 4, 5]), np.array([2, 3, 6, 7]))
    with pytest.raises(GankitError, match="needs logits"):
        InceptionScore().resampling(Pool(Rows({}, 3), Rows({}, 3))).values(np.arange(3), np.arange(3, 6))
