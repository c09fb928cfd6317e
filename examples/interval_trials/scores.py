"""Scores of an arm, errors of a number, and differences on one split."""

import functools
import math

import numpy as np
from interval_trials.cases import SPREADS, cases_of, chance, difficulty, mean_chance
from scipy.special import softmax

from gankit.evaluation.classification import Scorer, balanced_accuracy, macro_auc, macro_f1, recall_of, recalls
from gankit.evaluation.design import wilson
from gankit.evaluation.paired import Cases, paired_difference


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
