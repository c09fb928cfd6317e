"""Ranking of generated images by the critic, realism, a classifier or people: the best and the worst."""

from dataclasses import astuple, dataclass, fields, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gankit.errors import GankitError, RunError, suggestion
from gankit.evaluation.sources import Source
from gankit.files import user_path, write_atomically, write_csv, write_folder
from gankit.images.pictures import grid_html, grid_png, save_image
from gankit.interfaces import Features
from gankit.metrics.precision_recall import realism_score
from gankit.ranking import ratings
from gankit.ranking.key import Key
from gankit.ranking.page import write_page
from gankit.ranking.rating_files import read_ratings
from gankit.ranking.ratings import Finding
from gankit.ranking.scores import Classifier, critic_scores, label_scores, realism_scores, wanted_classes
from gankit.ranking.shown import COUNT, Opened, Side, Sources, common_count, open_sources, side
from gankit.registry import Part
from gankit.runs.run import Run, open_run
from gankit.runs.sampling import label_texts, parse_label

__all__ = ["Finding", "Ranking", "rank", "realism_score", "write_page", "write_ranking"]

KEEP = 10  # images to keep by default, as in the founding paper (Kim, Joo and Kim)
WAYS = ("critic", "realism", "label", "ratings")


@final
@dataclass(frozen=True)
class Ranking:
    """Drawn images with their scores and order.

    Attributes:
        by: "critic", "realism", "label" or "ratings".
        images: (n, c, h, w) in the data's type, by number.
        value_range: black and white of that type.
        scores: (n,) by number; larger is better. Realism is infinity where an image equals a real one
            that the score uses.
        keep: how many images count as best, and as worst.
        seed: of the drawn images.
        labels: one text per image, "" where it has none.
        findings: the quality of people's ratings: agreement, real images recognised; sources compared.
        notes: remarks on the scores.
        sources: where each image is from, a run or a file; empty where all are from one run.
    """

    by: str
    images: NDArray[Any]
    value_range: tuple[float, float]
    scores: NDArray[np.float64]
    keep: int
    seed: int
    labels: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __repr__(self) -> str:
        kept = (("best", self.best), ("worst", self.worst))
        lines = [f"{name}:  " + ", ".join(f"{i} ({self.scores[i]:.4g})" for i in numbers) for name, numbers in kept]
        return "\n".join([*lines, *map(str, self.findings), *self.notes])

    def _repr_html_(self) -> str:
        grids = (grid_html(self.images[numbers], self.value_range) for numbers in (self.best, self.worst))
        return f"<pre>{escape(repr(self))}</pre>" + "<br>".join(grids)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(n,) numbers of the images, best first; of equal scores the smaller number first."""
        return np.argsort(-self.scores, kind="stable")

    @property
    def best(self) -> NDArray[np.int64]:
        """(keep,) numbers of the best images, best first."""
        return self.order[: self.keep]

    @property
    def worst(self) -> NDArray[np.int64]:
        """(keep,) numbers of the worst images, worst first."""
        return self.order[::-1][: self.keep]


def rank(
    run: Sources,
    count: int | None = None,
    keep: int = KEEP,
    by: str = "critic",
    *,
    seed: int | None = None,
    label: str | None = None,
    features: str | dict[str, Any] | Part | Features | None = None,
    real: Source | None = None,
    classifier: Classifier | None = None,
    key: str | Path | None = None,
) -> Ranking:
    """Draw images from a run and put them in order.

    Args:
        run: the run, or its folder. For ratings also other images, or a list of several sources: those that the page
            shows, in the same order.
        count: images to draw, 100 by default; for ratings of a page, as many as it showed.
        keep: how many images count as best, and as worst.
        by: "critic", the score of the critic of the run's newest checkpoint; "realism", the realism score (Kynkaanniemi
            et al. 2019) with respect to the run's held-out images, or training images if it has none; "label", a
            classifier's probability of the class that an image was drawn with; "ratings:A.csv,B.csv", the mean of
            people's scores.
        seed: of the drawn images, 0 by default; for ratings of a page, the page's seed.
        label: a class, or conditions as "1.5,0.2", to draw all images with. For by="label" and a run without labels:
            the class whose probability is the score.
        features: for realism; by default those of the run's evaluation.
        real: other real images for realism: whatever `gankit.evaluate` takes.
        classifier: for by="label": a TorchScript or `.pt2` file, features with class logits, or a function of
            (n, c, h, w) float32 images in [0, 255] that gives (n, classes) logits in the order of the run's classes, or
            of its own `class_names`.
        key: the key.json of a rating page, if it is neither in the ratings' folder nor in the run's.

    Raises:
        GankitError: an unknown `by`, more to keep than there are images, a missing classifier or key, ratings that do
            not fit the images.
    """
    way, _, files = by.partition(":")
    if way not in WAYS or bool(files) != (way == "ratings"):
        raise GankitError(f"by {by!r}: critic, realism, label or ratings:FILE.csv is needed; {suggestion(way, WAYS)}")
    for name, value, user in (("features", features, "realism"), ("real", real, "realism"),
                              ("classifier", classifier, "label"), ("key", key, "ratings")):  # fmt: skip
        if value is not None and way != user:
            raise GankitError(f"{name} is used only with 'by {user}', not with 'by {way}': leave it out")
    if way == "ratings":
        return _by_ratings(open_sources(run), files, count, keep, seed, label, None if key is None else user_path(key))
    if not isinstance(run, (Run, str, Path)):
        raise GankitError(
            f"by {way}: only images of a single run can be ranked like this: give a run, or rank by ratings"
        )
    opened = run if isinstance(run, Run) else open_run(run)
    number, seed = _checked(COUNT if count is None else count, keep), seed or 0
    # Without classes of its own a run draws no label: for by="label" it then names the class to score.
    draws_label = way != "label" or opened.image.conditional
    latents, labels = opened.draw(number, parse_label(opened, label) if draws_label else None, seed)
    texts = label_texts(opened, labels) or [""] * number
    notes: list[str] = []
    if way == "critic":
        images = opened.decode(latents, labels)
        scores, notes = critic_scores(opened, latents, labels)
    elif way == "realism":
        images = opened.decode(latents, labels)
        scores, notes = realism_scores(opened, images, features, real)
    elif classifier is None:
        raise GankitError("by label needs a classifier: give a TorchScript or .pt2 file, or in Python a function")
    else:
        wanted = wanted_classes(opened, labels, label, number)
        images, texts = opened.decode(latents, labels), [opened.class_names[k] for k in wanted]
        scores = label_scores(opened, images, wanted, classifier)
    return Ranking(way, images, opened.value_range, scores, keep, seed, tuple(texts), notes=tuple(notes))


def _checked(count: int, keep: int) -> int:
    """The number of images to draw, where so many can be ranked and so many of them kept."""
    if count < 1:
        raise GankitError(f"count: {count} images cannot be ranked: draw 1 or more")
    if not 1 <= keep <= count:
        raise GankitError(f"keep: {keep} of {count} images cannot be kept: keep 1 to {count}")
    return count


def _by_ratings(
    opened: list[Opened],
    files: str,
    count: int | None,
    keep: int,
    seed: int | None,
    label: str | None,
    key_file: Path | None,
) -> Ranking:
    listed = [files] if user_path(files).is_file() else files.split(",")  # a name may hold a comma
    paths = [user_path(part) for part in listed if part.strip()]
    if not paths:
        raise GankitError("by ratings: no file is named: give ratings:FILE.csv")
    raters = read_ratings(paths)
    key = ratings.find_key(raters, key_file, _places_of_keys(paths, opened))
    if key is None:
        if len(opened) > 1:
            raise GankitError("ratings without a page can be of one source of images only: give one source")
        number, seed = _checked(common_count(opened, count), keep), seed or 0
        raters = ratings.by_number(raters, number)
        sides = [side(opened[0], number, seed, label)]
        generated = names = [str(i) for i in range(number)]
        real_labels: dict[str, str] = {}
    else:
        sides, seed = _sides_of_page(opened, key, count, seed, label), key.seed
        _checked(len(key.generated), keep)
        generated, names = [shown.id for shown in key.generated], [shown.id for shown in key.images]
        real_labels = {shown.id: shown.label for shown in key.images if shown.real}
    # A diagnosis is a class, and cannot equal the numbers that an image was drawn with.
    drawn_with = ["" if each.conditioned else text for each in sides for text in each.labels]
    classes = dict(zip(generated, drawn_with, strict=True)) | real_labels
    ratings.check_images(raters, names, bool(real_labels))
    scores = ratings.mean_scores(raters, generated)
    found = ratings.findings(raters, names, [name in real_labels for name in names], [classes[name] for name in names])
    if len(sides) > 1:
        sources = [each.origin.name for each in sides for _ in each.labels]
        found += ratings.compare_sources(raters, scores, generated, sources, bool(real_labels))
    origins: tuple[str, ...] = ()
    if len(opened) > 1 or not isinstance(opened[0].source, Run):  # the file within the source, or the source alone
        origins = tuple(
            str(Path(each.origin.name, file)) for each in sides for file in each.files or ("",) * len(each.labels)
        )
    return Ranking(
        by="ratings",
        images=np.concatenate([each.in_range_of(sides[0]) for each in sides]),
        value_range=sides[0].value_range,
        scores=scores,
        keep=keep,
        seed=seed,
        labels=tuple(text for each in sides for text in each.labels),
        findings=tuple(found),
        notes=(f"the mean of {len(raters)} raters",) if len(raters) > 1 else (),
        sources=origins,
    )


def _places_of_keys(paths: list[Path], opened: list[Opened]) -> list[Path]:
    """Folders that may hold the key of a page: those of the ratings, and runs with the pages written into them."""
    runs = [each.source.path for each in opened if isinstance(each.source, Run)]
    of_runs = [folder for run in runs for folder in (run, *sorted(run.glob("rating-*")))]
    return [*dict.fromkeys(path.absolute().parent for path in paths), *of_runs]


def _sides_of_page(
    opened: list[Opened], key: Key, count: int | None, seed: int | None, label: str | None
) -> list[Side]:
    """The images of a page that are not real, made again."""
    per_source = len(key.generated) // len(key.sources)
    for name, value, of_page in (("count", count, per_source), ("seed", seed, key.seed), ("label", label, key.label)):
        if value is not None and value != of_page:
            raise GankitError(f"{name}: the rating page was made with {of_page}, not with {value}: leave it out")
    if len(opened) != len(key.sources):
        names = ", ".join(origin.name for origin in key.sources)
        raise GankitError(f"the rating page shows images of {len(key.sources)} sources: give {names}, in this order")
    sides = []
    for one, origin in zip(opened, key.sources, strict=True):
        if isinstance(one.source, Run) and one.source.wants_best != origin.best:
            one = replace(one, source=open_run(one.source.path, best=origin.best))
        sides.append(side(one, per_source, key.seed, key.label))
        if sides[-1].origin.content == origin.content:
            continue
        if isinstance(one.source, Run):
            raise RunError(
                f"{one.source.path}: its generator is not the one of the rated images (run {origin.name}): it was "
                "trained further, or belongs to another run; give the run of the page"
            )
        raise RunError(
            f"{one.name}: its images are not the rated ones (of {origin.name}): give the sources of the page, in order"
        )
    return sides


def write_ranking(ranking: Ranking, folder: Path) -> Path:
    """Write ranking.csv, the best and worst images as files and in grids, and findings.csv if there are findings.

    The folder appears only when it is complete.

    Args:
        ranking: from `rank`.
        folder: to write; it must not exist, or be empty.

    Raises:
        RunError: the folder holds something.
    """

    def fill(new: Path) -> None:
        files: dict[int, str] = {}
        for name, numbers in (("worst", ranking.worst), ("best", ranking.best)):
            (new / name).mkdir()
            for number in numbers.tolist():
                path = save_image(new / name / f"{number:05d}", ranking.images[number])
                files[number] = path.relative_to(new).as_posix()
            write_atomically(new / f"{name}.png", grid_png(ranking.images[numbers], ranking.value_range))
        header = ["rank", "image", "file", "score", "label", "seed", *(["source"] if ranking.sources else [])]
        rows = [
            [rank, number, files.get(number, ""), float(ranking.scores[number]), ranking.labels[number], ranking.seed,
             *ranking.sources[number : number + 1]]
            for rank, number in enumerate(ranking.order.tolist(), 1)
        ]  # fmt: skip
        write_csv(new / "ranking.csv", [header, *rows])
        if ranking.findings:
            titles = [column.name for column in fields(Finding)]
            write_csv(new / "findings.csv", [titles, *map(astuple, ranking.findings)])

    return write_folder(folder, fill)
