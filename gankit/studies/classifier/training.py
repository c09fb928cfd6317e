"""One training of one arm, as many steps as every other and resumable at any moment; and what it learns from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gankit.errors import RunError
from gankit.evaluation.design import Floats
from gankit.files import open_atomically
from gankit.runs import checkpoint
from gankit.runs.classifiers import FILE
from gankit.seeds import derive_seed
from gankit.studies import kinds
from gankit.studies.fitting import Images, TrainingSet, apply, fit_new, noised_copies, remove_checkpoints
from gankit.studies.kinds import KINDS, Arm, Examples, Labels, sample_classes
from gankit.studies.labelled import class_counts, class_labels, numeric_facts
from gankit.studies.study import JOBS
from gankit.studies.trainings import finished_run
from gankit.studies.worker import made_file
from gankit.version import __version__

if TYPE_CHECKING:
    from gankit.studies.classifier.study import ClassifierStudy

OUTPUTS = "logits.npy"
REGRESSION = "regression"  # what jobs that learn a number are called, before their seed; others have an arm's name


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


def train_arm(study: ClassifierStudy, arm: Arm, seed: int, generator: str | None, folder: Path) -> dict[str, Any]:
    """A job: train a classifier of one arm and one seed; write it, and its logits for the test part.

    `generator` is the name of the job whose generator makes the images that the arm adds; None where none does.

    Raises:
        RunError: that job has failed, or the classifier diverged.
    """
    train = study.split.train
    data = training_set(study, arm, seed, None if generator is None else folder.parent / generator)
    facts = {"class_names": list(train.class_names), "outputs": train.image.classes, "arm": arm.name, "seed": seed}
    return _train(study, data, folder, facts)


def train_regression(study: ClassifierStudy, seed: int, folder: Path) -> dict[str, Any]:
    """A job: train a network of one seed to predict a number; write it, and its predictions for the test part.

    Raises:
        RunError: it diverged.
    """
    train, name = study.split.train, str(study.settings.regression)
    data = kinds.training_set(KINDS["real"], train, study.settings.classical, numbers=numeric_facts(train)[name])
    facts = {"class_names": [], "outputs": 1, "number": name, "mean": data.mean, "scale": data.scale, "seed": seed}
    return {**_train(study, data, folder, facts), "mean": data.mean}


def _train(study: ClassifierStudy, data: TrainingSet, folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Train a network; write it with facts about it, and its outputs for the test part."""
    train, device = study.split.train, study.experiment.training.device
    network, progress = fit_new(data, study.settings, facts["outputs"], device, facts["seed"], folder)
    facts = {
        "kind": "classifier", "gankit": __version__,
        **study.settings.model_dump(include={"network", "width", "input_size"}),
        **facts, "image": list(train.image.shape), "value_range": list(train.value_range),
    }  # fmt: skip
    outputs = data.restore(apply(network, study.split.test))
    if not np.isfinite(outputs).all():
        raise RunError("the classifier diverged: lower classifier.lr")
    checkpoint.export(folder / FILE, network, facts)
    with open_atomically(folder / OUTPUTS) as file:
        np.save(file, outputs)
    remove_checkpoints(folder)
    return {**progress, "real": len(train), "added": len(data.images) - len(train)}


def load_outputs(folder: Path, name: str, seeds: list[int]) -> Floats:
    """The outputs of all n test cases by the networks of some seeds, (seeds, n, outputs).

    `name` is that of an arm, or of the regression: what the networks' jobs are called before the seed.

    Raises:
        RunError: what a job wrote was changed or lost since.
    """
    return np.stack([np.load(made_file(folder / JOBS / f"{name}-{seed}", OUTPUTS)) for seed in seeds])
