"""Training, from an experiment to a run folder: one loop for every recipe."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.metadata
import math
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from gankit import __version__ as gankit_version
from gankit import checkpoint, seeds
from gankit.building import cautions, probe_labels
from gankit.config import Experiment, RunRecord
from gankit.data import TrainingData, prepare
from gankit.errors import RunError
from gankit.evaluation import quick_values
from gankit.interfaces import Dataset, Generator
from gankit.pictures import grid_png, to_pixels
from gankit.progress import Progress, StopRequest, TickLog
from gankit.run import SAMPLE_BATCH, Run, drawn_labels, generate, open_run, settle_statistics
from gankit.updates import Updates

GRID_IMAGES = 64
STATISTICS_BATCHES = 8


def train(
    experiment: Experiment,
    out: str | Path,
    *,
    data: Dataset | None = None,
    on_tick: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Train an experiment into a new run folder.

    Args:
        experiment: from `gankit.load`.
        out: the folder to make; it must not exist, or be empty.
        data: a data set of the calling program, in place of the one that the experiment names.
        on_tick: called with each line of the log.

    Returns:
        The finished run; an unfinished one where `training.max_minutes` ended it.

    Raises:
        GankitError: the experiment cannot be trained (nothing is written then), the folder is taken, or the training
            diverges.
        KeyboardInterrupt: it was interrupted; a checkpoint was written first.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        is_run = (folder / "experiment.toml").is_file()
        hint = f"go on with: gankit resume {folder}" if is_run else "choose another --out"
        raise RunError(f"{folder} is not empty; {hint}")
    with _threads(experiment):
        trainer = Trainer(experiment.with_run(None), folder, data)
        trainer.write_experiment(in_process=data is not None)
        return trainer.run(on_tick)


def resume(
    path: str | Path,
    *,
    data: Dataset | None = None,
    on_tick: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Go on with a run from its newest checkpoint, or from step 0 where there is none; a finished run is returned.

    On a CPU, with as many threads, the run ends bitwise as if it had never stopped.

    Args:
        path: the run's folder.
        data: the data set, where the run was started with one of the calling program.
        on_tick: called with each further line of the log.

    Raises:
        GankitError: there is no run, its parts or data are missing, or no checkpoint can be read.
        KeyboardInterrupt: as for `train`.
    """
    run = open_run(path)
    if run.finished and (run.path / "generator.safetensors").is_file():
        return run
    record = run.experiment.run
    if record is not None and record.data_in_process and data is None:
        raise RunError(f"{run.path} was trained on data of the program that started it: resume it there with data=...")
    with _threads(run.experiment):
        trainer = Trainer(run.experiment, run.path, data)
        trainer.restore()
        return trainer.run(on_tick)


@contextlib.contextmanager
def _threads(experiment: Experiment) -> Iterator[None]:
    """The threads of the experiment (of the first start, when resumed), and torch's own draws put back afterwards."""
    before = torch.get_num_threads()
    recorded = experiment.run.threads if experiment.run else None
    torch.set_num_threads(experiment.training.threads or recorded or before)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(before)


@final
class Trainer:
    """A training as a job: ticks, sample grids, checkpoints, and the run folder."""

    def __init__(self, experiment: Experiment, folder: Path, data: Dataset | None) -> None:
        self.experiment, self.settings, self.folder = experiment, experiment.training, folder
        self.data: TrainingData = prepare(experiment.data, self.settings.seed, data)
        self.image = self.data.image
        self.log = TickLog(folder / "log.jsonl", self.settings.tensorboard)
        self.updates = Updates(experiment, self.data, self.log)
        if self.settings.start_from:
            self._start_from(self.settings.start_from)

    def run(self, on_tick: Callable[[dict[str, Any]], None] | None) -> Run:
        """Every remaining step, with ticks, sample grids and checkpoints on the way."""
        settings = self.settings
        bar = Progress(settings.steps, self.updates.step, settings.batch * settings.critic_steps)
        started = time.monotonic()
        with StopRequest() as stop, contextlib.closing(self.log), contextlib.closing(bar):
            for caution in cautions(self.experiment):
                bar.say(f"caution: {caution}")
            if self.updates.step == 0:
                self._write_grid()
            while self.updates.step < settings.steps:
                self.updates.advance()
                bar.step(self.updates.step)
                last = self.updates.step == settings.steps
                late = settings.max_minutes is not None and time.monotonic() - started > settings.max_minutes * 60
                ending = last or late or stop.asked
                if self.updates.step % settings.tick_every == 0 or ending:
                    self._tick(bar, on_tick)
                if self.updates.step % settings.sample_every == 0 or ending:
                    self._write_grid()
                if self.updates.step % settings.checkpoint_every == 0 or ending:
                    self.save()
                if (late or stop.asked) and not last:
                    reason = "interrupted" if stop.asked else "training.max_minutes is used up"
                    bar.say(f"{reason} at step {self.updates.step}; go on with: gankit resume {self.folder}")
                    if stop.asked:
                        raise KeyboardInterrupt
                    break
        return open_run(self.folder)

    def _tick(self, bar: Progress, on_tick: Callable[[dict[str, Any]], None] | None) -> None:
        losses = self.log.means()
        wrong = [name for name, value in losses.items() if not math.isfinite(value)]
        if wrong:
            raise RunError(
                f"{self.folder}: the training diverged by step {self.updates.step} ({', '.join(wrong)} is not finite); "
                "start anew with smaller training.generator_lr and training.critic_lr; the checkpoint before is kept"
            )
        rates = {f"{side}_lr": optimizer.param_groups[0]["lr"] for side, optimizer in self.updates.optimizers.items()}
        row: dict[str, Any] = {"step": self.updates.step, **losses, **rates, **bar.speed()}
        every = self.experiment.evaluation.every
        if every and (self.updates.step // self.settings.tick_every) % every == 0:
            row["metrics"] = self._evaluate()
        self.log.write(row)
        bar.show(losses)
        if on_tick is not None:
            on_tick(row)

    def _sampler(self) -> Generator:
        """A copy of the generator to sample from: averaged weights, statistics settled for them, evaluation mode."""
        sampler = copy.deepcopy(self.updates.generator)
        if self.updates.averaged is not None:
            averaged = dict(self.updates.averaged.module.named_parameters())
            for name, parameter in sampler.named_parameters():
                parameter.data.copy_(averaged[name].data)
        seed, labels = self.settings.seed, None
        if self.image.conditional:
            labels = drawn_labels(STATISTICS_BATCHES * SAMPLE_BATCH, self.image, self._label_counts(), seed)
        settle_statistics(sampler, sampler.latent_dim, labels, seed, STATISTICS_BATCHES)
        return sampler

    def _draw(self, sampler: Generator, n: int, seed: int, labels: Tensor | None) -> Any:
        images = generate(sampler, seeds.latents(seed, n, sampler.latent_dim), labels)
        return to_pixels(images, str(self.data.dataset.dtype), self.data.value_range)

    def _write_grid(self) -> None:
        """Samples of fixed latents; with classes one class a row, in turn."""
        labels = probe_labels(GRID_IMAGES // 8, self.image)
        labels = None if labels is None else labels.repeat_interleave(8, 0)
        pictures = self._draw(self._sampler(), GRID_IMAGES, self.settings.seed, labels)
        path = self.folder / "samples" / f"step-{self.updates.step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        checkpoint.write_atomically(path, grid_png(pictures, self.data.value_range, 8))

    def _evaluate(self) -> dict[str, float]:
        settings = self.experiment.evaluation
        n = settings.count or len(self.data.dataset)
        labels = drawn_labels(n, self.image, self._label_counts(), settings.seed) if self.image.conditional else None
        fake = self._draw(self._sampler(), n, settings.seed, labels)
        return quick_values(fake, self.data.dataset, settings, self.data.value_range)

    def _label_counts(self) -> list[int]:
        labels = self.data.dataset.labels
        return [] if labels is None else np.bincount(labels, minlength=self.data.dataset.image.classes).tolist()

    def write_experiment(self, in_process: bool) -> None:
        """Make the folder and write the experiment with the record of this run."""
        dataset = self.data.dataset
        record = RunRecord(
            versions=self._versions(),
            image=dataclasses.asdict(self.image),
            dtype=str(dataset.dtype),
            value_range=self.data.value_range,
            class_names=list(dataset.class_names),
            condition_mean=self.data.condition_mean,
            condition_scale=self.data.condition_scale,
            label_counts=self._label_counts(),
            images=len(dataset),
            device=str(self.updates.device),
            threads=torch.get_num_threads(),
            data_in_process=in_process,
        )
        text = self.experiment.with_run(record).toml()
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write_atomically(self.folder / "experiment.toml", text.encode())

    def _versions(self) -> dict[str, str]:
        versions = {"gankit": gankit_version, "python": platform.python_version()}
        versions |= {"torch": torch.__version__, "numpy": np.__version__}
        tables = [self.experiment.data, self.experiment.generator, self.experiment.critic, self.experiment.augment]
        for table in [*tables, *self.experiment.losses]:
            distribution, _, part = table.name.rpartition(":") if table else ("", "", "")
            if distribution and part:
                versions[distribution] = importlib.metadata.version(distribution)
        return versions

    def save(self) -> None:
        """Write a checkpoint that resumes exactly, and the generator as it samples now."""
        checkpoint.save(self.folder / "checkpoints", self.updates.step, self.updates.state_dict())
        config = {
            "generator": self.experiment.generator.table(),
            "image": dataclasses.asdict(self.image),
            "dtype": str(self.data.dataset.dtype),
            "value_range": list(self.data.value_range),
            "class_names": list(self.data.dataset.class_names),
        }
        checkpoint.export(self.folder / "generator.safetensors", self._sampler(), config)

    def restore(self) -> None:
        """Take up the newest checkpoint, or start at step 0 where there is none.

        Raises:
            RunError: the checkpoint does not fit the experiment.
        """
        restored = checkpoint.restore(self.folder / "checkpoints", self.updates.device)
        self.updates.step, state = restored or (0, None)
        self.log.forget_after(self.updates.step)
        if state is not None:
            self.updates.load_state_dict(state, self.folder)

    def _start_from(self, path: str) -> None:
        folder = open_run(path).path
        restored = checkpoint.restore(folder / "checkpoints", self.updates.device)
        if restored is None:
            raise RunError(f"training.start_from: {folder} has no checkpoint to start from")
        names = ["generator", "critic"]
        if self.updates.averaged is not None and "averaged" in restored[1]:
            names.append("averaged")
        self.updates.load_state_dict(restored[1], folder, names)
