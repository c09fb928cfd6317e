"""Which of the founding paper's conclusions hold on a study's images: answers, and the numbers behind them.

`conclusions.html.j2` puts them into words.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gankit.studies.agreement.arms import Arm
from gankit.studies.agreement.contrasts import CANNOT, Difference, contrast
from gankit.studies.agreement.findings import Findings, Where
from gankit.studies.agreement.judging import DISTANCES


@dataclass(frozen=True)
class Conclusion:
    """A question with its answer."""

    question: str  # its key among the template's questions
    answer: str  # starts with "yes", "no" or "cannot be told"
    facts: Mapping[str, Any]  # what the template shows; where values are missing, the arms that lack them as `missing`


def conclusions(findings: Findings) -> list[Conclusion]:
    """Every conclusion that the arms of the study allow to check."""
    arms = findings.arms_of()
    lowest, highest = arms[0], arms[-1]
    found: list[Conclusion] = []
    if lowest != highest:
        ends, rises = [(lowest, highest)], "no, it rises"
        found += [
            _compare(findings, "falls", ends, Where("drawn", "all"), rises, same_reals=False),
            _compare(findings, "falls", ends, Where("equal", "held-out"), rises),
        ]
    for control in findings.study.settings.controls:
        control_arm = findings.arms_of(control)[-1]
        if control_arm in findings.arms():
            found += [
                _compare(findings, "control", [(control_arm, highest)], Where("equal", row), "no, it is farther")
                for row in ("held-out", "held-out-same")
            ]
    if lowest != highest:
        found += [_conclude_kept(findings, lowest, highest, row) for row in ("top", "bottom")]
    if findings.measurement is not None:
        found += [difference_from_reals(findings, row) for row in ("all", "top")]
    for scope in findings.study.settings.scopes[1:]:
        pairs = zip(arms, findings.arms_of(scope=scope), strict=True)
        trained = [pair for pair in pairs if all(map(findings.trials_of, pair))]
        where = Where("equal", "held-out")
        found.append(_compare(findings, "scope", trained, where, "no, it is farther", scope=scope))
    return found


def _join_answers(answers: Sequence[tuple[str, str]], form: str, separator: str) -> str:
    """From (name, answer) pairs: the one answer where all agree, else each in a form with {name} and {answer}."""
    if len({answer for _, answer in answers}) == 1:
        return answers[0][1]
    return separator.join(form.format(answer=answer, name=name) for name, answer in answers)


def _compare(
    findings: Findings, question: str, pairs: Sequence[tuple[Arm, Arm]], where: Where, if_higher: str, *,
    same_reals: bool = True, **facts: Any,
) -> Conclusion:  # fmt: skip
    """Whether the distance of the second arm of each pair is lower than that of the first, by each metric.

    `if_higher` is the answer where it is higher instead.
    """
    facts |= {"pairs": pairs, "where": where, "same_reals": same_reals}
    differences: dict[Where, Difference] = {}
    for at in (dataclasses.replace(where, metric=metric) for metric in DISTANCES):
        difference = contrast(findings, pairs, at, same_reals=same_reals)
        if difference is None:
            return _without_values(findings, question, [arm for pair in pairs for arm in pair], **facts)
        differences[at] = difference
    words = {"lower": "yes", "higher": if_higher, CANNOT: CANNOT}
    answers = [(findings.metric_name(at.metric), words[change.verdict]) for at, change in differences.items()]
    answer = _join_answers(answers, "{answer} by {name}", ", ")
    return Conclusion(question, answer, {**facts, "differences": differences})


def _without_values(findings: Findings, question: str, arms: Sequence[Arm], **facts: Any) -> Conclusion:
    """The conclusion where one of these arms has no value: those whose trainings failed, else the last, lack it."""
    failed = [arm for arm in arms if not findings.trials_of(arm)]
    return Conclusion(question, CANNOT, {**facts, "missing": failed or arms[-1:]})


def _conclude_kept(findings: Findings, lowest: Arm, highest: Arm, row: str) -> Conclusion:
    """Whether the distance of the best images rises with the threshold by more than that of random ones.

    For the worst images (`row` "bottom"), whether it falls by more. A "yes" needs two intervals without 0: that of the
    change, and that of the excess, the change beyond `kept` random images. Since both are needed, its level is that of
    one (an intersection-union test; Berger 1982, Technometrics 24:295).

    The excess is taken in each training, so that its interval allows for the error of what random images do. The real
    images' part is that of the change alone: rather too large, since they move chosen and random images alike.
    """
    kept, where, arms = findings.study.settings.kept, Where("drawn", row), (lowest, highest)
    expected, word = ("higher", "rise") if row == "top" else ("lower", "fall")
    facts = {"row": row, "word": word, "where": where, "pairs": [arms]}
    difference = contrast(findings, [arms], where, same_reals=False)
    excess = contrast(findings, [arms], dataclasses.replace(where, beyond_chance=True), same_reals=False)
    if difference is None or excess is None:
        return _without_values(findings, "kept", arms, **facts)
    if difference.verdict not in (expected, CANNOT):
        answer = f"no, it goes the other way by {abs(difference.value):.3g}"
    elif excess.verdict not in (expected, CANNOT):
        answer = f"no, by less than {kept} drawn at random"
    elif difference.verdict == CANNOT:
        answer = CANNOT
    elif excess.verdict == CANNOT:
        answer = f"{CANNOT}: it {word}s, but so may {kept} drawn at random"
    else:
        answer = "yes"
    return Conclusion("kept", answer, {**facts, "difference": difference, "excess": excess})


def difference_from_reals(findings: Findings, row: str) -> Conclusion:
    """Whether a smaller share of generated images than of real ones measures as positive, at each selection rate.

    The founding paper claims this. The interval of the difference follows from those of both shares (Newcombe 1998,
    Statistics in Medicine 17:873, method 10).
    """
    spread_known = findings.spread_of_shares(row)[1] > 0
    parts = [_share_difference(findings, arm, row, spread_known) for arm in findings.arms_of()]
    answers = []
    for part in parts:
        low, high = part["ends"] or (-1.0, 1.0)
        answers.append((part["arm"].words, CANNOT if low <= 0 <= high else "yes" if high < 0 else "no, more do"))
    return Conclusion("measured", _join_answers(answers, "{answer} at {name}", "; "), {"row": row, "parts": parts})


def _share_difference(findings: Findings, arm: Arm, row: str, spread_known: bool) -> dict[str, Any]:
    """The change of the share from real to generated images and, where trainings' spread is known, its interval."""
    fake, real = findings.count_measured(arm, row), findings.count_measured(arm, None)
    part: dict[str, Any] = {"arm": arm, "fake": fake, "real": real, "change": 0.0, "ends": None}
    if fake.measured and real.measured:
        fake_share, real_share = fake.positive / fake.measured, real.positive / real.measured
        part["change"] = change = fake_share - real_share
        if spread_known:
            fake_low, fake_high = findings.share_interval(arm, row)
            real_low, real_high = findings.share_interval(arm, None)
            below = math.hypot(fake_share - fake_low, real_high - real_share)
            above = math.hypot(fake_high - fake_share, real_share - real_low)
            part["ends"] = change - below, change + above
    return part
