"""The loop of a training, one for every recipe: steps, lines of the log, samples, checkpoints."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from gankit import distributed, seeds
from gankit.errors import GankitError, RunError, first_of
from gankit.experiments.experiment import Experiment
from gankit.files import write_atomically
from gankit.interfaces import Dataset, Generator
from gankit.nn.threads import torch_threads
from gankit.runs import checkpoint
from gankit.runs.record import check_same_data, export_config, read_log, record_run
from gankit.runs.run import BEST, LAST, Run, open_run
from gankit.terminal.text import say
from gankit.training.assembly import experiment_warnings
from gankit.training.data import TrainingData, prepare
from gankit.training.description import data_warnings, summarise
from gankit.training.evaluator import Evaluator
from gankit.training.execution.arithmetic import describe_arithmetic
from gankit.training.execution.faults import device_faults
from gankit.training.log import TickLog
from gankit.training.progress import Progress
from gankit.training.rehearsal import rehearse
from gankit.training.start import load_start_weights
from gankit.training.step import Stepper
from gankit.training.stopping import BrokenOff, StopRequest
from gankit.training.threads import StepThreads

OnTick = Callable[[dict[str, Any]], None]
"""Takes a line of the log, in process 0 alone: `step`, losses as "critic/NAME", rates, speed, metrics if evaluated."""
INTERRUPTED = "interrupted"
SETTLING = 0.1  # the share of the steps at the beginning in which large penalties are no sign of anything


@final
class Trainer:
    """One training: steps, and at intervals lines of the log (ticks), sample grids and checkpoints in its folder.

    The experiment of a run that is resumed holds its record. `data` takes the place of the data set that it names.
    `thread_options` are numbers of CPU threads to choose from while training on the CPU; without any, the present one
    is kept.
    """

    def __init__(
        self, experiment: Experiment, folder: Path, data: Dataset | None, thread_options: Sequence[int] = ()
    ) -> None:
        self.experiment, self.settings, self.folder = experiment, experiment.training, folder
        self.data: TrainingData = prepare(experiment.data, self.settings.seed, data)
        self.log = TickLog(folder / "log.jsonl", self.settings.tensorboard)
        self.stepper = Stepper(experiment, self.data, self.log)
        self.threads = StepThreads(folder, thread_options if self.stepper.device.type == "cpu" else ())
        self.record = record_run(
            experiment,
            self.data.dataset,
            image=dataclasses.asdict(self.data.image),
            condition_mean=self.data.condition_mean,
            condition_scale=self.data.condition_scale,
            held_out=0 if self.data.held_out is None else len(self.data.held_out.dataset),
            device=str(self.stepper.device),
            arithmetic=describe_arithmetic(self.settings, self.stepper.device),
            data_in_process=data is not None,
        )
        self.stepper.warnings += experiment_warnings(experiment)
        self.evaluator = Evaluator(self.stepper, self.record)
        self._saved = 0  # step of the newest checkpoint
        self._sampling_copy: Generator | None = None  # of the generator as it is after the present step

    def rehearse(self) -> None:
        """Print a summary of the training's data, rehearse it on a small batch, and print all warnings."""
        if distributed.rank() == 0:
            say(f"data: {summarise(self.data)}", error=True)  # first: the rehearsal of large networks takes a while
        self.stepper.warnings += [*data_warnings(self.data), *rehearse(self.experiment, self.data, self.stepper.gan)]
        if distributed.rank() == 0:  # before anything is written
            self._say_warnings(lambda text: say(text, error=True))

    def create_folder(self) -> None:
        """Create the run's folder with its experiment, after a trial evaluation where the run will have evaluations.

        Raises GankitError if the features or metrics cannot judge these images; nothing is written then.
        """
        if self.experiment.evaluation.every:
            self.evaluator.values(self._get_sampling_copy())
        text = self.experiment.with_run(self.record).toml()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / "experiment.toml", text)
        self.threads.start()

    def restore(self) -> None:
        """Load the newest checkpoint, or start at step 0 where there is none.

        Raises RunError if the data have changed, or the checkpoint does not fit the experiment.
        """
        if self.experiment.run is not None:
            check_same_data(self.folder, self.experiment.run, self.record)
        restored = checkpoint.restore(
            self.folder / "checkpoints", self.stepper.device,
            lambda state: self.stepper.load_state_dict(state, self.folder),
        )  # fmt: skip
        if restored is None:
            load_start_weights(self.stepper)
        else:
            self._saved = restored.step
            self.stepper.critic_updates = restored.state.get("turns", 0)  # above 0 if a step was stopped half-way
            self.stepper.go_to(restored.step)
            if restored.skipped:
                self.stepper.warnings.append(f"{'; '.join(restored.skipped)}; going on from step {restored.step}")
        distributed.on_rank_zero(lambda: self.log.drop_lines_after(self.stepper.step))

    def run(self, on_tick: OnTick | None) -> Run:
        """Do every remaining step, with ticks, sample grids and checkpoints on the way; see `train`.

        Raises:
            RunError: the training diverges, or its device fails or has too little memory.
            KeyboardInterrupt: it was interrupted; a checkpoint was written first, unless no update was done or a second
                interrupt came.
        """
        settings, stepper, is_writer = self.settings, self.stepper, distributed.rank() == 0
        bar = Progress(
            settings.steps, stepper.step, settings.batch * settings.critic_steps, settings.max_minutes,
            quiet=not is_writer, period=math.lcm(*(loss.every for loss in self.experiment.losses)),
            evaluates=self.experiment.evaluation.every > 0,
        )  # fmt: skip
        deadline = math.inf if settings.max_minutes is None else time.monotonic() + settings.max_minutes * 60
        notice = "finishing this update, then saving; interrupt again to lose the steps since the last checkpoint"
        with (
            device_faults(self.folder, settings, lambda: stepper.step),  # outermost: a dead GPU also fails in `close`
            StopRequest(notice if is_writer else "") as stop, contextlib.closing(self.log), contextlib.closing(bar),
            contextlib.closing(stepper), torch_threads(self.threads.threads_for(stepper.step - 1)),
        ):  # fmt: skip
            try:
                self._say_warnings(bar.say)
                if stepper.step == 0 and is_writer:
                    self._write_grid()
                if self._evaluation_was_broken_off():
                    stepper.move_rates(stepper.step - 1)  # the line records the rates of the last step
                    self._tick(bar, on_tick, stop)
                why_stopped = self._do_steps(bar, on_tick, stop, deadline)
            except KeyboardInterrupt:  # stopped at once, without a checkpoint
                raise KeyboardInterrupt(bar.say_lost(self._saved, self.folder)) from None
            said = why_stopped and bar.say_stopped(why_stopped, self.folder)
        if why_stopped == INTERRUPTED:
            raise KeyboardInterrupt(said)
        distributed.any_rank(False)  # waits for what process 0 writes
        run = open_run(self.folder)
        if not run.exported.is_file() and is_writer:  # the user has deleted it from a finished run
            self._export(LAST, self._get_sampling_copy())
        return run

    def _do_steps(self, bar: Progress, on_tick: OnTick | None, stop: StopRequest, deadline: float) -> str | None:
        """Do the remaining steps, each with what is due after it; returns why it stopped, or None at the end.

        Stops after the present update at an interrupt, and after the present step past `deadline` (of
        `time.monotonic`); saves a checkpoint in both cases, unless it was stopped before the first update.
        """
        settings, stepper = self.settings, self.stepper

        def is_stopped() -> bool:  # one interrupted process stops all at the same update
            return distributed.any_rank(stop.requested)

        stopped, out_of_time = is_stopped(), False
        while stepper.step < settings.steps and not stopped and not out_of_time:
            self._sampling_copy = None
            thread_choice = self.threads.advance(stepper, is_stopped)
            self._say_warnings(bar.say)
            if not stepper.critic_updates:  # else the step was stopped half-way; it gets no line and no samples
                bar.step(stepper.step, self.threads.on_trial)
                if thread_choice:
                    bar.say(thread_choice)
                    bar.count_anew()
                if self._is_due(settings.tick_every):
                    self._tick(bar, on_tick, stop)
                if self._is_due(settings.sample_every) and distributed.rank() == 0:
                    self._write_grid()
            stopped, out_of_time = is_stopped(), distributed.any_rank(time.monotonic() > deadline)
            if self._is_due(settings.checkpoint_every) or stopped or out_of_time:
                self._save()
        if stepper.step == settings.steps and not self._evaluation_was_broken_off():
            return None
        return INTERRUPTED if stopped else "training.max_minutes is used up"

    def _is_due(self, every: int) -> bool:
        """Whether the step just done is a multiple of `every`, or the last one."""
        return self.stepper.step % every == 0 or self.stepper.step == self.settings.steps

    def _evaluation_was_broken_off(self) -> bool:
        """Whether a stop broke off this step's evaluation, so its line is missing; False with several processes."""
        step = self.stepper.step
        if distributed.size() > 1 or step == 0 or not self._is_due(self.settings.tick_every):
            return False
        rows = read_log(self.log.path)
        return not rows or rows[-1]["step"] < step

    def _say_warnings(self, tell: Callable[[str], object]) -> None:
        while self.stepper.warnings:
            tell(f"warning: {self.stepper.warnings.pop(0)}")

    def _tick(self, bar: Progress, on_tick: OnTick | None, stop: StopRequest) -> None:
        """Write a line of the log; process 0 alone does so, with the means of all processes.

        No line is written where a stop breaks off its evaluation: the resumed run writes it.
        """
        step, sums = self.stepper.step, self.log.state_dict()
        losses = distributed.means(self.log.means())  # clears the sums
        hook_values = {name: float(value) for name, value in self.stepper.hook_values.items()}
        logged = {**losses, **hook_values}
        self._raise_if_diverged([name for name, value in logged.items() if not math.isfinite(value)])
        self.stepper.warnings += self._judge_penalties({"step": step, **losses})
        if distributed.rank():
            return
        self._say_warnings(bar.say)
        rates = {f"{side}_lr": optimizer.param_groups[0]["lr"] for side, optimizer in self.stepper.optimizers.items()}
        row: dict[str, Any] = {"step": step, **losses, **rates, **bar.speed(), **hook_values}
        if self.evaluator.is_due(step):
            try:
                row |= self._evaluate(bar, stop)
            except BrokenOff:
                self.log.load_state_dict(sums)  # for the line that the resumed run writes
                return
        self.log.write(row)
        bar.show(losses)
        if on_tick is not None:
            with seeds.unchanged_settings("on_tick", seed=False):  # each step seeds torch itself
                on_tick(row)

    def _judge_penalties(self, line: Mapping[str, Any]) -> list[str]:
        """As `Objective.judge_penalties`; all processes raise its error, since they have the same means."""
        objective, settled = self.stepper.objective, SETTLING * self.settings.steps
        if line["step"] <= settled or not objective.lost_penalties(line):
            return []

        def judge() -> list[str]:
            earlier = [row for row in read_log(self.log.path) if row["step"] > settled]
            return objective.judge_penalties(line, earlier, self.folder)

        return distributed.on_rank_zero(judge)

    def _evaluate(self, bar: Progress, stop: StopRequest) -> dict[str, Any]:
        """Evaluate the generator, and keep it if it is the best so far; returns its metrics for the log.

        Raises BrokenOff at a stop.
        """
        generator = self._get_sampling_copy()
        try:
            # With several processes a stop breaks nothing off: the others would wait for this one.
            with stop.breaking_off() if distributed.size() == 1 else contextlib.nullcontext():
                values = self.evaluator.values(generator)
            # The best is kept, since a GAN may collapse late in its training; the first metric decides.
            if self.evaluator.improves(values, Run(self.folder, self.experiment).best):
                step, (metric, value) = self.stepper.step, next(iter(values.items()))
                checkpoint.save(self.folder / "checkpoints", step, self.stepper.state_dict(), best=True)
                self._export(BEST, generator, best={"metric": metric, "value": value, "step": step})
        except GankitError as error:  # some metrics fail on collapsed images; the training goes on
            bar.say(f"warning: step {self.stepper.step} could not be evaluated: {error}")
            return {}
        return {"metrics": values}

    def _raise_if_diverged(self, not_finite: list[str]) -> None:
        if not_finite:
            raise RunError(
                f"{self.folder}: the training diverged by step {self.stepper.step} ({first_of(not_finite)} "
                "not finite); start anew with lower training.generator_lr and training.critic_lr; checkpoints stay"
            )

    def _get_sampling_copy(self) -> Generator:
        """A copy of the generator to sample from, made once per step; all its weights are finite."""
        if self._sampling_copy is None:
            self._raise_if_diverged(self.stepper.not_finite())
            self._sampling_copy = self.evaluator.sampling_copy()
        return self._sampling_copy

    def _write_grid(self) -> None:
        generator, path = self._get_sampling_copy(), self.folder / "samples" / f"step-{self.stepper.step:08d}.png"
        path.parent.mkdir(exist_ok=True)
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
            self._export(LAST, self._get_sampling_copy())
            state = {**self.stepper.state_dict(), "log": log, "turns": self.stepper.critic_updates}
            checkpoint.save(self.folder / "checkpoints", self.stepper.step, state, self.settings.checkpoint_every)
        self._saved = self.stepper.step

    def _export(self, name: str, generator: Generator, **facts: Any) -> None:
        config = export_config(self.experiment, self.record, self.evaluator.conditions)
        checkpoint.export(self.folder / name, generator, config | facts)
