"""Ratings by people: reading them from CSV files, checking them against the images, means and agreement."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gankit.errors import DataError
from gankit.evaluation.design import Estimate, variance_of_mean
from gankit.evaluation.uncertainty import wilson
from gankit.images.csv_table import read_csv
from gankit.ranking.key import Key, check_numbers, read_key
from gankit.registry.messages import shown

REAL, GENERATED = "real", "generated"
LONGEST_CELL = 1000
LARGEST = 1e100
"""Scores beyond it are mistakes, and their squares are beyond float64."""


@final
@dataclass(frozen=True)
class Rater:
    """One person's ratings.

    Attributes:
        name: of the person, or of the file.
        path: the file.
        scores: by image; larger is better.
        diagnoses: by image; "" for none.
        calls: by image, "real" or "generated"; "" for none.
        keys: the hashes of keys in the file's rows.
    """

    name: str
    path: Path
    scores: dict[str, float] = field(default_factory=dict)
    diagnoses: dict[str, str] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)


@final
@dataclass(frozen=True)
class Finding:
    """One number on the quality of ratings.

    Attributes:
        rater: whose ratings, or "all".
        what: what the number is.
        value: the number, or None where it is not defined.
        low: lower end of its 95 % interval, or None.
        high: upper end of the interval, or None.
        n: number of images that it was computed on.
    """

    rater: str
    what: str
    value: float | None
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        value = "is undefined" if self.value is None else f"{self.value:.3g}"
        interval = "" if self.low is None else f", 95 % interval {self.low:.2f} to {self.high:.2f}"
        who = "" if self.rater == "all" else f"{self.rater}: "
        return f"{who}{self.what} {value}{interval} (n = {self.n})"


def read_ratings(paths: Sequence[Path]) -> list[Rater]:
    """Ratings from CSV files with the columns `image` and `score`, and optionally `diagnosis`, `call`, `rater`, `key`.

    Without a column `rater`, all rows of a file are one rater's.

    Raises:
        DataError: a file cannot be read, a score is no number, an image comes twice; one line with file and line.
    """
    raters = [rater for path in paths for rater in _read(path)]
    names = [rater.name for rater in raters]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{twice[0]} is the rater of two files: give each rater's ratings once, or other names")
    return raters


def _read(path: Path) -> list[Rater]:
    table = read_csv(path, ("image", "file"), fold=str.casefold)
    columns = table.columns
    if "score" not in columns:
        raise DataError(f"{path} has no column `score`; its first line must name the columns: image,score,...")
    raters: dict[str, Rater] = {}
    for row, image in enumerate(columns["image"] if "image" in columns else columns["file"]):
        cells, where = {title: column[row] for title, column in columns.items()}, table.where(row)
        if long := [title for title, cell in cells.items() if len(cell) > LONGEST_CELL]:
            raise DataError(f"{where}: {long[0]} has more than {LONGEST_CELL} characters; shorten it")
        name = cells.get("rater") or path.stem
        rater = raters.setdefault(name, Rater(name, path))
        if image in rater.scores:
            raise DataError(f"{where}: {name} has rated image {image} twice")
        score = math.nan
        with contextlib.suppress(ValueError):
            score = float(cells["score"])
        if not abs(score) <= LARGEST:
            raise DataError(f"{where}: the score {shown(cells['score'])} is no number up to {LARGEST:g} in size")
        rater.scores[image] = score
        rater.diagnoses[image] = cells.get("diagnosis", "")
        rater.calls[image] = call = cells.get("call", "")
        if call not in (REAL, GENERATED, ""):
            raise DataError(f"{where}: the call {shown(call)} is neither {REAL} nor {GENERATED}")
        rater.keys.add(cells.get("key", ""))
    return list(raters.values())


def find_key(raters: Sequence[Rater], file: Path | None, folders: Sequence[Path]) -> Key | None:
    """The key whose hash the ratings name, or None for ratings without a page, which name images by their numbers.

    Args:
        raters: whose ratings are of one page.
        file: the key's file; if None, it is looked for.
        folders: where a `key.json` may be.

    Raises:
        DataError: ratings of several pages, or a key that is missing or was changed since the page was written.
        RunError: the file is no key, or a forged one.
    """
    digests = set().union(*(rater.keys for rater in raters))
    if len(digests) > 1:
        raise DataError("the ratings are of different pages, or lost their key: rank the ratings of one page at a time")
    [digest] = digests
    if not digest:
        if file is not None:
            raise DataError(f"--key {file}: the ratings name no key: leave it out")
        return None
    paths = [file] if file else [folder / "key.json" for folder in folders]
    keys = [(path, *read_key(path)) for path in paths if file or path.is_file()]
    for path, key, actual in keys:
        if actual == digest:
            check_numbers(key, path)
            return key
    if file or len(keys) == 1:
        path, _, actual = keys[0]
        raise DataError(
            f"{path} is not the key that the page was sealed with, or it was changed: its sha256 is {actual[:12]}..., "
            f"the ratings say {digest[:12]}..."
        )
    raise DataError(
        f"the key {digest[:12]}... of the ratings is not in {', '.join(str(folder) for folder in folders)}: "
        "give it by --key"
    )


def by_number(raters: Sequence[Rater], count: int) -> list[Rater]:
    """Ratings without a page: their images, named by number or file (12, 00012.png), become "0" to "count - 1".

    Raises:
        DataError: an image has another name.
    """
    renamed = []
    for rater in raters:
        names: dict[str, str] = {}
        for image in rater.scores:
            stem = Path(image).stem
            if not stem.isdecimal() or len(stem) > 18 or int(stem) >= count:
                raise _unknown(rater, image, f"the images are 0 to {count - 1}")
            if (name := str(int(stem))) in names.values():
                raise DataError(f"ratings {rater.path}: {rater.name} has rated image {name} twice")
            names[image] = name
        scores = {names[image]: score for image, score in rater.scores.items()}
        diagnoses, calls = (
            {names[image]: text for image, text in column.items()} for column in (rater.diagnoses, rater.calls)
        )
        renamed.append(replace(rater, scores=scores, diagnoses=diagnoses, calls=calls))
    return renamed


def _unknown(rater: Rater, image: str, known: str) -> DataError:
    return DataError(f"ratings {rater.path}: there is no image {shown(image)}; {known}")


def check_images(raters: Sequence[Rater], images: Sequence[str], with_calls: bool) -> None:
    """
    Raises:
        DataError: a rater left out an image, rated an unknown one, or left out a call that `with_calls` asks for.
    """
    for rater in raters:
        known = set(images)
        if strange := [image for image in rater.scores if image not in known]:
            raise _unknown(rater, strange[0], f"it is none of the {len(known)} of the key")
        for what, column in (("score", rater.scores), ("call", rater.calls if with_calls else rater.scores)):
            missing = [image for image in images if column.get(image, "") == ""]
            if missing:
                raise DataError(
                    f"ratings {rater.path}: {rater.name} gives no {what} for {len(missing)} of {len(images)} images, "
                    f"{missing[0]} first: rate all of them"
                )


def mean_scores(raters: Sequence[Rater], images: Sequence[str]) -> NDArray[np.float64]:
    """(n,) mean over raters of the scores of these images."""
    return np.asarray(np.mean([[rater.scores[image] for image in images] for rater in raters], axis=0))


def findings(
    raters: Sequence[Rater], images: Sequence[str], real: Sequence[bool], labels: Sequence[str]
) -> list[Finding]:
    """The raters' agreement, the share of real images recognised, and how often diagnosis and label are the same.

    Args:
        raters: who rated all images.
        images: names of the images.
        real: which of them are real.
        labels: the class that an image was drawn with, or that a real one has; "" where that is not known.
    """
    result: list[Finding] = []
    if len(raters) > 1:
        scores = [[rater.scores[image] for image in images] for rater in raters]
        alpha = krippendorff_alpha(scores, "interval")
        result.append(Finding("all", "Krippendorff's alpha of scores", alpha, None, None, len(images)))
        texts = [[rater.diagnoses[image].casefold() for image in images] for rater in raters]
        if any(text for row in texts for text in row):
            known = sorted({text for row in texts for text in row if text})
            codes = [[known.index(text) if text else math.nan for text in row] for row in texts]
            alpha = krippendorff_alpha(codes, "nominal")
            result.append(Finding("all", "Krippendorff's alpha of diagnoses", alpha, None, None, len(images)))
    for rater in raters:
        if any(real):
            for kind, what in ((True, "real images recognised"), (False, "generated images taken for real")):
                names = [image for image, is_real in zip(images, real, strict=True) if is_real is kind]
                result.append(_share(rater.name, what, [rater.calls[image] == REAL for image in names]))
        for kind, what in ((False, "generated images diagnosed as asked"), (True, "real images diagnosed as labelled")):
            same = [
                rater.diagnoses[image].casefold() == label.casefold()
                for image, is_real, label in zip(images, real, labels, strict=True)
                if is_real is kind and label and rater.diagnoses[image]
            ]
            if same:
                result.append(_share(rater.name, what, same))
    return result


def compare_sources(
    raters: Sequence[Rater],
    scores: NDArray[np.float64],
    images: Sequence[str],
    sources: Sequence[str],
    with_calls: bool,
) -> list[Finding]:
    """The mean score of each source's images, how far those of each later source lie above the first's, and calls.

    Intervals are Student's over images: they hold for these raters, and say nothing of others.

    Args:
        raters: who rated all images.
        scores: (n,) means over raters.
        images: n names of images.
        sources: n names of sources.
        with_calls: whether raters called images real or generated.
    """
    result: list[Finding] = []
    groups = {name: np.array([source == name for source in sources]) for name in dict.fromkeys(sources)}
    first = next(iter(groups))
    means = {
        name: Estimate(float(scores[of].mean()), {name: variance_of_mean(scores[of])}) for name, of in groups.items()
    }
    for name, mean in means.items():
        result.append(_estimated(f"mean score of {name}", mean, int(groups[name].sum())))
    for name in [name for name in groups if name != first]:
        difference = Estimate(means[name].value - means[first].value, {**means[name].parts, **means[first].parts})
        number = int(groups[name].sum() + groups[first].sum())
        result.append(_estimated(f"mean score of {name} less that of {first}", difference, number))
    for rater in raters if with_calls else ():
        for name, of in groups.items():
            calls = [rater.calls[image] == REAL for image, is_of in zip(images, of, strict=True) if is_of]
            result.append(_share(rater.name, f"images of {name} taken for real", calls))
    return result


def _estimated(what: str, estimate: Estimate, n: int) -> Finding:
    """A finding with its interval; without one where there is one image, or no score differs from another."""
    low, high = estimate.interval() if 0 < estimate.half_width() < math.inf else (None, None)
    return Finding("all", what, estimate.value, low, high, n)


def _share(rater: str, what: str, outcomes: list[bool]) -> Finding:
    k, n = sum(outcomes), len(outcomes)
    return Finding(rater, what, k / n, *wilson(k, n), n)


def krippendorff_alpha(ratings: ArrayLike, level: Literal["nominal", "interval"]) -> float | None:
    """Krippendorff's alpha: 1 for raters who agree, 0 for chance (Computing Krippendorff's Alpha-Reliability, 2011).

    Args:
        ratings: (raters, images) numbers, NaN where a rater has not rated an image.
        level: how two ratings are compared: "nominal" by whether they differ, "interval" by their squared difference.

    Returns:
        At most 1; None where no image has two ratings, or all ratings are equal.
    """
    table = np.asarray(ratings, dtype=np.float64)
    values = np.unique(table[~np.isnan(table)])
    counts = (table[:, :, None] == values).sum(0).astype(np.float64)  # (images, values)
    counts = counts[counts.sum(1) >= 2]
    if not len(counts):
        return None
    differences = values[:, None] - values
    distances = differences**2 if level == "interval" else (differences != 0).astype(np.float64)
    totals, raters = counts.sum(0), counts.sum(1)
    n = totals.sum()
    observed = float((np.einsum("ui,ij,uj->u", counts, distances, counts) / (raters - 1)).sum() / n)
    expected = float(totals @ distances @ totals / (n * (n - 1)))
    return None if expected == 0 else 1 - observed / expected
