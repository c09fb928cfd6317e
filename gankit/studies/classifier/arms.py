"""The arms of a study of a classifier, and the images that each of them learns from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gankit.seeds import derive_seed
from gankit.studies import kinds
from gankit.studies.fitting import Images, TrainingSet, noised_copies
from gankit.studies.kinds import COPIES, GENERATOR, KINDS, Arm, Examples, Labels, sample_classes
from gankit.studies.labelled import class_counts, class_labels
from gankit.studies.trainings import finished_run

if TYPE_CHECKING:
    from gankit.studies.classifier.study import ClassifierStudy


BASELINE, BAR = "baseline", "bar"  # roles: all others are compared with the baseline, and then with the bar to beat

ARMS = {
    arm.name: arm
    for arm in (
        Arm("real", "real images as they come", KINDS["real"], role=BASELINE),
        Arm("oversampling", "real images, classes drawn equally often", KINDS["oversampling"]),
        Arm("classical", "real images with classical augmentation, classes weighted in the loss: the bar to beat",
            KINDS["classical-weights"], role=BAR),
        Arm("synthetic", "real images and generated ones of the rare class", KINDS["synthetic"], GENERATOR),
        Arm("classical-synthetic", "real and generated images with classical augmentation, no weights of classes",
            KINDS["classical-synthetic"], GENERATOR),
        Arm("copies", "a control: real images and, in place of generated ones, noised copies of them, which add no "
            "information", KINDS["synthetic"], COPIES),
    )
}  # fmt: skip


def training_set(study: ClassifierStudy, arm: Arm, seed: int = 0, generator: Path | None = None) -> TrainingSet:
    """What a classifier of an arm learns from: the training images, and those that the arm adds.

    The seed decides which are added; `generator` is the folder of the job whose generator makes them, where one does.

    Raises:
        RunError: that job has failed.
    """
    labels, added = added_labels(study), None
    if arm.kind.adds and len(labels):
        if generator is None:
            images = _copies(study, labels, seed)
        else:
            images = sample_classes(finished_run(generator), labels, derive_seed(seed, "added") % 2**62)
        added = Examples(images, labels, np.zeros(len(labels)))
    return kinds.training_set(arm.kind, study.split.train, study.settings.classical, added)


def _copies(study: ClassifierStudy, labels: Labels, seed: int) -> Images:
    """Random training images of these (k,) classes, (k, c, h, w), with noise: they add no information."""
    data, random = study.split.train, np.random.default_rng(derive_seed(seed, "copies"))
    members = [np.flatnonzero(class_labels(data) == label) for label in range(data.image.classes)]
    places = np.array([random.choice(members[label]) for label in labels], np.int64)
    return noised_copies(data, places, study.settings.copy_noise, random)


def added_labels(study: ClassifierStudy) -> Labels:
    """The class of each image to add, (k,): as many as fill up the classes in question."""
    names, counts = study.split.train.class_names, class_counts(study.split.train)
    to_fill = np.array([names.index(name) for name in study.classes_to_fill], np.int64)
    wanted = round(study.settings.synthetic_fill * int(counts.max()))
    return np.repeat(to_fill, np.maximum(0, wanted - counts[to_fill]))
