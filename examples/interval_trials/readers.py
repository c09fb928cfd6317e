"""Ratings of images, and what readers make of them."""

import functools
import math

import numpy as np
from scipy.stats import norm

from gankit.evaluation.design import wilson
from gankit.evaluation.detection import (
    accuracy,
    agreement_interval,
    area,
    discrimination,
    fleiss_kappa,
    over_readers,
    share,
)
from gankit.ranking.ratings import compare_sources, krippendorff_alpha


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
