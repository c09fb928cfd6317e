"""Trainings as jobs of a study: start or resume one, find the run of an earlier job, check one, time its steps."""

import math
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
from gankit.training.execution.graphs import WARM_UPS
from gankit.training.train import resume, train
from gankit.training.trainer import Trainer

RUN = "run"  # The sub-folder of a job that holds the run of its training
WARM_UP_STEPS, TIMED_STEPS = 1, 4


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
    check_made(job, f"{RUN}/generator.safetensors")
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


def time_steps(advance: Callable[[int], object], threads: int | None, cycle: int = 1) -> float:
    """Seconds that a step takes with so many CPU threads; `advance` does the number of steps that it is given.

    In every `cycle` of steps there are costlier ones: whole cycles are timed.
    """
    count = math.ceil(TIMED_STEPS / cycle) * cycle
    with seeds.own_draws(), torch_threads(threads):
        advance(WARM_UP_STEPS)
        start = time.perf_counter()
        advance(count)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / count


def time_training(experiment: Experiment, threads: int | None = None, data: Dataset | None = None) -> float:
    """Seconds that a step of a training takes, measured on a few steps in a temporary folder.

    The experiment's own number of threads goes before `threads`; `data` is as for `gankit.train`.

    Raises:
        GankitError: the experiment cannot be trained.
    """
    with tempfile.TemporaryDirectory() as folder, seeds.own_draws():
        stepper = Trainer(experiment, Path(folder), data).stepper

        def advance(steps: int) -> None:
            for _ in range(steps):
                stepper.advance()

        set_threads = experiment.training.threads
        with stepper.computing():
            if stepper.device.type == "cuda":
                advance(WARM_UPS)  # until the next step records its turns
            cycle = max(loss.every for loss in experiment.losses)
            return time_steps(advance, threads if set_threads == "auto" else set_threads, cycle)
