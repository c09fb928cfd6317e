"""What studies of classifiers share: labels, numbers, folds of whole groups, digests of images, package versions."""

import hashlib
import platform
import warnings
from collections.abc import Collection
from typing import Any

import numpy as np
import sklearn
import torch
import torchvision
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from gankit.errors import DataError
from gankit.experiments.experiment import Experiment
from gankit.interfaces import Dataset, Indices
from gankit.registry.messages import shown, suggestion
from gankit.studies.study import Study
from gankit.training.data import prepare
from gankit.version import __version__


def class_labels(dataset: Dataset) -> NDArray[np.int64]:
    """(n,) classes of a data set that has them.

    Raises:
        DataError: it has none.
    """
    if dataset.labels is None or dataset.image.classes < 2:
        raise DataError("the data have no labels of two classes or more; a classifier learns from labels")
    return np.asarray(dataset.labels)


def class_counts(dataset: Dataset) -> NDArray[np.int64]:
    """(classes,) images of each class."""
    return np.bincount(class_labels(dataset), minlength=dataset.image.classes)


def numbers(dataset: Dataset) -> dict[str, NDArray[np.float64]]:
    """The (n,) numbers that are known of each image."""
    facts = {name: values for name, values in dataset.facts.items() if values.ndim == 1 and values.dtype.kind in "biuf"}
    return {name: values.astype(np.float64) for name, values in facts.items()}


def check_classes(
    setting: str, classes: Collection[str], dataset: Dataset, data: str, may_be_all: bool = False
) -> None:
    """Refuse classes that a data set called `data` lacks and, unless they may be all, every class at once.

    Raises:
        DataError: begins with the setting.
    """
    names = dataset.class_names
    for name in classes:
        if name not in names:
            raise DataError(f"{setting}: {data} has no class {shown(name)}; {suggestion(name, names)}")
    if not may_be_all and set(classes) == set(names):
        raise DataError(f"{setting}: every class is positive; leave at least one out")


def check_number(setting: str, number: str, dataset: Dataset, data: str, advice: str = "") -> None:
    """Refuse a number that is not known of each image of a data set called `data`.

    Raises:
        DataError: begins with the setting, and ends with the advice.
    """
    known = numbers(dataset)
    if number not in known:
        near = suggestion(number, list(known))
        raise DataError(f"{setting}: {data} has no number {shown(number)} for each image; {near}{advice}")
    if not np.isfinite(known[number]).all():
        raise DataError(f"{setting}: {number} has missing values; fill them, or remove images{advice}")


def groups_of(dataset: Dataset, places: Indices) -> NDArray[np.generic]:
    """(k,) groups of the images at (k,) places; without groups each image is a group of its own."""
    return places if dataset.groups is None else dataset.groups[places]


def stratified_folds(
    labels: NDArray[np.int64], groups: NDArray[np.generic], folds: int, seed: int
) -> list[tuple[Indices, Indices]]:
    """For each fold the places of all other cases and those of its own: whole groups, stratified by class.

    From (n,) labels and (n,) groups; the seed decides which groups are together.

    Raises:
        ValueError: from scikit-learn, for fewer cases or groups than folds.
    """
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class of fewer cases than folds
        return list(splitter.split(labels, labels, groups))


def training_part(experiment: Experiment, dataset: Dataset, places: Indices) -> Dataset:
    """The images at (k,) places that the filters of the `data` table leave.

    Raises:
        DataError: the filters ask for what the data do not have, or leave no image of a class.
    """
    bare = experiment.data.model_copy(update={"split": None, "held_out": 0.0, "conditional": False, "balance": 0.0})
    part = prepare(bare, experiment.training.seed, dataset.subset(places)).dataset
    if (counts := class_counts(part)).min() == 0:
        lost = dataset.class_names[int(counts.argmin())]
        raise DataError(f"data: filters leave no image of {lost!r} to learn from; loosen them")
    return part


def generator_of_part(study: Study, seed: int, **data: Any) -> Experiment:
    """The experiment of a generator of a `training_part`, with some settings of its table `data` changed.

    The filters of that table are left out, since they were applied when the part was made.
    """
    applied = dict.fromkeys(("split", "min_agreement", "subset", "subset_seed"))
    return study.experiment_with(data={**applied, **data}, training={"seed": seed})


def image_digests(dataset: Dataset) -> list[bytes]:
    """A digest of each of n images, of its pixels: files of equal images may differ."""
    blocks = np.split(np.arange(len(dataset)), range(256, len(dataset), 256))
    return [
        hashlib.blake2b(image.tobytes(), digest_size=16).digest() for block in blocks for image in dataset.read(block)
    ]


def package_versions() -> dict[str, str]:
    """The versions on which a study's numbers depend, by package."""
    return {
        "gankit": __version__, "python": platform.python_version(), "torch": torch.__version__,
        "torchvision": torchvision.__version__, "numpy": np.__version__, "scikit-learn": sklearn.__version__,
    }  # fmt: skip
