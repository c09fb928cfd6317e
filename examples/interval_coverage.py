"""Simulate how often each interval that a report prints covers the true value, and excludes 0. Nothing is trained.

python examples/interval_coverage.py coverage.json           # goes on where it was stopped
python examples/interval_coverage.py coverage.json --tables  # only prints what is there
"""

import argparse
import itertools
import json
import time
import zlib
from pathlib import Path

import numpy as np
from interval_trials.cases import SPREADS
from interval_trials.folds import CHOICES, EASE, choice_trials, few_trials, fold_trials
from interval_trials.generators import (
    agreement_trials,
    attack_trials,
    difference_trials,
    folds_of_generators,
    share_trials,
)
from interval_trials.learners import SET_SPREADS, learner_trials, number_fold_trials, number_learner_trials
from interval_trials.readers import (
    READERS,
    again_trials,
    gaps_trials,
    reader_trials,
    source_trials,
    together_trials,
    wilson_trials,
)
from interval_trials.scores import number_trials, paired_trials, score_trials

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
