"""Differences between the arms of a cross-validation, whose trainings are drawn."""

import math

import numpy as np
from interval_trials.cases import cases_of, chance, difficulty, mean_chance

from gankit.evaluation.design import cross_validated
from gankit.studies.augmentation.contrasts import contrast


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
