"""The arms of a study of a classifier, and the images that each of them learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from gankit.seeds import derive_seed
from gankit.studies import study
from gankit.studies.fitting import Images, TrainingSet, class_weights, noised_copies
from gankit.studies.labelled import class_counts, class_labels
from gankit.studies.trainings import finished_run

if TYPE_CHECKING:
    from gankit.studies.classifier.study import ClassifierStudy

Labels = NDArray[np.int64]


def _generated(study: ClassifierStudy, labels: Labels, seed: int, generator: Path | None) -> Images:
    """Images of these (k,) classes, (k, c, h, w), by the generator of the job in the folder `generator`."""
    assert generator is not None
    run = finished_run(generator)
    names = np.array(run.class_names)[labels]  # Not the labels themselves: names of classes may be numbers
    return run.sample(len(labels), names, seed=derive_seed(seed, "added") % 2**62)


def _noised_copies(study: ClassifierStudy, labels: Labels, seed: int, generator: Path | None) -> Images:
    """Random training images of these (k,) classes, (k, c, h, w), with noise: they add no information."""
    data, random = study.split.train, np.random.default_rng(derive_seed(seed, "copies"))
    members = [np.flatnonzero(class_labels(data) == label) for label in range(data.image.classes)]
    places = np.array([random.choice(members[label]) for label in labels], np.int64)
    return noised_copies(data, places, study.settings.copy_noise, random)


@dataclass(frozen=True)
class Arm(study.Arm):
    """What a classifier is trained on, and how."""

    # makes the images that are added, from (study, their classes, seed, folder of the generator's job)
    adds: Callable[[ClassifierStudy, Labels, int, Path | None], Images] | None = None
    generator: bool = False  # whether `adds` needs a generator
    balanced: bool = False  # whether classes are drawn equally often
    weighted: bool = False  # whether the loss weights classes
    augmented: bool = False  # whether it has classical augmentation
    baseline: bool = False  # whether all others are compared with it
    bar: bool = False  # whether it is the bar to beat: all others but the baseline are compared with it too


ARMS = {
    arm.name: arm
    for arm in (
        Arm("real", "real images as they come", baseline=True),
        Arm("oversampling", "real images, classes drawn equally often", balanced=True),
        Arm("classical", "real images with classical augmentation, classes weighted in the loss: the bar to beat",
            weighted=True, augmented=True, bar=True),
        Arm("synthetic", "real images and generated ones of the rare class", _generated, generator=True),
        Arm("classical-synthetic", "real and generated images with classical augmentation, no weights of classes",
            _generated, generator=True, augmented=True),
        Arm("copies", "a control: real images and, in place of generated ones, noised copies of them, which add no "
            "information", _noised_copies),
    )
}  # fmt: skip


def training_set(study: ClassifierStudy, arm: Arm, seed: int = 0, generator: Path | None = None) -> TrainingSet:
    """What a classifier of an arm learns from: the training images, and those that the arm adds.

    The seed decides which are added; `generator` is the folder of the job whose generator makes them, where one does.

    Raises:
        RunError: that job has failed.
    """
    data = study.split.train
    images, labels, to_add = np.asarray(data.images), class_labels(data), added_labels(study)
    if arm.adds and len(to_add):
        images = np.concatenate([images, arm.adds(study, to_add, seed, generator)])
        labels = np.concatenate([labels, to_add])
    weights = class_weights(labels, data.image.classes) if arm.weighted else None
    classical = study.settings.classical if arm.augmented else None
    return TrainingSet(images, torch.from_numpy(labels.copy()), data, arm.balanced, weights, classical)


def added_labels(study: ClassifierStudy) -> Labels:
    """The class of each image to add, (k,): as many as fill up the classes in question."""
    names, counts = study.split.train.class_names, class_counts(study.split.train)
    to_fill = np.array([names.index(name) for name in study.classes_to_fill], np.int64)
    wanted = round(study.settings.synthetic_fill * int(counts.max()))
    return np.repeat(to_fill, np.maximum(0, wanted - counts[to_fill]))
