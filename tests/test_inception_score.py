"""The inception score against its definition and known truths."""

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
from gankit.evaluation.entries import evaluate_metric
from gankit.evaluation.extraction import as_part
from gankit.interfaces import Pool, Result, Rows
from gankit.metrics.inception_score import InceptionScore, inception_score

Array = NDArray[Any]


def logits(n: int, k: int, seed: int = 0, scale: float = 2.0) -> Array:
    return np.random.default_rng(seed).normal(size=(n, k)) * scale


def result(real: Array, fake: Array) -> Result:
    return InceptionScore().compute(Rows(logits=real), Rows(logits=fake))


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
    assert inception_score(np.zeros((9, 5))) == pytest.approx(1, abs=1e-14)
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


def test_a_side_without_images_has_no_score() -> None:
    fake = logits(8, 5)
    assert result(fake[:0], fake).values == {"inception-score": inception_score(fake)}
    # Peers split in tens, which leaves nothing of fewer images (NaN).
    assert result(fake[:0], fake[:1]).values == {"inception-score": 1.0}


def test_each_side_has_its_own_score() -> None:
    # A peer's first model was scored on the reference set.
    real, fake = logits(60, 6, 1, scale=6), logits(60, 6, 2, scale=0.5)
    values = result(real, fake).values
    assert list(values) == ["inception-score", "inception-score of reals"]
    assert values["inception-score"] == inception_score(fake)
    assert values["inception-score of reals"] == inception_score(real)
    assert values["inception-score"] < values["inception-score of reals"]


def test_metric_facts() -> None:
    metric = build("metric", "inception-score")
    assert (metric.needs, metric.better) == (("logits",), "higher")
    few = result(logits(9, 12), logits(5, 12))
    assert few.counts == {"inception-score": (0, 5), "inception-score of reals": (9, 0)}
    assert "5 images cannot show 12 classes" in few.warnings[0]
    assert result(logits(9, 12), logits(12, 12)).warnings == []


def test_resampling_equals_a_fresh_metric() -> None:
    pool = Pool(Rows(logits=logits(30, 6, 1)), Rows(logits=logits(22, 6, 2)))
    shared = assert_computed_anew(InceptionScore(), pool, (1, 11, 26), 1e-12)
    assert shared.standard_errors() is None


def test_sure_predictions_left_out() -> None:
    # Sums less a part may fall below 0 by rounding, of which no logarithm must be taken.
    sure = np.repeat(np.eye(3) * 200, 7, axis=0) + logits(21, 3)
    pool = Pool(Rows(logits=sure), Rows(logits=sure))
    left = InceptionScore().resampling(pool).values_without([pool.fake_places[:7], pool.fake_places[7:]])
    assert [each["inception-score"] for each in left] == pytest.approx([2, 1])


def test_the_baseline_says_of_how_many_images_it_is() -> None:
    """Also the score of generated images, which uses no reals: a half of the reals takes their place."""
    pool = Pool(Rows(logits=logits(24, 3)), Rows(logits=logits(14, 3, seed=1)))
    entries, _ = evaluate_metric(as_part("metric", "inception-score"), pool, 0)
    assert [entry["real_vs_real"]["n"] for entry in entries.values()] == [12, 12]


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (logits(3, 3), logits(0, 3), "no generated images"),
        (logits(3, 3), None, "the generated images have no logits"),
        (None, logits(3, 3), "the real images have no logits"),
        (np.array([[np.nan, 0.0]]), logits(3, 2), "logits of the real images have values that are NaN"),
        (logits(3, 3), np.zeros(3), r"must be \(n, d\)"),
        (logits(3, 3), logits(3, 4), "logits of 3 classes for real and of 4 for generated images"),
    ],
)
def test_errors(real: Array | None, fake: Array | None, message: str) -> None:
    with pytest.raises(GankitError, match=message):
        InceptionScore().compute(Rows(logits=real), Rows(logits=fake))


def test_no_rows_are_refused() -> None:
    with pytest.raises(GankitError, match="no rows"):
        inception_score(np.zeros((0, 3)))
