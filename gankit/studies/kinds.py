"""Kinds of trainings that studies of classifiers compare, and the images that a classifier of each kind learns from."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gankit.evaluation.design import Floats
from gankit.interfaces import Dataset, Indices
from gankit.runs.run import Run
from gankit.studies import study
from gankit.studies.fitting import Classical, Images, TrainingSet, class_weights
from gankit.studies.labelled import class_labels

GENERATOR, COPIES = "generator", "copies"  # sources of added images
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Kind(study.Arm):
    """What a classifier is trained on, and how, whatever the source of added images."""

    balanced: bool = False  # whether classes are drawn equally often
    weighted: bool = False  # whether the loss weights classes
    augmented: bool = False  # whether there is classical augmentation
    tuned: bool = False  # whether decisions are adjusted on the validation part
    remedy: bool = False  # whether it is a remedy for imbalance
    adds: bool = False  # whether images of a source are added
    real: bool = True  # whether classifiers see the real images


KINDS = {
    kind.name: kind
    for kind in (
        Kind("real", "real images as they come"),
        Kind("oversampling", "real images, classes drawn equally often", balanced=True, remedy=True),
        Kind("weights", "real images, classes weighted in the loss", weighted=True, remedy=True),
        Kind("classical", "real images with classical augmentation", augmented=True),
        Kind("classical-weights", "classical augmentation, classes weighted in the loss", weighted=True,
             augmented=True, remedy=True),
        Kind("thresholds", "classical augmentation, decisions adjusted to the frequencies of classes by as much as "
             "serves the validation part", augmented=True, tuned=True, remedy=True),
        Kind("synthetic", "real images and generated ones", adds=True),
        Kind("classical-synthetic", "real and generated images with classical augmentation", augmented=True,
             adds=True),
        Kind("synthetic-only", "as many generated images as there are real ones, and no real one", adds=True,
             real=False),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Arm(study.Arm):
    """A kind with one source of images."""

    kind: Kind
    source: str | None = None  # where added images come from; None where nothing is added
    role: str = ""  # in the comparison, as the study names it


class Examples(NamedTuple):
    """Images to learn from."""

    images: Images  # (n, c, h, w)
    labels: Labels  # (n,) classes
    values: Floats  # (n,) numbers that are learnt in place of the classes; zeros where classes are learnt

    def at(self, places: Indices) -> "Examples":
        """Those at (k,) places."""
        return Examples._make(column[places] for column in self)


def training_set(
    kind: Kind, learn: Dataset, classical: Classical, added: Examples | None = None, numbers: Floats | None = None
) -> TrainingSet:
    """What a classifier of a kind learns from: the real images, those added, or both, as the kind says.

    `learn` has the real images, `added` those of a source. The classical augmentation is for kinds that have it. If
    there are (n,) numbers, which are known of the real images, they are learnt in place of the classes, standardised by
    their mean and deviation.
    """
    real_values = np.zeros(len(learn)) if numbers is None else numbers
    mean, scale = float(real_values.mean()), float(real_values.std()) or 1.0
    examples = Examples(np.asarray(learn.images), class_labels(learn), real_values)
    if added is not None:
        examples = Examples._make(map(np.concatenate, zip(examples, added, strict=True))) if kind.real else added
    images, labels, values = examples
    targets = torch.from_numpy(labels.copy())
    if numbers is not None:
        targets = torch.from_numpy((values - mean) / scale).float()[:, None]
    weights = class_weights(labels, learn.image.classes) if kind.weighted else None
    augmentation = classical if kind.augmented else None
    return TrainingSet(images, targets, learn, kind.balanced, weights, augmentation, labels, mean, scale)


def sample_classes(run: Run, labels: Labels, seed: int) -> Images:
    """Generated images of (n,) classes, (n, c, h, w)."""
    names = np.array(run.class_names)[labels]  # Not the labels themselves: names of classes may be numbers
    return run.sample(len(labels), names, seed=seed)
