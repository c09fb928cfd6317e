"""Which of the founding paper's conclusions hold on a study's images, computed from its numbers with their errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import t as student

from gankit.study.arms import Arm, heading, percent
from gankit.study.estimates import LEVEL, Difference, Estimates, Where
from gankit.tables import title
from gankit.uncertainty import wilson

CANNOT = "cannot be told"


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
    found: list[Conclusion | None] = []
    if lowest != highest:
        found += [
            _falls(estimates, lowest, highest, Where("drawn", "all"), "to each network's own training images", False),
            _falls(
                estimates, lowest, highest, Where("equal", "held-out"),
                f"to held-out images of any agreement, at {images.n} images a side", True,
            ),
        ]  # fmt: skip
        found.append(_against_random(estimates, highest))
        found += [_kept(estimates, lowest, highest, row) for row in ("top", "bottom")]
    found.append(_strabismus(estimates))
    found += [_scope(estimates, scope) for scope in study.scopes[1:]]
    return [conclusion for conclusion in found if conclusion is not None]


def _named(estimates: Estimates, metric: str) -> str:
    return "KID" if metric == "kid" else title(metric, str(estimates.findings.reals["features"]))


def _value(estimates: Estimates, arm: Arm, where: Where) -> str:
    found = estimates.of(arm, where)
    if found is None:
        return "no value"
    return f"{found.value:.3g}" + ("" if found.error is None else f" ± {found.error:.2g}")


def _interval(difference: Difference) -> str:
    text = f"a change of {difference.value:+.3g} (95 % interval {difference.low:+.3g} to {difference.high:+.3g}"
    return text + (
        ")" if difference.whole else ", of sampling alone: with one seed an arm nobody knows how trainings differ)"
    )


def _falls(
    estimates: Estimates, lowest: Arm, highest: Arm, where: Where, what: str, same_reals: bool
) -> Conclusion | None:
    question = f"Does the distance fall as agreement rises, {what}?"
    parts, answer = [], CANNOT
    for metric in ("frechet", "kid"):
        at = Where(where.group, where.row, metric)
        difference = estimates.difference(lowest, highest, at, same_reals=same_reals)
        if difference is None:
            continue
        if metric == "frechet":
            answer = {"lower": "yes", "higher": "no, it rises"}.get(difference.verdict, CANNOT)
        arms = [Arm(threshold) for threshold in estimates.findings.images.thresholds]
        values = ", ".join(f"{_value(estimates, arm, at)} at {heading(arm.threshold)}" for arm in arms)
        parts.append(f"{_named(estimates, metric)}: {values}; from first to last {_interval(difference)}.")
        real = [estimates.between_reals(arm, at) for arm in (lowest, highest)]
        if metric == "frechet" and not same_reals and real[0] and real[1] and real[0]["n"] == real[1]["n"]:
            parts.append(
                f"Between real images the same value goes from {real[0]['mean']:.3g} to {real[1]['mean']:.3g}: that "
                "much of a change lies in the images and not in the networks."
            )
    return Conclusion(question, answer, " ".join(parts)) if parts else None


def _against_random(estimates: Estimates, highest: Arm) -> Conclusion | None:
    control = Arm(highest.threshold, "random-subset")
    if control not in estimates.arms():
        return None
    parts, verdicts = [], []
    n = estimates.findings.images.n
    for row, what in (
        ("held-out", "any agreement"),
        ("held-out-same", f"an SR of at least {percent(highest.threshold)}"),
    ):
        for metric in ("frechet", "kid"):
            where = Where("equal", row, metric)
            difference = estimates.difference(control, highest, where, same_reals=True)
            if difference is None:
                continue
            verdicts += [difference.verdict] if metric == "frechet" else []
            parts.append(
                f"{_named(estimates, metric)} to held-out images of {what}: "
                f"{_value(estimates, control, where)} for the random subset, {_value(estimates, highest, where)} for "
                f"{heading(highest.threshold)}, {_interval(difference)}."
            )
    if not parts:
        return None
    words = {"lower": "yes", "higher": "no, it is worse"}
    answers = [words.get(verdict, CANNOT) for verdict in verdicts]
    answer = answers[0] if len(set(answers)) == 1 else (
        f"{answers[0]} beside images of any agreement, {answers[1]} beside images of the same"
    )  # fmt: skip
    question = f"Are images chosen by agreement better to train on than as many drawn at random (n = {n} a side)?"
    return Conclusion(question, answer, " ".join(parts))


def _kept(estimates: Estimates, lowest: Arm, highest: Arm, row: str) -> Conclusion | None:
    """Whether the change of the best (worst) few is more than what as few at random would show."""
    kept, where = estimates.findings.study.study.kept, Where("drawn", row)
    arms = (lowest, highest)
    ends = [end for arm in arms if (end := estimates.of(arm, where)) is not None]
    noise = [chance for arm in arms if (chance := estimates.chance(arm, "frechet")) is not None]
    if len(ends) < 2 or len(noise) < 2:
        return None
    spread = estimates.spread(where)
    # The extremes vary more than random ones: by what the jackknife says, or trainings show, where that is more.
    single = [max(sd**2, end.fake_error**2) for end, (_, sd) in zip(ends, noise, strict=True)]
    between = spread.total**2 if spread else 0.0
    quantile = float(student.ppf((1 + LEVEL) / 2, spread.freedom)) if spread and between > max(single) else 1.96
    half = quantile * math.sqrt(sum(max(one, between) / end.seeds for one, end in zip(single, ends, strict=True)))
    change = ends[1].value - ends[0].value
    wanted = change > half if row == "top" else change < -half
    word = {"top": "rise", "bottom": "fall"}[row]
    answer = "yes" if wanted else CANNOT if abs(change) <= half else f"no, it goes the other way by {abs(change):.3g}"
    place = [(end.value - mean) / sd if sd else 0.0 for end, (mean, sd) in zip(ends, noise, strict=True)]
    real = estimates.between_reals(highest, where)
    text = (
        f"{_named(estimates, 'frechet')}: {_value(estimates, lowest, where)} at {heading(lowest.threshold)}, "
        f"{_value(estimates, highest, where)} at {heading(highest.threshold)}: a change of {change:+.3g}. {kept} of "
        f"the drawn images chosen at random vary by {noise[0][1]:.2g} and {noise[1][1]:.2g}, so that a change within "
        f"± {half:.2g} is noise. Beside such random choices ({noise[0][0]:.3g} and {noise[1][0]:.3g} on average) the "
        f"critic's choice stands {place[0]:+.1f} and {place[1]:+.1f} standard deviations off."
    )
    if real:
        text += f" {real['n']} real images get {real['mean']:.3g} ± {real['sd']:.2g}."
    name = {"top": "top", "bottom": "bottom"}[row]
    return Conclusion(f"Is the {name} {kept}'s {word} more than noise at n = {kept}?", answer, text)


def share(hits: int, n: int) -> str:
    """A share in percent of n that were measured, with its 95 % interval after Wilson."""
    low, high = wilson(hits, n, LEVEL)
    return f"{100 * hits / n:.0f} % ({100 * low:.0f} to {100 * high:.0f}, n = {n})" if n else "none measured"


def _strabismus(estimates: Estimates) -> Conclusion | None:
    known = estimates.findings.reals["estimator"]
    if known is None:
        return None
    parts, shown = [], []
    for threshold in estimates.findings.images.thresholds:
        counts = {
            row: [
                sum(t.outcome.result["deviation"][row][key] for t in estimates.trainings(Arm(threshold)))
                for key in ("strabismic", "measured")
            ]
            for row in ("all", "top")
        }
        real = estimates.findings.reals["arms"][Arm(threshold).name]["deviation"]
        if not counts["all"][1] or not real["measured"]:
            continue
        drawn, reals = wilson(*counts["all"]), wilson(real["strabismic"], real["measured"])
        shown.append("fewer" if drawn[1] < reals[0] else "more" if drawn[0] > reals[1] else "as many")
        kept = estimates.findings.study.study.kept
        parts.append(
            f"{heading(threshold)}: {share(*counts['all'])} of the drawn images, {share(*counts['top'])} of the top "
            f"{kept}, {share(real['strabismic'], real['measured'])} of held-out reals."
        )
    if not parts:
        return None
    same = set(shown)
    answer = (
        {"fewer": "yes", "more": "no, more do", "as many": CANNOT}[shown[0]] if len(same) == 1 else "it depends on SR"
    )
    limit = estimates.findings.study.study.strabismic
    parts.append(
        f"Measured on the pixels from {limit:g} prism dioptres on; on {known['n']} reals of this size the measurement "
        f"is off by {known['median_error']:.2g} PD (median), sensitivity {known['sensitivity']:.2f}, specificity "
        f"{known['specificity']:.2f}, {100 * known['not_measured']:.0f} % cannot be measured. Images that cannot be "
        "measured do not count; the intervals do not know how trainings differ."
    )
    return Conclusion("Do fewer generated images than real ones show strabismus?", answer, " ".join(parts))


def _scope(estimates: Estimates, scope: str) -> Conclusion | None:
    where = Where("equal", "held-out")
    first = estimates.findings.study.study.scopes[0]
    parts, verdicts = [], []
    for threshold in estimates.findings.images.thresholds:
        difference = estimates.difference(Arm(threshold), Arm(threshold, scope=scope), where, same_reals=True)
        if difference is not None:
            verdicts.append(difference.verdict)
            parts.append(
                f"{heading(threshold)}: {_value(estimates, Arm(threshold), where)} with scope {first}, "
                f"{_value(estimates, Arm(threshold, scope=scope), where)} with {scope}, {_interval(difference)}."
            )
    if not parts:
        return None
    words = {"lower": "yes", "higher": "no, worse"}
    answer = words.get(verdicts[0], CANNOT) if len(set(verdicts)) == 1 else "it depends on SR"
    text = f"{_named(estimates, 'frechet')} to held-out images. " + " ".join(parts)
    return Conclusion(f"Is the augment's scope {scope} better than {first}?", answer, text)
