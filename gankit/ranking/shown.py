"""The images of a source that people rate: drawn from a run, or chosen from a set of images."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gankit.errors import DataError, GankitError
from gankit.evaluation.entries import free_name
from gankit.evaluation.sources import Source, open_images, open_named, run_reference
from gankit.images.grey_levels import rescale
from gankit.interfaces import Dataset
from gankit.ranking.key import Origin
from gankit.runs.run import Run
from gankit.runs.sampling import label_texts, parse_label

COUNT = 100  # images of each source by default, as in the founding paper

Sources = Source | Sequence[Source]  # one source of images, or a list of several


@final
@dataclass(frozen=True)
class Opened:
    """A source: a run, or a set of images."""

    name: str
    source: Run | Dataset


@final
@dataclass(frozen=True)
class Side:
    """The n images that one source shows."""

    origin: Origin  # the source, for a key
    images: NDArray[Any]  # (n, c, h, w) in the data's type
    value_range: tuple[float, float]  # black and white of that type
    labels: tuple[str, ...]  # n texts, "" for an image that has no class and no conditions
    class_names: tuple[str, ...]  # all classes of the source's data
    conditioned: bool = False  # whether labels are the numbers of conditions, not classes
    files: tuple[str, ...] = ()  # n names of files within a set; empty where there are none

    def in_range_of(self, other: "Side") -> NDArray[Any]:
        """The (n, c, h, w) images in the type and range of another side's."""
        if (self.images.dtype, self.value_range) == (other.images.dtype, other.value_range):
            return self.images
        images = rescale(self.images.astype(np.float32), self.value_range, other.value_range)
        return np.asarray(np.rint(images) if other.images.dtype.kind == "u" else images).astype(other.images.dtype)


def open_sources(sources: Sources) -> list[Opened]:
    """Every source, opened.

    Raises:
        GankitError: one is no run and no set of images, or none is given.
    """
    listed = list(sources) if isinstance(sources, (list, tuple)) else [sources]
    if not listed:
        raise DataError("no source of images is given: give a run, or a folder of images")
    opened: list[Opened] = []
    for number, each in enumerate(listed, 1):
        name, source = open_named(each, f"images {number}")  # type: ignore[arg-type]
        if not isinstance(source, Run):
            source = open_images(source, name)
        name = source.path.absolute().name if isinstance(source, Run) else name
        opened.append(Opened(free_name(name, {other.name: other for other in opened}), source))
    return opened


def common_count(opened: Sequence[Opened], count: int | None) -> int:
    """How many images each source shows: `count`; where that is None 100, or as many as every source has."""
    if count is not None:
        return count
    return min([COUNT, *(len(each.source) for each in opened if isinstance(each.source, Dataset))])


def side(opened: Opened, count: int, seed: int, label: str | None) -> Side:
    """So many images of a source: those that a run draws, or those that the seed chooses from a set.

    The label is as of `gankit.rank`; only runs can be asked for one.

    Raises:
        GankitError: a set has fewer images, or is asked for a label.
    """
    source = opened.source
    if isinstance(source, Run):
        latents, labels = source.draw(count, parse_label(source, label), seed)
        origin = Origin(opened.name, hashlib.sha256(source.export_bytes()).hexdigest(), source.wants_best)
        texts = tuple(label_texts(source, labels) or [""] * count)
        images, names = source.decode(latents, labels), tuple(source.class_names)
        return Side(origin, images, source.value_range, texts, names, source.image.conditions > 0)
    if label is not None:
        raise DataError(
            f"label: {opened.name} is a set of images, and only a run can be asked for a label: leave it out"
        )
    chosen = open_images(source, opened.name, count=count, seed=seed)
    texts, files = class_texts(chosen, np.arange(count)), tuple(chosen.known.files)
    content = chosen.digest(np.arange(count))
    images, names = np.asarray(chosen.images), tuple(chosen.class_names)
    return Side(Origin(opened.name, content), images, chosen.value_range, texts, names, files=files)


def open_reals(opened: Sequence[Opened], against: Source | None) -> tuple[str, Dataset]:
    """The set that real images are mixed in from, and what to call it.

    `against` is whatever `gankit.evaluate` takes; None stands for the images of the first run. Of a run they are the
    held-out ones, or the training images if it has none.

    Raises:
        GankitError: no source is a run, or they cannot be opened.
    """
    run = next((each.source for each in opened if isinstance(each.source, Run)), None)
    if against is None:
        if run is None:
            raise GankitError("real: no run among the sources has real images: name those to mix in with --against")
        return run_reference(run)
    window = None if run is None else run.value_range
    name, source = open_named(against, "real images", window)
    return run_reference(source) if isinstance(source, Run) else (name, open_images(source, name, window=window))


def check_shapes(shapes: Sequence[tuple[str, tuple[int, ...]]]) -> None:
    """Refuse images whose shapes tell where they are from.

    Args:
        shapes: the name of each source, with the (channels, height, width) of its images.

    Raises:
        DataError: two sources differ.
    """
    (first, shape), *others = shapes
    if different := [(other, theirs) for other, theirs in others if theirs != shape]:
        other, theirs = different[0]
        raise DataError(
            f"{other}: its images are {' x '.join(map(str, theirs))} (channels, height, width), those of {first} "
            f"{' x '.join(map(str, shape))}, which would give them away; give one as a table with a size: "
            '{name = "folder", path = "...", size = [height, width], grey = false}'
        )


def class_texts(images: Dataset, indices: NDArray[np.int64]) -> tuple[str, ...]:
    """(k,) names of the classes of images; "" where they have none, or a run drew them with conditions."""
    labels, names = images.labels, images.class_names
    if labels is None or labels.ndim > 1 or not names:
        return ("",) * len(indices)
    return tuple(names[int(labels[index])] for index in indices)
