"""Which cases a classifier learns and which judge it: no group is on both sides."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from gankit.errors import DataError
from gankit.experiments.selection import open_dataset
from gankit.interfaces import Dataset, Indices
from gankit.registry.messages import suggestion
from gankit.seeds import derive_seed
from gankit.studies.classifier.settings import ClassifierStudy
from gankit.training.data import prepare

FEW_TEST_GROUPS = 10
"""Of a class, below which intervals of its recall are very wide."""


@dataclass(frozen=True)
class Parts:
    """The two sides of a study.

    Attributes:
        train: what classifiers and generators learn from, after the filters of the `data` table.
        test: every case of the test part, whatever its agreement.
        test_indices: (n,) places of the test cases in the data set.
        name: of the data set.
        how: the split in words.
    """

    train: Dataset
    test: Dataset
    test_indices: Indices
    name: str
    how: str

    @property
    def rarest(self) -> int:
        """The class with the fewest training cases."""
        return int(np.bincount(labels_of(self.train)).argmin())


def labels_of(dataset: Dataset) -> NDArray[np.int64]:
    """(n,) classes of a data set that has them.

    Raises:
        DataError: it has none.
    """
    if dataset.labels is None or dataset.image.classes < 2:
        raise DataError("classifier: the data have no labels of two classes or more; a classifier learns from labels")
    return np.asarray(dataset.labels)


def parts_of(study: ClassifierStudy) -> Parts:
    """Open the data of a study and part them, by its seed alone.

    Raises:
        DataError: there are no labels, too few groups of a class, or settings name what the data have not.
    """
    dataset, own = open_dataset(study.data), study.classifier
    labels_of(dataset)
    _check_names(study, dataset)
    named = own.test_split or ("test" if "test" in dataset.splits and study.data.split in (None, "train") else None)
    if named is not None:
        train, test = _named(dataset, named, study.data.split)
        how = f"the split {named!r} of the data is the test part"
    else:
        train, test = _fold(dataset, study)
        how = f"one of {own.folds} folds is the test part, stratified by class"
    check_apart(dataset, train, test)
    how += "" if dataset.groups is None else "; whole groups (patients), none of them on both sides"
    bare = {"split": None, "held_out": 0.0, "conditional": False, "balance": 0.0}
    table = study.data.model_copy(update=bare)
    training = prepare(table, study.training.seed, dataset.subset(train)).dataset
    return Parts(training, dataset.subset(test), test, study.data.name, how)


def check_apart(dataset: Dataset, train: Indices, test: Indices) -> None:
    """Refuse parts that share a case or a group, or of which one lacks a class.

    Args:
        dataset: the whole.
        train: (k,) places of the training cases.
        test: (m,) places of the test cases.

    Raises:
        DataError: they are not apart; says what to do.
    """
    if shared := len(np.intersect1d(train, test)):
        raise DataError(f"classifier: {shared} cases are in the training and in the test part; correct the splits")
    if dataset.groups is not None:
        both = np.intersect1d(dataset.groups[train], dataset.groups[test])
        if len(both):
            raise DataError(
                f"classifier: {len(both)} groups (patients) are in the training and in the test part, for example "
                f"{both[0]}; correct the splits, or set data.split=all to draw folds of whole groups"
            )
    for side, places in (("training", train), ("test", test)):
        if missing := [name for name, n in zip(dataset.class_names, _counts(dataset, places), strict=True) if n == 0]:
            raise DataError(
                f"classifier: the {side} part has no case of {missing[0]!r}; merge classes, or leave it out"
            )


def _counts(dataset: Dataset, places: Indices) -> NDArray[np.int64]:
    return np.bincount(labels_of(dataset)[places], minlength=dataset.image.classes)


def _check_names(study: ClassifierStudy, dataset: Dataset) -> None:
    own, names = study.classifier, dataset.class_names
    for setting, classes in (("synthetic_classes", own.synthetic_classes), *_groupings(own.groupings)):
        for name in classes:
            if name not in names:
                raise DataError(
                    f"classifier.{setting}: {study.data.name} has no class {name!r}; {suggestion(name, names)}"
                )
        if setting != "synthetic_classes" and set(classes) == set(names):
            raise DataError(f"classifier.{setting}: every class is positive; leave at least one out")
    if own.regression is not None:
        numeric = numbers(dataset)
        if own.regression not in numeric:
            raise DataError(
                f"classifier.regression: {study.data.name} has no number {own.regression!r} an image; "
                f"{suggestion(own.regression, list(numeric))}; classifier.regression=none learns no number"
            )
        if not np.isfinite(numeric[own.regression]).all():
            raise DataError(f"classifier.regression: {own.regression} has missing values")


def _groupings(groupings: Mapping[str, list[str]]) -> list[tuple[str, list[str]]]:
    return [(f"groupings.{name}", classes) for name, classes in groupings.items()]


def numbers(dataset: Dataset) -> dict[str, NDArray[np.float64]]:
    """The (n,) numbers that are known of each image."""
    facts = {name: values for name, values in dataset.facts.items() if values.ndim == 1 and values.dtype.kind in "biuf"}
    return {name: values.astype(np.float64) for name, values in facts.items()}


def _named(dataset: Dataset, test: str, train: str | None) -> tuple[Indices, Indices]:
    splits = dataset.splits
    for key, name in (("classifier.test_split", test), ("data.split", train or "train")):
        if name not in splits:
            raise DataError(f"{key}: there is no split {name!r} in this data set; known: {', '.join(splits) or 'none'}")
    return np.asarray(splits[train or "train"]), np.asarray(splits[test])


def _fold(dataset: Dataset, study: ClassifierStudy) -> tuple[Indices, Indices]:
    """The first fold, in an order that the seed decides, that leaves every class on both sides."""
    if study.data.split not in (None, "all", *dataset.splits):
        known = ", ".join(["all", *dataset.splits])
        raise DataError(f"data.split: there is no split {study.data.split!r} in this data set; known: {known}")
    whole = study.data.split in (None, "all")
    chosen = np.arange(len(dataset)) if whole else np.asarray(dataset.splits[str(study.data.split)])
    labels = labels_of(dataset)[chosen]
    groups = chosen if dataset.groups is None else dataset.groups[chosen]
    for label, name in enumerate(dataset.class_names):
        if (held := len(np.unique(groups[labels == label]))) < 2:
            raise DataError(
                f"classifier: class {name!r} is in {held} group{'s' if held != 1 else ''} (patients) of "
                f"{study.data.name}; a class must be in two or more, to learn from and to test on: merge it, or leave "
                "it out"
            )
    folds = min(study.classifier.folds, len(np.unique(groups)))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=derive_seed(study.training.seed, "folds") % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class of fewer cases than folds
        try:
            found = list(splitter.split(chosen, labels, groups))
        except ValueError as error:
            raise DataError(f"classifier.folds: {len(chosen)} cases cannot be divided so: {error}") from None
    for kept, held in found:
        if len(np.unique(labels[kept])) == len(np.unique(labels[held])) == dataset.image.classes:
            return chosen[kept], chosen[held]
    raise DataError(
        f"classifier.folds: no fold of {folds} has every class on both sides; set fewer folds, or another training.seed"
    )


def notes_of(parts: Parts) -> list[str]:
    """What a reader of the numbers should know: images on both sides, classes of few test cases."""
    notes = []
    train = dict(zip(_digests(parts.train), labels_of(parts.train), strict=True))
    twins = [
        (label, train[row])
        for row, label in zip(_digests(parts.test), labels_of(parts.test), strict=True)
        if row in train
    ]
    if twins:
        other = sum(first != second for first, second in twins)
        with_other = f", {other} of them with another label" if other else ""
        notes.append(f"{len(twins)} test images are identical to training images{with_other}")
    groups = np.arange(len(parts.test)) if parts.test.groups is None else parts.test.groups
    for label, name in enumerate(parts.test.class_names):
        count = len(np.unique(groups[labels_of(parts.test) == label]))
        if count < FEW_TEST_GROUPS:
            what = "cases" if parts.test.groups is None else "groups"
            notes.append(f"only {count} test {what} of {name}: hardly anything can be told of this class")
    return notes


def _digests(dataset: Dataset) -> list[bytes]:
    places = np.arange(len(dataset))
    return [
        hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        for start in range(0, len(places), 256)
        for image in dataset.read(places[start : start + 256])
    ]
