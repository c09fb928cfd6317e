"""The blinded set: which images are shown, in which order, on which page; and the sealed key to what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from gankit.errors import DataError, RunError
from gankit.evaluation.copies import find_copies
from gankit.evaluation.sources import TRAINING, Drawn, notes, open_images, open_named
from gankit.files import refuse_nonempty, write_atomically, write_folder
from gankit.images.pictures import image_png, png_uri
from gankit.interfaces import Dataset
from gankit.ranking.key import Sealed, new_ids, new_secret, read_key
from gankit.ranking.page import page_text
from gankit.ranking.rating_files import REAL
from gankit.ranking.shown import Opened, check_shapes, class_texts, open_reals
from gankit.runs.run import Run

if TYPE_CHECKING:
    from gankit.studies.readers.study import ReadersStudy

KEY, SET, PAGE, IMAGES = "key.json", "for-readers", "page.html", "images"


@final
@dataclass(frozen=True)
class Picture:
    """Where an image comes from."""

    source: str  # "real", or the name of a source of generated images
    number: int  # its index there
    label: str  # the class that it was drawn with, or that a real one has; "" where there is none
    patient: str  # its group; "" where that is not known


@final
@dataclass(frozen=True)
class Shown:
    """What a reader sees at a time: one image, or a pair."""

    id: str  # on the page; it does not tell what is shown
    pictures: tuple[Picture, ...]  # one; or the left and the right one, of which one is real
    repeats: str | None  # the id of what it shows a second time; None the first time

    @property
    def is_pair(self) -> bool:
        """Whether two images are side by side."""
        return len(self.pictures) == 2

    @property
    def source(self) -> str:
        """The source of the image; of a pair that of its generated image."""
        return next((picture.source for picture in self.pictures if picture.source != REAL), REAL)

    @property
    def files(self) -> list[str]:
        """Names of its pictures' files."""
        return [f"{self.id}-{side}.png" for side in ("left", "right")] if self.is_pair else [f"{self.id}.png"]


@final
@dataclass(frozen=True)
class SetKey(Sealed):
    """What the page does not tell."""

    sources: dict[str, str]  # in words, what each source is
    classes: tuple[str, ...]  # among which readers choose
    images: tuple[Shown, ...]  # in the page's order


@dataclass(frozen=True)
class SourceImages:
    """The images of a source."""

    images: Dataset
    what: str  # in words
    notes: list[str]  # what a reader of the numbers should know

    def pictures(self, source: str, numbers: NDArray[np.int64]) -> list[Picture]:
        """What is known of the (k,) images of these numbers."""
        groups = self.images.groups
        labels = class_texts(self.images, numbers) if self.images.image.classes else [""] * len(numbers)
        return [
            Picture(source, number, label, "" if groups is None else str(groups[number]))
            for number, label in zip(numbers.tolist(), labels, strict=True)
        ]


def open_sources(study: ReadersStudy) -> dict[str, SourceImages]:
    """The real images and those of every source, all of one size and enough of them.

    Raises:
        GankitError: they cannot be opened, no real ones are named, sizes differ, or there are too few.
    """
    settings = study.settings
    named, runs = {}, list[Opened]()
    window = None  # of black and white: that of the first run, also for files that do not say it
    for name, place in settings.generated.items():
        what, source = open_named(place, name, window)
        named[name] = what, source
        if isinstance(source, Run):
            runs.append(Opened(what, source))
            window = runs[0].source.value_range
    if settings.real is None and not runs:
        raise DataError("readers.real: no real images are named, and no source is a run that has some; name a folder")
    what, reals = open_reals(runs, settings.real)
    remarks = notes(reals, what)
    if what == TRAINING:
        remarks.append("the real images are training images, which the generator of their run has seen")
    opened = {REAL: SourceImages(reals, what, remarks)}
    for name, (what, source) in named.items():
        if isinstance(source, Run):
            images: Dataset = Drawn(source, settings.images + settings.pairs, study.experiment.training.seed)
            opened[name] = SourceImages(images, what, [])
        else:
            images = open_images(source, what, window=window)
            opened[name] = SourceImages(images, what, notes(images, what))
    check_shapes([(source.what, source.images.image.shape) for source in opened.values()])
    for name, of_source in opened.items():
        count = settings.real_images if name == REAL else settings.images + settings.pairs
        if len(of_source.images) < count:
            raise DataError(
                f"readers: {count} images of {name} are to be shown, and {of_source.what} has "
                f"{len(of_source.images)}: lower readers.images or readers.pairs"
            )
    return opened


def _in_order(
    items: list[tuple[Picture, ...]], repeats: float, random: np.random.Generator
) -> list[tuple[tuple[Picture, ...], int | None]]:
    """Single images, or pairs, as they are shown; each with the place of the one that it repeats, or None.

    They are shuffled, and a share `repeats` of them is shown again: something of the first half in the second half.
    """
    shuffled = [items[place] for place in random.permutation(len(items))]
    half = (len(shuffled) + 1) // 2
    again = random.choice(half, min(half, round(repeats * len(shuffled))), replace=False).tolist() if shuffled else []
    first_half = [(item, None) for item in shuffled[:half]]
    second_half = [(item, None) for item in shuffled[half:]]
    second_half += [(shuffled[place][::-1], place) for place in again]  # the sides of a pair are exchanged
    return first_half + [second_half[place] for place in random.permutation(len(second_half))]


def seal_set(study: ReadersStudy, opened: Mapping[str, SourceImages]) -> SetKey:
    """A key with a new secret, which chooses and shuffles the images: first single ones, then pairs."""
    settings, secret = study.settings, new_secret()
    random = np.random.default_rng(int(secret, 16))
    chosen = {name: source.pictures(name, random.permutation(len(source.images))) for name, source in opened.items()}
    singles = [(picture,) for name in opened for picture in chosen[name][: settings.images]]
    reals = iter(chosen[REAL][settings.images :])
    pairs = []
    for name in settings.generated:
        for generated in chosen[name][settings.images : settings.images + settings.pairs]:
            real = next(reals)
            real_is_left = random.choice([-1, 1]) == 1
            pairs.append((real, generated) if real_is_left else (generated, real))
    parts = [_in_order(list(items), settings.repeats, random) for items in (singles, pairs)]
    ids, images = new_ids(secret, sum(map(len, parts))), list[Shown]()
    for part in parts:
        part_ids = ids[len(images) : len(images) + len(part)]
        images += [
            Shown(shown_id, pictures, None if repeated is None else part_ids[repeated])
            for shown_id, (pictures, repeated) in zip(part_ids, part, strict=True)
        ]
    classes = dict[str, str]()
    for name in (name for source in opened.values() for name in source.images.class_names):
        classes.setdefault(name.casefold(), name)  # readers choose between meanings, not spellings
    sources = {name: source.what for name, source in opened.items()}
    return SetKey(secret, sources, tuple(classes.values()), tuple(images))


def _copies(opened: Mapping[str, SourceImages], key: SetKey) -> list[str]:
    """Warnings of generated images that copy real ones of the set: no reader can tell these apart."""
    shown = {}
    for name, source in opened.items():
        numbers = {each.number for image in key.images for each in image.pictures if each.source == name}
        shown[name] = source.images.subset(sorted(numbers))
    return [
        f"{name}: {warning}" for name, images in shown.items() if name != REAL
        for warning in find_copies(images, shown[REAL], None, "real image")[1]
    ]  # fmt: skip


def export_set(study: ReadersStudy, job: Path) -> dict[str, Any]:
    """Write the key into the study's folder, and the page with the pictures into a folder for the readers.

    The page has the pixels, all of one codec, and random ids: no order, name or number tells what an image is without
    the key, whose hash stands on the page.

    Args:
        study: whose set it is.
        job: the job's own folder, which stays empty; the study's folder holds the folder of jobs.

    Returns:
        The hash of the key, and remarks on the sources.

    Raises:
        RunError: a set is there already.
    """
    folder = job.parent.parent
    refuse_nonempty(folder / SET, "readers may have it already; delete it, or choose another --out")
    opened = study.opened
    key = seal_set(study, opened)
    remarks = [note for source in opened.values() for note in source.notes] + _copies(opened, key)

    def png(picture: Picture) -> bytes:
        images = opened[picture.source].images
        return image_png(images.read(np.array([picture.number]))[0], images.value_range)

    def fill(new: Path) -> None:
        entries = []
        (new / IMAGES).mkdir()
        for shown in key.images:
            entry = {"id": shown.id}
            # "src" is the only or the left picture
            for page_key, name, picture in zip(("src", "right"), shown.files, shown.pictures, strict=False):
                content = png(picture)
                (new / IMAGES / name).write_bytes(content)
                entry[page_key] = png_uri(content)
            entries.append(entry)
        write_atomically(new / PAGE, page_text(key.digest, entries, key.classes, True))

    write_atomically(folder / KEY, key.content())
    write_folder(folder / SET, fill)
    return {"key": key.digest, "notes": remarks}


def open_key(folder: Path, digest: str) -> SetKey:
    """The key in a study's folder, whose hash was `digest` when it was sealed.

    Raises:
        RunError: it is missing, is no key, or was changed since.
    """
    path = folder / KEY
    key, actual = read_key(path, SetKey)
    if actual != digest:
        raise RunError(
            f"{path} was changed since the set was sealed ({actual[:12]}..., not {digest[:12]}...): restore it"
        )
    return key


def flow(key: SetKey) -> list[list[str]]:
    """How many images of each source were shown where, a header first."""
    rows = [["source", "what", "one by one", "in pairs", "shown again"]]
    for source, what in key.sources.items():
        singly = in_pairs = again = 0
        for shown in key.images:
            count = sum(picture.source == source for picture in shown.pictures)
            if shown.repeats:
                again += count
            elif shown.is_pair:
                in_pairs += count
            else:
                singly += count
        rows.append([source, what, str(singly), str(in_pairs), str(again)])
    return rows
