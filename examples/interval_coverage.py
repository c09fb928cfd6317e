"""Simulate how often each interval that a report prints covers the true value, and excludes 0. Nothing is trained.

python examples/interval_coverage.py coverage.json           # goes on where it was stopped
python examples/interval_coverage.py coverage.json --tables  # only prints what is there
"""

import argparse
import functools
import itertools
import json
import math
import time
import zlib
from pathlib import Path

import numpy as np
from scipy.special import softmax
from scipy.stats import norm

from gankit.evaluation.classification import Scorer, balanced_accuracy, macro_auc, macro_f1, recall_of, recalls
from gankit.evaluation.design import cross_validated, student_quantile, wilson
from gankit.evaluation.detection import (
    accuracy,
    agreement_interval,
    area,
    discrimination,
    fleiss_kappa,
    over_readers,
    share,
)
from gankit.evaluation.extraction import as_part
from gankit.evaluation.membership import attack
from gankit.evaluation.paired import Cases, paired_difference, part_of_cases
from gankit.evaluation.uncertainty import influences, variances_of
from gankit.interfaces import Pool, Rows
from gankit.ranking.ratings import compare_sources, krippendorff_alpha
from gankit.studies.agreement import contrasts
from gankit.studies.agreement.arms import arm_at
from gankit.studies.agreement.conclusions import difference_from_reals
from gankit.studies.agreement.findings import Count, Findings, Trial, Where
from gankit.studies.augmentation.contrasts import contrast
from gankit.studies.jobs import Outcome

SHARES = np.array([0.46, 0.17, 0.37])  # exotropia, esotropia, normal, as the founding paper has them
SPREADS = {"alike": 0.0, "differ": 0.5, "differ much": 1.0}  # of seeds, in logits of whole classes


def chance(logits):
    return 1 / (1 + np.exp(-logits))


def mean_chance(logit, spread):
    """The mean of `chance` over a normal distribution around a logit, or around each of several."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    return chance(np.expand_dims(logit, -1) + spread * nodes) @ weights / weights.sum()


def cases_of(n, per_group):
    """Labels and groups of about n cases in three classes."""
    groups = np.maximum(2, np.round(SHARES * n / per_group)).astype(int)
    labels = np.repeat(np.repeat(np.arange(3), groups), per_group)
    return labels, np.arange(len(labels)) // per_group


def difficulty(random, group):
    """How easy cases are, in logits: 1 on average, with a part of their own and one that a patient's cases share."""
    return 1 + random.normal(0, 1, len(group)) + random.normal(0, 1, group.max() + 1)[group]


def logits_of(random, labels, group, seeds, spread):
    """(seeds, n, 3) logits: those of the true class stand out as much as the case is easy and the seed likes it."""
    favour = difficulty(random, group) + random.normal(0, spread, (seeds, 3))[:, labels]
    logits = random.gumbel(size=(seeds, len(labels), 3))
    logits[:, np.arange(len(labels)), labels] += favour + math.log(2)
    return logits


@functools.cache
def true_scores(spread):
    """Scores of infinitely many cases and seeds, by a large sample."""
    random, found = np.random.default_rng(7), []
    labels, group = cases_of(5000, 1)
    for _ in range(60):
        logits = logits_of(random, labels, group, 1, spread)
        counts = Cases.of(labels, None).counts(logits.argmax(-1), 3).sum(1)
        auc = macro_auc(labels, softmax(logits[0], axis=-1))[0]
        found.append([balanced_accuracy(counts)[0], macro_f1(counts)[0], auc, recalls(counts)[0, 1]])
    return np.mean(found, axis=0)


SCORE_NAMES = ("balanced accuracy", "macro F1", "AUC", "recall of the rare class")


def score_trials(cases, per_group, seeds, spread):
    true = true_scores(SPREADS[spread])

    def trial(random):
        labels, group = cases_of(cases, per_group)
        logits = logits_of(random, labels, group, seeds, SPREADS[spread])
        found = Scorer(labels, group, list("abc")).scores(logits, {})
        entries = [*(found[name] for name in SCORE_NAMES[:3]), found["recall"]["b"]]
        hits = found["recall"]["b"]["value"] * found["recall"]["b"]["n"]
        low, high = wilson(hits, found["recall"]["b"]["n"])
        covered = {
            name: (entry["low"] <= value <= entry["high"], None, entry["high"] - entry["low"])
            for name, entry, value in zip(SCORE_NAMES, entries, true, strict=True)
        }
        return covered | {"recall, Wilson of the cases alone": (low <= true[3] <= high, None, high - low)}

    return trial


def number_trials(cases, per_group, seeds, spread):
    """Errors of a predicted number, and its correlation with the true one."""
    of_seed, noise = 0.5 * SPREADS[spread], 1.0

    def trial(random):
        labels, group = cases_of(cases, per_group)
        true = random.normal(0, 2, len(labels))
        own = random.normal(0, noise, len(labels)) + random.normal(0, noise, group.max() + 1)[group]
        slope = np.exp(random.normal(0, of_seed, (seeds, 1)))
        found = Scorer(labels, group, list("abc")).errors(true + slope * own, true)
        scale = math.sqrt(2) * noise
        error = scale * math.sqrt(2 / math.pi) * math.exp(of_seed**2 / 2)
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        of_nodes = 2 / np.sqrt(4 + (scale * np.exp(of_seed * nodes)) ** 2)
        relation = float((of_nodes * weights).sum() / weights.sum())
        squared = scale * math.exp(of_seed**2 / 2)
        true_values = {"mean absolute error": error, "root mean square error": squared, "correlation": relation}
        return {
            name: (found[name]["low"] <= value <= found[name]["high"], None, found[name]["high"] - found[name]["low"])
            for name, value in true_values.items()
        }

    return trial


def paired_trials(cases, per_group, seeds, spread, gain):
    """One split: the second arm is better by `gain` logits."""
    scores = {"balanced accuracy": balanced_accuracy, "macro F1": macro_f1, "recall of the rare class": recall_of(1)}
    confusions = (mean_confusions(cases_of(cases, per_group)[0], extra, SPREADS[spread]) for extra in (gain, 0.0))
    better, worse = ({name: score(counts).mean() for name, score in scores.items()} for counts in confusions)

    def trial(random):
        labels, group = cases_of(cases, per_group)
        easy, of_cases = difficulty(random, group), Cases.of(labels, group)
        counts = []
        for extra in (gain, 0.0):
            right = random.random((seeds, len(labels))) < chance(
                easy + extra + random.normal(0, SPREADS[spread], (seeds, 3))[:, labels]
            )
            counts.append(of_cases.counts(np.where(right, labels, (labels + 1) % 3), 3))
        intervals = {}
        for name, score in scores.items():
            found, true = paired_difference(of_cases, *counts, score), better[name] - worse[name]
            excluded = not found.low <= 0 <= found.high
            intervals[name] = found.low <= true <= found.high, excluded, found.high - found.low
        return intervals

    return trial


def mean_confusions(labels, gain, spread):
    """(seeds, 3, 3) confusion matrices of very many seeds on endless cases, where errors go to the next class."""
    favour = np.random.default_rng(7).normal(0, spread, (20_000, 3))
    right = mean_chance(1 + gain + favour, math.sqrt(2))
    counts = np.zeros((len(right), 3, 3))
    for label, cases in enumerate(np.bincount(labels)):
        counts[:, label, label] = cases * right[:, label]
        counts[:, label, (label + 1) % 3] = cases * (1 - right[:, label])
    return counts


def deal(random, labels, group, parts):
    """The part of each case: whole patients, dealt class by class."""
    _, first, number = np.unique(group, return_index=True, return_inverse=True)
    part = np.zeros(len(first), int)
    for label in range(3):
        members = random.permutation(np.flatnonzero(labels[first] == label))
        part[members] = np.arange(len(members)) % parts
    return part[number]


def answers(random, easy, effects, labels):
    """(..., n) whether trainings with (..., 3) effects, in logits of whole classes, are right on (n,) cases."""
    logits = easy + effects[..., labels]
    return random.random(logits.shape) < chance(logits)


def accuracies(right, labels):
    """Balanced accuracies of (..., n) answers."""
    return np.mean([right[..., labels == label].mean(-1) for label in range(3)], axis=0)


def differences(first, second, parts, labels, group):
    """From two arms' answers in each fold: differences, the variances that patients make, and one patient's step.

    Patients have equally many cases of one class, so that these are the jackknife variances that the study computes.
    """
    values, variances, steps = [], [], []
    for right, other, part in zip(first, second, parts, strict=True):
        change = right.astype(float) - other
        values.append(accuracies(change, labels[part]))
        images = np.count_nonzero(group == group[0])
        by_class = [change[..., labels[part] == label].mean((0, 1)) for label in range(3)]
        means = [of_class.reshape(-1, images).mean(1) for of_class in by_class]
        variances.append(sum(of.var(ddof=1) / len(of) for of in means if len(of) > 1) / 9)
        steps.append(np.mean([1 / (3 * len(of)) for of in means]))
    return np.array(values), variances, float(np.mean(steps))


EASE = {"hard": 1.0, "easy": 4.0}  # of cases, in logits
TRAINING_SETS, OVERLAP = 0.2, 0.75  # what training parts do to an arm, in logits; how alike those of two folds are


def fold_trials(cases, per_group, what, gain, folds=5):
    """Cross-validation: arms interact with generator seeds and training sets; each fold has a test part."""
    study, true = fold_study(cases, per_group, what, gain, folds, 3, 2, EASE["hard"])

    def trial(random):
        values, *of_patients = study(random)
        naive = values.mean((1, 2)).std(ddof=1) / math.sqrt(folds) * 2.776
        found = contrast(list(values), 1 / (folds - 1), *of_patients)
        spans = {
            "as reported": (found["low"], found["high"]),
            "from the spread of folds alone": cross_validated(values, 1 / (folds - 1)).interval(),
            "usual t over folds": (values.mean() - naive, values.mean() + naive),
        }
        return {name: (low <= true <= high, not low <= 0 <= high, high - low) for name, (low, high) in spans.items()}

    return trial


def few_trials(cases, folds, seeds, ease, gain):
    """The contrast of `gankit study augmentation` with few cases, folds and trainings."""
    study, true = fold_study(cases, 1, "seeds differ in each fold", gain, folds, *seeds, EASE[ease])

    def trial(random):
        values, *of_patients = study(random)
        found = contrast(list(values), 1 / (folds - 1), *of_patients)
        spans = {
            "as reported": (found["low"], found["high"]),
            "90 %, as reported": (found["low90"], found["high90"]),
            "from the spread of folds alone": cross_validated(values, 1 / (folds - 1)).interval(),
        }
        return {name: (low <= true <= high, not low <= 0 <= high, high - low) for name, (low, high) in spans.items()}

    return trial


def fold_study(cases, per_group, what, gain, folds, generators, classifiers, ease):
    """What draws the `differences` of a study, and the true value."""
    shared, by_fold, of_sets = {
        "seeds alike": (0.0, 0.0, 0.0),
        "seeds differ in each fold": (0.0, 0.5, 0.0),
        "seeds differ, alike in all folds": (0.3, 0.3, 0.0),
        "training sets matter": (0.0, 0.3, TRAINING_SETS),
    }[what]
    sd = math.sqrt(2 + shared**2 + by_fold**2 + of_sets**2 + 0.2**2)
    true = mean_chance(ease + gain, sd) - mean_chance(ease, sd)

    def study(random):
        labels, group = cases_of(cases, per_group)
        easy = ease - 1 + difficulty(random, group)
        fold = deal(random, labels, group, folds)
        parts, right = [fold == number for number in range(folds)], []
        for extra in (gain, 0.0):
            common = math.sqrt(OVERLAP) * random.normal(0, of_sets, 3)
            sets = common + math.sqrt(1 - OVERLAP) * random.normal(0, of_sets, (folds, 1, 1, 3))
            effect = (sets + random.normal(0, shared, (1, generators, 1, 3))
                      + random.normal(0, by_fold, (folds, generators, 1, 3))
                      + random.normal(0, 0.2, (folds, generators, classifiers, 3)))  # fmt: skip
            right.append([answers(random, easy[part], extra + of_fold, labels[part])
                          for part, of_fold in zip(parts, effect, strict=True)])  # fmt: skip
        return differences(*right, parts, labels, group)

    return study, true


CHOICES = {
    # by how many logits the worst arm of a side is below its best one; what training parts do to an arm
    "arms alike": (0.0, 0.0),
    "arms differ": (0.5, 0.0),
    "training sets matter": (0.0, TRAINING_SETS),
}
SIDES = ((6, 1, 2), (7, 2, 2))  # of baselines and of synthetic arms: arms with their ratios, generators, classifiers
TRUTHS = 100  # simulated studies whose mean is the true value


def choice_trials(cases, per_group, what, gain, folds=5):
    """`gankit study augmentation`: both sides choose an arm on each fold's validation part, and the test part judges.

    The best synthetic arm is better than the best baseline by `gain` logits. The true value is what the chosen networks
    would differ by on endless cases, on average over studies.
    """
    apart, of_sets = CHOICES[what]
    means = [np.linspace(-apart, 0, arms) + more for (arms, *_), more in zip(SIDES, (0.0, gain), strict=True)]
    by_fold, by_training = 0.3, 0.2
    spread = math.sqrt(2 + of_sets**2 + by_fold**2 + by_training**2)

    def study(random):
        """Contrasts and true differences by how the arms were chosen."""
        labels, group = cases_of(cases, per_group)
        easy = difficulty(random, group)
        fold = deal(random, labels, group, folds)
        tests, validations = [], []
        for number in range(folds):
            rest, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            # A quarter of what the reserve, another quarter, leaves
            validations.append(rest[deal(random, labels[rest], group[rest], 16) < 3])
            tests.append(test)
        inside, outside = [], []
        for mean, (arms, generators, classifiers) in zip(means, SIDES, strict=True):
            effects = (mean[:, None, None, None] + math.sqrt(OVERLAP) * random.normal(0, of_sets, (arms, 1, 1, 3))
                       + math.sqrt(1 - OVERLAP) * random.normal(0, of_sets, (folds, arms, 1, 1, 3))
                       + random.normal(0, by_fold, (folds, arms, generators, 1, 3))
                       + random.normal(0, by_training, (folds, arms, generators, classifiers, 3)))  # fmt: skip
            validated, right = (
                [answers(random, easy[part], effect, labels[part])
                 for part, effect in zip(parts, effects, strict=True)]
                for parts in (validations, tests)
            )  # fmt: skip
            validated, tested = (
                np.array([accuracies(of_fold, labels[part]) for of_fold, part in zip(sides, parts, strict=True)])
                for sides, parts in ((validated, validations), (right, tests))
            )
            best = validated.mean((2, 3)).argmax(1)
            inside.append(([of_fold[arm] for of_fold, arm in zip(right, best, strict=True)],
                           mean_chance(1 + effects[np.arange(folds), best], math.sqrt(2)).mean()))  # fmt: skip
            most = tested.mean((0, 2, 3)).argmax()
            outside.append(([of_fold[most] for of_fold in right], mean_chance(1 + mean[most], spread)))
        found = {}
        for name, sides in (("on the validation parts", inside), ("on the test parts", outside)):
            (baseline, true_of_baseline), (synthetic, true_of_synthetic) = sides
            values, *of_patients = differences(synthetic, baseline, tests, labels, group)
            entry = contrast(list(values), 1 / (folds - 1), *of_patients)
            found[f"chosen {name}"] = entry, true_of_synthetic - true_of_baseline
        return found

    first = "chosen on the validation parts"
    true = np.mean([study(np.random.default_rng([11, number]))[first][1] for number in range(TRUTHS)])

    def trial(random):
        found = {}
        for name, (entry, own) in study(random).items():
            for level, ends in (("", ("low", "high")), (", 90 %", ("low90", "high90"))):
                low, high = (entry[end] for end in ends)
                found[name + level] = (
                    low <= (true if name == first else own) <= high,
                    not low <= 0 <= high,
                    high - low,
                )
        return found

    return trial


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


def agreement_trials(kind, interaction, change):
    """Distances of generators: seeds shift all arms by 6, arm and seed interact, the sampling of images adds 2."""
    several, own_reals = kind != "ends, one seed", kind.endswith("own reals")
    beyond_chance = kind.startswith("ends beyond chance")
    where = Where(
        "drawn" if own_reals else "equal", "top" if beyond_chance else "held-out", beyond_chance=beyond_chance
    )
    of_reals = 3.0 if own_reals else 0.0  # the error that an arm's own real images make, the same for all its trainings

    def trial(random):
        arms = [arm_at(t) for t in (0.0, 0.6, 0.7, 0.8)]
        many = [arms[0], arms[3], arm_at(0.8, "random-subset")] if several else []
        scopes = [arm_at(t, scope="critic-turn") for t in (0.0, 0.6, 0.7, 0.8)]
        seed_effect, trials = random.normal(0, 6, 3), []
        scope_of_seed = random.normal(0, interaction)  # what seed 0 does to the other scope at every threshold
        for arm in [*arms, arm_at(0.8, "random-subset"), *scopes]:
            reals = random.normal(0, of_reals)
            for seed in range(3) if arm in many else range(1):
                value = 45 + seed_effect[seed] + random.normal(0, interaction) + random.normal(0, 2) + reals
                chance = value if beyond_chance else 0.0  # of random images: the choice adds 12
                if beyond_chance:
                    value += 12 + random.normal(0, interaction) + random.normal(0, 2) + 0.3 * reals
                value += change * (arm.threshold == 0.8 and not arm.control and not arm.scope and "ends" in kind)
                if arm.scope:
                    value += change * ("scopes" in kind) + random.normal(0, interaction)
                    value += scope_of_seed * (kind == "scopes, seed 0 favours one")
                entry = {"value": value, "standard_error": 2.0, "fake_variance": 4.0,
                         "real_influences": [of_reals, 0.0], "n_real": 400, "n_fake": 400}  # fmt: skip
                result = {where.group: {where.row: {"frechet": entry}}, "chance": {"frechet": {"mean": chance}}}
                trials.append(Trial(arm, seed, Path(), Outcome("", result, None, 1.0, 1)))
        findings = Findings(None, trials, {})
        pairs = list(zip(arms, scopes, strict=True)) if "scopes" in kind else [(arms[0], arms[3])]
        found = contrasts.contrast(findings, pairs, where, same_reals=not own_reals)
        return {"": (found.low <= change <= found.high, not found.low <= 0 <= found.high, found.high - found.low)}

    return trial


class Shares(Findings):
    """Findings whose trainings hold their counts of positive images; as many reals are independent."""

    def measured_by_training(self, arm, row):
        return [trial.outcome.result["count"] for trial in self.trials_of(arm)] if row else [self.reals]

    def independent_reals(self, arm):
        return self.reals[1]

    def arms_of(self):
        return [arm_at(0.0)]


def share_trials(trainings, images, spread):
    """Shares of generated images that measure as positive: three arms with several trainings, pooled."""
    true, of_reals = mean_chance(0.2, spread), 0.5

    def trial(random):
        arms = [arm_at(0.0), arm_at(0.8), arm_at(0.8, "random-subset")]
        trials = []
        for arm, seed in itertools.product(arms, range(trainings)):
            hits = int(random.binomial(images, chance(0.2 + random.normal(0, spread))))
            result = {"count": Count(hits, images, images)}
            trials.append(Trial(arm, seed, Path(), Outcome("", result, None, 1.0, 1)))
        found = Shares(None, trials, Count(int(random.binomial(images, of_reals)), images, images))
        low, high = found.share_interval(arms[0], "all")
        usual = wilson(found.count_measured(arms[0], "all")[0], trainings * images)
        (part,) = difference_from_reals(found, "all").facts["parts"]
        ends = part["ends"]
        return {
            "with trainings": (low <= true <= high, None, high - low),
            "Wilson of all images": (usual[0] <= true <= usual[1], None, usual[1] - usual[0]),
            "less the share of as many reals": ends
            and (ends[0] <= true - of_reals <= ends[1], None, ends[1] - ends[0]),
        }

    return trial


def difference_trials(n, shifts):
    """`compare`: kid of two generators beside the same reals."""
    kid = as_part("metric", "kid").build()

    def trial(random):
        real = Rows(features=random.normal(size=(n, 16)))
        values, moved, of_fakes, errors = [], [], 0.0, 0.0
        for shift in shifts:
            resampling = kid.resampling(Pool(real, Rows(features=random.normal(size=(n, 16)) + shift)))
            found = resampling.whole().values
            values.append(found["kid"])
            moved.append(influences(resampling, "real", found)["kid"])
            of_fakes += variances_of(influences(resampling, "fake", found))["kid"]
            errors += resampling.standard_errors()["kid"] ** 2
        error, usual = math.sqrt(of_fakes + ((moved[1] - moved[0]) ** 2).sum()), math.sqrt(errors)
        true = true_kid(shifts[1]) - true_kid(shifts[0])
        off = abs(values[1] - values[0] - true)
        zero = abs(values[1] - values[0])
        return {
            name: (off <= 1.96 * width, zero > 1.96 * width, 3.92 * width)
            for name, width in (("shared reals known", error), ("taken for independent", usual))
        }

    return trial


def true_kid(shift, d=16):
    """Of two standard normal distributions in d dimensions, one shifted by `shift` in each."""
    a = d * shift**2  # the squared distance; below, moments of x.x', x.y and y.y'
    between, within = 3 * (d + a) / d**2, 3 * a / d + 3 * (a**2 + 2 * a + d) / d**2
    return 3 / d + within + (a**3 + 3 * a * (2 * a + d) + 6 * a) / d**3 - 2 * between


def folds_of_generators(folds, n, beside, shift):
    """`evaluate` of a folder of folds: the kid of each fold, whose generator is shifted by about so much."""
    kid, spread = as_part("metric", "kid").build(), 0.1
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    true = float(true_kid(shift * (1 + spread * nodes)) @ weights / weights.sum())

    def trial(random):
        real, values = random.normal(size=(n, 16)), []
        parts = np.arange(n) % folds
        for number in range(folds):
            fake = random.normal(size=(n, 16)) + shift * (1 + random.normal(0, spread))
            used = real[parts != number] if beside == "own training images" else real
            values.append(kid.compute(Rows(features=used), Rows(features=fake)).values["kid"])
        low, high = cross_validated(np.array(values)[:, None, None], 1 / (folds - 1)).interval()
        return {"": (low <= true <= high, None, high - low)}

    return trial


def attack_trials(patients, others, images, apart):
    """Membership attacks: scores of the images of members and of others, whose means are apart."""
    true, own = float(norm.cdf(apart / math.hypot(1, 1))), 0.5

    def trial(random):
        scores = []
        for count, mean in ((patients, apart), (others, 0.0)):
            scores.append(math.sqrt(1 - own) * random.normal(0, 1, count).repeat(images)
                          + math.sqrt(own) * random.normal(0, 1, count * images) + mean)  # fmt: skip
        groups = [np.arange(count).repeat(images) for count in (patients, others)]
        found = attack(*scores, *groups)
        warned = found["low"] > 0.5 and found["area"] > found["control"]
        return {
            "covers, warns (mean width)": (found["low"] <= true <= found["high"], warned, found["high"] - found["low"])
        }

    return trial


def source_trials(images, spread, shift):
    """`gankit rank --page`: mean scores, from 1 to 5, of two sources with so many images each."""
    cuts = np.array([1.5, 2.5, 3.5, 4.5])
    first, second = (5 - norm.cdf((cuts - at) / sd).sum() for at, sd in ((3.0, 1.0), (3.0 + shift, spread)))

    def trial(random):
        seen = np.concatenate([random.normal(3, 1, images[0]), random.normal(3 + shift, spread, images[1])])
        sources = ["a"] * images[0] + ["b"] * images[1]
        of_first, _, difference = compare_sources([], 1.0 + np.searchsorted(cuts, seen), sources, sources, False)
        found = {}
        for name, entry, value in (("mean score", of_first, first), ("difference", difference, second - first)):
            found[name] = None
            if entry.low is not None:
                excluded = None if name == "mean score" else not entry.low <= 0 <= entry.high
                found[name] = entry.low <= value <= entry.high, excluded, entry.high - entry.low
        return found

    return trial


def wilson_trials(n, share):
    """The rating page: one rater, independent images."""

    def trial(random):
        low, high = wilson(random.binomial(n, share), n)
        return {"": (low <= share <= high, None, high - low)}

    return trial


READERS = {"alike": 0.0, "differ": 0.4}  # the standard deviation of d', and of where readers draw the line
CASES = 0.5  # the standard deviation of how real images of one kind look to all readers; 1 is that of a single look
LINES = (-1.5, -0.5, 0.5, 1.5)  # between the scores 1 to 5


def looks(random, skills, kinds):
    """(readers, n) impressions of images, of which a kind looks more real, to each reader by their skill."""
    both = random.normal(0, CASES, len(kinds)) + random.normal(0, 1, (len(skills), len(kinds)))
    return math.hypot(1, CASES) * skills[:, None] * np.where(kinds, 0.5, -0.5) + both


@functools.cache
def true_of_readers(skill, spread):
    """Accuracy, area of scores, share of right pairs and of right diagnoses for infinitely many readers and cases."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    skills, weights = skill + spread * nodes, weights / weights.sum()
    cuts = np.array([-math.inf, *LINES, math.inf])
    lines = spread * nodes  # where readers draw the line
    shares = [
        np.diff(norm.cdf((cuts[:, None, None] - lines) / math.hypot(1, CASES) - skills[:, None] * side), axis=0)
        for side in (0.5, -0.5)
    ]
    below = np.cumsum(shares[1], axis=0) - shares[1]
    areas = (shares[0] * (below + shares[1] / 2)).sum(0)
    return (
        mean_normal(skill / 2, math.hypot(spread / 2, spread / math.hypot(1, CASES))),
        float(weights @ areas @ weights),
        mean_normal(skill / math.sqrt(2), spread / math.sqrt(2)),
        mean_normal(1.0, spread / math.hypot(1, CASES)),
    )


def mean_normal(mean, spread):
    """The mean of the normal distribution function of a normal variable."""
    return float(norm.cdf(mean / math.hypot(1, spread)))


def reader_trials(readers, images, skill, spread):
    """Readers who rate so many real images and as many generated ones, and half as many pairs."""
    of_calls, auc, pairs, diagnosis = true_of_readers(skill, READERS[spread])
    kinds, one_kind = np.arange(2 * images) < images, np.ones(images, bool)

    def trial(random):
        skills = random.normal(skill, READERS[spread], readers)
        lines = random.normal(0, READERS[spread], (readers, 1))
        seen = looks(random, skills, kinds) - lines
        pair_kinds = np.arange(images) < images // 2
        first, second = np.split(looks(random, skills, pair_kinds), 2, axis=1)
        chosen = (first > second).astype(float)
        known = random.normal(0, READERS[spread], (readers, 1)) + random.normal(0, CASES, images)
        diagnosed = (math.hypot(1, CASES) + known + random.normal(0, 1, (readers, images)) > 0).astype(float)
        scores = np.searchsorted(LINES, seen).astype(float)
        measured = {
            "accuracy": (accuracy, (seen < 0).astype(float), ~kinds, True, of_calls),
            "d'": (discrimination, (seen < 0).astype(float), ~kinds, False, skill),
            "AUC of scores": (area, scores, kinds, True, auc),
            "pairs right": (share, chosen, one_kind[: images // 2], True, pairs),
            "diagnosis right": (share, diagnosed, one_kind, True, diagnosis),
        }
        found = {}
        for name, (measure, answers, of_kind, bounded, true) in measured.items():
            low, high = over_readers(measure, answers, of_kind, np.arange(len(of_kind))).interval(bounded) or (0, 0)
            guessing = {"diagnosis right": None, "d'": 0}.get(name, 0.5)
            excluded = None if guessing is None else not low <= guessing <= high
            found[name] = (low <= true <= high, excluded, high - low)
        return found

    return trial


ORDINAL, NOMINAL = (functools.partial(krippendorff_alpha, level=level) for level in ("ordinal", "nominal"))


def same(twice):
    """The share of (2, n) answers that are alike."""
    return float((twice[0] == twice[1]).mean())


def answered_together(random, images, skills, lines):
    """Answers to so many images of each kind, by name: how agreement is measured, a (readers, n) table, (n,) kinds."""
    kinds, one_kind = np.arange(2 * images) < images, np.zeros(images)
    seen = looks(random, skills, kinds) - lines[:, None]
    first, second = np.split(looks(random, skills, kinds), 2, axis=1)
    left = random.random(images) < 0.5
    known = math.hypot(1, CASES) + random.normal(0, CASES, images) + random.normal(0, 1, (len(skills), images)) > 0
    return {
        "alpha of scores": (ORDINAL, np.searchsorted(LINES, seen), kinds),
        "kappa of calls": (fleiss_kappa, seen < 0, kinds),
        "kappa of pairs": (fleiss_kappa, (first > second) == left, one_kind),
        "alpha of diagnoses": (NOMINAL, known == (np.arange(images) % 2 == 0), one_kind),
    }


def answered_twice(random, images, skills, lines):
    """The same of a reader who sees so many images twice."""
    kinds = np.arange(images) < images // 2
    seen = looks(random, skills, kinds) - lines[:, None]
    return {"same call": (same, seen < 0, kinds), "alpha of scores": (ORDINAL, np.searchsorted(LINES, seen), kinds)}


def agreement_of(answers, images, skills, lines):
    """Trials of the agreement of these readers, whose true value is that on very many images."""
    everything = answers(np.random.default_rng(5), 20_000, skills, lines)
    true = {name: measure(table.astype(float)) for name, (measure, table, _) in everything.items()}

    def trial(random):
        found = {}
        for name, (measure, table, kinds) in answers(random, images, skills, lines).items():
            ends = agreement_interval(measure, table.astype(float), kinds, np.arange(len(kinds)), measure is same)
            excluded = None if measure is same or not ends else not ends[0] <= 0 <= ends[1]
            found[name] = ends and (ends[0] <= true[name] <= ends[1], excluded, ends[1] - ends[0])
        return found

    return trial


def together_trials(readers, images, skill, spread, answers=answered_together):
    offsets = norm.ppf((np.arange(readers) + 0.5) / readers) * READERS[spread]
    return agreement_of(answers, images, skill + offsets, offsets)


def answered_in_part(random, images, skills, lines):
    """Of these answers those of which some may lack: each image lacks a reader's; kappa is of images that all saw."""
    found = {}
    for name, (measure, table, kinds) in answered_together(random, images, skills, lines).items():
        if measure is not fleiss_kappa:
            missing = random.integers(0, len(skills), len(kinds)) == np.arange(len(skills))[:, None]
            found[name] = measure, np.where(missing, np.nan, table), kinds
    return found


gaps_trials = functools.partial(together_trials, answers=answered_in_part)


def again_trials(images, skill):
    return agreement_of(answered_twice, images, np.full(2, skill), np.zeros(2))


SEEDS = ("alike", "differ much")
FOLDS = ("seeds alike", "seeds differ in each fold", "seeds differ, alike in all folds", "training sets matter")
NUMBERS = ("seeds alike", "seeds differ in each fold", *SET_SPREADS)
DISTANCE_KINDS = (
    "ends",
    "ends, own reals",
    "ends beyond chance, own reals",
    "ends, one seed",
    "scopes",
    "scopes, seed 0 favours one",
)
GAINS = (0.0, 0.35, 0.8)
FAMILIES = {
    # by heading: what makes a trial, the values of each of its settings, the share of the trials that it can afford
    "scores of an arm": (score_trials, [(88, 152), (1, 4), (1, 3), tuple(SPREADS)], 0.2),
    "errors of a number": (number_trials, [(240,), (1, 4), (3,), SEEDS], 0.2),
    "paired difference, one split": (paired_trials, [(152,), (1, 4), (2, 3, 5), SEEDS, GAINS], 1),
    "cross-validated difference": (fold_trials, [(150, 400), (1, 4), FOLDS, GAINS], 1),
    "few cases and folds": (few_trials, [(36, 72), (2, 3, 5), ((1, 1), (3, 2)), tuple(EASE), (0.0, 0.8)], 0.5),
    "arms chosen inside folds": (choice_trials, [(150, 400), (2,), tuple(CHOICES), GAINS], 0.2),
    "arms that learn": (
        learner_trials,
        [(80, 150), ("linear", "nearest case"), ("all other folds", "validation and reserve set aside")],
        1,
    ),
    "folds that are repeated": (
        learner_trials,
        [(80, 150), ("linear", "nearest case"), ("validation and reserve set aside",), (2, 5)],
        1,
    ),
    "errors of a number over folds": (number_fold_trials, [(150, 400), (1, 4), NUMBERS, (0.0, 0.1, 0.2)], 0.5),
    "numbers that are learnt": (number_learner_trials, [(80, 150), ("linear", "nearest case")], 1),
    "distances of generators": (
        agreement_trials,
        [DISTANCE_KINDS, (2.0, 6.0), (0.0, 15.0)],
        1,
    ),
    "shares over trainings": (share_trials, [(1, 3, 5), (100,), (0.0, 0.3)], 1),
    "compare": (difference_trials, [(50, 100), ((0.0, 0.0), (0.4, 0.4), (0.4, -0.4), (0.4, 0.5))], 0.2),
    "folds of generators": (
        folds_of_generators,
        [(3, 5), (60, 200), ("own training images", "the same reals"), (0.0, 0.4)],
        0.2,
    ),
    "membership attacks": (attack_trials, [(20, 60), (20,), (1, 3), (0.0, 1.0)], 0.2),
    "readers": (reader_trials, [(1, 3, 6), (20, 40), (0.0, 1.0, 2.5), tuple(READERS)], 0.2),
    "agreement of readers": (together_trials, [(2, 4), (20, 40), (0.0, 1.0, 2.5), ("differ",)], 0.4),
    "readers who leave out images": (gaps_trials, [(3, 4), (20, 40), (0.0, 2.5), ("differ",)], 0.4),
    "readers who answer again": (again_trials, [(20, 40), (0.0, 1.0, 2.5)], 0.4),
    "ratings": (wilson_trials, [(20, 60), (0.5, 0.9)], 1),
    "scores of sources": (source_trials, [((10, 10), (10, 40), (40, 40)), (1.0, 0.4), (0.0, 0.8)], 1),
}
STEP = 100  # trials between writes


def key_of(family, setting):
    return f"{family}: {', '.join(map(str, setting))}"


def simulate(file, trials):
    found = json.loads(file.read_text()) if file.is_file() else {}
    for family, (make, axes, afforded) in FAMILIES.items():
        for setting in itertools.product(*axes):
            key, wanted = key_of(family, setting), max(1, round(trials * afforded))
            sums = found.setdefault(key, {"trials": 0, "intervals": {}})
            trial = None
            while sums["trials"] < wanted:
                trial = trial or make(*setting)
                for number in range(sums["trials"], min(sums["trials"] + STEP, wanted)):
                    random = np.random.default_rng([zlib.crc32(key.encode()), number])
                    for name, interval in trial(random).items():
                        entry = sums["intervals"].setdefault(name, {"covered": 0, "excluded": None, "width": 0.0})
                        if interval is None:
                            entry["none"] = entry.get("none", 0) + 1
                            continue
                        covered, excluded, width = interval
                        entry["covered"] += int(covered)
                        if excluded is not None:
                            entry["excluded"] = (entry["excluded"] or 0) + int(excluded)
                        entry["width"] += float(width)
                    sums["trials"] = number + 1
                partial = file.with_suffix(".part")
                partial.write_text(json.dumps(found, indent=0) + "\n")
                partial.replace(file)
    return found


def tables(found):
    for family, (_, axes, _) in FAMILIES.items():
        print(f"\n### {family[0].upper() + family[1:]}\n")
        for place, setting in enumerate(itertools.product(*axes)):
            entry = found.get(key_of(family, setting))
            if not entry or not entry["trials"]:
                continue
            names = entry["intervals"]
            if not place:
                print(f"| setting | {' | '.join(name or 'covers, excludes 0 (mean width)' for name in names)} |")
                print("|---|" + "---|" * len(names))
            cells = []
            for values in names.values():
                none = values.get("none", 0)
                n = entry["trials"] - none
                excluded = "" if values["excluded"] is None else f", {100 * values['excluded'] / n:.1f} %"
                without = f"; none in {100 * none / entry['trials']:.1f} %" if none else ""
                covered = f"{100 * values['covered'] / n:.1f} %" if n else "-"
                cells.append(f"{covered}{excluded} ({values['width'] / max(n, 1):.3g}){without}")
            print(f"| {', '.join(map(str, setting))} | {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--trials", type=int, default=2000, help="of a cheap setting; others have a share of it")
    parser.add_argument("--tables", action="store_true", help="simulate nothing more")
    given = parser.parse_args()
    started = time.process_time()
    tables(json.loads(given.file.read_text()) if given.tables else simulate(given.file, given.trials))
    if not given.tables:
        print(f"\n{time.process_time() - started:.0f} s of CPU time")


if __name__ == "__main__":
    main()
