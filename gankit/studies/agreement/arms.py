"""What a study of rater agreement trains on: the images of each threshold, and the arms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from gankit.errors import DataError
from gankit.experiments.experiment import Experiment
from gankit.experiments.selection import random_subset, select_images
from gankit.interfaces import Dataset, Indices
from gankit.studies.agreement.settings import AgreementStudy

FEWEST = 8
"""Images below which nothing is said of a set."""


@dataclass(frozen=True)
class Arm:
    """One kind of training, of which seeds differ.

    Attributes:
        threshold: share of raters below which images are left out; 0 keeps all.
        control: "random-subset" for as many images drawn at random, else "".
        scope: of the augment, where it is not that of the study's other arms, else "".
    """

    threshold: float
    control: str = ""
    scope: str = ""

    @property
    def name(self) -> str:
        """As in the names of folders."""
        return "-".join([f"sr{percent(self.threshold)}", *filter(None, (self.control, self.scope))])

    @property
    def title(self) -> str:
        """As in tables."""
        return ", ".join([heading(self.threshold), *filter(None, (self.control.replace("-", " "), self.scope))])


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
        full: all training images.
        held_out: all held-out images.
        n: images a side where distances are compared at equal numbers: as many as the smallest set has.

    Raises:
        DataError: raters' agreement is not known, or a threshold leaves too few images, or none of a class.
    """

    def __init__(self, study: AgreementStudy) -> None:
        table = study.data.model_copy(update={"split_seed": split_seed(study)})
        self.full, held_out = select_images(table, study.training.seed)
        assert held_out is not None  # load_study asks for some
        self.held_out = held_out
        self.thresholds = study.study.thresholds
        name = study.data.name
        if self.full.agreement is None and self.thresholds != [0.0]:
            raise DataError(
                f"study.thresholds: {name} knows no raters' agreement, so there is nothing to choose images by: give a "
                "column `agreement` or the raters' votes (docs: Use your own images)"
            )
        for threshold in self.thresholds:
            self._check(threshold, name, study)
        sizes = [len(part) for t in self.thresholds for part in (self.training_at(t), self.held_out_at(t))]
        self.n = min(sizes)

    def _check(self, threshold: float, name: str, study: AgreementStudy) -> None:
        for part, indices in (("training", self.training_at(threshold)), ("held-out", self.held_out_at(threshold))):
            needed = max(FEWEST, study.study.kept) if part == "training" else 4
            if len(indices) < needed:
                raise DataError(
                    f"study.thresholds: {threshold:g} leaves {len(indices)} {part} images of {name}; at least {needed} "
                    "are needed: take a lower one"
                )
        for label, (before, left) in enumerate(zip(self.counts(0.0), self.counts(threshold), strict=True)):
            if before and not left:
                raise DataError(
                    f"study.thresholds: {threshold:g} leaves no training image of class {self.class_names[label]} (of "
                    f"{before}): take a lower one, or leave the class out"
                )

    @property
    def class_names(self) -> tuple[str, ...]:
        """One a class; "images" where there are no classes."""
        return self.full.class_names if self.full.labels is not None else ("images",)

    def counts(self, threshold: float) -> list[int]:
        """Training images of each class that a threshold leaves."""
        chosen = self.training_at(threshold)
        if self.full.labels is None:
            return [len(chosen)]
        return [int(count) for count in np.bincount(self.full.labels[chosen], minlength=len(self.class_names))]

    def training_at(self, threshold: float) -> Indices:
        """(k,) places in `full` of the training images of this agreement or more."""
        return _at_least(self.full, threshold)

    def held_out_at(self, threshold: float) -> Indices:
        """(k,) places in `held_out` of the images of this agreement or more."""
        return _at_least(self.held_out, threshold)

    def arms(self, study: AgreementStudy) -> list[Arm]:
        """Every arm: the thresholds, then their controls, then further scopes."""
        arms = [Arm(threshold) for threshold in self.thresholds]
        if "random-subset" in study.study.controls:
            fewer = [t for t in self.thresholds if len(self.training_at(t)) < len(self.full)]
            arms += [Arm(threshold, "random-subset") for threshold in fewer]
        return arms + [Arm(t, scope=scope) for scope in study.study.scopes[1:] for t in self.thresholds]

    def seeds(self, arm: Arm, study: AgreementStudy) -> list[int]:
        """The training seeds of an arm."""
        ends = (self.thresholds[0], self.thresholds[-1])
        many = not arm.scope and arm.threshold in (ends if not arm.control else ends[1:])
        count = max(study.study.seeds, study.study.seeds_at_ends) if many else study.study.seeds
        return [study.training.seed + number for number in range(count)]

    def experiment(self, arm: Arm, seed: int, study: AgreementStudy, start_from: str | None) -> Experiment:
        """The experiment of one training."""
        data: dict[str, Any] = {"split_seed": split_seed(study)}
        if arm.control:
            data |= {"subset": len(self.training_at(arm.threshold)), "subset_seed": seed}
        elif arm.threshold:
            data["min_agreement"] = arm.threshold
        training = {"seed": seed, "start_from": start_from or study.training.start_from}
        scope = arm.scope or next(iter(study.study.scopes), None)
        return study.experiment(data=data, training=training, **({"augment": {"scope": scope}} if scope else {}))

    def chosen(self, arm: Arm, seed: int) -> Indices:
        """(k,) places in `full` of the images that a training is on; each seed draws a random subset of its own."""
        kept = self.training_at(arm.threshold)
        return random_subset(len(self.full), len(kept), seed) if arm.control else kept


def split_seed(study: AgreementStudy) -> int:
    """What decides the held-out images of all trainings."""
    return study.training.seed if study.data.split_seed is None else study.data.split_seed


def _at_least(dataset: Dataset, threshold: float) -> Indices:
    if dataset.agreement is None or not threshold:
        return np.arange(len(dataset))
    return np.flatnonzero(dataset.agreement >= threshold - 1e-9)
