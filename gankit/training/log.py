"""A training's progress bar, its log with a line per tick (every `training.tick_every` steps), and its orderly stop."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor

from gankit import distributed
from gankit.errors import RunError
from gankit.files import append_line, write_atomically
from gankit.runs.record import read_log
from gankit.terminal.text import ErrorStream, can_draw, harmless, progress_bar


def format_seconds(seconds: float) -> str:
    """A length of time in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"


class Progress:
    """A bar on the terminal's error stream with images per second and the time left; elsewhere a line per tick.

    The time left is estimated from all steps of this process, so that it never jumps. How long a long training will
    take is said as soon as enough steps have been measured.

    Args:
        steps: generator updates in all.
        done: those done before.
        images_per_step: real images that the critic sees in a step.
        quiet: show and say nothing; set in every process but the first.
    """

    MEASURED = ((5, 0.0), (2, 10.0), (1, 60.0))
    """The cost is said after five steps, two that take more than 10 seconds, or one that takes more than 60."""
    WORTH_SAYING = 60.0
    """Trainings that take fewer seconds start without a word."""
    LONG, SHORT = 2 * 3600.0, 45 * 60.0
    """Of a training that takes longer than LONG seconds, also the number of steps for SHORT seconds is said."""
    JUST_BEGUN = 100
    """If the speed of steps changes within this many steps from the start, the cost is said once more."""

    def __init__(self, steps: int, done: int, images_per_step: int, quiet: bool = False) -> None:
        self._stream = ErrorStream()
        self._lines = not quiet and not can_draw()
        self._bar = progress_bar(
            total=steps, initial=done, unit="step", dynamic_ncols=True, smoothing=0, disable=quiet or self._lines
        )
        self._quiet = quiet
        self._steps, self._first, self._step = steps, done, done
        self._images_per_step = images_per_step
        self._start = time.monotonic()
        self._last_measured = (done, self._start)
        self._counted_from = (done, self._start)  # step and time from which the present speed is measured
        self._cost_said = False
        self._description = ""

    def step(self, step: int, on_trial: bool = False) -> None:
        """Move the bar to a step. One whose number of threads is `on_trial` says little about the cost of others."""
        self._bar.update(step - self._step)
        self._step = step
        now = time.monotonic()
        if self._counted_from == (self._first, self._start):  # the first also loads and compiles, and is left out
            self._counted_from = (step, now)
        done, taken = step - self._first, now - self._start
        measured = self.MEASURED[-1:] if on_trial else self.MEASURED
        if not self._cost_said and any(done >= steps and taken > seconds for steps, seconds in measured):
            self._cost_said = True
            self._say_cost(self.seconds_left())

    def count_anew(self) -> None:
        """Measure the time of steps from here on: the number of threads has changed."""
        self._counted_from = (self._step, time.monotonic())
        self._cost_said = self._cost_said and self._step - self._first > self.JUST_BEGUN

    def seconds_left(self) -> float:
        """Estimate for the remaining steps, from the mean of those done, without the first if there are others."""
        step, since = self._counted_from
        if self._step == step:
            step, since = self._first, self._start
        return (time.monotonic() - since) / max(self._step - step, 1) * (self._steps - self._step)

    def _say_cost(self, seconds: float) -> None:
        if seconds < self.WORTH_SAYING:
            return
        left = f"{self._steps:,} steps" if not self._first else f"{self._steps - self._first:,} steps that are left"
        text = f"{left}: about {format_seconds(seconds)} on this machine; stop with Ctrl-C and go on at any time"
        fewer = int(self.SHORT / seconds * (self._steps - self._step))
        if seconds > self.LONG and not self._first and fewer:
            fewer -= fewer % 10 ** (len(str(fewer)) - 1)  # one digit, then zeros
            text += f"; training.steps={fewer} takes {format_seconds(seconds * fewer / (self._steps - self._step))}"
        self.say(text)

    def speed(self) -> dict[str, float]:
        """Seconds since the start, and real images per second since the last call."""
        now, (step, then) = time.monotonic(), self._last_measured
        self._last_measured = (self._step, now)
        rate = (self._step - step) * self._images_per_step / max(now - then, 1e-9)
        self._description = f"{rate:.0f} images/s"
        self._bar.set_description(self._description)
        return {"seconds": round(now - self._start, 2), "images_per_second": round(rate, 2)}

    def show(self, losses: dict[str, float]) -> None:
        """Show the critic's losses after the bar, by short names: a plug-in's prefix before ":" is left out."""
        critic = {name.removeprefix("critic/"): value for name, value in losses.items() if name.startswith("critic/")}
        shown = {harmless(name.rpartition(":")[2])[:12]: f"{value:.3g}" for name, value in critic.items()}
        self._bar.set_postfix(shown)
        if self._lines:
            words = ", ".join(f"{name} {value}" for name, value in shown.items())
            left = format_seconds(self.seconds_left())
            self.say(f"step {self._step:,} of {self._steps:,}: {self._description}, {left} left; {words}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if not self._quiet:
            self._bar.write(harmless(text), file=self._stream)

    def say_stopped(self, reason: str, folder: Path) -> None:
        """Say where the training was stopped, and how it goes on."""
        at = f"step {self._step:,} of {self._steps:,} after {format_seconds(time.monotonic() - self._start)}"
        self.say(f"{reason}: stopped at {at}; go on with: gankit resume {shlex.quote(str(folder))}")

    def say_lost(self, saved: int, folder: Path) -> None:
        """Say what is lost of a training that was stopped at once, by the step of its newest checkpoint."""
        since = f"the checkpoint of step {saved:,}" if saved else "the start"
        at = f"step {self._step:,} of {self._steps:,}"
        go_on = f"go on with: gankit resume {shlex.quote(str(folder))}"
        self.say(f"stopped at once at {at}: all since {since} is lost; {go_on}")

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


class TickLog:
    """Means of values between ticks, one JSON line per tick, and the same for TensorBoard.

    Values stay on the device until a tick reads their mean.

    Args:
        path: of the log, `log.jsonl` in the run's folder.
        tensorboard: whether to write for TensorBoard too, beside the log.

    Raises:
        RunError: TensorBoard is wanted and missing.
    """

    def __init__(self, path: Path, tensorboard: bool) -> None:
        self.path = path
        self._sums: dict[str, tuple[Tensor, int]] = {}
        self._writer: Any = None  # made for the first line, since it creates the folder
        self._writer_class: Callable[[str], Any] | None = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                text = "training.tensorboard: TensorBoard is missing: pip install 'gankit[tensorboard]'"
                raise RunError(text) from error
            self._writer_class = SummaryWriter

    def add(self, name: str, value: Tensor) -> None:
        """Add a scalar tensor to the running mean of this name."""
        total, count = self._sums.get(name, (value.new_zeros((), dtype=torch.float32), 0))
        self._sums[name] = (total + value.float(), count + 1)

    def means(self) -> dict[str, float]:
        """The means since the last call, read back from the device."""
        means = {name: (total / count).item() for name, (total, count) in self._sums.items()}
        self._sums.clear()
        return means

    def write(self, row: dict[str, Any]) -> None:
        """Append a line."""
        append_line(self.path, json.dumps(row))
        if self._writer_class is not None:
            self._writer = self._writer or self._writer_class(str(self.path.parent / "tensorboard"))
            for name, value in {**row, **row.get("metrics", {})}.items():
                if isinstance(value, (int, float)) and name != "step":
                    self._writer.add_scalar(name, value, row["step"])

    def forget_after(self, step: int) -> None:
        """Drop lines of steps that a resumed training will do again."""
        if self.path.is_file():
            lines = [json.dumps(row) + "\n" for row in read_log(self.path) if row["step"] <= step]
            write_atomically(self.path, "".join(lines))

    def state_dict(self) -> dict[str, Any]:
        """Sums since the last tick, so that the next tick of a resumed run is the same."""
        return {name: [total, count] for name, (total, count) in self._sums.items()}

    def load_state_dict(self, state: dict[str, Any] | list[dict[str, Any]]) -> None:
        """Load the sums, of one process or a list of all's; if the number of processes changed, their mean."""
        states = state if isinstance(state, list) else [state]
        chosen = [states[distributed.rank()]] if len(states) == distributed.size() else states
        self._sums = {
            name: (torch.stack([sums[name][0] for sums in chosen if name in sums]).mean(0), count)
            for name, (_, count) in chosen[0].items()
        }

    def close(self) -> None:
        """Flush TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()


class BrokenOff(KeyboardInterrupt):
    """An interrupt of an evaluation, which is done again when the training goes on."""


class StopRequest:
    """A context in which the first interrupt only requests a stop, and says so; a later one interrupts at once.

    Interrupts are Ctrl-C, SIGTERM, and a terminal that is closed, unless `nohup` tells the process to ignore it.

    A terminal and a wrapper such as `timeout` or make may both pass on the same interrupt, so that a second one within
    `GRACE` seconds counts as the first.

    Args:
        answer: printed at once on the error stream at the first interrupt.

    Attributes:
        requested: whether there was an interrupt.
    """

    GRACE = 2.0

    def __init__(self, answer: str = "") -> None:
        self.requested = False
        self._answer = answer
        self._when = 0.0
        self._breaks_off = False
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            kinds = [signal.SIGINT, signal.SIGTERM]
            if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                kinds.append(signal.SIGHUP)
            self._previous_handlers = {kind: signal.signal(kind, self._request) for kind in kinds}
        return self

    def _request(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested, self._when = True, time.monotonic()
            if self._answer:
                ErrorStream().write(f"\n{self._answer}\n")  # the bar's own lock may be held at this moment
            if self._breaks_off:
                raise BrokenOff
        elif time.monotonic() - self._when > self.GRACE:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def breaking_off(self) -> Iterator[None]:
        """A context that raises BrokenOff at the first interrupt, or at its start if there was one before."""
        self._breaks_off = True
        try:
            if self.requested:
                raise BrokenOff
            yield
        finally:
            self._breaks_off = False

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for kind, handler in self._previous_handlers.items():
            signal.signal(kind, handler)
