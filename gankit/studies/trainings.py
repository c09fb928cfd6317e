"""Trainings as jobs of a study: start or resume one, find the run of an earlier job, check one, time its steps."""

from pathlib import Path

from gankit import seeds
from gankit.errors import RunError
from gankit.experiments.experiment import Experiment
from gankit.interfaces import Dataset
from gankit.runs.run import Run, open_run
from gankit.studies.worker import made_file
from gankit.training.assembly import build
from gankit.training.data import prepare
from gankit.training.timing import time_training as time_training  # for studies that are written as plug-ins, too
from gankit.training.train import resume, train

RUN = "run"  # the sub-folder of a job that holds the run of its training


def train_or_resume(experiment: Experiment, folder: Path, data: Dataset | None = None) -> Run:
    """Train a generator in this folder, or resume its training; a finished one is left as it is.

    `data` is as for `gankit.train`.

    Raises:
        GankitError: as `gankit.train` and `gankit.resume`; or the training ended early.
    """
    begun = (folder / "experiment.toml").is_file()
    run = resume(folder, data=data) if begun else train(experiment, folder, data=data)
    if not run.finished:
        raise RunError(f"{folder}: the training ended at step {run.steps} of {experiment.training.steps}")
    return run


def finished_run(job: Path) -> Run:
    """The finished run in the folder of an earlier job.

    Raises:
        RunError: that job has failed, or its generator was changed or lost since.
    """
    made_file(job, f"{RUN}/generator.safetensors")
    if (job / RUN / "experiment.toml").is_file():
        run = open_run(job / RUN)
        if run.finished:
            return run
    raise RunError(f"{job.name} has failed, and this training needs its run")


def check_training(experiment: Experiment, data: Dataset | None = None) -> None:
    """Build the parts of a training, to see that it could start; `data` as for `gankit.train`.

    Raises:
        GankitError: the experiment cannot be trained.
    """
    with seeds.own_draws():
        build(experiment, prepare(experiment.data, experiment.training.seed, data).image)
