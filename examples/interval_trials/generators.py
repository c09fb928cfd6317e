"""Distances of generators, shares of their images, and attacks on them."""

import itertools
import math
from pathlib import Path

import numpy as np
from interval_trials.cases import chance, mean_chance
from scipy.stats import norm

from gankit.evaluation.design import cross_validated, wilson
from gankit.evaluation.extraction import as_part
from gankit.evaluation.membership import attack
from gankit.evaluation.uncertainty import influences, variances_of
from gankit.interfaces import Pool, Rows
from gankit.studies.agreement import contrasts
from gankit.studies.agreement.arms import arm_at
from gankit.studies.agreement.conclusions import difference_from_reals
from gankit.studies.agreement.findings import Count, Findings, Trial, Where
from gankit.studies.jobs import Outcome


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
