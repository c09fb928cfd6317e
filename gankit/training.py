"""Training, from an experiment to a run folder: one loop for every recipe."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.metadata
import inspect
import math
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gankit import checkpoint, seeds
from gankit import __version__ as gankit_version
from gankit.building import Parts, build, probe_labels
from gankit.config import Experiment, RunRecord
from gankit.data import TrainingData, prepare
from gankit.errors import PartError, RunError
from gankit.evaluation import quick_values
from gankit.interfaces import Dataset, Generator, Side, Turn
from gankit.pictures import grid_png, to_pixels
from gankit.progress import Progress, StopRequest, TickLog
from gankit.run import SAMPLE_BATCH, Run, choose_device, drawn_labels, generate, open_run, settle_statistics

GRID_IMAGES = 64
STATISTICS_BATCHES = 8
DTYPES = {"float32": torch.float32, "bf16": torch.float32, "float64": torch.float64}


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
        hint = f"go on with: gankit resume {folder}" if (folder / "experiment.toml").is_file() else "choose another --out"
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
    """The state of a training and its two turns."""

    def __init__(self, experiment: Experiment, folder: Path, data: Dataset | None) -> None:
        self.experiment, self.settings, self.folder = experiment, experiment.training, folder
        self.device = choose_device(self.settings.device)
        self.data: TrainingData = prepare(experiment.data, self.settings.seed, data)
        self.image = self.data.image
        self.parts: Parts = build(experiment, self.image)
        self.like = torch.empty(0, dtype=DTYPES[self.settings.precision], device=self.device)
        self.generator: Generator = self._placed(self.parts.generator)
        self.critic = self._placed(self.parts.critic)
        if self.parts.augment is not None:
            self.parts.augment.to(self.device)
        for weighted in self.parts.losses:
            if isinstance(weighted.loss, nn.Module):
                weighted.loss.to(self.device)
        self.step = 0
        self.averaged = AveragedModel(self.generator, multi_avg_fn=self._average) if self.settings.averaging else None
        self.optimizers = {
            "critic": self._optimizer(self.critic, self.settings.critic_lr),
            "generator": self._optimizer(self.generator, self.settings.generator_lr),
        }
        self.orders = {side: self.data.order(self.settings.seed, f"{side} images") for side in self.optimizers}
        self.log = TickLog(folder / "log.jsonl", self.settings.tensorboard)
        if self.settings.start_from:
            self._start_from(self.settings.start_from)

    def _placed(self, network: Any) -> Any:
        return network.to(self.device, self.like.dtype, memory_format=torch.channels_last).train()

    def _optimizer(self, network: nn.Module, rate: float) -> torch.optim.Optimizer:
        kind = getattr(torch.optim, self.settings.optimizer)
        known = inspect.signature(kind).parameters
        options: dict[str, Any] = {"lr": rate}
        if "betas" in known:
            options["betas"] = self.settings.betas
        if "fused" in known:
            options["fused"] = True
        options |= self.settings.optimizer_options
        try:
            optimizer: torch.optim.Optimizer = kind(network.parameters(), **options)
        except (TypeError, ValueError, RuntimeError) as error:
            raise PartError(f"training.optimizer_options: {self.settings.optimizer} refuses them: {error}") from error
        return optimizer

    @torch.no_grad()
    def _average(self, averaged: Any, current: Any, _: Any) -> None:
        # A warm-up: the first, poor weights are forgotten quickly.
        decay = min(self.settings.averaging, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    # One step: the critic's turns, then the generator's.

    def advance(self) -> None:
        """One generator update, after `critic_steps` critic updates."""
        remaining = 1 - self.step / self.settings.steps if self.settings.lr_decay == "linear" else 1.0
        for side, rate in (("critic", self.settings.critic_lr), ("generator", self.settings.generator_lr)):
            for group in self.optimizers[side].param_groups:
                group["lr"] = rate * remaining
        for k in range(self.settings.critic_steps):
            self._update("critic", self.critic, self.settings.batch, self.step * self.settings.critic_steps + k)
        self.critic.requires_grad_(False)
        self._update("generator", self.generator, self.settings.generator_batch or self.settings.batch, self.step)
        self.critic.requires_grad_(True)
        self.step += 1
        if self.averaged is not None:
            self.averaged.update_parameters(self.generator)

    def _update(self, side: Side, network: nn.Module, batch: int, number: int) -> None:
        seeds.seed_torch(self.settings.seed, f"{side} turn", number)
        turn = self._turn(side, batch, number)
        optimizer = self.optimizers[side]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            total = self._objective(turn, number)
        if total is not None:
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            for weighted in self.parts.losses:
                weighted.loss.after_step(turn)

    def _turn(self, side: Side, batch: int, number: int) -> Turn:
        seed, indices = self.settings.seed, self.orders[side].batch(number, batch)
        draws = seeds.TurnDraws(seed, f"{side} losses", number, self.like)
        source = seeds.source(seed, f"{side} latents", number)
        latents = torch.randn(batch, self.generator.latent_dim, generator=source).to(self.like)
        labels = None if self.data.labels is None else self.data.labels[indices].to(self.device)
        return Turn(
            side,
            self.generator,
            self.critic,
            real=lambda: self._real(side, indices, number),
            labels=labels,
            latents=latents,
            step=self.step,
            random=draws,
            augment=self.parts.augment,
            scope=self.experiment.augment.scope if self.experiment.augment else "critic",
            critic_mixes=self.parts.critic_mixes,
        )

    def _real(self, side: Side, indices: Any, number: int) -> Tensor:
        draws = seeds.TurnDraws(self.settings.seed, f"{side} reals", number, torch.empty(0))
        mirrored = draws.uniform(len(indices)) < 0.5 if self.experiment.data.flip else None
        images = self.data.batch(indices, self.like, mirrored)
        if self.settings.dequantise:
            low, high = self.data.value_range
            grey_level = 2 / (high - low)
            images = images + (draws.uniform(*images.shape).to(self.like) - 0.5) * grey_level
        return images

    def _objective(self, turn: Turn, number: int) -> Tensor | None:
        total: Tensor | None = None
        for weighted in self.parts.losses:
            if number % weighted.every == 0 and (value := getattr(weighted.loss, turn.side)(turn)) is not None:
                self.log.add(f"{turn.side}/{weighted.name}", value.detach())
                total = weighted.weight * value if total is None else total + weighted.weight * value
        return total

    # The whole run.

    def run(self, on_tick: Callable[[dict[str, Any]], None] | None) -> Run:
        """Every remaining step, with ticks, sample grids and checkpoints on the way."""
        settings = self.settings
        bar = Progress(settings.steps, self.step, settings.batch * settings.critic_steps)
        started = time.monotonic()
        with StopRequest() as stop, contextlib.closing(self.log), contextlib.closing(bar):
            if self.step == 0:
                self._write_grid()
            while self.step < settings.steps:
                self.advance()
                bar.step(self.step)
                last = self.step == settings.steps
                late = settings.max_minutes is not None and time.monotonic() - started > settings.max_minutes * 60
                ending = last or late or stop.asked
                if self.step % settings.tick_every == 0 or ending:
                    self._tick(bar, on_tick)
                if self.step % settings.sample_every == 0 or ending:
                    self._write_grid()
                if self.step % settings.checkpoint_every == 0 or ending:
                    self.save()
                if stop.asked and not last:
                    bar.say(f"stopped at step {self.step}; go on with: gankit resume {self.folder}")
                    raise KeyboardInterrupt
                if late and not last:
                    bar.say(f"training.max_minutes reached at step {self.step}; go on with: gankit resume {self.folder}")
                    break
        return open_run(self.folder)

    def _tick(self, bar: Progress, on_tick: Callable[[dict[str, Any]], None] | None) -> None:
        losses = self.log.means()
        wrong = [name for name, value in losses.items() if not math.isfinite(value)]
        if wrong:
            raise RunError(
                f"{self.folder}: the training diverged by step {self.step} ({', '.join(wrong)} is not finite); the last "
                "checkpoint is untouched: start anew with smaller training.generator_lr and training.critic_lr"
            )
        rates = {f"{side}_lr": optimizer.param_groups[0]["lr"] for side, optimizer in self.optimizers.items()}
        row: dict[str, Any] = {"step": self.step, **losses, **rates, **bar.speed()}
        every = self.experiment.evaluation.every
        if every and (self.step // self.settings.tick_every) % every == 0:
            row["metrics"] = self._evaluate()
        self.log.write(row)
        bar.show(losses)
        if on_tick is not None:
            on_tick(row)

    def _sampler(self) -> Generator:
        """A copy of the generator to sample from: averaged weights, statistics settled for them, evaluation mode."""
        sampler = copy.deepcopy(self.generator)
        if self.averaged is not None:
            averaged = dict(self.averaged.module.named_parameters())
            for name, parameter in sampler.named_parameters():
                parameter.data.copy_(averaged[name].data)
        seed, labels = self.settings.seed, None
        if self.image.conditional:
            labels = drawn_labels(STATISTICS_BATCHES * SAMPLE_BATCH, self.image, self._label_counts(), seed)
        settle_statistics(sampler, sampler.latent_dim, labels, seed, STATISTICS_BATCHES)
        return sampler

    def _draw(self, sampler: Generator, n: int, seed: int, labels: Tensor | None) -> Any:
        images = generate(sampler, seeds.latents(seed, n, sampler.latent_dim), labels)
        return to_pixels(images, str(self.data.dataset.images.dtype), self.data.value_range)

    def _write_grid(self) -> None:
        """Samples of fixed latents; with classes one class a row, in turn."""
        labels = probe_labels(GRID_IMAGES // 8, self.image)
        labels = None if labels is None else labels.repeat_interleave(8, 0)
        pictures = self._draw(self._sampler(), GRID_IMAGES, self.settings.seed, labels)
        path = self.folder / "samples" / f"step-{self.step:08d}.png"
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

    # What a run folder holds.

    def write_experiment(self, in_process: bool) -> None:
        """Make the folder and write the experiment with the record of this run."""
        dataset = self.data.dataset
        record = RunRecord(
            versions=self._versions(),
            image=dataclasses.asdict(self.image),
            dtype=str(dataset.images.dtype),  # type: ignore[arg-type]  # validated
            value_range=self.data.value_range,
            class_names=list(dataset.class_names),
            condition_mean=self.data.condition_mean,
            condition_scale=self.data.condition_scale,
            label_counts=self._label_counts(),
            images=len(dataset),
            device=str(self.device),
            threads=torch.get_num_threads(),
            data_in_process=in_process,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        text = self.experiment.with_run(record).toml()
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
        checkpoint.save(self.folder / "checkpoints", self.step, self._state())
        config = {
            "generator": self.experiment.generator.table(),
            "image": dataclasses.asdict(self.image),
            "dtype": str(self.data.dataset.images.dtype),
            "value_range": list(self.data.value_range),
            "class_names": list(self.data.dataset.class_names),
        }
        checkpoint.export(self.folder / "generator.safetensors", self._sampler(), config)

    def _stateful(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"generator": self.generator, "critic": self.critic}
        parts |= {f"{side} optimizer": optimizer for side, optimizer in self.optimizers.items()}
        if self.averaged is not None:
            parts["averaged"] = self.averaged
        if self.parts.augment is not None:
            parts["augment"] = self.parts.augment
        parts |= {f"loss {w.name}": w.loss for w in self.parts.losses if hasattr(w.loss, "state_dict")}
        return parts

    def _state(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._stateful().items()} | {"log": self.log.state_dict()}

    def restore(self) -> None:
        """Take up the newest checkpoint, or start at step 0 where there is none.

        Raises:
            RunError: the checkpoint does not fit the experiment.
        """
        restored = checkpoint.restore(self.folder / "checkpoints", self.device)
        self.step, state = restored or (0, None)
        self.log.forget_after(self.step)
        if state is None:
            return
        self.log.load_state_dict(state["log"])
        self._load(state, list(self._stateful()), self.folder)

    def _load(self, state: dict[str, Any], names: list[str], folder: Path) -> None:
        parts = self._stateful()
        for name in names:
            try:
                parts[name].load_state_dict(state[name])
            except (KeyError, ValueError, RuntimeError) as error:
                reason = " ".join(str(error).split())[:200]
                raise RunError(f"{folder}: the checkpoint's {name} does not fit this experiment: {reason}") from error

    def _start_from(self, path: str) -> None:
        folder = open_run(path).path
        restored = checkpoint.restore(folder / "checkpoints", self.device)
        if restored is None:
            raise RunError(f"training.start_from: {folder} has no checkpoint to start from")
        names = ["generator", "critic"] + ["averaged"] * (self.averaged is not None and "averaged" in restored[1])
        self._load(restored[1], names, folder)
