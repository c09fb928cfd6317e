"""How a study of augmentation divides its cases into folds, and each fold into parts: groups stay whole."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gankit.errors import DataError
from gankit.experiments.experiment import Experiment
from gankit.experiments.selection import open_dataset, split_indices
from gankit.interfaces import Dataset, Indices
from gankit.seeds import derive_seed
from gankit.studies import labelled
from gankit.studies.augmentation.arms import HELD_OUT
from gankit.studies.augmentation.settings import AugmentationSettings
from gankit.studies.formats import NONE

TRIES = 50  # at most so many random divisions are tried until every part has every class
TRIES_WITH_FEWER = 5  # at most so many for each smaller number of parts than the setting says

Sides = tuple[Indices, Indices]  # places of the cases outside a part, and of those in it


@dataclass(frozen=True)
class Fold:
    """One division of the data."""

    number: int  # from 1, over all repeats
    learn: Dataset  # what generators and classifiers learn from, after the filters of the `data` table
    validation: Dataset  # on which arms and ratios are chosen
    test: Dataset  # which judges once
    reserve: Dataset | None  # what the positive control adds
    places: dict[str, Indices] = field(repr=False)  # of each part's images in the data set, before the filters

    @property
    def name(self) -> str:
        """Its name in folders and tables."""
        return f"fold-{self.number}"

    @property
    def parts(self) -> dict[str, Dataset]:
        """The parts by name."""
        parts = {"learn": self.learn, "validation": self.validation, "test": self.test}
        return parts if self.reserve is None else {**parts, "reserve": self.reserve}


@dataclass(frozen=True)
class Division:
    """The data and all folds."""

    dataset: Dataset
    cases: Indices  # places of the images that are divided
    folds: list[Fold]


def divide(experiment: Experiment, settings: AugmentationSettings) -> Division:
    """Open the data of a study and divide them, by its seed alone.

    Raises:
        DataError: there are too few labels, classes or groups, or settings name what the data do not have.
    """
    dataset, name = open_dataset(experiment.data), experiment.data.name
    all_labels = labelled.class_labels(dataset)
    labelled.check_classes("augmentation.positive", settings.positive, dataset, name)
    if settings.endpoint == "severity":
        labelled.check_number("augmentation.number", str(settings.number), dataset, name)
    cases = split_indices(dataset, experiment.data.split or "all")
    labels, groups = all_labels[cases], labelled.groups_of(dataset, cases)
    _check_groups(dataset, labels, groups, settings)
    if experiment.data.min_agreement is not None and dataset.agreement is not None:
        missing = int(np.isnan(dataset.agreement[cases]).sum())
        if missing:
            raise DataError(f"data.min_agreement: {missing} images of {name} have no ratings; rate or remove them")
    folds: list[Fold] = []
    set_aside = {"reserve": settings.reserve} if HELD_OUT in settings.controls else {}
    set_aside["validation"] = settings.validation
    for repeat in range(1, settings.repeats + 1):
        seed = derive_seed(experiment.training.seed, "folds", repeat)
        for rest, test in _draw_parts(labels, groups, settings.folds, seed, "folds", all_parts=True):
            places = {"test": cases[test]}
            for part, count in set_aside.items():  # each is taken from what the ones before it left
                part_seed = derive_seed(seed, part, len(folds))
                outside, inside = _draw_parts(labels[rest], groups[rest], count, part_seed, part)[0]
                places[part], rest = cases[rest[inside]], rest[outside]
            judging = {part: dataset.subset(chosen) for part, chosen in places.items()}
            places["learn"] = cases[rest]
            learn = labelled.training_part(experiment, dataset, places["learn"])
            folds.append(
                Fold(len(folds) + 1, learn, judging["validation"], judging["test"], judging.get("reserve"), places)
            )
    return Division(dataset, cases, folds)


def _check_groups(
    dataset: Dataset, labels: NDArray[np.int64], groups: NDArray[np.generic], settings: AugmentationSettings
) -> None:
    """Refuse a class of too few groups to be in each test part and in all the other parts."""
    if (count := len(np.unique(groups))) < 2:
        raise DataError(
            f"augmentation: all {len(labels)} images are of {count} group (patient), which is never divided; correct "
            "the groups of the data"
        )
    parts_of_fold = 4 if HELD_OUT in settings.controls else 3  # test, validation, what is learnt from, the reserve
    needed = max(settings.folds, parts_of_fold)
    counts = labelled.groups_of_classes(labels, groups, dataset.image.classes)
    for name, count in zip(dataset.class_names, counts, strict=True):
        if count < needed:
            what = "images" if dataset.groups is None else "groups (patients)"
            raise DataError(
                f"augmentation.folds: class {name!r} is in {count} {what}, and {needed} are needed to have it in each "
                f"of {settings.folds} test parts and to learn from; merge it, leave it out, or set fewer folds"
            )


def _draw_parts(
    labels: NDArray[np.int64], groups: NDArray[np.generic], count: int, seed: int, setting: str, all_parts: bool = False
) -> list[Sides]:
    """Parts of a random division of the cases that have every class both inside and outside; at least one.

    With `all_parts` they are `count`; without, there may be fewer, larger parts where no division into so many will do.
    """
    n_groups = len(np.unique(groups))
    for parts in [count] if all_parts else range(min(count, n_groups), 1, -1):
        for attempt in range(TRIES if parts == count else TRIES_WITH_FEWER):
            try:
                found = labelled.stratified_folds(labels, groups, parts, derive_seed(seed, "division", attempt))
            except ValueError:  # too few cases or groups for so many parts
                break
            if len(found) >= (count if all_parts else 1):
                return found
    raise DataError(
        f"augmentation.{setting}: {n_groups} groups cannot be divided into {count} parts such that every class is in "
        "each; merge rare classes, or set fewer"
    )


def count_twins(division: Division) -> int:
    """How many test images, over all folds, are identical to an image that is learnt from."""
    digests, twins = np.array(labelled.image_digests(division.dataset), dtype=object), 0
    for fold in division.folds:
        tested, not_filtered = (digests[fold.places[part]] for part in ("test", "learn"))
        if (alike := np.isin(tested, not_filtered)).any():
            twins += int(np.isin(tested[alike], np.array(labelled.image_digests(fold.learn), dtype=object)).sum())
    return twins


def flow(division: Division) -> list[list[str]]:
    """How many images of how many groups went where, a header first."""

    def cell(part: Dataset | None) -> str:
        if part is None:
            return NONE
        return f"{len(part)}" if part.groups is None else f"{len(part)} of {len(np.unique(part.groups))}"

    what = "images" if division.dataset.groups is None else "images of groups"
    rows = [["fold", f"to learn from, {what}", "left out by filters", "validation", "test", "reserve", "by class"]]
    for fold in division.folds:
        left_out = len(fold.places["learn"]) - len(fold.learn)
        counts = np.array([labelled.class_counts(part) for part in fold.parts.values()])  # (parts, classes)
        names = division.dataset.class_names
        by_class = [f"{name} {'/'.join(map(str, of_class))}" for name, of_class in zip(names, counts.T, strict=True)]
        row = [cell(fold.learn), str(left_out), cell(fold.validation), cell(fold.test), cell(fold.reserve)]
        rows.append([str(fold.number), *row, ", ".join(by_class)])
    return rows
