"""Differences between the arms of a cross-validation that do learn, and between errors of a number."""

import itertools
import math

import numpy as np
from interval_trials.cases import cases_of
from interval_trials.folds import OVERLAP, deal, differences

from gankit.evaluation.design import cross_validated, student_quantile
from gankit.evaluation.paired import Cases, part_of_cases
from gankit.studies.augmentation.contrasts import contrast

TRAITS = 10  # numbers that are known of a case, for each arm's classifier
MEANS = np.random.default_rng(3).normal(0, 0.45, (3, TRAITS))  # of the classes; the spread within a class is 1


def linear(x, labels, new):
    """The classes that a linear discriminant, trained on (n, d) traits, gives new ones."""
    means = np.array([x[labels == label].mean(0) for label in range(3)])
    inside = x - means[labels]
    weights = np.linalg.solve(inside.T @ inside / len(x), means.T)
    return (new @ weights - (means.T * weights).sum(0) / 2).argmax(1)


def nearest(x, labels, new):
    """The class of the nearest case that was learnt from."""
    return labels[((new[:, None] - x) ** 2).sum(-1).argmin(1)]


def learner_trials(cases, learner, learnt, repeats=1, folds=5):
    """Classifiers that do learn from the parts of `gankit study augmentation`; both arms are equally good."""
    learn = {"linear": linear, "nearest case": nearest}[learner]

    def trial(random):
        labels, group = cases_of(cases, 1)
        traits = random.normal(size=(2, len(labels), TRAITS)) + MEANS[labels]
        divisions = [deal(random, labels, group, folds) for _ in range(repeats)]
        tests, right, sizes = [], ([], []), []
        for fold, number in itertools.product(divisions, range(folds)):
            test, rest = fold == number, np.flatnonzero(fold != number)
            for _ in range(2 if learnt == "validation and reserve set aside" else 0):
                rest = rest[deal(random, labels[rest], group[rest], 4) > 0]
            tests.append(test)
            sizes.append(test.sum() / len(rest))
            for arm, x in zip(right, traits, strict=True):
                arm.append((learn(x[rest], labels[rest], x[test]) == labels[test])[None, None])
        values, *of_patients = differences(*right, tests, labels, group)
        found = contrast(list(values), 1 / (folds - 1), *of_patients)
        naive = values.std(ddof=1) / math.sqrt(len(values)) * student_quantile(len(values) - 1)
        spans = {
            "as reported": (found["low"], found["high"]),
            "from the spread of folds alone": cross_validated(values, 1 / (folds - 1)).interval(),
            "the same, by what is learnt from": cross_validated(values, np.mean(sizes)).interval(),
            "usual t over folds": (values.mean() - naive, values.mean() + naive),
        }
        return {name: (low <= 0 <= high, not low <= 0 <= high, high - low) for name, (low, high) in spans.items()}

    return trial


SET_SPREADS = {
    # by how much training parts scale the errors of a number, as a deviation of the logarithm, by number of cases
    "training sets matter": {150: 0.04, 400: 0.02},  # as much as in `number_learner_trials`
    "training sets matter much": {150: 0.1, 400: 0.1},
}


def number_fold_trials(cases, per_group, what, better, folds=5):
    """The endpoint "severity": errors of a number, those of the second arm larger by a share."""
    by_training, of_sets = {
        "seeds alike": (0.0, 0.0),
        "seeds differ in each fold": (0.3, 0.0),
        **{name: (0.1, of_cases[cases]) for name, of_cases in SET_SPREADS.items()},
    }[what]  # deviations of the logarithm by which a training scales all errors
    error = math.sqrt(3 * 2 / math.pi) * math.exp(by_training**2 / 2)
    true = better * error * math.exp(of_sets**2 / 2)

    def trial(random):
        labels, group = cases_of(cases, per_group)
        of_case = random.normal(0, 1, len(labels)) + random.normal(0, 1, group.max() + 1)[group]
        fold, values, variances = deal(random, labels, group, folds), [], []
        scales, errors = [], []
        for factor in (1 - better, 1.0):
            common = factor * np.exp(math.sqrt(OVERLAP) * random.normal(0, of_sets))
            errors.append(common * error * math.exp((1 - OVERLAP) * of_sets**2 / 2))
            scales.append(common * np.exp(math.sqrt(1 - OVERLAP) * random.normal(0, of_sets, (folds, 1, 1, 1))
                                          + random.normal(0, by_training, (folds, 3, 2, 1))))  # fmt: skip
        for number in range(folds):
            test = fold == number
            first, second = (
                np.abs(scale[number] * (of_case[test] + random.normal(0, 1, (3, 2, test.sum())))) for scale in scales
            )
            gains, patients = second - first, Cases.of(labels[test], group[test])
            values.append(gains.mean(-1))
            sums, counts = (np.bincount(patients.group_of_case, of) for of in (gains.mean((0, 1)), None))
            left_out = (sums.sum() - sums) / (counts.sum() - counts)
            variances.append(part_of_cases(patients, left_out).variance)
        found = contrast(values, 1 / (folds - 1), variances)
        spans = {
            "as reported": (found["low"], found["high"]),
            "90 %, as reported": (found["low90"], found["high90"]),
            "from the spread of folds alone": cross_validated(np.array(values), 1 / (folds - 1)).interval(),
        }
        covered = {name: (low <= true <= high, not low <= 0 <= high, high - low) for name, (low, high) in spans.items()}
        low, high = spans["as reported"]
        covered["as reported, of the cases at hand"] = low <= errors[1] - errors[0] <= high, None, high - low
        return covered

    return trial


def number_learner_trials(cases, learner, folds=5):
    """The endpoint "severity" with regressions that do learn, as in `learner_trials`; both arms are equally good."""

    def predict(x, y, new):
        if learner == "nearest case":
            return nearest(x, y, new)
        return new @ np.linalg.lstsq(x, y, rcond=None)[0]

    def trial(random):
        labels, group = cases_of(cases, 1)
        numbers = random.normal(0, 1, len(labels))
        traits = random.normal(size=(2, len(labels), TRAITS)) + 0.4 * numbers[:, None]
        fold, values, variances = deal(random, labels, group, folds), [], []
        for number in range(folds):
            test, rest = fold == number, np.flatnonzero(fold != number)
            for _ in range(2):  # validation and reserve
                rest = rest[deal(random, labels[rest], group[rest], 4) > 0]
            first, second = (np.abs(predict(x[rest], numbers[rest], x[test]) - numbers[test]) for x in traits)
            gains = second - first
            values.append(gains.mean(keepdims=True)[:, None])
            left_out = (gains.sum() - gains) / (len(gains) - 1)
            variances.append(part_of_cases(Cases.of(labels[test], None), left_out).variance)
        found = contrast(values, 1 / (folds - 1), variances)
        spans = {"as reported": (found["low"], found["high"]), "90 %, as reported": (found["low90"], found["high90"])}
        return {name: (low <= 0 <= high, not low <= 0 <= high, high - low) for name, (low, high) in spans.items()}

    return trial
