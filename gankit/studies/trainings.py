"""Trainings of a study: trained or resumed, and how long a step of them takes."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from gankit import seeds
from gankit.errors import RunError
from gankit.experiments.experiment import Experiment
from gankit.interfaces import Dataset
from gankit.nn.threads import torch_threads
from gankit.runs.run import Run, open_run
from gankit.studies.worker import check_made
from gankit.training.assembly import build
from gankit.training.data import prepare
from gankit.training.train import resume, train
from gankit.training.trainer import Trainer

RUN = "run"  # The sub-folder of a job that holds the run of its training
WARMING, TIMED = 1, 4  # Steps before the clock starts, and steps that it counts


def train_or_resume(experiment: Experiment, folder: Path, data: Dataset | None = None) -> Run:
    """The finished run in this folder, which is trained now, resumed, or left as it is; `data` as for `gankit.train`.

    Raises:
        GankitError: as `gankit.train` and `gankit.resume`.
    """
    begun = (folder / "experiment.toml").is_file()
    run = resume(folder, data=data) if begun else train(experiment, folder, data=data)
    if not run.finished:
        raise RunError(f"{folder}: the training ended at step {run.steps} of {experiment.training.steps}")
    return run


def finished_run(job: Path) -> Run:
    """The finished run in the folder of an earlier job.

    Raises:
        RunError: that job has failed, or its generator is not the one that it wrote.
    """
    check_made(job, f"{RUN}/generator.safetensors")
    if not (job / RUN / "experiment.toml").is_file() or not (run := open_run(job / RUN)).finished:
        raise RunError(f"{job.name} has failed, and this training needs its run")
    return run


def check_training(experiment: Experiment, data: Dataset | None = None) -> None:
    """Build the parts of a training; `data` as for `gankit.train`.

    Raises:
        GankitError: the experiment cannot be trained.
    """
    with seeds.own_draws():
        build(experiment, prepare(experiment.data, experiment.training.seed, data).image)


def time_steps(advance: Callable[[int], object], threads: int | None) -> float:
    """Seconds that a step takes with so many CPU threads; `advance` does a number of steps, which are thrown away."""
    with seeds.own_draws(), torch_threads(threads):
        advance(WARMING)
        start = time.perf_counter()
        advance(TIMED)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / TIMED


def time_training(experiment: Experiment, threads: int | None = None, data: Dataset | None = None) -> float:
    """Seconds that a step of a training takes, from a few that are thrown away; `data` as for `gankit.train`.

    Raises:
        GankitError: the experiment cannot be trained.
    """
    with tempfile.TemporaryDirectory() as folder, seeds.own_draws():
        stepper = Trainer(experiment, Path(folder), data).stepper

        def advance(steps: int) -> None:
            for _ in range(steps):
                stepper.advance()

        own = experiment.training.threads
        return time_steps(advance, threads if own == "auto" else own)
