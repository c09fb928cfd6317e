"""Ratings by people: the key that they name, checks against the images, means and agreement."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, final

import krippendorff
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gankit.errors import DataError
from gankit.evaluation.design import Estimate, Floats, variance_of_mean, wilson
from gankit.ranking.key import Key, check_numbers, read_key
from gankit.ranking.rating_files import REAL, Rater
from gankit.registry.messages import shown


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


def find_key(raters: Sequence[Rater], file: Path | None, folders: Sequence[Path]) -> Key | None:
    """The key whose hash the ratings name, or None for ratings without a page, which name images by their numbers.

    Without the key's file, a `key.json` in one of the folders is looked for.

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
    keys = [(path, *read_key(path, Key)) for path in paths if file or path.is_file()]
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
        "give it with --key"
    )


def by_number(raters: Sequence[Rater], count: int) -> list[Rater]:
    """Ratings without a page: their images, named by number or file (12, 00012.png), become "0" to "count - 1".

    Raises:
        DataError: an image has another name.
    """
    renamed = []
    for rater in raters:
        names: dict[str, str] = {}
        for image in rater.calls:
            stem = Path(image).stem
            if not stem.isdecimal() or len(stem) > 18 or int(stem) >= count:
                raise _unknown(rater, image, f"the images are 0 to {count - 1}")
            if (name := str(int(stem))) in names.values():
                raise DataError(f"ratings {rater.path}: {rater.name} has rated image {name} twice")
            names[image] = name
        columns: dict[str, Any] = {
            column: {names[image]: value for image, value in getattr(rater, column).items()}
            for column in ("scores", "diagnoses", "calls")
        }
        renamed.append(replace(rater, **columns))
    return renamed


def _unknown(rater: Rater, image: str, known: str) -> DataError:
    return DataError(f"ratings {rater.path}: there is no image {shown(image)}; {known}")


def check_images(raters: Sequence[Rater], images: Sequence[str], with_calls: bool) -> None:
    """Refuse ratings that do not fit these images.

    Raises:
        DataError: a rater left out an image, rated an unknown one, or left out a call that `with_calls` asks for.
    """
    for rater in raters:
        known = set(images)
        if strange := [image for image in rater.calls if image not in known]:
            raise _unknown(rater, strange[0], f"it is none of the {len(known)} of the key")
        columns: dict[str, Mapping[str, object]] = {"score": rater.scores}
        if with_calls:
            columns["call"] = rater.calls
        for what, column in columns.items():
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

    `images` are the names of the images, all of which every rater has rated. Labels are the classes that images were
    drawn with, or that real ones have; "" where that is not known.
    """
    result: list[Finding] = []
    if len(raters) > 1:
        scores = [[rater.scores[image] for image in images] for rater in raters]
        alpha = krippendorff_alpha(scores, "interval")
        result.append(Finding("all", "Krippendorff's alpha of scores", alpha, None, None, len(images)))
        codes = diagnosis_codes(raters, images)
        if not np.isnan(codes).all():
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


def diagnosis_codes(raters: Sequence[Rater], images: Sequence[str]) -> NDArray[np.float64]:
    """(raters, images) diagnoses as numbers, equal ones whatever their capitals; NaN where there is none."""
    texts = [[rater.diagnoses.get(image, "").casefold() for image in images] for rater in raters]
    known = sorted({text for row in texts for text in row if text})
    codes = [[known.index(text) if text else math.nan for text in row] for row in texts]
    return np.array(codes, np.float64).reshape(len(raters), len(images))


def compare_sources(
    raters: Sequence[Rater], scores: Floats, images: Sequence[str], sources: Sequence[str], with_calls: bool
) -> list[Finding]:
    """The mean score of each source's images, how far those of each later source lie above the first's, and calls.

    Intervals are Student's over images: they hold for these raters, and say nothing of others. The (n,) scores are
    means over raters, who rated all n images and, if `with_calls`, called each real or generated. `images` are n names;
    `sources` are n names too, one per image: that of its source.
    """
    groups = {name: np.array([source == name for source in sources]) for name in dict.fromkeys(sources)}
    first, *others = groups
    means = {
        name: Estimate(float(scores[of].mean()), {name: variance_of_mean(scores[of])}) for name, of in groups.items()
    }
    result = [_estimated(f"mean score of {name}", mean, int(groups[name].sum())) for name, mean in means.items()]
    for name in others:
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


def krippendorff_alpha(ratings: ArrayLike, level: Literal["nominal", "ordinal", "interval"]) -> float | None:
    """Krippendorff's alpha: 1 for raters who agree, 0 for chance (Computing Krippendorff's Alpha-Reliability, 2011).

    Ratings are (raters, images) numbers, NaN where a rater has not rated an image. Two of them are compared by whether
    they differ ("nominal"), how many ratings lie between them ("ordinal"), or their squared difference ("interval").
    Alpha is at most 1; it is None where no image has two ratings, or all ratings are equal.
    """
    table = np.asarray(ratings, dtype=np.float64)
    rated = ~np.isnan(table)
    paired = table[:, rated.sum(0) > 1]
    if len(np.unique(paired[~np.isnan(paired)])) < 2:
        return None
    return float(krippendorff.alpha(paired, level_of_measurement=level))
