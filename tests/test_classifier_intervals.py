"""Scores and intervals of classifiers, against closed forms, scikit-learn and cases of known answer."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax
from sklearn import metrics

from gankit.evaluation.classification import (
    Scorer,
    auc,
    balanced_accuracy,
    brier,
    calibration_error,
    correlation,
    macro_auc,
    macro_f1,
    recall_of,
    recalls,
)
from gankit.evaluation.design import (
    Estimate,
    VariancePart,
    cross_validated,
    holm,
    variance_split,
    visible_difference,
    wilson,
)
from gankit.evaluation.paired import Cases, crossed_estimate, paired_difference, score_estimate
from gankit.studies.formats import interval

CLASSES = 3


def drawn(n: int = 90, seeds: int = 2, per_group: int = 1, wrong: float = 0.3, seed: int = 0):
    """Labels, groups, and (seeds, n) predictions of which about `wrong` are wrong."""
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), n // CLASSES)
    groups = np.arange(n) // per_group
    other = (labels + draw.integers(1, CLASSES, (seeds, n))) % CLASSES
    return labels, groups, np.where(draw.random((seeds, n)) < wrong, other, labels)


def scores_of(labels, groups, predicted):
    """What a study says of (seeds, n) predictions."""
    logits = 9.0 * np.eye(CLASSES)[predicted]
    return Scorer(labels, groups, list("abc")).scores(logits, {"b or c": ["b", "c"]})


def test_cases_of_groups_that_agree_count_once() -> None:
    """All or none of a patient's five images are right: the interval is that of patients, less the one of the mean."""
    labels = np.repeat([0, 1, 2], 100)
    right = np.repeat(np.arange(60) % 5 < 3, 5)  # of 20 patients in each class 12
    found = scores_of(labels, np.repeat(np.arange(60), 5), np.where(right, labels, (labels + 1) % CLASSES)[None])
    low, high = wilson(0.6 * 19, 19)
    t, z = stats.t.ppf(0.975, 19), stats.norm.ppf(0.975)
    assert found["recall"]["a"]["value"] == pytest.approx(0.6)
    assert found["recall"]["a"]["low"] == pytest.approx(wilson(0.6 * 19 * z**2 / t**2, 19 * z**2 / t**2)[0])
    assert found["recall"]["a"]["high"] - found["recall"]["a"]["low"] > high - low
    alone = scores_of(labels, None, np.where(right, labels, (labels + 1) % CLASSES)[None])
    assert alone["recall"]["a"]["high"] - alone["recall"]["a"]["low"] < 0.5 * (high - low)


def test_a_share_of_0_or_1_has_the_interval_of_its_patients() -> None:
    labels = np.repeat([0, 1, 2], 100)
    found = scores_of(labels, np.arange(300) // 5, np.tile(labels, (3, 1)))
    assert (found["recall"]["a"]["low"], found["recall"]["a"]["high"]) == wilson(20, 20)
    assert found["groupings"]["b or c"]["sensitivity"]["low"] == wilson(40, 40)[0]
    assert found["balanced accuracy"]["low"] == pytest.approx(wilson(60, 60)[0])


def test_an_area_of_1_is_no_surer_than_its_rarer_side() -> None:
    labels = np.repeat([0, 1, 2], [4, 100, 100])
    area = scores_of(labels, None, labels[None])["groupings"]["b or c"]["AUC"]
    assert (area["value"], area["low"]) == (1, wilson(4, 4)[0])


@pytest.mark.parametrize(("n", "per_group"), [(88, 1), (152, 1), (120, 4)])
def test_intervals_of_shares_over_seeds_cover(n: int, per_group: int) -> None:
    """Wilson's interval of the cases alone would cover in 50 to 92 %: seeds differ more than cases make them."""
    trials, seeds, spread = 300, 3, 0.5
    hits, usual = [], []
    draw = np.random.default_rng(n)
    cases, seen = draw.normal(1.5, 1, (2, 200_000)), draw.normal(0, spread, 200_000)
    true = float((1 / (1 + np.exp(-(cases[0] + (cases[1] - 1.5) * (per_group > 1) + seen)))).mean())
    for _ in range(trials):
        groups = np.arange(n) // per_group
        easy = draw.normal(1.5, 1, n) + (per_group > 1) * draw.normal(0, 1, groups.max() + 1)[groups]
        right = draw.random((seeds, n)) < 1 / (1 + np.exp(-(easy + draw.normal(0, spread, (seeds, 1)))))
        labels = np.concatenate([np.zeros(n, np.int64), np.ones(1, np.int64)])
        predicted = np.concatenate([np.where(right, 0, 1), np.ones((seeds, 1), np.int64)], 1)
        entry = Scorer(labels, np.append(groups, n), ["a", "b"])._share_entry(labels == 0, predicted == labels)
        hits.append(entry["low"] <= true <= entry["high"])
        low, high = wilson(entry["value"] * n, n)
        usual.append(low <= true <= high)
    assert np.mean(hits) > 0.93
    assert np.mean(usual) < 0.92


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
    lacks_a_class = np.array([np.ones(80), labels != 0])
    assert np.isnan(macro_auc(labels, chances, lacks_a_class)).tolist() == [False, True]


def test_infinite_scores_that_are_equal_count_half() -> None:
    positive = np.array([True, True, False, False])
    for infinite in (np.inf, -np.inf):
        assert auc(positive, np.full(4, infinite)) == 0.5
        assert auc(positive, np.array([infinite, 0, infinite, 0])) == 0.5


def test_without_any_case_there_is_no_balanced_accuracy() -> None:
    assert np.isnan(balanced_accuracy(np.zeros((2, 3, 3)))).all()


def test_calibration_of_known_answer() -> None:
    labels = np.array([0, 0, 1, 1])
    sure = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    assert brier(labels, sure) == pytest.approx(2 / 4)  # one case off by 1 in both places
    assert calibration_error(labels, sure) == pytest.approx(0.25)  # sure of all, right in three of four
    half = np.array([[0.75, 0.25]] * 4)
    assert calibration_error(np.array([0, 0, 0, 1]), half) == pytest.approx(0.0)


def test_the_interval_of_a_score_of_known_spread() -> None:
    """Without groups and of one seed, balanced accuracy is a mean of independent proportions."""
    labels, _, predicted = drawn(n=900, seeds=1)
    cases = Cases.of(labels, None)
    found = score_estimate(cases, cases.counts(predicted, CLASSES), balanced_accuracy)
    shares = recalls(cases.counts(predicted, CLASSES).sum(1))[0]
    error = math.sqrt(float((shares * (1 - shares) / 300).sum())) / CLASSES
    assert found.value == pytest.approx(shares.mean())
    assert found.half_width() == pytest.approx(1.96 * error, rel=0.01)
    assert "seeds" not in found.parts


def test_seeds_are_a_source_of_their_own() -> None:
    cases = Cases.of(np.zeros(10, np.int64), None)
    found = crossed_estimate(cases, np.array([0.2, 0.4, 0.6]), np.full(10, 0.4))  # cases change nothing, seeds all
    expected = stats.ttest_1samp([0.2, 0.4, 0.6], 0).confidence_interval()
    assert found.interval() == pytest.approx((expected.low, expected.high))


def test_an_estimate_of_one_part_is_a_t_test() -> None:
    values = np.random.default_rng(0).normal(0.5, 1, 8)
    test = stats.ttest_1samp(values, 0)
    found = Estimate(float(values.mean()), {"seeds": VariancePart(float(values.var(ddof=1)) / 8, 7)})
    assert found.p_value == pytest.approx(test.pvalue)
    assert found.interval(0.9) == pytest.approx(tuple(test.confidence_interval(0.9)))
    assert found.detectable() == pytest.approx(found.half_width() + 0.8416 * found.error, rel=1e-3)
    assert Estimate(0.0, {"cases": VariancePart(0.0, 1)}).p_value == 1
    assert Estimate(0.1, {"seeds": VariancePart(0.0, 0)}).interval() == (
        -math.inf,
        math.inf,
    )  # one seed: nothing is known
    assert Estimate(0.1, {"seeds": VariancePart(0.0, 0)}).p_value == 1
    assert Estimate(0.1, {"folds": VariancePart(0.0, 3)}).p_value == 1  # all folds agree: their variance is unknown
    assert Estimate(0.1, {"folds": VariancePart(1e-12, 3)}).p_value == 1e-12


def test_the_p_value_of_several_parts_is_of_the_interval_that_ends_at_0() -> None:
    found = Estimate(0.7, {"cases": VariancePart(0.04, 40), "seeds": VariancePart(0.09, 2)})
    assert found.interval(1 - found.p_value)[0] == pytest.approx(0, abs=1e-9)
    assert 0.05 < found.p_value < 0.5


def test_a_share_whose_error_is_rounding_has_the_interval_of_its_cases() -> None:
    assert Estimate(0.5, {"cases": VariancePart(1e-33, 9)}).share_interval(20) == wilson(10, 20)


def test_folds_are_corrected_for_their_overlap() -> None:
    """Nadeau and Bengio's t by hand, of folds that differ and seeds that do not."""
    of_folds = np.array([0.10, 0.02, 0.06, 0.04, 0.08])
    values = np.tile(of_folds[:, None, None], (1, 3, 2))
    found = cross_validated(values, 1 / 4)
    half = stats.t.ppf(0.975, 4) * math.sqrt((1 / 5 + 1 / 4) * of_folds.var(ddof=1))
    assert found.value == pytest.approx(0.06)
    assert found.half_width() == pytest.approx(half)
    moved = values + np.array([-0.03, 0.0, 0.03])[None, :, None]  # each generator seed does the same in all folds
    assert cross_validated(moved, 1 / 4).half_width() == pytest.approx(half)


def test_cells_that_failed_do_not_count_and_one_fold_tells_nothing() -> None:
    values = np.arange(12.0).reshape(3, 2, 2) / 100
    values[1, 0, 0] = np.nan
    found = cross_validated(values, 0.5)
    assert found.value == pytest.approx((0.015 + 0.06 + 0.095) / 3)
    values[1:] = np.nan
    assert cross_validated(values, 0.5).interval() == (-math.inf, math.inf)
    assert math.isnan(cross_validated(np.full((2, 1, 1), np.nan), 0.5).value)


def test_variance_is_split_by_source() -> None:
    draw, spreads, sizes = np.random.default_rng(0), (0.3, 0.2, 0.1), ((400, 1, 1), (400, 3, 1), (400, 3, 4))
    values = sum(draw.normal(0, spread, size) for spread, size in zip(spreads, sizes, strict=True))
    fold, generator, classifier = (spread**2 for spread in spreads)
    expected = {"folds": fold, "generators": generator, "classifiers": classifier}
    assert variance_split(values) == pytest.approx(expected, rel=0.15)
    one_of_each = variance_split(values[:, :1, :1])
    assert one_of_each["folds"] == pytest.approx(fold + generator + classifier, rel=0.15)
    assert one_of_each["generators"] is one_of_each["classifiers"] is None


def test_holm_against_the_definition() -> None:
    assert holm({"a": 0.03, "b": 0.01, "c": 0.04, "d": 0.6}) == pytest.approx(
        {"b": 0.04, "a": 0.09, "c": 0.09, "d": 0.6}
    )
    assert holm({}) == {}
    values = {"a": 0.2, "b": 0.004, "c": 0.004, "d": 0.013}  # with ties, by closed tests of Bonferroni
    for name, adjusted in holm(values).items():
        subsets = [s for size in range(1, 5) for s in itertools.combinations(values, size) if name in s]
        assert adjusted == pytest.approx(max(min(1, len(s) * min(values[each] for each in s)) for s in subsets))


def test_the_visible_difference_falls_with_the_root_of_the_cases() -> None:
    one, four = visible_difference([40, 40, 40]), visible_difference([160, 160, 160])
    assert one == pytest.approx(2 * four, rel=0.02)
    assert visible_difference([40, 40, 40], folds=5) > 1.5 * one  # overlapping folds, and few of them
    assert visible_difference([112, 40]) > visible_difference([76, 76])  # the rare class decides


@pytest.mark.parametrize(("counts", "folds"), [([300, 90, 200], 5), ([120, 120], 10)])
def test_a_visible_difference_is_seen_in_four_of_five_studies_or_somewhat_more(counts: list[int], folds: int) -> None:
    """Simulated as it is meant: the arms disagree about a fifth of the patients, and the better one gains so much.

    It is more than four of five, since the formula also allows for what overlapping training parts add.
    """
    gain, draw, trials = visible_difference(counts, folds), np.random.default_rng(0), 1000
    of_classes = []
    for count in counts:
        drawn = draw.random((trials, folds, count // folds))
        better, worse = (drawn < 0.1 + gain / 2), (drawn > 0.9 + gain / 2)
        of_classes.append(better.mean(2) - worse.mean(2))
    differences = np.mean(of_classes, 0)
    seen = [cross_validated(trial[:, None, None], 1 / (folds - 1)).interval()[0] > 0 for trial in differences]
    assert 0.77 < np.mean(seen) < 0.93


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


def test_equal_arms_do_not_differ_for_sure() -> None:
    """Nothing varies, so that the error is what one patient of 15 in each class would change, in one of two arms."""
    labels, groups, _ = drawn(per_group=2)
    cases = Cases.of(labels, groups)
    counts = cases.counts(np.tile(labels, (3, 1)), CLASSES)
    found = paired_difference(cases, counts, counts, balanced_accuracy)
    half = stats.t.ppf(0.975, 3 * 14) / 15 / CLASSES
    assert (found.value, found.low, found.high) == pytest.approx((0, -half, half))
    assert (found.cases_error, found.seeds_error) == pytest.approx((1 / 15 / CLASSES, 0))  # those of the interval
    one = paired_difference(cases, counts, counts, recall_of(1))
    assert one.high == pytest.approx(CLASSES * half)


def test_an_interval_of_few_cases_stays_in_the_range_of_differences() -> None:
    cases = Cases.of(np.zeros(3, np.int64), None)
    first, second = (cases.counts(np.array([called]), 2) for called in ([0, 0, 0], [0, 1, 1]))
    found = paired_difference(cases, first, second, recall_of(0))
    assert found.low < found.value == pytest.approx(2 / 3)
    assert found.high == 1


def test_of_one_patient_in_each_class_nothing_is_known() -> None:
    labels = np.repeat([0, 1], 5)
    cases = Cases.of(labels, labels)
    first, second = (cases.counts(np.array([called]), 2) for called in (labels, 1 - labels))
    found = paired_difference(cases, first, second, balanced_accuracy)
    assert (found.value, found.low, found.high) == (1, -1, 1)


def test_correlations_against_numpy() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, 50))
    assert correlation(x, x + y)[0] == pytest.approx(np.corrcoef(x, x + y)[0, 1])
    assert correlation(1e6 + x, x + y)[0] == pytest.approx(np.corrcoef(x, x + y)[0, 1])  # nothing is cancelled
    assert np.isnan(correlation(np.full(50, 0.1), y)).all()
    without_first = np.arange(50.0)[None] > 0
    assert correlation(x, y, without_first)[0] == pytest.approx(np.corrcoef(x[1:], y[1:])[0, 1])
    outlier = np.append(np.full(49, 0.1), 5.0)
    assert np.isnan(correlation(outlier, y, np.arange(50.0)[None] < 49)).all()  # without it all are equal


def test_intervals_of_errors_stay_in_their_range() -> None:
    true = np.linspace(0, 1, 8)
    predicted = np.stack([true + 0.01, true[::-1] + 3.0])  # one seed has learnt it, the other one has not
    found = Scorer(np.zeros(8, np.int64), None, ["a"]).errors(predicted, true)
    assert (found["correlation"]["low"], found["correlation"]["high"]) == (-1, 1)
    assert found["mean absolute error"]["low"] == found["root mean square error"]["low"] == 0


def test_what_is_not_known_of_errors_is_none() -> None:
    scorer = Scorer(np.zeros(4, np.int64), np.zeros(4), ["a"])  # one patient
    found = scorer.errors(np.array([[1.0, 1, 1, 1], [1, 2, 3, 4]]), np.array([1.0, 3, 5, 6]))
    assert found["mean absolute error"] == {"value": 2, "low": 0, "high": None, "by_seed": [2.75, 1.25]}
    assert found["correlation"]["value"] is found["correlation"]["by_seed"][0] is None  # one seed says 1 of all
    assert (interval(found["mean absolute error"]), interval(found["correlation"])) == ("2.000 [0.000, inf]", "-")


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
