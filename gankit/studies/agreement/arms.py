"""The arms of a study of rater agreement, and the images that each of them is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from gankit.errors import DataError
from gankit.experiments.selection import random_subset, select_images
from gankit.interfaces import Dataset, Indices
from gankit.studies import study

if TYPE_CHECKING:
    from gankit.studies.agreement.study import Agreement

FEWEST, FEWEST_HELD_OUT = 8, 4  # Training images, and held-out ones, below which nothing is said of a set


@dataclass(frozen=True)
class Control:
    """What is trained on in place of the images that agreement keeps: as many, chosen otherwise."""

    words: str  # in tables
    # from the number of kept images and the training's seed to settings of the experiment's `data` table
    data: Callable[[int, int], dict[str, Any]]
    # from the numbers of all and of kept images and the seed to the (k,) places, rising, that these settings choose
    choose: Callable[[int, int, int], Indices]


CONTROLS = {
    "random-subset": Control("random subset", lambda kept, seed: {"subset": kept, "subset_seed": seed}, random_subset)
}


@dataclass(frozen=True)
class Arm(study.Arm):
    """One kind of training, of which seeds differ."""

    threshold: float  # share of raters below which images are left out; 0 keeps all
    control: str = ""  # which of `CONTROLS` takes the place of these images, or ""
    scope: str = ""  # of the augment; "" for that of the study's other arms


def arm_at(threshold: float, control: str = "", scope: str = "") -> Arm:
    """The arm of a threshold, with its name and words."""
    name = "-".join([f"sr{percent(threshold)}", *filter(None, (control, scope))])
    words = ", ".join([heading(threshold), *filter(None, (control and CONTROLS[control].words, scope))])
    return Arm(name, words, threshold, control, scope)


def percent(threshold: float) -> str:
    """A selection rate as in the founding paper: 0.6 is 60."""
    return f"{100 * threshold:g}"


def heading(threshold: float) -> str:
    """A column of the founding paper's second table."""
    return f"SR:{percent(threshold)}" if threshold else "All(SR:0)"


@final
class StudyImages:
    """The images of a study: the training part, the held-out part, and what each threshold leaves of them.

    Attributes:
        full: the training part.
        held_out: the held-out part.
        thresholds: as in the settings.
        n: images on each side of a distance at equal numbers, as many as there are in the smallest set.

    Raises:
        DataError: raters' agreement is not known, or a threshold leaves too few images, or none of a class.
    """

    def __init__(self, study: Agreement) -> None:
        data = study.experiment.data
        table = data.model_copy(update={"split_seed": study.split_seed})
        self.full, held_out = select_images(table, study.experiment.training.seed)
        assert held_out is not None  # check_settings asks for some
        self.held_out = held_out
        self.thresholds = study.settings.thresholds
        if self.full.agreement is None and self.thresholds != [0.0]:
            raise DataError(
                f"study.thresholds: {data.name} knows no raters' agreement, so there is nothing to choose images by: "
                "give a column `agreement` or the raters' votes (docs: Use your own images)"
            )
        for threshold in self.thresholds:
            self._check(threshold, data.name, max(FEWEST, study.settings.kept))
        self.n = min(len(part) for t in self.thresholds for part in (self.training_at(t), self.held_out_at(t)))

    def _check(self, threshold: float, data: str, fewest: int) -> None:
        """Refuse a threshold that leaves too few images, or none of a class that has some."""
        leaves = f"study.thresholds: {threshold:g} leaves"
        training, held_out = self.training_at(threshold), self.held_out_at(threshold)
        for part, places, least in ("training", training, fewest), ("held-out", held_out, FEWEST_HELD_OUT):
            if len(places) < least:
                needed = f"at least {least} are needed: take a lower one"
                raise DataError(f"{leaves} {len(places)} {part} images of {data}; {needed}")
        for name, before, left in zip(self.class_names, self.counts(0.0), self.counts(threshold), strict=True):
            if before and not left:
                advice = "take a lower one, or leave the class out"
                raise DataError(f"{leaves} no training image of class {name} (of {before}): {advice}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """One for each class; "images" where there are no classes."""
        return self.full.class_names if self.full.labels is not None else ("images",)

    def counts(self, threshold: float) -> list[int]:
        """Training images of each class that a threshold leaves."""
        places = self.training_at(threshold)
        labels = np.zeros(len(self.full), np.int64) if self.full.labels is None else self.full.labels
        counts: list[int] = np.bincount(labels[places], minlength=len(self.class_names)).tolist()
        return counts

    def training_at(self, threshold: float) -> Indices:
        """(k,) places in `full` of the training images of this agreement or more."""
        return _at_least(self.full, threshold)

    def held_out_at(self, threshold: float) -> Indices:
        """(k,) places in `held_out` of the images of this agreement or more."""
        return _at_least(self.held_out, threshold)

    def training_of(self, arm: Arm, seed: int) -> Indices:
        """(k,) places in `full` of the images that a training is on; each seed draws its own images of a control."""
        kept = self.training_at(arm.threshold)
        return CONTROLS[arm.control].choose(len(self.full), len(kept), seed) if arm.control else kept


def _at_least(dataset: Dataset, threshold: float) -> Indices:
    if dataset.agreement is None or not threshold:
        return np.arange(len(dataset))
    return np.flatnonzero(dataset.agreement >= threshold - 1e-9)
