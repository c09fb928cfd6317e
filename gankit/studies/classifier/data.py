"""Which cases a classifier learns from and which it is tested on: no group is on both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gankit.errors import DataError
from gankit.experiments.selection import open_dataset, split_indices
from gankit.interfaces import Dataset, Indices
from gankit.registry.messages import shown
from gankit.seeds import derive_seed
from gankit.studies.labelled import (
    check_classes,
    check_number,
    class_counts,
    class_labels,
    groups_of,
    image_digests,
    stratified_folds,
    training_part,
)

if TYPE_CHECKING:
    from gankit.studies.classifier.study import ClassifierStudy

FEW_TEST_GROUPS = 10  # Of a class, below which intervals of its recall are very wide


@dataclass(frozen=True)
class Split:
    """The two sides of a study."""

    train: Dataset  # what classifiers and generators learn from, after the filters of the `data` table
    test: Dataset  # every case of the test part, whatever its agreement
    test_indices: Indices  # (n,) places of the test cases in the data set
    words: str  # how it was split

    @property
    def rarest(self) -> int:
        """The class with the fewest training cases."""
        return int(class_counts(self.train).argmin())


def split_data(study: ClassifierStudy) -> Split:
    """Open the data of a study and divide them, by its seed alone.

    Raises:
        DataError: there are no labels, too few groups of a class, or settings name what the data lack.
    """
    table, settings = study.experiment.data, study.settings
    dataset = open_dataset(table)
    class_labels(dataset)
    _check_names(study, dataset)
    default = "test" if "test" in dataset.splits and table.split in (None, "train") else None
    if name := settings.test_split or default:
        for key, split in (("classifier.test_split", name), ("data.split", table.split or "train")):
            if split not in dataset.splits:
                known = ", ".join(dataset.splits) or "none"
                raise DataError(f"{key}: there is no split {shown(split)} in this data set; known: {known}")
        train, test = np.asarray(dataset.splits[table.split or "train"]), np.asarray(dataset.splits[name])
        words = f"the split {name!r} of the data is the test part"
    else:
        train, test, folds = _fold(dataset, study)
        words = f"one of {folds} folds is the test part, stratified by class"
    check_apart(dataset, train, test)
    words += "" if dataset.groups is None else "; whole groups (patients), none of them on both sides"
    training = training_part(study.experiment, dataset, train)
    return Split(training, dataset.subset(test), test, words)


def check_apart(dataset: Dataset, train: Indices, test: Indices) -> None:
    """Refuse (k,) places of training cases and (m,) of test cases that share a case or a group, or lack a class.

    Raises:
        DataError: they are not apart; says what to do.
    """
    if shared := len(np.intersect1d(train, test)):
        raise DataError(f"classifier: {shared} cases are in the training and in the test part; correct the splits")
    groups = dataset.groups
    if groups is not None and len(both := np.intersect1d(groups[train], groups[test])):
        raise DataError(
            f"classifier: {len(both)} groups (patients) are in the training and in the test part, for example "
            f"{both[0]}; correct the splits, or set data.split=all to draw folds of whole groups"
        )
    for side, places in (("training", train), ("test", test)):
        counts = class_counts(dataset.subset(places))
        if missing := [name for name, n in zip(dataset.class_names, counts, strict=True) if n == 0]:
            why = f"the {side} part has no case of {missing[0]!r}; merge classes, or leave it out"
            raise DataError(f"classifier: {why}")


def _check_names(study: ClassifierStudy, dataset: Dataset) -> None:
    settings, data = study.settings, study.experiment.data.name
    check_classes("classifier.synthetic_classes", settings.synthetic_classes, dataset, data, may_be_all=True)
    for name, classes in settings.groupings.items():
        check_classes(f"classifier.groupings.{name}", classes, dataset, data)
    if settings.regression is not None:
        advice = "; classifier.regression=none learns no number"
        check_number("classifier.regression", settings.regression, dataset, data, advice)


def _fold(dataset: Dataset, study: ClassifierStudy) -> tuple[Indices, Indices, int]:
    """The first fold, in an order that the seed decides, with every class on both sides; and how many folds there are.

    They are as many as the settings say, or as there are groups.
    """
    places = split_indices(dataset, study.experiment.data.split or "all")
    labels = class_labels(dataset)[places]
    groups = groups_of(dataset, places)
    for label, name in enumerate(dataset.class_names):
        if (count := len(np.unique(groups[labels == label]))) < 2:
            raise DataError(
                f"classifier: class {name!r} is in {count} group{'s' if count != 1 else ''} (patients) of "
                f"{study.experiment.data.name}; a class must be in two or more, to learn from and to test on: "
                "merge it, or leave it out"
            )
    folds = min(study.settings.folds, len(np.unique(groups)))
    seed = derive_seed(study.experiment.training.seed, "folds")
    try:
        sides = stratified_folds(labels, groups, folds, seed)
    except ValueError:
        raise DataError(f"classifier.folds: every class has fewer than {folds} cases; set fewer folds") from None
    for train, test in sides:
        if len(np.unique(labels[train])) == len(np.unique(labels[test])) == dataset.image.classes:
            return places[train], places[test], folds
    raise DataError(
        f"classifier.folds: no fold of {folds} has every class on both sides; set fewer folds, or another training.seed"
    )


def data_notes(split: Split) -> list[str]:
    """What a reader of the numbers should know: images on both sides, classes of few test cases."""
    notes, labels = [], class_labels(split.test)
    train = dict(zip(image_digests(split.train), class_labels(split.train), strict=True))
    twins = [(label, train[key]) for key, label in zip(image_digests(split.test), labels, strict=True) if key in train]
    if twins:
        other = sum(first != second for first, second in twins)
        with_other = f", {other} of them with another label" if other else ""
        notes.append(f"{len(twins)} test images are identical to training images{with_other}")
    groups, what = (np.arange(len(labels)), "cases") if split.test.groups is None else (split.test.groups, "groups")
    for label, name in enumerate(split.test.class_names):
        if (count := len(np.unique(groups[labels == label]))) < FEW_TEST_GROUPS:
            notes.append(f"only {count} test {what} of {name}: hardly anything can be told of this class")
    return notes
