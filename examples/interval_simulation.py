"""Simulate how often an interval of a paired difference excludes 0 when there is no difference. Nothing is trained."""

import argparse
import itertools
import sys
import time

import numpy as np

from gankit.evaluation.classification import balanced_accuracy, macro_f1
from gankit.evaluation.paired import Cases, paired_difference

SHARES = (0.46, 0.17, 0.37)  # exotropia, esotropia, normal, as the founding paper has them
SCORES = {"balanced accuracy": balanced_accuracy, "macro F1": macro_f1}
NULLS = {
    # standard deviations in logits: (of an arm's effect on single cases, of a seed's effect on whole classes)
    "exchangeable, seeds alike": (0.0, 0.0),
    "exchangeable, seeds differ": (0.0, 0.5),
    "exchangeable, seeds differ much": (0.0, 1.0),
    "arms good at different cases": (1.0, 0.5),
}


def predictions(random, labels, group, seeds, arm_spread, seed_spread):
    """(2, seeds, n) predictions of two arms that are equally good on average over all possible cases and seeds."""
    n, classes = len(labels), len(SHARES)
    case = 1.0 + random.normal(0, 1, n) + random.normal(0, 1, group.max() + 1)[group]  # hard and easy cases, patients
    arm = random.normal(0, arm_spread, (2, 1, n)) if arm_spread else np.zeros((2, 1, n))
    seed = random.normal(0, seed_spread, (2, seeds, classes))[..., labels]
    right = random.random((2, seeds, n)) < 1 / (1 + np.exp(-(case + arm + seed)))
    other = (labels + random.integers(1, classes, (2, seeds, n))) % classes
    return np.where(right, labels, other)


def bootstrap(random, cases, first, second, score, draws):
    """The percentiles of a difference when groups (within classes) and seeds are drawn: Owen 2007, arXiv 0712.1111."""
    weights = np.zeros((draws, cases.n_groups))
    for label in np.unique(cases.stratum):
        members = np.flatnonzero(cases.stratum == label)
        weights[:, members] = random.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws)
    drawn = 0
    for sign, counts in ((1, first), (-1, second)):
        seeds, groups, k, _ = counts.shape
        flat = counts.transpose(1, 0, 2, 3).reshape(groups, -1)
        drawn = drawn + sign * score((weights @ flat).reshape(draws, seeds, k, k))
    of_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    return tuple(np.nanquantile((drawn * of_seeds).sum(1), [0.025, 0.975]))


def trial(random, cases_n, per_group, seeds, null, draws):
    """For each score and each kind of interval, whether it excludes 0, and its width; no bootstrap if `draws` is 0."""
    groups = max(2 * len(SHARES), cases_n // per_group)
    counts = np.maximum(2, np.round(np.array(SHARES) * groups)).astype(int)
    labels = np.repeat(np.repeat(np.arange(len(SHARES)), counts), per_group)
    group = np.arange(len(labels)) // per_group
    cases = Cases.of(labels, group)
    first, second = (cases.counts(arm, len(SHARES)) for arm in predictions(random, labels, group, seeds, *NULLS[null]))
    values = []
    for score in SCORES.values():
        interval = paired_difference(cases, first, second, score)
        spans = [(interval.low, interval.high), (np.nan, np.nan)]
        if draws:
            spans[1] = bootstrap(random, cases, first, second, score, draws)
        values += [(np.nan if np.isnan(low) else float(not low <= 0 <= high), high - low) for low, high in spans]
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--bootstraps", type=int, default=200, help="trials with the bootstrap, which is slow")
    parser.add_argument("--draws", type=int, default=500, help="bootstrap samples")
    parser.add_argument("--cases", type=int, nargs="+", default=[50, 150, 500])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 5, 10])
    parser.add_argument("--per-group", type=int, nargs="+", default=[1, 4])
    given = parser.parse_args()
    started = time.process_time()
    settings = list(itertools.product(NULLS, given.cases, given.per_group))
    rates = {}
    for (null, cases, per_group), seeds in itertools.product(settings, given.seeds):
        random = np.random.default_rng([cases, per_group, seeds, list(NULLS).index(null)])
        draws = [given.draws if number < given.bootstraps else 0 for number in range(given.trials)]
        trials = np.array([trial(random, cases, per_group, seeds, null, n) for n in draws])
        rates[null, cases, per_group, seeds] = np.nanmean(trials, axis=0).reshape(len(SCORES), 2, 2)
        print(".", end="", flush=True, file=sys.stderr)
    for (place, score), (method, name) in itertools.product(enumerate(SCORES), enumerate(("t interval", "bootstrap"))):
        print(f"\n{name}, {score}: share that excludes 0 (mean width)\n")
        columns = " | ".join(f"{n} seed{'s' if n > 1 else ''}" for n in given.seeds)
        print(f"| null | cases | per group | {columns} |")
        print("|---|" + "---|" * (2 + len(given.seeds)))
        for setting in settings:
            cells = [rates[(*setting, seeds)][place, method] for seeds in given.seeds]
            print(f"| {' | '.join(map(str, setting))} | {' | '.join(f'{100 * o:.1f} % ({w:.2f})' for o, w in cells)} |")
    worst = max(values[:, 0, 0].max() for key, values in rates.items() if key[-1] > 1 or given.seeds == [1])
    print(f"\nworst of the t interval with two seeds or more: {100 * worst:.1f} %")
    print(f"{time.process_time() - started:.0f} s of CPU time")


if __name__ == "__main__":
    main()
