"""The images that readers see: real ones, and those of every source of generated ones."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from gankit.errors import DataError
from gankit.evaluation.sources import TRAINING, Drawn, Source, notes, open_images, open_named
from gankit.files import user_path
from gankit.interfaces import Dataset
from gankit.ranking.rating_files import REAL
from gankit.ranking.shown import Opened, check_shapes, class_texts, open_reals
from gankit.runs.run import Run

if TYPE_CHECKING:
    from gankit.studies.readers.study import ReadersStudy

Place = str | dict[str, Any]


@final
@dataclass(frozen=True)
class Picture:
    """Where an image comes from."""

    source: str  # "real", or the name of a source of generated images
    number: int  # its index there
    label: str  # the class that it was drawn with, or that a real one has; "" where there is none
    patient: str  # its group; "" where that is not known


@dataclass(frozen=True)
class SourceImages:
    """The images of a source."""

    images: Dataset
    what: str  # in words
    notes: list[str]  # what a reader of the numbers should know

    def pictures(self, source: str, numbers: NDArray[np.int64]) -> list[Picture]:
        """What is known of the (k,) images of these numbers; `source` is the name of this source."""
        groups = self.images.groups
        return [
            Picture(source, number, label, "" if groups is None else str(groups[number]))
            for number, label in zip(numbers.tolist(), class_texts(self.images, numbers), strict=True)
        ]


def open_sources(study: "ReadersStudy") -> dict[str, SourceImages]:
    """The real images and those of every source, all of one size and enough of them.

    Raises:
        GankitError: they cannot be opened, no real ones are named, sizes differ, or there are too few.
    """
    settings = study.settings
    named = _open_named(settings.generated)
    runs = [Opened(what, source) for what, source in named.values() if isinstance(source, Run)]
    opened = {REAL: _real_images(settings.real, runs)}
    of_each = settings.images + settings.pairs
    for name in settings.generated:
        what, source = named[name]
        if isinstance(source, Run):
            opened[name] = SourceImages(Drawn(source, of_each, study.experiment.training.seed), what, [])
        else:
            images = open_images(source, what)
            opened[name] = SourceImages(images, what, notes(images, what))
    check_shapes([(source.what, source.images.image.shape) for source in opened.values()])
    for name, of_source in opened.items():
        count = of_each
        if name == REAL:  # those rated one by one, and one in each pair
            count = settings.images + settings.pairs * len(settings.generated)
        if len(of_source.images) < count:
            raise DataError(
                f"readers: {count} images of {name} are to be shown, and {of_source.what} has "
                f"{len(of_source.images)}: lower readers.images or readers.pairs"
            )
    return opened


def _open_named(places: Mapping[str, Place]) -> dict[str, tuple[str, Source]]:
    """By name, what tables call each source, and the source.

    Runs are opened first, since the first of them says which values are black and white in files that do not say it.
    """
    named, window = dict[str, tuple[str, Source]](), None
    for name in sorted(places, key=lambda name: not _is_run(places[name])):
        what, source = open_named(places[name], name, window)
        named[name] = what, source
        if window is None and isinstance(source, Run):
            window = source.value_range
    return named


def _is_run(place: Place) -> bool:
    return isinstance(place, str) and os.path.isfile(user_path(place) / "experiment.toml")


def _real_images(place: Place | None, runs: Sequence[Opened]) -> SourceImages:
    """The real images at a place; by default those of the first run."""
    if place is None and not runs:
        raise DataError("readers.real: no real images are named, and no source is a run that has some; name a folder")
    what, images = open_reals(runs, place)
    remarks = notes(images, what)
    if what == TRAINING:
        remarks.append("the real images are training images, which the generator of their run has seen")
    return SourceImages(images, what, remarks)
