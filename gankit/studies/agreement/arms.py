"""The arms of a study of rater agreement, and the images that each of them is trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np

from gankit.errors import DataError
from gankit.experiments.selection import random_subset, select_images
from gankit.interfaces import Indices
from gankit.studies import study
from gankit.studies.labelled import agreed_places

if TYPE_CHECKING:
    from gankit.studies.agreement.study import Agreement

FEWEST_TRAINING, FEWEST_HELD_OUT = 8, 4  # images that each threshold must leave


@dataclass(frozen=True)
class Control:
    """A choice of as many training images as a threshold leaves, but not by agreement."""

    words: str  # in tables
    # (number of images, training's seed) -> settings of the experiment's table `data` that make the choice
    data: Callable[[int, int], dict[str, Any]]
    # (number of all images, number of images, training's seed) -> the rising places that these settings choose, (k,)
    choose: Callable[[int, int, int], Indices]


CONTROLS = {
    "random-subset": Control("random subset", lambda kept, seed: {"subset": kept, "subset_seed": seed}, random_subset)
}


@dataclass(frozen=True)
class Arm(study.Arm):
    """Trainings that differ in nothing but their seeds."""

    threshold: float  # share of raters below which an image is left out; 0 keeps all
    control: str = ""  # the key in `CONTROLS` of what chooses as many images instead; "" where the threshold chooses
    scope: str = ""  # the augment's; "" for the first of the study's scopes


def arm_at(threshold: float, control: str = "", scope: str = "") -> Arm:
    """The arm of a threshold and, where there is one, of a control or a scope."""
    name = [f"sr{percent(threshold)}", control, scope]
    words = [heading(threshold), CONTROLS[control].words if control else "", scope]
    return Arm("-".join(filter(None, name)), ", ".join(filter(None, words)), threshold, control, scope)


def percent(threshold: float) -> str:
    """A threshold as a selection rate in percent, as the founding paper writes it: "60" for 0.6."""
    return f"{100 * threshold:g}"


def heading(threshold: float) -> str:
    """What the founding paper's second table calls the column of a threshold."""
    return f"SR:{percent(threshold)}" if threshold else "All(SR:0)"


@final
class StudyImages:
    """The images of a study: the training part, the held-out part, and what each threshold leaves of them.

    Thresholds and controls choose from `full`, the whole training part. `equal_n` is the number of images on each side
    where values are compared at equal n: the size of the smallest set that a threshold leaves of either part.

    Raises:
        DataError: the raters' agreement is not known, or a threshold leaves too few images, or none of a class.
    """

    def __init__(self, study: "Agreement") -> None:
        data = study.experiment.data.model_copy(update={"split_seed": study.split_seed})
        self.full, held_out = select_images(data, study.experiment.training.seed)
        assert held_out is not None  # `Agreement.check_settings` refuses a study without
        self.held_out = held_out
        self.thresholds = study.settings.thresholds
        if self.full.agreement is None and self.thresholds != [0.0]:
            raise DataError(
                f"study.thresholds: {data.name} has no raters' agreement to choose images by: "
                "give a column `agreement` or the raters' votes (docs: Use your own images)"
            )
        for threshold in self.thresholds:
            self._check_threshold(threshold, data.name, max(FEWEST_TRAINING, study.settings.kept))
        self.equal_n = min(len(left) for t in self.thresholds for left in (self.training_at(t), self.held_out_at(t)))

    def _check_threshold(self, threshold: float, data_name: str, fewest_training: int) -> None:
        leaves = f"study.thresholds: the threshold {threshold:g} leaves"
        for part, count, fewest in (
            ("training", len(self.training_at(threshold)), fewest_training),
            ("held-out", len(self.held_out_at(threshold)), FEWEST_HELD_OUT),
        ):
            if count < fewest:
                needed = f"at least {fewest} are needed: take a lower one"
                raise DataError(f"{leaves} {count} {part} images of {data_name}; {needed}")
        for name, before, left in zip(self.class_names, self.counts(0.0), self.counts(threshold), strict=True):
            if before and not left:
                advice = "take a lower one, or leave the class out"
                raise DataError(f"{leaves} no training image of class {name} (of {before}): {advice}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes; ("images",) where there are no labels."""
        return self.full.class_names if self.full.labels is not None else ("images",)

    def counts(self, threshold: float) -> list[int]:
        """How many training images of each class a threshold leaves, in the order of `class_names`."""
        places = self.training_at(threshold)
        labels = np.zeros(len(self.full), np.int64) if self.full.labels is None else self.full.labels
        return cast(list[int], np.bincount(labels[places], minlength=len(self.class_names)).tolist())

    def training_at(self, threshold: float) -> Indices:
        """(k,) places in `full` of the training images that a threshold leaves."""
        return agreed_places(self.full, threshold)

    def held_out_at(self, threshold: float) -> Indices:
        """(k,) places in `held_out` of the held-out images that a threshold leaves."""
        return agreed_places(self.held_out, threshold)

    def held_out_of(self, arm: Arm) -> Indices:
        """(k,) places in `held_out` of the images that are like those of an arm; all for a control."""
        return self.held_out_at(0.0 if arm.control else arm.threshold)

    def training_of(self, arm: Arm, seed: int) -> Indices:
        """(k,) places in `full` of the images of one training; a control chooses others for each seed."""
        kept = self.training_at(arm.threshold)
        return CONTROLS[arm.control].choose(len(self.full), len(kept), seed) if arm.control else kept
