"""Which of the founding paper's conclusions hold on a study's images, computed from its numbers with their errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t as student

from gankit.evaluation.uncertainty import wilson
from gankit.studies.agreement.arms import Arm, heading
from gankit.studies.agreement.estimates import CANNOT, LEVEL, Difference, Estimates, Where, pooled

REALS = "held-out reals"
METRICS = ("frechet", "kid")
"""The distances that answers are drawn from. KID alone is free of the bias that also differs between generators."""


@dataclass(frozen=True)
class Conclusion:
    """A question with its answer.

    Attributes:
        question: in words.
        answer: "yes", "no" or "cannot be told", and what of it.
        text: the numbers behind it.
    """

    question: str
    answer: str
    text: str


def conclusions(estimates: Estimates) -> list[Conclusion]:
    """Everything that the study can say of the paper's conclusions, each in one paragraph."""
    study, images = estimates.findings.study.study, estimates.findings.images
    lowest, highest = Arm(images.thresholds[0]), Arm(images.thresholds[-1])
    found: list[Conclusion] = []
    if lowest != highest:
        change = f"Does the distance fall from {heading(lowest.threshold)} to {heading(highest.threshold)}"
        found += [
            _falls(estimates, f"{change}, to each network's own training images?", Where("drawn", "all"), False),
            _falls(
                estimates, f"{change}, to held-out images of any agreement, at {images.n} images a side?",
                Where("equal", "held-out"), True,
            ),
        ]  # fmt: skip
    if Arm(highest.threshold, "random-subset") in estimates.arms():
        found += [
            _against_random(estimates, highest, "held-out", "any agreement", "these beside all"),
            _against_random(estimates, highest, "held-out-same", "the same SR", "all beside these"),
        ]
    if lowest != highest:
        found += [_kept(estimates, lowest, highest, row) for row in ("top", "bottom")]
    if estimates.findings.reals["estimator"] is not None:
        found += [_strabismus(estimates, row) for row in ("all", "top")]
    return found + [_scope(estimates, scope) for scope in study.scopes[1:]]


def _answer(difference: Difference, higher: str) -> str:
    """Whether a distance falls; `higher` where it rises."""
    return {"lower": "yes", "higher": higher}.get(difference.verdict, CANNOT)


def _joint(answers: Sequence[tuple[str, str]]) -> str:
    """One answer of several, or whose they are: pairs of a name and an answer."""
    if len({answer for _, answer in answers}) == 1:
        return answers[0][1]
    return ", ".join(f"{answer} by {name}" for name, answer in answers)


def _missing(estimates: Estimates, question: str, arms: Sequence[Arm]) -> Conclusion:
    lost = ", ".join(arm.title for arm in arms if not estimates.trainings(arm))
    return Conclusion(question, CANNOT, f"There is no value of {lost or arms[-1].title}.")


def _value(estimates: Estimates, arm: Arm, where: Where, seeds: Sequence[int] | None = None) -> str:
    found, failed = estimates.of(arm, where, seeds or None), estimates.failed(arm)
    if found is None:
        return "no value"
    of = f" ({failed} trainings failed)" if failed else ""
    return f"{found.value:.3g}" + ("" if found.error is None else f" ± {found.error:.2g}") + of


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}" if seeds else "all seeds"


def _interval(difference: Difference) -> str:
    text = f"a change of {difference.value:+.3g} (95 % interval {difference.low:+.3g} to {difference.high:+.3g}"
    if not difference.whole:
        return text + ", of sampling alone: with one seed an arm nobody knows how trainings differ)"
    pairs = f", {difference.matched} pair{'s' if difference.matched > 1 else ''} of trainings of the same seed"
    return text + (pairs if difference.matched else "") + ")"


def _between(real: dict[str, float]) -> str:
    return f"{real['mean']:.3g} ± {real['sd']:.2g}"


def _falls(estimates: Estimates, question: str, where: Where, same_reals: bool) -> Conclusion:
    arms = [Arm(threshold) for threshold in estimates.findings.images.thresholds]
    parts, answers = [], []
    for metric in METRICS:
        at = Where(where.group, where.row, metric)
        difference = estimates.difference(arms[0], arms[-1], at, same_reals=same_reals)
        if difference is None:
            return _missing(estimates, question, (arms[0], arms[-1]))
        name = estimates.metric_name(metric)
        answers.append((name, _answer(difference, "no, it rises")))
        seeds = estimates.common([arm for arm in arms if estimates.trainings(arm)], at)
        values = ", ".join(f"{_value(estimates, arm, at, seeds)} at {heading(arm.threshold)}" for arm in arms)
        parts.append(f"{name} of {_seeds(seeds)}: {values}; from first to last {_interval(difference)}.")
        real = [estimates.between_reals(arm, at) for arm in (arms[0], arms[-1])]
        if not same_reals and real[0] and real[1] and real[0]["n"] == real[1]["n"]:
            parts.append(
                f"Between real images the same value goes from {_between(real[0])} to {_between(real[1])} (± of a "
                "single draw): so much of the change is of the images, whatever the networks."
            )
    return Conclusion(question, _joint(answers), " ".join(parts))


def _against_random(estimates: Estimates, highest: Arm, row: str, what: str, perfect: str) -> Conclusion:
    control, reals = Arm(highest.threshold, "random-subset"), estimates.findings.reals
    question = (
        f"Trained on the images of {heading(highest.threshold)}, does a network come nearer to held-out images of "
        f"{what} than trained on as many drawn at random (n = {estimates.findings.images.n} a side)?"
    )
    parts, answers = [], []
    for metric in METRICS:
        where, name = Where("equal", row, metric), estimates.metric_name(metric)
        difference = estimates.difference(control, highest, where, same_reals=True)
        if difference is None:
            return _missing(estimates, question, (control, highest))
        answers.append((name, _answer(difference, "no, it is farther")))
        parts.append(
            f"{name}: {_value(estimates, control, where)} for the random subset, "
            f"{_value(estimates, highest, where)} for {heading(highest.threshold)}, {_interval(difference)}."
        )
        own = reals["arms"][highest.name]
        ideal = (reals["whole"], own[perfect]) if row == "held-out" else (own[perfect], own["equal"])
        if all(metric in each for each in ideal):
            parts.append(f"Perfect networks would get {_between(ideal[0][metric])} and {_between(ideal[1][metric])}.")
    return Conclusion(question, _joint(answers), " ".join(parts))


def _kept(estimates: Estimates, lowest: Arm, highest: Arm, row: str) -> Conclusion:
    """Whether the change of the best (worst) few is more than what as few at random would show."""
    kept, where, arms = estimates.findings.study.study.kept, Where("drawn", row), (lowest, highest)
    word = {"top": "rise", "bottom": "fall"}[row]
    question = f"Is the {row} {kept}'s {word} more than noise at n = {kept}?"
    ends = [end for arm in arms if (end := estimates.of(arm, where)) is not None]
    noise = [chance for arm in arms if (chance := estimates.chance(arm, "frechet")) is not None]
    difference = estimates.difference(lowest, highest, where, same_reals=False)
    if difference is None or len(noise) < 2:
        return _missing(estimates, question, arms)
    by_chance, half = noise[1][0] - noise[0][0], (difference.high - difference.low) / 2
    sign = 1 if row == "top" else -1
    if difference.verdict == CANNOT:
        answer = CANNOT
    elif sign * difference.value < 0:
        answer = f"no, it goes the other way by {abs(difference.value):.3g}"
    else:
        more = sign * (difference.value - by_chance) > half
        answer = "yes" if more else f"yes, but no more than {kept} drawn at random {word}"
    place = [(end.value - mean) / sd if sd else 0.0 for end, (mean, sd) in zip(ends, noise, strict=True)]
    real = estimates.between_reals(highest, where)
    text = (
        f"{estimates.metric_name('frechet')}: {_value(estimates, lowest, where)} at {heading(lowest.threshold)}, "
        f"{_value(estimates, highest, where)} at {heading(highest.threshold)}: {_interval(difference)}. "
        f"{kept} of the drawn images chosen at random get {noise[0][0]:.3g} ± {noise[0][1]:.2g} and "
        f"{noise[1][0]:.3g} ± {noise[1][1]:.2g}, a change of {by_chance:+.3g}; beside these the critic's choice stands "
        f"{place[0]:+.1f} and {place[1]:+.1f} standard deviations off."
    )
    if real:
        text += f" {real['n']} real images get {_between(real)}."
    return Conclusion(question, answer, text)


def share(hits: int, n: int, of: int | None = None) -> str:
    """A share in percent of n that were measured (of so many), with its 95 % interval after Wilson."""
    low, high = wilson(hits, n, LEVEL)
    told = f"n = {n}" if of in (None, n) else f"n = {n} of {of}"
    return f"{100 * hits / n:.0f} % ({100 * low:.0f} to {100 * high:.0f}, {told})" if n else "none measured"


def counts(estimates: Estimates, arm: Arm, row: str) -> tuple[int, int, int]:
    """Strabismic, measured and all images: "all" that an arm's trainings drew, "top" or "bottom", or `REALS`."""
    if row == REALS:
        found = [estimates.findings.reals["arms"][Arm(arm.threshold, arm.control).name]["deviation"]]
    else:
        found = [training.outcome.result["deviation"][row] for training in estimates.trainings(arm)]
    strabismic, measured, n = (sum(each[key] for each in found) for key in ("strabismic", "measured", "n"))
    return strabismic, measured, n


def _strabismus(estimates: Estimates, row: str) -> Conclusion:
    """The paper: few samples show strabismus. Judged at each selection rate by the difference from the reals' share."""
    study, known = estimates.findings.study.study, estimates.findings.reals["estimator"]
    what = "generated images" if row == "all" else f"of the top {study.kept}"
    question = f"Do fewer {what} than real ones show strabismus?"
    arms = [Arm(threshold) for threshold in estimates.findings.images.thresholds]
    variance, freedom = pooled([_shares(estimates, arm, row) for arm in estimates.arms()])
    parts, answers = [], []
    for arm in arms:
        drawn, real = counts(estimates, arm, row), counts(estimates, arm, REALS)
        name = heading(arm.threshold)
        if not drawn[1] or not real[1]:
            answers.append((name, CANNOT))
            parts.append(f"{name}: none measured.")
            continue
        (of_drawn, n_drawn), (of_real, n_real) = ((hits / seen, seen) for hits, seen, _ in (drawn, real))
        trainings = len(estimates.trainings(arm))
        binomial = [p * (1 - p) / n for p, n in ((of_drawn, n_drawn), (of_real, n_real))]
        half = math.inf
        if freedom:
            error = math.sqrt(max(binomial[0], variance / trainings) + binomial[1])
            half = float(student.ppf((1 + LEVEL) / 2, freedom)) * error
        change = of_drawn - of_real
        answers.append((name, CANNOT if abs(change) <= half else "yes" if change < 0 else "no, more do"))
        interval = f", {100 * change:+.0f} ± {100 * half:.0f} points" if freedom else ""
        parts.append(f"{name}: {share(*drawn)}, {share(*real)} of held-out reals{interval}.")
    parts.append(
        f"Measured on the pixels from {study.strabismic:g} prism dioptres on; on {known['n']} reals of this size the "
        f"measurement is off by {known['median_error']:.2g} PD (median), calls {100 * known['sensitivity']:.0f} % of "
        f"those labelled strabismic (their deviation may be smaller) and {100 * (1 - known['specificity']):.0f} % of "
        f"the others, and gives up on {100 * known['not_measured']:.0f} %. Images that cannot be measured do not count."
    )
    alike = len({answer for _, answer in answers}) == 1
    answer = answers[0][1] if alike else "; ".join(f"{answer} at {name}" for name, answer in answers)
    return Conclusion(question, answer, " ".join(parts))


def _shares(estimates: Estimates, arm: Arm, row: str) -> list[float]:
    """The share of strabismic images of each training of an arm."""
    found = [training.outcome.result["deviation"][row] for training in estimates.trainings(arm)]
    return [each["strabismic"] / each["measured"] for each in found if each["measured"]]


def _scope(estimates: Estimates, scope: str) -> Conclusion:
    first, thresholds = estimates.findings.study.study.scopes[0], estimates.findings.images.thresholds
    question = f"Does the augment's scope {scope} come nearer to held-out images than {first}?"
    pairs = [(Arm(threshold), Arm(threshold, scope=scope)) for threshold in thresholds]
    pairs = [pair for pair in pairs if all(estimates.trainings(arm) for arm in pair)]
    parts, answers = [], []
    for metric in METRICS:
        where, name = Where("equal", "held-out", metric), estimates.metric_name(metric)
        difference = estimates.contrast(pairs, where, same_reals=True)
        if difference is None:
            return Conclusion(question, CANNOT, f"There is no value of both, or none of scope {scope}.")
        answers.append((name, _answer(difference, "no, it is farther")))
        seeds = [estimates.common(pair, where) for pair in pairs]
        values = ", ".join(
            f"{_value(estimates, one, where, same)} and {_value(estimates, other, where, same)} at "
            f"{heading(one.threshold)} ({_seeds(same)})"
            for (one, other), same in zip(pairs, seeds, strict=True)
        )
        parts.append(f"{name} with {first} and {scope}: {values}; on average {_interval(difference)}.")
    if len(pairs) < len(thresholds):
        parts.append(f"Compared at {len(pairs)} of {len(thresholds)} selection rates, the others failed.")
    parts.append(f"Trainings with {scope} are taken to differ from each other as the others do.")
    return Conclusion(question, _joint(answers), " ".join(parts))
