"""Scores and intervals of classifiers, against closed forms, scikit-learn and cases of known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax
from sklearn import metrics

from gankit.evaluation.classification import (
    auc,
    balanced_accuracy,
    brier,
    calibration_error,
    macro_auc,
    macro_f1,
    recall_of,
    recalls,
)
from gankit.evaluation.paired import (
    Cases,
    crossed,
    drawn_scores,
    independent_cases,
    paired_difference,
    score_interval,
)

CLASSES = 3


def drawn(n: int = 90, seeds: int = 2, per_group: int = 1, wrong: float = 0.3, seed: int = 0):
    """Labels, groups, and (seeds, n) predictions of which about `wrong` are wrong."""
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), n // CLASSES)
    groups = np.arange(n) // per_group
    other = (labels + draw.integers(1, CLASSES, (seeds, n))) % CLASSES
    return labels, groups, np.where(draw.random((seeds, n)) < wrong, other, labels)


def test_cases_of_groups_that_agree_count_once() -> None:
    sizes = np.full(20, 5.0)
    hits = np.where(np.arange(20) < 12, 5.0, 0.0)  # all or none of a group
    assert independent_cases(hits, sizes) == pytest.approx(19, abs=0.01)  # groups less one
    assert independent_cases(np.array([1.0, 0, 1, 1]), np.ones(4)) == 4
    assert independent_cases(np.full(20, 3.0), sizes) == 20  # no spread at all: as many as groups, to be safe
    assert independent_cases(sizes, sizes) == 20
    draw = np.random.default_rng(0)
    loose = draw.binomial(5, 0.6, 2000).astype(float)
    assert independent_cases(loose, np.full(2000, 5.0)) == pytest.approx(10000, rel=0.06)


def test_scores_against_scikit_learn() -> None:
    labels, _, predicted = drawn()
    cases = Cases.of(labels, None)
    found = cases.counts(predicted, CLASSES).sum(1)
    for seed in range(2):
        assert (found[seed] == metrics.confusion_matrix(labels, predicted[seed])).all()
        assert balanced_accuracy(found)[seed] == pytest.approx(metrics.balanced_accuracy_score(labels, predicted[seed]))
        assert macro_f1(found)[seed] == pytest.approx(metrics.f1_score(labels, predicted[seed], average="macro"))
        one = metrics.recall_score(labels, predicted[seed], average=None)
        assert recalls(found)[seed] == pytest.approx(one)
        assert recall_of(1)(found)[seed] == pytest.approx(one[1])


def test_areas_against_scikit_learn_with_ties_and_weights() -> None:
    draw = np.random.default_rng(1)
    positive = draw.random(80) < 0.4
    scores = np.round(positive * 0.5 + draw.normal(0, 1, 80), 1)  # many ties
    weights = draw.integers(0, 4, (5, 80)).astype(float)
    assert auc(positive, scores)[0] == pytest.approx(metrics.roc_auc_score(positive, scores))
    expected = [metrics.roc_auc_score(positive, scores, sample_weight=row) for row in weights]
    assert auc(positive, scores, weights) == pytest.approx(expected)
    labels, logits = draw.integers(0, CLASSES, 80), draw.normal(0, 1, (80, CLASSES))
    chances = softmax(logits, axis=1)
    assert chances.sum(1) == pytest.approx(np.ones(80))
    assert macro_auc(labels, chances)[0] == pytest.approx(metrics.roc_auc_score(labels, chances, multi_class="ovr"))
    assert np.isnan(auc(np.ones(3, bool), np.arange(3.0))).all()


def test_calibration_of_known_answer() -> None:
    labels = np.array([0, 0, 1, 1])
    sure = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    assert brier(labels, sure) == pytest.approx(2 / 4)  # one case off by 1 in both places
    assert calibration_error(labels, sure) == pytest.approx(0.25)  # sure of all, right in three of four
    half = np.array([[0.75, 0.25]] * 4)
    assert calibration_error(np.array([0, 0, 0, 1]), half) == pytest.approx(0.0)


def test_groups_are_drawn_whole_and_within_their_class() -> None:
    labels, groups, predicted = drawn(per_group=3)
    cases = Cases.of(labels, groups)
    assert cases.groups == 30
    weights = cases.draws(np.random.default_rng(0), 200)
    for label in range(CLASSES):
        assert (weights[:, cases.stratum == label].sum(1) == 10).all()
    counts = cases.counts(predicted, CLASSES)
    totals = drawn_scores(counts, lambda found: found.sum((-2, -1)), weights)
    assert (totals == 90).all()  # each draw has as many cases as there are, since all groups are equal
    one = drawn_scores(counts, balanced_accuracy, np.ones((1, 30)))
    assert one[0] == pytest.approx(balanced_accuracy(counts.sum(1)))


def test_the_interval_of_a_score_of_known_spread() -> None:
    """Without groups and of one seed, balanced accuracy is a mean of independent proportions."""
    labels, _, predicted = drawn(n=900, seeds=1)
    cases = Cases.of(labels, None)
    value, low, high = score_interval(cases, cases.counts(predicted, CLASSES), balanced_accuracy, 0)
    shares = recalls(cases.counts(predicted, CLASSES).sum(1))[0]
    error = math.sqrt(float((shares * (1 - shares) / 300).sum())) / CLASSES
    assert value == pytest.approx(shares.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.08)


def test_the_crossed_bootstrap_draws_seeds_too() -> None:
    drawn_values = np.tile([0.0, 1.0], (4000, 1))  # cases change nothing, seeds all
    low, high = crossed(drawn_values, np.random.default_rng(0))
    assert (low, high) == (0.0, 1.0)
    same = np.full((4000, 3), 0.25)
    assert crossed(same, np.random.default_rng(0)) == (0.25, 0.25)


def test_a_paired_difference_of_known_answer() -> None:
    """With one seed, cases alone and equal classes it is the paired t interval of the cases' differences."""
    labels = np.zeros(40, np.int64)
    first, second = np.zeros((1, 40), np.int64), np.zeros((1, 40), np.int64)
    first[0, :3], second[0, 3:15] = 1, 1  # wrong on 3, wrong on 12 others
    cases = Cases.of(labels, None)
    found = paired_difference(cases, cases.counts(first, 2), cases.counts(second, 2), recall_of(0))
    each = (first[0] == 0).astype(float) - (second[0] == 0)
    expected = stats.ttest_1samp(each, 0).confidence_interval()
    assert found.value == pytest.approx(9 / 40)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.seeds_error is None
    assert found.cases_error == pytest.approx(each.std(ddof=1) / math.sqrt(40))


def test_a_paired_difference_of_seeds_alone() -> None:
    """Where cases change nothing (all of a class right, or all wrong), it is the t interval of the seeds."""
    labels = np.repeat([0, 1], 10)
    first = np.stack([labels, labels, np.zeros(20, np.int64)])  # the third seed calls everything 0
    second = np.stack([labels, np.zeros(20, np.int64), np.zeros(20, np.int64)])
    cases = Cases.of(labels, None)
    found = paired_difference(cases, cases.counts(first, 2), cases.counts(second, 2), balanced_accuracy)
    assert found.by_seed == [0.0, 0.5, 0.0]
    expected = stats.ttest_1samp(found.by_seed, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.cases_error == pytest.approx(0)


def test_equal_arms_differ_by_nothing() -> None:
    labels, groups, predicted = drawn(seeds=3, per_group=2)
    cases = Cases.of(labels, groups)
    counts = cases.counts(predicted, CLASSES)
    found = paired_difference(cases, counts, counts, macro_f1)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_pairing_narrows_and_groups_widen() -> None:
    labels, groups, predicted = drawn(n=300, seeds=3, per_group=5, wrong=0.3)
    changed = predicted.copy()
    changed[:, ::50] = (labels[::50] + 1) % CLASSES
    _, _, other = drawn(n=300, seeds=3, wrong=0.3, seed=9)
    cases = Cases.of(labels, None)
    counts = cases.counts(predicted, CLASSES)
    near, far = (
        paired_difference(cases, counts, cases.counts(each, CLASSES), balanced_accuracy) for each in (changed, other)
    )
    assert near.cases_error < 0.5 * far.cases_error
    whole = predicted.copy()
    whole[:, groups % 6 == 0] = (labels[groups % 6 == 0] + 1) % CLASSES  # one arm fails on whole groups
    wide, narrow = (
        paired_difference(c, c.counts(predicted, CLASSES), c.counts(whole, CLASSES), balanced_accuracy)
        for c in (Cases.of(labels, groups), cases)
    )
    assert wide.cases_error > 1.5 * narrow.cases_error
