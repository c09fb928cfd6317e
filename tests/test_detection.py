"""How well readers tell images apart: measures by hand, and intervals over readers and patients."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from gankit.evaluation.design import wilson
from gankit.evaluation.detection import (
    accuracy,
    agreement_interval,
    area,
    discrimination,
    fleiss_kappa,
    over_readers,
    pair_discrimination,
    share,
)

NONE = math.nan


def test_measures_of_a_reader_by_hand() -> None:
    calls = np.array([[1, 1, 1, 0, 0, 0, 1, NONE]])  # three of four are found, one of three is a false alarm
    kinds = np.array([True] * 4 + [False] * 4)
    assert accuracy(calls, kinds) == pytest.approx((3 / 4 + 2 / 3) / 2)
    z = stats.norm.ppf
    assert discrimination(calls, kinds) == pytest.approx(z(3.5 / 5) - z(1.5 / 4))
    assert pair_discrimination(4 / 7, 7) == pytest.approx(math.sqrt(2) * z(4.5 / 8))
    assert pair_discrimination([0.5, 1.0]).tolist() == [0, math.inf]
    assert share(calls, kinds) == pytest.approx(4 / 7)
    scores = np.array([[5, 3, NONE, 1, 3, 2, NONE, NONE]])  # of 6 pairs three are won, and one is a tie
    assert area(scores, kinds) == pytest.approx((4 - 0.5) / 6)
    nothing = np.full((1, 8), NONE)
    for measure in (accuracy, discrimination, share, area):
        assert np.isnan(measure(nothing, kinds)).all()


def test_fleiss_kappa_of_the_published_example() -> None:
    # 14 readers, 10 cases, 5 categories: the table of the article in Wikipedia, kappa 0.210.
    table = ["0 0 0 0 14", "0 2 6 4 2", "0 0 3 5 6", "0 3 9 2 0", "2 2 8 1 1", "7 7 0 0 0", "3 2 6 3 0", "2 5 3 2 2",
             "6 5 2 1 0", "0 2 2 3 7"]  # fmt: skip
    calls = [[k for k, count in enumerate(row.split()) for _ in range(int(count))] for row in table]
    assert fleiss_kappa(np.array(calls).T) == pytest.approx(0.210, abs=5e-4)
    assert fleiss_kappa([[1, 0, 1, NONE], [1, 0, 0, 1]]) == pytest.approx((2 / 3 - 1 / 2) / (1 - 1 / 2))
    assert fleiss_kappa([[1, 1], [1, 1]]) is None
    assert fleiss_kappa([[1, 0]]) is None
    assert fleiss_kappa([[1, NONE], [NONE, 1]]) is None


def test_intervals_of_agreement_are_over_patients() -> None:
    random = np.random.default_rng(0)
    truth = np.arange(40) % 2
    calls = np.where(random.random((3, 40)) < 0.8, truth, 1 - truth).astype(float)
    kinds, each = ["a"] * 40, np.arange(40)

    def interval(table: np.ndarray, groups: np.ndarray, is_share: bool = False) -> tuple[float, float] | None:
        return agreement_interval(fleiss_kappa, table, kinds[: table.shape[1]], groups, is_share)

    low, high = interval(calls, each)  # type: ignore[misc]
    left_out = np.array([fleiss_kappa(np.delete(calls, i, 1)) for i in range(40)], float)
    error = math.sqrt(39**2 / 40 * left_out.var(ddof=1))
    half = stats.t.ppf(0.975, 39) * error
    kappa = fleiss_kappa(calls)
    assert kappa is not None
    # The ends of the intervals of two logarithms: of the distances from 1 and from the least value of three readers
    below_one = math.exp(math.log(1 - kappa) + half / (1 - kappa))
    above_least = math.exp(math.log(kappa + 1 / 2) + half / (kappa + 1 / 2))
    assert (low, high) == pytest.approx((1 - below_one, above_least - 1 / 2))
    assert low < kappa - half < kappa + half < high
    twice = interval(np.repeat(calls, 2, axis=1)[:, :40], each // 2)
    once = interval(calls[:, :20], each[:20])
    assert twice == pytest.approx(once, abs=0.02)  # images of a patient that are alike say nothing new
    assert interval(calls[:, :19], each[:19]) is None
    assert interval(np.tile(truth, (3, 1)).astype(float), each) is None  # all agree: the jackknife sees no error
    assert interval(np.ones((3, 40)), each) is None
    near = np.tile(truth, (3, 1)).astype(float)
    near[0, 0] = 1 - near[0, 0]
    assert interval(near, each)[1] == 1  # type: ignore[index]
    opposite = np.array([truth, 1 - truth], float)
    opposite[0, 0] = opposite[1, 0]
    assert interval(opposite, each)[0] == -1  # type: ignore[index]
    gaps = np.where(np.arange(3)[:, None] == each % 3, np.nan, calls)  # two answers an image: the least value is -1
    spread = agreement_interval(lambda table: float(np.nanmean(table)) - 1, gaps, kinds, each)
    value = np.nanmean(gaps) - 1
    half = stats.t.ppf(0.975, 39) * np.nanmean(gaps, 0).std(ddof=1) / math.sqrt(40)
    assert spread == pytest.approx(
        (1 - (1 - value) * math.exp(half / (1 - value)), (value + 1) * math.exp(half / (value + 1)) - 1)
    )
    bottom = agreement_interval(lambda table: float(table[0].mean()) - 1.1, calls, kinds, each)
    assert bottom is not None  # near or below the least value no logarithm blows up
    assert -1 < bottom[0] <= calls[0].mean() - 1.1 < bottom[1] < 1
    same = agreement_interval(lambda both: float((both[0] == both[1]).mean()), calls[:2], kinds, each, is_share=True)
    assert 0 < same[0] < (calls[0] == calls[1]).mean() < same[1] < 1  # type: ignore[index]
    assert agreement_interval(lambda both: 1.0, calls, kinds, each, is_share=True) == wilson(40, 40)


def test_intervals_are_over_readers_and_patients_together() -> None:
    kinds = np.arange(40) < 20
    each, twice = np.arange(40), np.arange(40) // 2
    right = np.tile([1, 1, 0, 0], (4, 10))  # images of a patient are alike
    alike = over_readers(accuracy, np.where(kinds, right, 1 - right), kinds, each)
    by_patient = over_readers(accuracy, np.where(kinds, right, 1 - right), kinds, twice)
    assert (alike.estimate.parts["seeds"].variance, alike.readers, by_patient.groups) == (0, 4, 20)  # type: ignore[union-attr]
    assert alike.interval(True)[0] > by_patient.interval(True)[0]  # type: ignore[index]
    skilled = right.copy()
    skilled[2:] = 1
    unlike = over_readers(share, skilled.astype(float), np.ones(40), each)
    low, high = unlike.interval(True)  # type: ignore[misc]
    assert unlike.by_reader.tolist() == [0.5, 0.5, 1, 1]
    assert high - low > 0.5  # two kinds of readers: nobody knows what the next one is
    once = over_readers(share, np.array([[1, NONE, NONE], [1, 0, 1]]), np.ones(3), each[:3])
    assert np.isnan(once.by_reader).tolist() == [True, False]
    assert once.readers == 1
    perfect = over_readers(discrimination, np.tile(kinds, (3, 1)).astype(float), kinds, each)
    assert perfect.interval(False) is None
