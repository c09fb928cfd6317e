"""What studies of classifiers share: class labels, numeric facts, folds of whole groups, image digests, versions."""

import hashlib
import platform
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
import torchvision
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from gankit.errors import DataError, suggestion
from gankit.experiments.experiment import Experiment
from gankit.experiments.selection import is_agreed
from gankit.interfaces import Dataset, Indices
from gankit.registry.messages import shown
from gankit.studies.jobs import Outcome
from gankit.studies.study import Refuse, Study
from gankit.training.data import prepare
from gankit.version import __version__


def class_labels(dataset: Dataset) -> NDArray[np.int64]:
    """The class of each image, (n,).

    Raises:
        DataError: the data set has no labels, or a single class.
    """
    if dataset.labels is None or dataset.image.classes < 2:
        raise DataError("the data have no labels of two classes or more; a classifier learns from labels")
    return np.asarray(dataset.labels)


def class_counts(dataset: Dataset) -> NDArray[np.int64]:
    """How many images each class has, (classes,)."""
    return np.bincount(class_labels(dataset), minlength=dataset.image.classes)


def numeric_facts(dataset: Dataset) -> dict[str, NDArray[np.float64]]:
    """The facts of a data set that are one number per image: (n,) values by name."""
    facts = {name: values for name, values in dataset.facts.items() if values.ndim == 1 and values.dtype.kind in "biuf"}
    return {name: values.astype(np.float64) for name, values in facts.items()}


def check_classes(
    setting: str, classes: Collection[str], dataset: Dataset, data_name: str, may_be_all: bool = False
) -> None:
    """Refuse a setting that names classes which the data set lacks or, unless `may_be_all`, all of its classes.

    Raises:
        DataError: begins with the setting.
    """
    known = dataset.class_names
    for name in classes:
        if name not in known:
            raise DataError(f"{setting}: {data_name} has no class {shown(name)}; {suggestion(name, known)}")
    if not may_be_all and set(classes) == set(known):
        raise DataError(f"{setting}: every class is positive; leave at least one out")


def check_number(setting: str, number: str, dataset: Dataset, data_name: str, advice: str = "") -> None:
    """Refuse a setting that names a number which the data set lacks, or has for some of its images only.

    Raises:
        DataError: begins with the setting, and ends with the advice.
    """
    known = numeric_facts(dataset)
    if number not in known:
        near = suggestion(number, list(known))
        raise DataError(f"{setting}: {data_name} has no number {shown(number)} for each image; {near}{advice}")
    if not np.isfinite(known[number]).all():
        raise DataError(f"{setting}: {number} has missing values; fill them, or remove images{advice}")


def groups_of(dataset: Dataset, places: Indices | None = None) -> NDArray[np.generic]:
    """The group of each of the images at (k,) places, (k,), or of all; without groups each image is its own group."""
    places = np.arange(len(dataset)) if places is None else places
    return places if dataset.groups is None else dataset.groups[places]


def groups_of_classes(labels: NDArray[np.int64], groups: NDArray[np.generic], classes: int) -> list[int]:
    """In how many groups each class is, from (n,) classes and (n,) groups."""
    return [len(np.unique(groups[labels == label])) for label in range(classes)]


def stratified_folds(
    labels: NDArray[np.int64], groups: NDArray[np.generic], folds: int, seed: int
) -> list[tuple[Indices, Indices]]:
    """Divide n cases into folds of whole groups, stratified by class; keep those with every class on both sides.

    From (n,) classes and (n,) groups: for each fold that is kept, the places of the cases outside it and of those in
    it. The seed decides which groups share a fold.

    Raises:
        ValueError: from scikit-learn; every class has fewer cases than there are folds.
    """
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # A class may have fewer cases than there are folds
        sides = list(splitter.split(labels, labels, groups))
    classes = len(np.unique(labels))
    return [both for both in sides if all(len(np.unique(labels[side])) == classes for side in both)]


def training_part(experiment: Experiment, dataset: Dataset, places: Indices) -> Dataset:
    """The images at (k,) places, without those that the filters of the table `data` remove.

    Raises:
        DataError: the filters ask for what the data do not have, or leave no image of a class.
    """
    without_the_rest = {"split": None, "held_out": 0.0, "conditional": False, "balance": 0.0}
    filters = experiment.data.model_copy(update=without_the_rest)
    part = prepare(filters, experiment.training.seed, dataset.subset(places)).dataset
    if (counts := class_counts(part)).min() == 0:
        lost = dataset.class_names[int(counts.argmin())]
        raise DataError(f"data: filters leave no image of {lost!r} to learn from; loosen them")
    return part


def agreed_places(dataset: Dataset, share: float | None) -> Indices:
    """(k,) places of the images on which at least this share of the raters agrees; of all where it is 0 or None."""
    if dataset.agreement is None or not share:
        return np.arange(len(dataset))
    return np.flatnonzero(is_agreed(dataset.agreement, share))


def generator_of_part(study: Study, seed: int, **data: Any) -> Experiment:
    """The experiment that trains a generator on a `training_part`; `data` changes settings of that table.

    The filters of that table are left out, since `training_part` has applied them.
    """
    without_filters = dict.fromkeys(("split", "min_agreement", "subset", "subset_seed"))
    return study.experiment_with(data={**without_filters, **data}, training={"seed": seed})


def refuse_conditions(study: Study, refuse: Refuse, why: str) -> None:
    """Refuse a generator that is to be conditioned on facts of the images.

    Raises:
        SettingsError: made by `refuse`.
    """
    if isinstance(study.experiment.data.conditional, list) and study.experiment.data.conditional:
        raise refuse("data", "conditional", f"{why}; set it to true")


def image_digests(dataset: Dataset) -> list[bytes]:
    """A digest of each image's pixels: equal images have equal digests, however their files differ."""
    blocks = np.split(np.arange(len(dataset)), range(256, len(dataset), 256))
    return [
        hashlib.blake2b(image.tobytes(), digest_size=16).digest() for block in blocks for image in dataset.read(block)
    ]


def content_digest(dataset: Dataset) -> str:
    """A digest of all images, their labels, groups and agreement, and the numbers that are known of them."""
    columns = [dataset.labels, dataset.groups, dataset.agreement, *numeric_facts(dataset).values()]
    known = repr([None if column is None else column.tolist() for column in columns])
    return hashlib.blake2b(b"".join(image_digests(dataset)) + known.encode(), digest_size=16).hexdigest()


def package_versions() -> dict[str, str]:
    """The versions on which a study's numbers depend, by package."""
    return {
        "gankit": __version__, "python": platform.python_version(), "torch": torch.__version__,
        "torchvision": torchvision.__version__, "numpy": np.__version__, "scikit-learn": sklearn.__version__,
    }  # fmt: skip


def run_facts(study: Study, outcomes: Mapping[str, Outcome], folder: Path) -> dict[str, Any]:
    """What a protocol says of how a study was run: seconds over all jobs, versions, and the command that repeats it."""
    return {
        "seconds": round(sum(outcome.seconds for outcome in outcomes.values()), 1),
        "versions": package_versions(),
        "command": study.command(folder),
    }
