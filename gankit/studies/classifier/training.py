"""One training of one arm: as many optimiser steps as every other, resumable at any moment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gankit.errors import RunError
from gankit.evaluation.design import Floats
from gankit.files import open_atomically
from gankit.runs import checkpoint
from gankit.runs.classifiers import FILE
from gankit.studies import kinds
from gankit.studies.classifier.arms import training_set
from gankit.studies.fitting import TrainingSet, apply, fit_new, remove_checkpoints
from gankit.studies.kinds import KINDS, Arm
from gankit.studies.labelled import numeric_facts
from gankit.studies.study import JOBS
from gankit.studies.worker import check_made
from gankit.version import __version__

if TYPE_CHECKING:
    from gankit.studies.classifier.study import ClassifierStudy

OUTPUTS = "logits.npy"
REGRESSION = "regression"  # What jobs that learn a number are called, before their seed; others have an arm's name


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
    jobs = [folder / JOBS / f"{name}-{seed}" for seed in seeds]
    for job in jobs:
        check_made(job, OUTPUTS)
    return np.stack([np.load(job / OUTPUTS) for job in jobs])
