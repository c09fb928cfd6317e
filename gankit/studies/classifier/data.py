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
from gankit.studies import labelled

if TYPE_CHECKING:
    from gankit.studies.classifier.study import ClassifierStudy


@dataclass(frozen=True)
class Split:
    """The training part and the test part of a study's data."""

    train: Dataset  # what classifiers and generators learn from, after the filters of the table `data`
    test: Dataset  # every case of the test part, without any filter
    test_indices: Indices  # (n,) places of the test cases in the data set
    words: str  # how the data were split

    @property
    def rarest(self) -> int:
        """The class with the fewest training cases."""
        return int(labelled.class_counts(self.train).argmin())


def split_data(study: ClassifierStudy) -> Split:
    """Open the data of a study and divide them; apart from the settings, only the seed decides how.

    Raises:
        DataError: there are no labels, a class has too few groups, or settings name what the data lack.
    """
    table = study.experiment.data
    dataset = open_dataset(table)
    labelled.class_labels(dataset)  # Refuses a data set without
    _check_names(study, dataset)
    has_test_split = "test" in dataset.splits and table.split in (None, "train")
    test_split = study.settings.test_split or ("test" if has_test_split else None)
    if test_split:
        train_split = table.split or "train"
        for key, split in (("classifier.test_split", test_split), ("data.split", train_split)):
            if split not in dataset.splits:
                known = ", ".join(dataset.splits) or "none"
                raise DataError(f"{key}: there is no split {shown(split)} in this data set; known: {known}")
        train, test = np.asarray(dataset.splits[train_split]), np.asarray(dataset.splits[test_split])
        words = f"the split {test_split!r} of the data is the test part"
    else:
        train, test, folds = _draw_fold(dataset, study)
        words = f"one of {folds} folds is the test part, stratified by class"
    check_apart(dataset, train, test)
    words += "" if dataset.groups is None else "; whole groups (patients), none of them on both sides"
    training = labelled.training_part(study.experiment, dataset, train)
    return Split(training, dataset.subset(test), test, words)


def check_apart(dataset: Dataset, train: Indices, test: Indices) -> None:
    """Refuse (k,) places of training cases and (m,) of test cases that share a case or a group, or lack a class.

    Raises:
        DataError: says what is shared or missing, and what to do.
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
        counts = labelled.class_counts(dataset.subset(places))
        if missing := [name for name, n in zip(dataset.class_names, counts, strict=True) if n == 0]:
            why = f"the {side} part has no case of {missing[0]!r}; merge classes, or leave it out"
            raise DataError(f"classifier: {why}")


def _check_names(study: ClassifierStudy, dataset: Dataset) -> None:
    settings, data = study.settings, study.experiment.data.name
    labelled.check_classes("classifier.synthetic_classes", settings.synthetic_classes, dataset, data, may_be_all=True)
    for name, classes in settings.groupings.items():
        labelled.check_classes(f"classifier.groupings.{name}", classes, dataset, data)
    if settings.regression is not None:
        advice = "; classifier.regression=none learns no number"
        labelled.check_number("classifier.regression", settings.regression, dataset, data, advice)


def _draw_fold(dataset: Dataset, study: ClassifierStudy) -> tuple[Indices, Indices, int]:
    """The places of training and of test cases, and the number of folds.

    The test cases are those of the first fold that leaves every class on both sides. The seed decides which cases share
    a fold, and there are no more folds than groups.
    """
    places = split_indices(dataset, study.experiment.data.split or "all")
    labels = labelled.class_labels(dataset)[places]
    groups = labelled.groups_of(dataset, places)
    counts = labelled.groups_of_classes(labels, groups, dataset.image.classes)
    for name, count in zip(dataset.class_names, counts, strict=True):
        if count < 2:
            raise DataError(
                f"classifier: class {name!r} is in {count} group{'s' if count != 1 else ''} (patients) of "
                f"{study.experiment.data.name}; a class must be in two or more, to learn from and to test on: "
                "merge it, or leave it out"
            )
    folds = min(study.settings.folds, len(np.unique(groups)))
    seed = derive_seed(study.experiment.training.seed, "folds")
    try:
        sides = labelled.stratified_folds(labels, groups, folds, seed)
    except ValueError:
        raise DataError(f"classifier.folds: every class has fewer than {folds} cases; set fewer folds") from None
    if not sides:
        raise DataError(
            f"classifier.folds: no fold of {folds} has every class on both sides; set fewer folds, or another "
            "training.seed"
        )
    train, test = sides[0]
    return places[train], places[test], folds
