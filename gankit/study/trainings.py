"""Trainings as jobs: started or gone on with, and what they will cost."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

import gankit
from gankit.config import Experiment
from gankit.errors import RunError
from gankit.run import Run
from gankit.training import Trainer

WARMING, TIMED = 1, 4
"""Steps before the clock starts, and steps that it counts."""


def trained(experiment: Experiment, folder: Path) -> Run:
    """The finished run in this folder: trained now, gone on with, or as it was left.

    Raises:
        GankitError: as `gankit.train` and `gankit.resume`.
    """
    run = gankit.resume(folder) if (folder / "experiment.toml").is_file() else gankit.train(experiment, folder)
    if not run.finished:
        raise RunError(f"{folder}: the training ended at step {run.steps} of {experiment.training.steps}")
    return run


def seconds_a_step(experiment: Experiment, threads: int | None = None) -> float:
    """How long a step takes, from a few that are thrown away.

    Raises:
        GankitError: the experiment cannot be trained.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(experiment.training.threads or threads or before)
    try:
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
            trainer = Trainer(experiment, Path(folder), None)
            for _ in range(WARMING):
                trainer.updates.advance()
            start = time.perf_counter()
            for _ in range(TIMED):
                trainer.updates.advance()
            if trainer.updates.device.type == "cuda":
                torch.cuda.synchronize(trainer.updates.device)
            return (time.perf_counter() - start) / TIMED
    finally:
        torch.set_num_threads(before)


def spoken(seconds: float) -> str:
    """A length of time in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
