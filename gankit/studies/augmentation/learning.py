"""One training of one variant in one fold, and the images that it learns from."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from gankit.errors import RunError
from gankit.evaluation.design import Floats
from gankit.files import open_atomically
from gankit.interfaces import Dataset
from gankit.seeds import derive_seed
from gankit.studies import kinds
from gankit.studies.augmentation.arms import FILL, HELD_OUT, Ratio, Variant
from gankit.studies.augmentation.estimators import FeatureLearner
from gankit.studies.augmentation.folds import Fold
from gankit.studies.fitting import Classical, TrainingSet, apply, fit_new, noised_copies, remove_checkpoints
from gankit.studies.kinds import COPIES, Examples
from gankit.studies.labelled import class_counts, class_labels
from gankit.studies.worker import made_file

if TYPE_CHECKING:
    from gankit.studies.augmentation.study import AugmentationStudy

OUTPUTS, MADE = "outputs.npz", "images.npz"  # in a job's folder: a classifier's outputs, the images that a source made
Counts = NDArray[np.int64]


def added_counts(fold: Fold, ratio: Ratio) -> Counts:
    """(classes,) images that a ratio adds to each class."""
    counts = class_counts(fold.learn)
    if ratio == FILL:
        return np.asarray(counts.max() - counts, np.int64)
    return cast(Counts, np.rint(counts * ratio).astype(np.int64))


def most_added(fold: Fold, study: AugmentationStudy) -> Counts:
    """(classes,) the most images of each class that any variant adds in the fold."""
    ratios = {variant.ratio for variant in study.variants if variant.ratio is not None}
    return cast(Counts, np.max([added_counts(fold, ratio) for ratio in ratios], axis=0))


def scale_classical(classical: Classical, strength: float) -> Classical:
    """A classical augmentation with all its ranges multiplied by the strength, each up to its largest useful value."""
    largest = {"shift": 1.0, "rotate": 180.0, "scale": 0.9, "brightness": 1.0, "contrast": 1.0}
    ranges = {name: min(getattr(classical, name) * strength, bound) for name, bound in largest.items()}
    return classical.model_copy(update=ranges)


def training_set(study: AugmentationStudy, fold: Fold, variant: Variant, seed: int, made: Path | None) -> TrainingSet:
    """What a variant learns from in a fold.

    The seed is that of the choice of added images; `made` is the folder of the job that made the images of the
    variant's source, where it has such a job.

    Raises:
        RunError: that job has failed.
    """
    learn, settings = fold.learn, study.settings
    added = None if variant.ratio is None else _added_images(study, fold, variant, seed, made)
    numbers = study.endpoint.values(learn) if study.outputs == 1 else None
    classical = scale_classical(settings.classical, variant.strength or 1.0)
    return kinds.training_set(variant.arm.kind, learn, classical, added, numbers)


def _added_images(study: AugmentationStudy, fold: Fold, variant: Variant, seed: int, made: Path | None) -> Examples:
    """What a variant adds, class by class; larger ratios contain those of smaller ones."""
    assert variant.ratio is not None
    counts = added_counts(fold, variant.ratio)
    if variant.arm.source in (COPIES, HELD_OUT):
        return _control_images(study, fold, variant.arm.source == COPIES, counts, seed)
    assert made is not None
    if not (path := made_file(made, MADE)).is_file():
        raise RunError(f"{made.name} has failed, and this training needs its images")
    with np.load(path) as file:
        stored = Examples(file["images"], file["labels"], file["values"])
    members = [np.flatnonzero(stored.labels == label) for label in range(len(counts))]
    return stored.at(np.concatenate([of_class[:count] for of_class, count in zip(members, counts, strict=True)]))


def _control_images(study: AugmentationStudy, fold: Fold, copied: bool, counts: Counts, seed: int) -> Examples:
    """Noised copies of training images if `copied`, else images of the reserve; (classes,) `counts` of each class."""
    source = fold.learn if copied else fold.reserve
    assert source is not None
    random = np.random.default_rng(derive_seed(seed, "added", fold.number))
    labels, chosen = class_labels(source), []
    for label, count in enumerate(counts):
        members = random.permutation(np.flatnonzero(labels == label))
        chosen.append(np.resize(members, count) if copied else members[:count])
    places = np.concatenate(chosen).astype(np.int64)
    added = Examples(np.asarray(source.images), labels, study.endpoint.values(source)).at(places)
    if copied:
        added = added._replace(images=noised_copies(source, places, study.settings.copy_noise, random))
    return added


def train_variant(
    study: AugmentationStudy, number: int, variant: Variant, image_job: str | None, seed: int, folder: Path
) -> dict[str, Any]:
    """A job: train a variant in the fold of this number, and write its outputs for the validation and the test part.

    `image_job` is the name of the job that made the images of the variant's source.

    Raises:
        GankitError: an earlier job has failed, or the training did.
    """
    fold, settings = study.fold(number), study.settings
    made = None if image_job is None else folder.parent / image_job
    data = training_set(study, fold, variant, seed, made)
    progress: dict[str, Any] = {}
    predict: Callable[[Dataset], Floats]
    if settings.estimator is not None:
        learner = FeatureLearner(settings, fold.learn, seed)
        learner.fit(data)
        predict = learner.apply
    else:
        network, progress = fit_new(data, settings, study.outputs, study.experiment.training.device, seed, folder)
        predict = functools.partial(apply, network)
    outputs = {name: data.restore(predict(fold.parts[name])) for name in ("validation", "test")}
    if not all(np.isfinite(values).all() for values in outputs.values()):
        advice = "choose other augmentation.options" if settings.estimator else "lower augmentation.lr"
        raise RunError(f"the classifier diverged: {advice}")
    with open_atomically(folder / OUTPUTS) as file:
        np.savez(file, validation=outputs["validation"], test=outputs["test"])
    remove_checkpoints(folder)
    real = len(fold.learn) if variant.arm.kind.real else 0
    steps = {"steps": progress["steps"]} if progress else {}  # an estimator takes none
    return {**steps, "real": real, "added": len(data.images) - real}
