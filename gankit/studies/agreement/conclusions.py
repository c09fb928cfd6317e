"""Which of the founding paper's conclusions hold on a study's images: answers, and the numbers behind them.

`conclusions.html.j2` has the words.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gankit.studies.agreement.arms import Arm
from gankit.studies.agreement.findings import CANNOT, METRICS, Difference, Findings, Where


@dataclass(frozen=True)
class Conclusion:
    """A question with its answer."""

    question: str  # the macro of the template that has its words
    answer: str  # starts with "yes", "no" or "cannot be told"
    facts: Mapping[str, Any]  # what the template shows; in place of numbers `missing`, the arms that have no values


def conclusions(findings: Findings) -> list[Conclusion]:
    """Everything that the study can say of the paper's conclusions."""
    arms = findings.arms_of()
    lowest, highest = arms[0], arms[-1]
    answers: list[Conclusion] = []
    if lowest != highest:
        ends, rises = [(lowest, highest)], "no, it rises"
        answers += [
            _compare(findings, "falls", ends, Where("drawn", "all"), rises, same_reals=False),
            _compare(findings, "falls", ends, Where("equal", "held-out"), rises),
        ]
    for control in findings.study.settings.controls:
        other = findings.arms_of(control)[-1]
        if other in findings.arms():
            answers += [
                _compare(findings, "control", [(other, highest)], Where("equal", row), "no, it is farther")
                for row in ("held-out", "held-out-same")
            ]
    if lowest != highest:
        answers += [_conclude_kept(findings, lowest, highest, row) for row in ("top", "bottom")]
    if findings.measurement is not None:
        answers += [difference_from_reals(findings, row) for row in ("all", "top")]
    for scope in findings.study.settings.scopes[1:]:
        both = zip(arms, findings.arms_of(scope=scope), strict=True)
        pairs, where = [pair for pair in both if all(map(findings.trials_of, pair))], Where("equal", "held-out")
        answers.append(_compare(findings, "scope", pairs, where, "no, it is farther", scope=scope))
    return answers


def _join_answers(answers: Sequence[tuple[str, str]], form: str, separator: str) -> str:
    """From (name, answer) pairs the one answer where all agree, else each with its name."""
    if len({answer for _, answer in answers}) == 1:
        return answers[0][1]
    return separator.join(form.format(answer=answer, name=name) for name, answer in answers)


def _compare(
    findings: Findings, question: str, pairs: Sequence[tuple[Arm, Arm]], where: Where, if_higher: str, *,
    same_reals: bool = True, **facts: Any,
) -> Conclusion:  # fmt: skip
    """Whether the second arms' distance is lower than the first arms', by each metric; `if_higher` is the answer no."""
    facts |= {"pairs": pairs, "where": where, "same_reals": same_reals}
    differences: dict[Where, Difference] = {}
    for at in (dataclasses.replace(where, metric=metric) for metric in METRICS):
        difference = findings.contrast(pairs, at, same_reals=same_reals)
        if difference is None:
            return _missing(findings, question, [arm for pair in pairs for arm in pair], **facts)
        differences[at] = difference
    words = {"lower": "yes", "higher": if_higher, CANNOT: CANNOT}
    answers = [(findings.metric_name(at.metric), words[change.verdict]) for at, change in differences.items()]
    return Conclusion(
        question, _join_answers(answers, "{answer} by {name}", ", "), {**facts, "differences": differences}
    )


def _missing(findings: Findings, question: str, arms: Sequence[Arm], **facts: Any) -> Conclusion:
    without = [arm for arm in arms if not findings.trials_of(arm)]
    return Conclusion(question, CANNOT, {**facts, "missing": without or arms[-1:]})


def _conclude_kept(findings: Findings, lowest: Arm, highest: Arm, row: str) -> Conclusion:
    """Whether the best (worst) few change by more than as few random ones would."""
    kept, where, arms = findings.study.settings.kept, Where("drawn", row), (lowest, highest)
    sign, word = (1, "rise") if row == "top" else (-1, "fall")
    facts = {"row": row, "word": word, "where": where, "pairs": [arms]}
    values = [value for arm in arms if (value := findings.estimate(arm, where)) is not None]
    noise = [chance for arm in arms if (chance := findings.chance(arm, "frechet")) is not None]
    difference = findings.contrast([arms], where, same_reals=False)
    if difference is None or len(noise) < 2:
        return _missing(findings, "kept", arms, **facts)
    by_chance, half = noise[1][0] - noise[0][0], (difference.high - difference.low) / 2
    if difference.verdict == CANNOT:
        answer = CANNOT
    elif sign * difference.value < 0:
        answer = f"no, it goes the other way by {abs(difference.value):.3g}"
    else:
        more = sign * (difference.value - by_chance) > half
        answer = "yes" if more else f"yes, but no more than {kept} drawn at random {word}"
    places = [(end.value - mean) / sd if sd else 0.0 for end, (mean, sd) in zip(values, noise, strict=True)]
    numbers = {"difference": difference, "noise": noise, "by_chance": by_chance, "places": places}
    return Conclusion("kept", answer, {**facts, **numbers})


def difference_from_reals(findings: Findings, row: str) -> Conclusion:
    """Whether few samples are positive, as the paper says: fewer than real images, at each selection rate.

    The interval of the difference is of the intervals of both shares (Newcombe 1998, Statistics in Medicine 17:873,
    method 10).
    """
    trainings_known = findings.spread_of_shares(row)[1] > 0
    parts, answers = [], []
    for arm in findings.arms_of():
        fake, real = findings.count_measured(arm, row), findings.count_measured(arm, None)
        change, ends, answer = 0.0, None, CANNOT
        if fake[1] and real[1]:
            of_fake, of_real = fake[0] / fake[1], real[0] / real[1]
            change = of_fake - of_real
            if trainings_known:
                (low, high), (real_low, real_high) = (findings.share_interval(arm, of) for of in (row, None))
                ends = (change - math.hypot(of_fake - low, real_high - of_real),
                        change + math.hypot(high - of_fake, of_real - real_low))  # fmt: skip
                answer = "yes" if ends[1] < 0 else "no, more do" if ends[0] > 0 else CANNOT
        parts.append({"arm": arm, "fake": fake, "real": real, "change": change, "ends": ends})
        answers.append((arm.words, answer))
    return Conclusion("measured", _join_answers(answers, "{answer} at {name}", "; "), {"row": row, "parts": parts})
