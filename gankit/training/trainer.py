"""Training, from an experiment to a run folder: one loop for every recipe."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final

import torch

from gankit import distributed, seeds
from gankit.errors import GankitError, RunError
from gankit.experiments.document import SettingsDocument
from gankit.experiments.experiment import Experiment, load, read_settings
from gankit.files import refuse_nonempty, sole_writer, user_path, write_atomically
from gankit.interfaces import Dataset, Generator
from gankit.runs import checkpoint
from gankit.runs.record import check_same_data, export_config, record_run
from gankit.runs.run import BEST, LAST, Run, open_run
from gankit.training.assembly import experiment_warnings
from gankit.training.data import TrainingData, prepare
from gankit.training.evaluator import Evaluator
from gankit.training.log import Progress, StopRequest, TickLog
from gankit.training.rehearsal import rehearse
from gankit.training.step import Stepper

OnTick = Callable[[dict[str, Any]], None]


def train(
    experiment: Experiment | str | Path, out: str | Path, *, data: Dataset | None = None, on_tick: OnTick | None = None
) -> Run:
    """Train an experiment into a new run folder.

    Args:
        experiment: from `gankit.load`, or what it reads: a recipe's name, a file.
        out: the folder to make; it must be new or empty.
        data: a data set of the calling program, in place of the one that the experiment names; the size and flip of a
            recipe's own data set do not apply to it.
        on_tick: called with each line of the log.

    Returns:
        The finished run; an unfinished one where `training.max_minutes` ended it.

    Raises:
        GankitError: the experiment cannot be trained (nothing is written then), the folder is taken, or the training
            diverges.
        KeyboardInterrupt: it was interrupted; a checkpoint was written first.
    """
    folder = user_path(out)
    experiment = experiment if isinstance(experiment, Experiment) else load(experiment)
    experiment = (experiment if data is None else experiment.for_given_data()).with_run(None)
    with distributed.process_group(), _threads_and_random_state(experiment), contextlib.ExitStack() as stack:
        distributed.on_rank_zero(lambda: stack.enter_context(_new_folder(folder)))
        trainer = Trainer(experiment, folder, data)
        trainer.rehearse()
        trainer.stepper.load_start_weights()
        distributed.on_rank_zero(trainer.create_folder)
        return trainer.run(on_tick)


def resume(path: str | Path, *, data: Dataset | None = None, on_tick: OnTick | None = None) -> Run:
    """Go on with a run from its newest checkpoint, or from step 0 where there is none; a finished run stays as it is.

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
    run.check_own("resume")  # a run that comes with gankit has no checkpoint
    if run.finished and run.exported.is_file():
        _tidy(run)
        return run
    read_settings(Experiment, SettingsDocument.read(run.path / "experiment.toml"), complete=True)
    record = run.experiment.run
    if record is not None and record.data_in_process and data is None:
        raise RunError(f"{run.path} was trained on data of the program that started it: resume it there with data=...")
    with distributed.process_group(), _threads_and_random_state(run.experiment), contextlib.ExitStack() as stack:
        distributed.on_rank_zero(lambda: stack.enter_context(sole_writer(run.path)))
        trainer = Trainer(run.experiment, run.path, data)
        trainer.restore()
        return trainer.run(on_tick)


def _tidy(run: Run) -> None:
    """Delete what a process that was killed after the last checkpoint left there, where the folder can be written."""
    if distributed.torchrun_rank_and_size()[0] == 0:
        with contextlib.suppress(OSError), sole_writer(run.path):
            checkpoint.prune(run.path / "checkpoints", run.steps, run.experiment.training.checkpoint_every)


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """Be the only process that writes into a folder for a new run; a RunError if it is taken, or becomes so."""

    def refuse() -> None:
        is_run = (folder / "experiment.toml").is_file()
        refuse_nonempty(folder, f"go on with: gankit resume {folder}" if is_run else "choose another --out")

    refuse()  # before anything is written there
    with sole_writer(folder):
        refuse()
        yield


@contextlib.contextmanager
def _threads_and_random_state(experiment: Experiment) -> Iterator[None]:
    """Use the experiment's threads, on resume those recorded; at the end restore the caller's, and its random state."""
    with seeds.own_draws(), seeds.plain_torch():
        before = torch.get_num_threads()
        recorded = experiment.run.threads if experiment.run else None
        torch.set_num_threads(experiment.training.threads or recorded or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@final
class Trainer:
    """One training: steps, and at intervals ticks, sample grids and checkpoints in the run's folder.

    Args:
        experiment: the settings, and the record of the run if it is resumed.
        folder: the run's.
        data: a data set of the calling program, in place of the one that the experiment names.
    """

    def __init__(self, experiment: Experiment, folder: Path, data: Dataset | None) -> None:
        self.experiment, self.settings, self.folder = experiment, experiment.training, folder
        self.data: TrainingData = prepare(experiment.data, self.settings.seed, data)
        self.log = TickLog(folder / "log.jsonl", self.settings.tensorboard)
        self.stepper = Stepper(experiment, self.data, self.log)
        self.record = record_run(
            experiment,
            self.data.dataset,
            image=dataclasses.asdict(self.data.image),
            condition_mean=self.data.condition_mean,
            condition_scale=self.data.condition_scale,
            device=str(self.stepper.device),
            data_in_process=data is not None,
        )
        self.stepper.warnings += experiment_warnings(experiment)
        self.evaluator = Evaluator(self.stepper, self.record)

    def rehearse(self) -> None:
        """Try in small what the training will do; see `gankit.training.rehearsal.rehearse`."""
        self.stepper.warnings += rehearse(self.experiment, self.data)

    def create_folder(self) -> None:
        """Create the run's folder with its experiment, after a trial evaluation where the run will have evaluations.

        Raises:
            GankitError: the features or metrics of the experiment cannot judge these images; nothing is written then.
        """
        if self.experiment.evaluation.every:
            self.evaluator.values(self._generator())
        text = self.experiment.with_run(self.record).toml()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / "experiment.toml", text)

    def restore(self) -> None:
        """Take up the newest checkpoint, or start at step 0 where there is none.

        Raises:
            RunError: the data have changed, or the checkpoint does not fit the experiment.
        """
        if self.experiment.run is not None:
            check_same_data(self.folder, self.experiment.run, self.record)
        restored = checkpoint.restore(
            self.folder / "checkpoints", self.stepper.device,
            lambda state: self.stepper.load_state_dict(state, self.folder),
        )  # fmt: skip
        if restored is None:
            self.stepper.load_start_weights()
        else:
            self.stepper.go_to(restored.step)
            if restored.skipped:
                self.stepper.warnings.append(f"{'; '.join(restored.skipped)}; going on from step {restored.step}")
        distributed.on_rank_zero(lambda: self.log.forget_after(self.stepper.step))

    def run(self, on_tick: OnTick | None) -> Run:
        """Do every remaining step, with ticks, sample grids and checkpoints on the way; see `train`.

        Raises:
            RunError: the training diverges.
            KeyboardInterrupt: it was interrupted; a checkpoint was written first.
        """
        settings, stepper, is_writer = self.settings, self.stepper, distributed.rank() == 0
        bar = Progress(settings.steps, stepper.step, settings.batch * settings.critic_steps, quiet=not is_writer)
        deadline = math.inf if settings.max_minutes is None else time.monotonic() + settings.max_minutes * 60
        answer = "finishing this step, then saving; again to stop now and lose the steps since the last checkpoint"
        with StopRequest(answer if is_writer else "") as stop, contextlib.closing(self.log), contextlib.closing(bar):
            self._say_warnings(bar)
            if stepper.step == 0 and is_writer:
                self._write_grid()
            while stepper.step < settings.steps:
                stepper.advance()
                self._say_warnings(bar)
                bar.step(stepper.step)
                last = stepper.step == settings.steps
                if stepper.step % settings.tick_every == 0 or last:
                    self._tick(bar, on_tick)
                if (stepper.step % settings.sample_every == 0 or last) and is_writer:
                    self._write_grid()
                # One interrupted process stops all at the same step; a stop itself adds no log line and no samples.
                stopped = distributed.any_rank(stop.requested)
                ending = distributed.any_rank(time.monotonic() > deadline) or last or stopped
                if stepper.step % settings.checkpoint_every == 0 or ending:
                    self._save()
                if ending and not last:
                    reason = "interrupted" if stopped else "training.max_minutes is used up"
                    bar.say_stopped(reason, self.folder)
                    if stopped:
                        raise KeyboardInterrupt
                    break
        distributed.wait()  # for what process 0 writes
        run = open_run(self.folder)
        if not run.exported.is_file() and is_writer:  # deleted from a finished run that is resumed
            self._export(LAST, self._generator())
        return run

    def _say_warnings(self, bar: Progress) -> None:
        while self.stepper.warnings:
            bar.say(f"warning: {self.stepper.warnings.pop(0)}")

    def _tick(self, bar: Progress, on_tick: OnTick | None) -> None:
        """Write a line of the log; process 0 alone, with the means of all processes."""
        step = self.stepper.step
        losses = distributed.means(self.log.means())
        logged = {**losses, **self.stepper.hook_values}
        self._raise_if_diverged([name for name, value in logged.items() if not math.isfinite(value)])
        if distributed.rank():
            return
        rates = {f"{side}_lr": optimizer.param_groups[0]["lr"] for side, optimizer in self.stepper.optimizers.items()}
        row: dict[str, Any] = {"step": step, **losses, **rates, **bar.speed(), **self.stepper.hook_values}
        if self.evaluator.is_due(step):
            generator = self._generator()
            try:
                row["metrics"] = self.evaluator.values(generator)
                self._keep_best(generator, row["metrics"])
            except GankitError as error:  # some metrics fail on collapsed images; the training goes on
                bar.say(f"warning: step {step} could not be evaluated: {error}")
        self.log.write(row)
        bar.show(losses)
        if on_tick is not None:
            on_tick(row)

    def _raise_if_diverged(self, not_finite: list[str]) -> None:
        if not_finite:
            more = f" and {len(not_finite) - 3} more" if len(not_finite) > 3 else ""
            raise RunError(
                f"{self.folder}: the training diverged by step {self.stepper.step} ({', '.join(not_finite[:3])}{more} "
                "not finite); start anew with lower training.generator_lr and training.critic_lr; the last checkpoint "
                "stays"
            )

    def _generator(self) -> Generator:
        """A copy of the generator to sample from, once all weights are known to be finite."""
        self._raise_if_diverged(self.stepper.not_finite())
        return self.evaluator.generator()

    def _write_grid(self) -> None:
        path = self.folder / "samples" / f"step-{self.stepper.step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        generator = self._generator()
        try:
            picture = self.evaluator.grid(generator)
        except RunError as error:
            raise RunError(f"{self.folder}: step {self.stepper.step}: {error}") from error
        write_atomically(path, picture)

    def _save(self) -> None:
        """Write the generator as it samples now, and a checkpoint that resumes exactly; every process must call it."""
        log = distributed.gather(self.log.state_dict())  # each process has sums of its own
        if distributed.rank() == 0:
            # Export first: a run killed in between resumes from the older checkpoint, and exports again.
            self._export(LAST, self._generator())
            state = {**self.stepper.state_dict(), "log": log}
            checkpoint.save(self.folder / "checkpoints", self.stepper.step, state, self.settings.checkpoint_every)

    def _keep_best(self, generator: Generator, values: dict[str, float]) -> None:
        """Keep the generator with the best value so far, since GANs collapse late."""
        if self.evaluator.improves(values, Run(self.folder, self.experiment).best):
            step, (metric, value) = self.stepper.step, next(iter(values.items()))
            checkpoint.save(self.folder / "checkpoints", step, self.stepper.state_dict(), best=True)
            self._export(BEST, generator, best={"metric": metric, "value": value, "step": step})

    def _export(self, name: str, generator: Generator, **facts: Any) -> None:
        config = export_config(self.experiment, self.record, self.evaluator.conditions)
        checkpoint.export(self.folder / name, generator, config | facts)
