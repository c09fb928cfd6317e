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

from gankit import distributed, seeds
from gankit.errors import GankitError, RunError
from gankit.evaluation.while_training import InTraining
from gankit.experiments.experiment import Experiment, RunRecord
from gankit.files import check_free, write_atomically
from gankit.images.pictures import grid_png
from gankit.interfaces import Dataset, Generator
from gankit.nn.layers import set_influence
from gankit.runs import checkpoint
from gankit.runs.run import BEST, LAST, SAMPLE_BATCH, Run, draw_labels, generate_pixels, open_run, settle_statistics
from gankit.training.assembly import cautions
from gankit.training.data import TrainingData, prepare
from gankit.training.log import Progress, StopRequest, TickLog
from gankit.training.step import Updates
from gankit.version import __version__ as gankit_version

GRID_IMAGES = 64
STATISTICS_BATCHES = 8
CONDITIONS = 2048
"""Training images whose float conditions are exported with the generator, to draw conditions from."""


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
    with distributed.process_group(), _threads(experiment):
        distributed.on_rank_zero(lambda: _check_free(folder))
        trainer = Trainer(experiment.with_run(None), folder, data)
        trainer.start()
        distributed.on_rank_zero(lambda: trainer.begin(in_process=data is not None))
        return trainer.run(on_tick)


def _check_free(folder: Path) -> None:
    is_run = (folder / "experiment.toml").is_file()
    check_free(folder, f"go on with: gankit resume {folder}" if is_run else "choose another --out")


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
        GankitError: there is no run, its parts or data are missing, the data or parts are not those that it started
            with, or no checkpoint can be read.
        KeyboardInterrupt: as for `train`.
    """
    run = open_run(path)
    run.check_own("resume")
    if run.finished and run.exported.is_file():
        return run
    record = run.experiment.run
    if record is not None and record.data_in_process and data is None:
        raise RunError(f"{run.path} was trained on data of the program that started it: resume it there with data=...")
    with distributed.process_group(), _threads(run.experiment):
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
        self.evaluation: InTraining | None = None

    def run(self, on_tick: Callable[[dict[str, Any]], None] | None) -> Run:
        """Every remaining step, with ticks, sample grids and checkpoints on the way."""
        settings, writes = self.settings, distributed.rank() == 0
        bar = Progress(settings.steps, self.updates.step, settings.batch * settings.critic_steps, quiet=not writes)
        started = time.monotonic()
        with StopRequest() as stop, contextlib.closing(self.log), contextlib.closing(bar):
            for caution in cautions(self.experiment):
                bar.say(f"caution: {caution}")
            if self.updates.step == 0 and writes:
                self._write_grid()
            while self.updates.step < settings.steps:
                self.updates.advance()
                while self.updates.cautions:
                    bar.say(f"caution: {self.updates.cautions.pop(0)}")
                bar.step(self.updates.step)
                last = self.updates.step == settings.steps
                late = settings.max_minutes is not None and time.monotonic() - started > settings.max_minutes * 60
                # One interrupted process stops all, at one and the same step.
                stopped = distributed.any_rank(stop.asked)
                ending = distributed.any_rank(late) or last or stopped
                if self.updates.step % settings.tick_every == 0 or ending:
                    self._tick(bar, on_tick if writes else None)
                    stopped = distributed.any_rank(stop.asked)  # judging images takes its time
                    ending = ending or stopped
                if (self.updates.step % settings.sample_every == 0 or ending) and writes:
                    self._write_grid()
                if (self.updates.step % settings.checkpoint_every == 0 or ending) and writes:
                    self.save()
                if ending and not last:
                    reason = "interrupted" if stopped else "training.max_minutes is used up"
                    bar.say(f"{reason} at step {self.updates.step}; go on with: gankit resume {self.folder}")
                    if stopped:
                        raise KeyboardInterrupt
                    break
        distributed.wait()  # for what process 0 writes
        run = open_run(self.folder)
        if not run.exported.is_file() and writes:
            self._export()
        return run

    def _tick(self, bar: Progress, on_tick: Callable[[dict[str, Any]], None] | None) -> None:
        losses = distributed.means(self.log.means())
        self._check_finite([name for name, value in losses.items() if not math.isfinite(value)])
        if distributed.rank():
            return
        rates = {f"{side}_lr": optimizer.param_groups[0]["lr"] for side, optimizer in self.updates.optimizers.items()}
        row: dict[str, Any] = {"step": self.updates.step, **losses, **rates, **bar.speed()}
        if self.settings.label_fade:
            row["label_influence"] = self._influence
        every = self.experiment.evaluation.every * self.settings.tick_every
        if every and (self.updates.step % every == 0 or self.updates.step == self.settings.steps):
            try:
                row["metrics"] = self._evaluate(keep=True)
            except GankitError as error:  # of collapsed images, say: no reason to lose a training
                bar.say(f"caution: no values at step {self.updates.step}: {error}")
        self.log.write(row)
        bar.show(losses)
        if on_tick is not None:
            on_tick(row)

    def _check_finite(self, wrong: list[str]) -> None:
        if wrong:
            raise RunError(
                f"{self.folder}: the training diverged by step {self.updates.step} ({', '.join(wrong)} is not finite); "
                "start anew with smaller training.generator_lr and training.critic_lr; the checkpoint before is kept"
            )

    @property
    def _influence(self) -> float:
        return self.settings.label_influence(self.updates.step)

    def _sampler(self) -> Generator:
        """A copy of the generator to sample from: averaged weights, statistics settled for them, evaluation mode."""
        networks = {"generator": self.updates.generator, "critic": self.updates.critic}
        self._check_finite(
            [n for n, part in networks.items() if not all(p.isfinite().all() for p in part.parameters())]
        )
        sampler = copy.deepcopy(self.updates.generator)
        set_influence(sampler, self._influence)  # of the next step, as after a resume
        distributed.synchronise(sampler, False)  # one process draws
        if self.updates.averaged is not None:
            averaged = dict(self.updates.averaged.module.named_parameters())
            for name, parameter in sampler.named_parameters():
                parameter.data.copy_(averaged[name].data)
        seed = self.settings.seed
        labels = self._draw_labels(STATISTICS_BATCHES * SAMPLE_BATCH, seed)
        settle_statistics(sampler, sampler.latent_dim, labels, seed, STATISTICS_BATCHES)
        return sampler

    def _draw(self, sampler: Generator, n: int, seed: int, labels: Tensor | None) -> Any:
        z, dtype = seeds.latents(seed, n, sampler.latent_dim), str(self.data.dataset.dtype)
        return generate_pixels(sampler, z, labels, dtype, self.data.value_range)

    def _write_grid(self) -> None:
        """Samples of fixed latents; a row of each class in turn, or rows by the first condition."""
        rows, labels = GRID_IMAGES // 8, None
        if self.image.classes:
            labels = (torch.arange(rows) % self.image.classes).repeat_interleave(8)
        elif (conditions := self._conditions()) is not None:
            ranks = torch.linspace(0, len(conditions) - 1, rows).long()
            labels = conditions[conditions[:, 0].argsort(stable=True)[ranks]].repeat_interleave(8, 0)
        pictures = self._draw(self._sampler(), GRID_IMAGES, self.settings.seed, labels)
        path = self.folder / "samples" / f"step-{self.updates.step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, grid_png(pictures, self.data.value_range, 8))

    def begin(self, in_process: bool) -> None:
        """Judge the first generator, where generators are judged while training, and write the experiment.

        Raises:
            GankitError: the features or metrics of the experiment cannot judge these images; nothing is written then.
        """
        if self.experiment.evaluation.every:
            self._evaluate(keep=False)
        text = self.experiment.with_run(self._record(in_process)).toml()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / "experiment.toml", text.encode())

    def _evaluate(self, keep: bool) -> dict[str, float]:
        """Values of the generator as it samples now; the best so far is kept, since GANs collapse late."""
        settings = self.experiment.evaluation
        if self.evaluation is None:
            held_out, data = self.data.held_out, self.data.dataset
            reals = data if held_out is None else held_out.dataset
            self.evaluation = InTraining(
                settings, reals, self.data.value_range, data if held_out else None, self.settings.device
            )
        n, sampler = self.evaluation.count, self._sampler()
        labels = self._draw_labels(n, settings.seed)
        values = self.evaluation.values(
            self._draw(sampler, n, settings.seed, labels), None if labels is None else labels.numpy()
        )
        name, value = next(iter(values.items()))
        better = self.evaluation.better
        if keep and settings.keep_best and better is not None and math.isfinite(value):
            best = open_run(self.folder).best
            if best is None or (value < best["value"] if better == "lower" else value > best["value"]):
                state = self.updates.state_dict()
                checkpoint.save_best(self.folder / "checkpoints", self.updates.step, state)
                found = {"metric": name, "value": value, "step": self.updates.step}
                checkpoint.export(self.folder / BEST, sampler, self._export_config() | {"best": found})
        return values

    def _draw_labels(self, n: int, seed: int) -> Tensor | None:
        return draw_labels(n, self.image, self._label_counts(), self._conditions(), seed)

    def _conditions(self) -> Tensor | None:
        """(up to CONDITIONS, k) standardised conditions of training images, evenly picked; None without conditions."""
        labels = self.data.labels if self.image.conditions else None
        return None if labels is None else labels[:: math.ceil(len(labels) / CONDITIONS)]

    def _label_counts(self) -> list[int]:
        labels = self.data.dataset.labels
        return [] if labels is None else np.bincount(labels, minlength=self.data.dataset.image.classes).tolist()

    def _record(self, in_process: bool) -> RunRecord:
        dataset = self.data.dataset
        return RunRecord(
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
            processes=distributed.size(),
            data_in_process=in_process,
        )

    def _versions(self) -> dict[str, str]:
        versions = {"gankit": gankit_version, "python": platform.python_version()}
        versions |= {"torch": torch.__version__, "numpy": np.__version__}
        for name in self.experiment.part_names():
            distribution, _, _ = name.rpartition(":")
            if distribution:
                versions[distribution] = importlib.metadata.version(distribution)
        return versions

    def save(self) -> None:
        """Write the generator as it samples now, and a checkpoint that resumes exactly."""
        # In this order: a run killed in between does the last steps again, and exports them then.
        self._export()
        checkpoint.save(self.folder / "checkpoints", self.updates.step, self.updates.state_dict())

    def _export(self) -> None:
        checkpoint.export(self.folder / LAST, self._sampler(), self._export_config())

    def _export_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "generator": self.experiment.generator.table(),
            "image": dataclasses.asdict(self.image),
            "dtype": str(self.data.dataset.dtype),
            "value_range": list(self.data.value_range),
            "class_names": list(self.data.dataset.class_names),
        }
        if (conditions := self._conditions()) is not None:
            config["conditions"] = conditions.tolist()
        if self.settings.label_fade:
            config["label_influence"] = self._influence
        return config

    def restore(self) -> None:
        """Take up the newest checkpoint, or start at step 0 where there is none.

        Raises:
            RunError: the data have changed, or the checkpoint does not fit the experiment.
        """
        self._check_data()
        restored = checkpoint.restore(self.folder / "checkpoints", self.updates.device)
        if restored is None:
            self.start()
        else:
            self.updates.step, state = restored
            self.updates.load_state_dict(state, self.folder)
        distributed.on_rank_zero(lambda: self.log.forget_after(self.updates.step))

    def _check_data(self) -> None:
        """The images must be those of the first start, as far as its record tells."""
        if self.experiment.run is None:
            return
        before, now = self.experiment.run.model_dump(), self._record(False).model_dump()
        exact = ("image", "dtype", "value_range", "class_names", "images", "label_counts")
        different = [name for name in exact if before[name] != now[name]]
        different += [
            name for name in ("condition_mean", "condition_scale") if not np.allclose(before[name], now[name])
        ]
        if different:
            told = "; ".join(f"{name} was {before[name]}, is {now[name]}" for name in different)
            raise RunError(
                f"{self.folder}: the data are not those that the run started with ({told}); put them back, or start "
                "anew in another folder"
            )

    def start(self) -> None:
        """Take up the weights of the run that `training.start_from` names, where it names one."""
        if self.settings.start_from:
            self._start_from(self.settings.start_from)

    def _start_from(self, path: str) -> None:
        folder = open_run(path).path
        restored = checkpoint.restore(folder / "checkpoints", self.updates.device)
        if restored is None:
            raise RunError(f"training.start_from: {folder} has no checkpoint to start from")
        names = ["generator", "critic"]
        if self.updates.averaged is not None and "averaged" in restored[1]:
            names.append("averaged")
        self.updates.load_state_dict(restored[1], folder, names)
