"""What readers' answers say: how well they tell images apart, what they see in them, and how far they agree."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gankit.evaluation import detection
from gankit.evaluation.design import Floats
from gankit.ranking.rating_files import REAL, Rater
from gankit.ranking.ratings import diagnosis_codes, krippendorff_alpha
from gankit.studies.readers.answers import Answers, call_of, diagnosis_right, right_of_pair, score_of, side_of_pair
from gankit.studies.readers.blinding import Shown

ACCURACY, PAIRS_RIGHT, DIAGNOSED = "accuracy", "pairs right", "diagnosis right"


@dataclass(frozen=True)
class Question:
    """One thing that is measured of all readers."""

    name: str
    measure: detection.Measure
    value: Callable[[Rater, Shown], float]  # of one answer
    chance: float | None  # the value of readers who guess
    of_pairs: bool = False
    bounded: bool = True  # whether values are in [0, 1]
    # the kind that is told from the other; None where kinds do not count
    detects: Literal["real", "generated"] | None = None


QUESTIONS = (
    Question(ACCURACY, detection.accuracy, call_of, 0.5, detects="generated"),
    Question("d'", detection.discrimination, call_of, 0.0, bounded=False, detects="generated"),
    Question("AUC of scores", detection.area, score_of, 0.5, detects="real"),
    Question(PAIRS_RIGHT, detection.share, right_of_pair, 0.5, of_pairs=True),
    Question(DIAGNOSED, detection.share, diagnosis_right, None),
)


def judge(answers: Answers) -> dict[str, Any]:
    """Every measure of every source, of each reader and over all; agreement; and diagnoses by class."""
    sources = [name for name in answers.key.sources if name != REAL]
    findings = []
    for source in [*sources, REAL]:
        for question in QUESTIONS:
            if source != REAL or question.name == DIAGNOSED:
                findings += _finding(answers, question, source)
    return {
        "findings": findings,
        "verdicts": {source: _verdict(source, findings) for source in sources},
        "agreement": agreement(answers),
        "diagnoses": _diagnoses(answers),
    }


def _finding(answers: Answers, question: Question, source: str) -> list[dict[str, Any]]:
    """The entry of a measure of a source's images, and for right pairs one of d'; empty where nothing was answered."""
    wanted = {source} if question.detects is None else {source, REAL}
    images = [image for image in answers.shown_first(pairs=question.of_pairs) if image.source in wanted]
    if not images or not answers.raters:
        return []
    table = answers.table(images, question.value)
    if np.isnan(table).all():
        return []
    is_real = np.array([image.source == REAL for image in images])
    to_find = {"real": is_real, "generated": ~is_real, None: np.ones(len(images), bool)}[question.detects]
    found = detection.over_readers(question.measure, table, to_find, _patients(images))
    low, high = found.interval(question.bounded) or (None, None)
    entry = {
        "source": source, "what": question.name, "value": None if found.estimate is None else found.estimate.value,
        "low": low, "high": high, "chance": question.chance, "readers": found.readers,
        "cases": len(images), "independent": found.groups,
        "by_reader": {
            rater.name: None if math.isnan(value) else float(value)
            for rater, value in zip(answers.raters, found.by_reader, strict=True)
        },
    }  # fmt: skip
    return [entry, _discrimination(entry, table)] if question.name == PAIRS_RIGHT else [entry]


def _discrimination(pairs_right: dict[str, Any], table: Floats) -> dict[str, Any]:
    """The entry of d' from that of the share of right pairs; an infinite end of its interval is None.

    Shares are corrected for few answers, the ends of their interval are not: transformed as they are, they cover d' as
    often as the share. Readers who are always right may have any greater d', which a corrected end would deny.
    """

    def end(right: float | None) -> float | None:
        value = math.nan if right is None else float(detection.pair_discrimination(right))
        return value if math.isfinite(value) else None

    counts = (~np.isnan(table)).sum(1)
    by_reader = {
        name: None if value is None else float(detection.pair_discrimination(value, count))
        for (name, value), count in zip(pairs_right["by_reader"].items(), counts.tolist(), strict=True)
    }
    right, (low, high) = pairs_right["value"], (end(pairs_right[name]) for name in ("low", "high"))
    answers = sum(count for value, count in zip(by_reader.values(), counts.tolist(), strict=True) if value is not None)
    value = None if right is None else float(detection.pair_discrimination(right, answers))
    return {
        **pairs_right, "what": "d' of pairs", "value": value, "low": low, "high": high, "chance": 0.0,
        "by_reader": by_reader, "infinite": low is None and high is None and pairs_right["low"] is not None,
    }  # fmt: skip


def _patients(images: Sequence[Shown]) -> NDArray[np.str_]:
    """(n,) names that the images of one patient share; a pair has that of its real image."""
    names = []
    for image in images:
        picture = next((each for each in image.pictures if each.source == REAL), image.pictures[0])
        names.append(f"{picture.source} {f'patient {picture.patient}' if picture.patient else picture.number}")
    return np.array(names)


def _verdict(source: str, findings: Sequence[dict[str, Any]]) -> str:
    """What the interval of accuracy says, or that of pairs where there are no single images, in words."""
    known = {found["what"]: found for found in findings if found["source"] == source and found["low"] is not None}
    name = ACCURACY if ACCURACY in known else PAIRS_RIGHT
    if name not in known:
        return f"Nobody was asked often enough about the images of {source}"
    value, low, high = (known[name][key] for key in ("value", "low", "high"))
    if low > 0.5:
        words = f"Readers tell the images of {source} from real ones"
    elif high < 0.5:
        words = f"Readers take the images of {source} for real rather than the real ones"
    else:
        words = f"No evidence that readers tell the images of {source} from real ones"
    return f"{words}: {name} {value:.2f} [{low:.2f}, {high:.2f}]"


def agreement(answers: Answers) -> list[dict[str, Any]]:
    """How far readers agree with each other, and with themselves where something was shown twice."""
    rows: list[dict[str, Any]] = []
    ordinal, nominal = (functools.partial(krippendorff_alpha, level=level) for level in ("ordinal", "nominal"))
    singles, pairs = answers.shown_first(pairs=False), answers.shown_first(pairs=True)
    readers = len(answers.raters)
    if readers > 1:
        row = functools.partial(_agreement, "between readers")
        scores, calls = answers.table(singles, score_of), answers.table(singles, call_of)
        sides = answers.table(pairs, side_of_pair)
        rows += row("Krippendorff's alpha of scores (ordinal)", ordinal, scores, singles)
        rows += row("Fleiss' kappa of real or generated", detection.fleiss_kappa, calls, singles, readers)
        rows += row("Fleiss' kappa of pairs", detection.fleiss_kappa, sides, pairs, readers)
        codes = diagnosis_codes(answers.raters, [image.id for image in singles])
        rows += row("Krippendorff's alpha of diagnoses (nominal)", nominal, codes, singles)
    for place, rater in enumerate(answers.raters):
        for what, measure, value, of_pairs in (
            ("same call again", _same, call_of, False),
            ("same choice again", _same, right_of_pair, True),
            ("Krippendorff's alpha of scores given twice (ordinal)", ordinal, score_of, False),
        ):
            first, second = answers.shown_twice(pairs=of_pairs)
            twice = np.array([answers.table(images, value)[place] for images in (first, second)])
            rows += _agreement(rater.name, what, measure, twice, first)
    return rows


def _agreement(
    who: str,
    what: str,
    measure: Callable[[Floats], float | None],
    table: Floats,
    images: Sequence[Shown],
    needed: int = 2,
) -> list[dict[str, Any]]:
    """A row of the images that have `needed` answers or more in a (k, images) table; none without such an image."""
    enough = (~np.isnan(table)).sum(0) >= needed
    table, images = table[:, enough], [image for image, counts in zip(images, enough, strict=True) if counts]
    if not images:
        return []
    sources = [image.source for image in images]
    ends = detection.agreement_interval(measure, table, sources, _patients(images), measure is _same)
    low, high = ends or (None, None)
    return [{"who": who, "what": what, "value": measure(table), "low": low, "high": high, "n": len(images)}]


def _same(twice: Floats) -> float:
    """The share of (2, n) answers that are alike."""
    return float((twice[0] == twice[1]).mean())


def _diagnoses(answers: Answers) -> list[dict[str, Any]]:
    """How often images of each class are diagnosed as that class, all readers together, by source."""
    rows = []
    for source in answers.key.sources:
        for label in answers.key.classes:
            images = [
                image for image in answers.shown_first(pairs=False)
                if image.source == source and image.pictures[0].label.casefold() == label.casefold()
            ]  # fmt: skip
            table = answers.table(images, diagnosis_right)
            if count := int((~np.isnan(table)).sum()):
                rows.append({"source": source, "class": label, "images": len(images), "right": int(np.nansum(table)),
                             "diagnoses": count})  # fmt: skip
    return rows
