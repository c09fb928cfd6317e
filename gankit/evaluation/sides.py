"""The sets of images that an evaluation compares: generated, real and training images."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gankit.errors import GankitError, first_of
from gankit.evaluation import extraction
from gankit.evaluation.sources import (
    TRAINING,
    Source,
    Window,
    in_process,
    notes,
    open_images,
    open_named,
    run_data,
    run_reference,
    too_few,
)
from gankit.evaluation.statistics import Statistics
from gankit.interfaces import Dataset, Features, Pool, Rows
from gankit.runs.run import Run


@dataclass(frozen=True)
class Side:
    """One set of images, and what tables call it."""

    name: str
    images: Dataset

    def __post_init__(self) -> None:
        if len(self.images) < 2:
            raise too_few(self.name, len(self.images))

    @cached_property
    def content(self) -> str:
        """A hash of the images."""
        return self.images.digest()

    def facts(self, side: str) -> dict[str, Any]:
        """What the protocol says of the images, under names with `side` in them: "real" or "fake"."""
        images = self.images
        facts = {
            f"n_{side}": len(images),
            f"{side}_size": list(images.image.shape),
            f"{side}_range": list(images.value_range),
            f"{side}_content": self.content,
        }
        if images.groups is not None:
            facts[f"n_{side}_groups"] = len(np.unique(images.groups))
        return facts

    def rows(self, network: Features, needs: set[str]) -> Rows:
        """What metrics need of the images."""
        return extraction.rows(self.images, network, needs, name=self.name, content=self.content, shared=True)

    @cached_property
    def classes(self) -> set[str]:
        """The names of the classes that images are of; empty where they are not known."""
        known = self.images.known
        if known.labels is None or not known.class_names:
            return set()
        return {known.class_names[label] for label in np.unique(known.labels)}


@dataclass(frozen=True)
class Sides:
    """All sets of an evaluation."""

    fakes: Side
    reals: Side | Statistics
    training: Side | None  # None where they are not known, or not needed, or the reals are the same images
    reals_are_training: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) that the feature network is built for: the reals', unless these are statistics."""
        side = self.reals if isinstance(self.reals, Side) else self.fakes
        return side.images.image.shape

    @property
    def possible_originals(self) -> Side | None:
        """The images that the generator may have copied: training images where they are known, else the reals."""
        reals = self.reals if isinstance(self.reals, Side) else None
        return self.training or reals

    @property
    def kind_of_original(self) -> str:
        """What messages call an image of `possible_originals`."""
        return "training image" if self.training or self.reals_are_training else "real image"

    @property
    def held_out(self) -> Dataset | None:
        """The reals where the training images are known to be others, so that the generator has not seen them."""
        return self.reals.images if self.training and isinstance(self.reals, Side) else None

    def pool(self, network: Features, needs: set[str]) -> Pool:
        """What metrics need of all images."""
        if isinstance(self.reals, Statistics):
            real = Rows(statistics=self.reals.moments)
        else:
            training = self.training.rows(network, needs) if self.training and "training" in needs else None
            real = dataclasses.replace(self.reals.rows(network, needs), training=training)
        return Pool(real, self.fakes.rows(network, needs))

    def protocol(self) -> dict[str, Any]:
        """What a metrics file says of the images."""
        facts: dict[str, Any] = {"real": self.reals.name, "fake": self.fakes.name}
        if isinstance(self.reals, Side):
            facts |= self.reals.facts("real")
        else:
            content = self.reals.protocol.get("content")
            facts |= {"n_real": self.reals.moments.n, "real_size": None, "real_content": content}
        facts |= self.fakes.facts("fake")
        if self.training:
            facts |= {"training": self.training.name, "n_training": len(self.training.images)}
            facts["training_content"] = self.training.content
        return facts

    def warnings(self, needs: set[str]) -> list[str]:
        """What to know of the real images, and what limits a comparison with them; nothing for statistics."""
        if isinstance(self.reals, Statistics):
            return []
        warnings = notes(self.reals.images, self.reals.name)
        if "training" in needs and not self.training and not self.reals_are_training:
            warnings.append(
                f"no training images were given: copies are looked for among the real images ({self.reals.name}), so "
                "that copies of other training images are not found"
            )
        warnings += _differences(self.fakes, self.reals)
        if self.reals_are_training:
            warnings.append("the reference is the training images: a generator that only copies them would score best")
        return warnings


def _differences(fakes: Side, reals: Side) -> list[str]:
    """Differences between the sets that show without a look at any image."""
    differences = []
    fake_range, real_range = fakes.images.value_range, reals.images.value_range
    # Images of 8 bits have a range of their own, whatever the others' is.
    if fake_range != real_range and (0.0, 255.0) not in (fake_range, real_range):
        differences.append(
            f"black and white are {fake_range} in the generated images, but {real_range} in the real ones"
        )
    fake_size, real_size = (" x ".join(map(str, side.images.image.shape[1:])) for side in (fakes, reals))
    if fake_size != real_size:
        differences.append(
            f"the generated images are of {fake_size} pixels, the real ones of {real_size}: sharpness differs"
        )
    # Names of which none is shared are probably other names for the same classes.
    if fakes.classes & reals.classes and fakes.classes != reals.classes:
        differences.append(
            f"the generated images are of {first_of(sorted(fakes.classes))}, the real ones of "
            f"{first_of(sorted(reals.classes))}: compare like with like"
        )
    return differences


def open_sides(
    source: Source,
    fake_name: str,
    real: Source,
    training: Source | None,
    *,
    wants_training: bool,
    count: int | None,
    seed: int,
    window: Window,
) -> Sides:
    """Open all sets of an evaluation; raises as `evaluate`, whose arguments these are.

    Args:
        source: what is evaluated, as `open_named` returned it with its name.
        real: the real images; for a run its held-out images, or its training images where it has none.
        training: the training images, if they are given; else those of a run that is evaluated or stands for the reals.
        wants_training: whether a metric reads them. Those of a run that stands for the reals are opened in any case.
        count: images to draw from a run, None for as many as real ones; or to choose from a set, None for all.
    """
    reals, reference_run = open_reals(real, window)
    training_side = run = None
    if training is not None:
        name, given = open_named(training, "training", window)
        if isinstance(given, Run):  # stands for the images that it was trained on
            run = given
        else:
            training_side = Side(name, open_images(given, name, window=window))
    elif isinstance(reals, Side) and (wants_training or reference_run):
        run = source if isinstance(source, Run) else reference_run
        run = None if run is None or in_process(run) else run
    if run is not None:
        training_side = Side(TRAINING, run_data(run)[0])
    reals_are_training = bool(training_side and isinstance(reals, Side) and training_side.content == reals.content)
    if reals_are_training:
        training_side = None
    return Sides(_open_fakes(source, fake_name, reals, count, seed, window), reals, training_side, reals_are_training)


def open_reals(real: Source, window: Window) -> tuple[Side | Statistics, Run | None]:
    """The real images, or their statistics; and the run that stands for them, if one does. Raises as `evaluate`."""
    name, source = open_named(real, "real", window)
    if isinstance(source, Statistics):
        return source, None
    if isinstance(source, Run):
        return Side(*run_reference(source)), source
    return Side(name, open_images(source, name, window=window)), None


def _open_fakes(
    source: Source, name: str, reals: Side | Statistics, count: int | None, seed: int, window: Window
) -> Side:
    """The images to evaluate; from a run as many as there are real ones, unless a number is given."""
    if isinstance(source, Run) and count is None:
        count = reals.moments.n if isinstance(reals, Statistics) else len(reals.images)
        if count is None:
            raise GankitError(f"{reals.name} does not say how many images it describes: give count, the number to draw")
    return Side(name, open_images(source, name, count=count, seed=seed, window=window))
