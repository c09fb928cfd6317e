"""The ratings in a study's folder, checked against its set: what does not fit is an error, and never dropped."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np

from gankit.errors import DataError, first_of
from gankit.evaluation.design import Floats
from gankit.ranking.rating_files import GENERATED, LEFT, REAL, RIGHT, Rater, read_ratings
from gankit.registry.messages import shown
from gankit.studies.readers.blinding import SetKey, Shown

RATINGS = "ratings"
SCORES = range(1, 6)  # the scores that the page offers


def read_answers(folder: Path, key: SetKey) -> "Answers":
    """The ratings of all files in a study's folder of ratings; no reader where there is none.

    Raises:
        DataError: a file that holds no ratings of this set, a reader who comes twice, or an answer that the page cannot
            give.
    """
    paths = sorted(path for path in (folder / RATINGS).glob("*") if not path.name.startswith("."))
    if strange := [path for path in paths if path.suffix.casefold() not in (".csv", ".json") or not path.is_file()]:
        raise DataError(f"{strange[0]} is not a CSV or JSON file of ratings: move it out of this folder")
    raters = read_ratings(paths, (REAL, GENERATED, LEFT, RIGHT))
    images = {image.id: image for image in key.images}
    for rater in raters:
        if foreign := sorted(rater.keys - {key.digest, ""}):
            raise DataError(
                f"{rater.path}: these ratings are of another set (key {shown(foreign[0][:12])}, here "
                f"{key.digest[:12]}): move the file out of this folder"
            )
        for name in rater.calls:
            if name not in images:
                raise DataError(f"{rater.path}: there is no image {shown(name)} among the {len(images)} of this set")
            if mistake := _mistake(rater, images[name]):
                raise DataError(f"{rater.path}: {name} {mistake}")
    return Answers(key, tuple(raters))


def _mistake(rater: Rater, image: Shown) -> str:
    """What is wrong with an answer that the page cannot give; "" for one that it can."""
    call, score, diagnosis = rater.calls[image.id], rater.scores.get(image.id), rater.diagnoses[image.id]
    what, calls = ("a pair", (LEFT, RIGHT)) if image.is_pair else ("one image", (REAL, GENERATED))
    if call not in (*calls, ""):
        return f"is {what}, for which {shown(call)} is not a possible call"
    if image.is_pair and (not call or score is not None or diagnosis):
        return f"is a pair: give the call {LEFT} or {RIGHT}, and nothing else"
    if score is not None and score not in SCORES:
        return f"has the score {score:g}, which is none of 1, 2, 3, 4 and 5"
    return ""


@final
@dataclass(frozen=True)
class Answers:
    """What readers said of the images of a set."""

    key: SetKey
    raters: tuple[Rater, ...]

    def table(self, images: Sequence[Shown], value: Callable[[Rater, Shown], float]) -> Floats:
        """(readers, images) values."""
        rows = [[value(rater, image) for image in images] for rater in self.raters]
        return np.array(rows, np.float64).reshape(len(self.raters), len(images))

    def shown_first(self, *, pairs: bool) -> list[Shown]:
        """The single images, or the pairs, where they are shown for the first time."""
        return [image for image in self.key.images if image.repeats is None and image.is_pair == pairs]

    def shown_twice(self, *, pairs: bool) -> tuple[list[Shown], list[Shown]]:
        """The single images, or the pairs, that are shown twice: their first and their second showings."""
        by_id = {image.id: image for image in self.key.images}
        second = [image for image in self.key.images if image.repeats is not None and image.is_pair == pairs]
        return [by_id[str(image.repeats)] for image in second], second

    @cached_property
    def answered(self) -> list[int]:
        """How many images and pairs each reader answered in full."""
        return [sum(self._is_answered(rater, image) for image in self.key.images) for rater in self.raters]

    def _is_answered(self, rater: Rater, image: Shown) -> bool:
        """Whether a reader answered every question that the page asks of an image or pair."""
        is_called = bool(rater.calls.get(image.id))
        is_diagnosed = not self.key.classes or bool(rater.diagnoses.get(image.id))
        return is_called and (image.is_pair or (image.id in rater.scores and is_diagnosed))

    def notes(self) -> list[str]:
        """Who answered only in part, and which readers gave the same answers to everything."""
        whole = len(self.key.images)
        remarks = [
            f"{rater.name} answered {count} of {whole}, and counts with these"
            for rater, count in zip(self.raters, self.answered, strict=True) if count < whole
        ]  # fmt: skip
        alike: dict[str, list[str]] = {}
        for rater in self.raters:
            said = sorted((i, call, rater.scores.get(i), rater.diagnoses[i]) for i, call in rater.calls.items())
            alike.setdefault(repr(said), []).append(rater.name)
        twins = [names for names in alike.values() if len(names) > 1]
        return remarks + [f"{first_of(names)} gave the same answers to everything: one file twice?" for names in twins]


def call_of(rater: Rater, image: Shown) -> float:
    """1 for generated, 0 for real; NaN without a call."""
    return {GENERATED: 1.0, REAL: 0.0}.get(rater.calls.get(image.id, ""), math.nan)


def score_of(rater: Rater, image: Shown) -> float:
    """How real the image looked; NaN without a score."""
    return rater.scores.get(image.id, math.nan)


def right_of_pair(rater: Rater, image: Shown) -> float:
    """1 where the reader chose the real one of a pair, else 0; NaN without a call."""
    side = side_of_pair(rater, image)
    return side if math.isnan(side) else float(image.pictures[int(side)].source == REAL)


def side_of_pair(rater: Rater, image: Shown) -> float:
    """1 where the reader chose the right one of a pair, 0 for the left one; NaN without a call."""
    return {LEFT: 0.0, RIGHT: 1.0}.get(rater.calls.get(image.id, ""), math.nan)


def diagnosis_right(rater: Rater, image: Shown) -> float:
    """1 where the diagnosis is the label, else 0; NaN where one of them is missing."""
    diagnosis, label = rater.diagnoses.get(image.id, ""), image.pictures[0].label
    return float(diagnosis.casefold() == label.casefold()) if diagnosis and label else math.nan
