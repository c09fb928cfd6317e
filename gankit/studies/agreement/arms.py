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

FEWEST = 8  # Training images below which nothing is said of a set


@dataclass(frozen=True)
class Control:
    """What is trained on in place of the images that agreement keeps: as many, chosen otherwise."""

    words: str  # in tables
    # from the number of kept images and the training's seed to settings of the experiment's data table
    data: Callable[[int, int], dict[str, Any]]
    # from the number of all images, that of kept ones and the seed to (k,) rising places of those settings
    choose: Callable[[int, int, int], Indices]


CONTROLS = {
    "random-subset": Control("random subset", lambda kept, seed: {"subset": kept, "subset_seed": seed}, random_subset)
}


@dataclass(frozen=True)
class Arm(study.Arm):
    """One kind of training, of which seeds differ."""

    threshold: float  # share of raters below which images are left out; 0 keeps all
    control: str = ""  # which of `CONTROLS` takes the place of these images, or ""
    scope: str = ""  # of the augment, where it is not that of the study's other arms, else ""


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

    Distances at equal numbers compare `n` images a side: as many as the smallest set has.

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
        training, held_out = len(self.training_at(threshold)), len(self.held_out_at(threshold))
        leaves = f"study.thresholds: {threshold:g} leaves"
        for part, size, least in ("training", training, fewest), ("held-out", held_out, 4):
            if size < least:
                why = f"{size} {part} images of {data}; at least {least} are needed: take a lower one"
                raise DataError(f"{leaves} {why}")
        for name, before, left in zip(self.class_names, self.counts(0.0), self.counts(threshold), strict=True):
            if before and not left:
                why = f"no training image of class {name} (of {before}): take a lower one, or leave the class out"
                raise DataError(f"{leaves} {why}")

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
