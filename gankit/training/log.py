"""What a long training tells while it runs: a progress bar, one line a tick, and a way to stop in good order."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from gankit.errors import RunError
from gankit.runs.run import log_row


class Progress:
    """A bar on the terminal's error stream with images a second and the time left.

    Args:
        steps: generator updates in all.
        done: those done before.
        images_a_step: real images that the critic sees a step.
        quiet: shows and says nothing, in all processes but the first.
    """

    def __init__(self, steps: int, done: int, images_a_step: int, quiet: bool = False) -> None:
        self._bar = tqdm(total=steps, initial=done, unit="step", dynamic_ncols=True, smoothing=0.05, disable=quiet)
        self._quiet = quiet
        self._step = done
        self._images_a_step = images_a_step
        self._mark: tuple[float, float] = (done, time.monotonic())
        self._start = time.monotonic()

    def step(self, step: int) -> None:
        """A step is done."""
        self._bar.update(step - self._step)
        self._step = step

    def speed(self) -> dict[str, float]:
        """Seconds since the start, and real images a second since the last call."""
        now, (step, then) = time.monotonic(), self._mark
        self._mark = (self._step, now)
        rate = (self._step - step) * self._images_a_step / max(now - then, 1e-9)
        self._bar.set_description(f"{rate:.0f} images/s")
        return {"seconds": round(now - self._start, 2), "images_per_second": round(rate, 2)}

    def show(self, losses: dict[str, float]) -> None:
        """Put the critic's last losses behind the bar."""
        critic = {
            name.removeprefix("critic/").rpartition(":")[2]: value
            for name, value in losses.items()
            if name.startswith("critic/")
        }
        self._bar.set_postfix({name[:12]: f"{value:.3g}" for name, value in critic.items()})

    def say(self, text: str) -> None:
        """A line above the bar."""
        if not self._quiet:
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()


class TickLog:
    """Means of values between ticks, one JSON line a tick, and the same for TensorBoard.

    Values stay on the device until a tick asks for their mean.

    Raises:
        RunError: TensorBoard is asked for and missing.
    """

    def __init__(self, path: Path, tensorboard: bool) -> None:
        self.path = path
        self._sums: dict[str, tuple[Tensor, int]] = {}
        self._writer: Any = None
        self._make_writer: Callable[[], Any] | None = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                text = "training.tensorboard: TensorBoard is missing: pip install 'gankit[tensorboard]'"
                raise RunError(text) from error
            self._make_writer = lambda: SummaryWriter(str(path.parent / "tensorboard"))

    def add(self, name: str, value: Tensor) -> None:
        """One more value of a name, a scalar."""
        total, count = self._sums.get(name, (value.new_zeros((), dtype=torch.float32), 0))
        self._sums[name] = (total + value.float(), count + 1)

    def means(self) -> dict[str, float]:
        """The means since the last call, read back from the device."""
        means = {name: (total / count).item() for name, (total, count) in self._sums.items()}
        self._sums.clear()
        return means

    def write(self, row: dict[str, Any]) -> None:
        """Append a line."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._make_writer is not None:
            self._writer = self._writer or self._make_writer()
            flat = {**row, **row.get("metrics", {})}
            for name, value in flat.items():
                if isinstance(value, (int, float)) and name != "step":
                    self._writer.add_scalar(name, value, row["step"])

    def forget_after(self, step: int) -> None:
        """Drop lines of steps that a resumed training will do again."""
        if not self.path.is_file():
            return
        lines = [(line, log_row(line)) for line in self.path.read_text(encoding="utf-8").splitlines()]
        kept = [line + "\n" for line, row in lines if row is not None and row["step"] <= step]
        shorter = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        shorter.write_text("".join(kept), encoding="utf-8")
        os.replace(shorter, self.path)  # as a whole: a run may be killed here too

    def state_dict(self) -> dict[str, Any]:
        """Sums since the last tick, so that the next tick of a resumed run is the same."""
        return {name: [total, count] for name, (total, count) in self._sums.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up sums."""
        self._sums = {name: (total, count) for name, (total, count) in state.items()}

    def close(self) -> None:
        """Flush TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()


class StopRequest:
    """While entered, the first interrupt (Ctrl-C, SIGTERM) only asks to stop; a later one interrupts at once.

    A terminal and a wrapper such as `timeout` or make may both pass on the same interrupt, so that a second one within
    `GRACE` seconds counts as the first.
    """

    GRACE = 2.0

    def __init__(self) -> None:
        self.asked = False
        self._when = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for kind in (signal.SIGINT, signal.SIGTERM):
                self._before[kind] = signal.signal(kind, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            self.asked, self._when = True, time.monotonic()
        elif time.monotonic() - self._when > self.GRACE:
            raise KeyboardInterrupt

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for kind, handler in self._before.items():
            signal.signal(kind, handler)
