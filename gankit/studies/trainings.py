"""Trainings as jobs: started or gone on with, and what they will cost."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import gankit
from gankit.errors import RunError
from gankit.experiments.experiment import Experiment
from gankit.interfaces import Dataset
from gankit.runs.run import Run
from gankit.training.trainer import Trainer

WARMING, TIMED = 1, 4
"""Steps before the clock starts, and steps that it counts."""


def train_or_resume(experiment: Experiment, folder: Path) -> Run:
    """The finished run in this folder: trained now, gone on with, or as it was left.

    Raises:
        GankitError: as `gankit.train` and `gankit.resume`.
    """
    run = gankit.resume(folder) if (folder / "experiment.toml").is_file() else gankit.train(experiment, folder)
    if not run.finished:
        raise RunError(f"{folder}: the training ended at step {run.steps} of {experiment.training.steps}")
    return run


def seconds_a_step(experiment: Experiment, threads: int | None = None, data: Dataset | None = None) -> float:
    """How long a step takes, from a few that are thrown away.

    Args:
        experiment: the training.
        threads: of the CPU, where the experiment does not say.
        data: a data set in place of the one that the experiment names.

    Raises:
        GankitError: the experiment cannot be trained.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(experiment.training.threads or threads or before)
    try:
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
            trainer = Trainer(experiment, Path(folder), data)
            for _ in range(WARMING):
                trainer.stepper.advance()
            start = time.perf_counter()
            for _ in range(TIMED):
                trainer.stepper.advance()
            if trainer.stepper.device.type == "cuda":
                torch.cuda.synchronize(trainer.stepper.device)
            return (time.perf_counter() - start) / TIMED
    finally:
        torch.set_num_threads(before)


def announce(work: Sequence[tuple[int, str, int, float]], workers: int) -> None:
    """Say on stderr what a study will cost.

    Args:
        work: for each kind of training how many, what one is called, its steps, and seconds a step.
        workers: trainings at a time.
    """
    kinds = [
        f"{count} {name}{'s' if count > 1 else ''} of {steps} steps at {each:.2g} s"
        for count, name, steps, each in work
    ]
    seconds = sum(count * steps * each for count, _, steps, each in work)
    at_a_time = min(workers, max(count for count, *_ in work))
    shared = f", {format_seconds(seconds / at_a_time)} with {at_a_time} at a time" if at_a_time > 1 else ""
    print(
        f"{' and '.join(kinds)}: about {format_seconds(seconds)} of work{shared}, and the judging; a study that is "
        "stopped goes on with the same command",
        file=sys.stderr,
    )


def format_seconds(seconds: float) -> str:
    """A length of time in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
