"""What a training says on the terminal: how far it is, how long it will take, and how to resume it."""

import contextlib
import shlex
import textwrap
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean

from gankit.terminal.text import ErrorStream, can_draw, harmless, progress_bar


def format_seconds(seconds: float) -> str:
    """A length of time in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"


def resume_hint(folder: Path) -> str:
    """The command that resumes the run in a folder, for the end of a message."""
    return f"go on with: gankit resume {shlex.quote(str(folder))}"


class Progress:
    """A bar on the terminal's error stream with images per second and the time left; elsewhere a line per tick.

    The time left is estimated from all steps with the present number of threads, so that it hardly jumps: from the mean
    of each kind of step, since lazy losses make some slower, and of what is done beside steps, such as sample grids.
    The time of a whole training is announced as soon as enough steps of each kind have been measured.

    Args:
        steps: generator updates in all.
        done: those done before.
        images_per_step: real images that the critic sees in a step.
        max_minutes: minutes after which the training stops by itself; None for no limit.
        quiet: show and say nothing; set in every process but the first.
        kinds: of the steps from 0 on, which repeat after the last.
        intervals: after how many steps (0: never) something is done besides, by the name that `aside` gets, and how
            many seconds it takes if it has not been done yet.
    """

    ANNOUNCED_AFTER = ((5, 0.0), (2, 10.0), (1, 60.0))
    """Steps and seconds: the time is announced after 5 steps, after 2 if they took 10 s, or after 1 if it took 60 s."""
    WORTH_SAYING = 60.0
    """Trainings that take fewer seconds start without an announcement."""
    LONG, SHORTER = 2 * 3600.0, 45 * 60.0
    """For a training of more than LONG seconds, the number of steps that take SHORTER seconds is announced too."""
    JUST_BEGUN = 100
    """If the speed of steps changes within this many steps from the start, the time is announced once more."""

    def __init__(
        self, steps: int, done: int, images_per_step: int, max_minutes: float | None = None, quiet: bool = False,
        kinds: Sequence[Hashable] = (None,), intervals: Mapping[str, tuple[int, float]] | None = None,
    ) -> None:  # fmt: skip
        self._stream = ErrorStream()
        self._prints_lines = not quiet and not can_draw()
        self._bar = progress_bar(
            total=steps, initial=done, unit="step", dynamic_ncols=True, smoothing=0, disable=quiet or self._prints_lines
        )
        self._losses = progress_bar(total=0, bar_format="{desc}", dynamic_ncols=True, disable=self._bar.disable)
        self._quiet = quiet
        self._steps, self._begun_at, self._step = steps, done, done
        self._images_per_step = images_per_step
        self._max_minutes = max_minutes
        self._start = time.monotonic()
        self._last_measured = (done, self._start)
        self._kinds, self._intervals = kinds, intervals or {}
        # Seconds of steps of each kind (sum and number) since the end of this process's first step, which also loads
        # and compiles, or since the last change of the number of threads; of all steps; and of what is done besides.
        self._seconds_of: dict[Hashable, tuple[float, int]] = {}
        self._seconds_of_all, self._step_begun = 0.0, self._start
        self._asides: dict[str, list[float]] = {}
        self._cost_said = False
        self._description = ""

    def step(self, step: int, on_trial: bool = False) -> None:
        """Move the bar to a step; while threads are `on_trial`, a step says little about the time of others."""
        now = time.monotonic()
        seconds, self._step_begun = now - self._step_begun, now
        self._seconds_of_all += seconds
        if self._step != self._begun_at:  # not the first step of this process
            kind = self._kinds[(step - 1) % len(self._kinds)]
            total, count = self._seconds_of.get(kind, (0.0, 0))
            self._seconds_of[kind] = total + seconds, count + 1
        self._bar.update(step - self._step)
        self._step = step
        if self._cost_said:
            return
        done, taken = step - self._begun_at, now - self._start
        # While threads are on trial or kinds are not measured, only a step of a minute says enough.
        is_measured = not on_trial and set(self._kinds) <= self._seconds_of.keys()
        enough = self.ANNOUNCED_AFTER if is_measured else self.ANNOUNCED_AFTER[-1:]
        if any(done >= least and taken > seconds for least, seconds in enough):
            self._cost_said = True
            self._say_cost()

    def count_anew(self) -> None:
        """Measure the time of steps from here on: the number of threads has changed."""
        self._seconds_of.clear()
        if self._step - self._begun_at <= self.JUST_BEGUN:
            self._cost_said = False

    @contextlib.contextmanager
    def aside(self, name: str) -> Iterator[None]:
        """A context for what is done beside steps, at intervals; its time is none of a step."""
        start = time.monotonic()
        yield
        seconds = time.monotonic() - start
        self._asides.setdefault(name, []).append(seconds)
        self._step_begun += seconds

    def _seconds_from(self, step: int) -> float:
        """An estimate for the steps after `step`, and for what has been done beside steps before."""
        usual = self._seconds_of_all / max(self._step - self._begun_at, 1)  # nothing else is known at first
        if measured := {kind: total / count for kind, (total, count) in self._seconds_of.items()}:
            usual = mean(measured.get(kind, mean(measured.values())) for kind in self._kinds)
        asides = 0.0
        for name, (every, expected) in self._intervals.items():
            times = -(-self._steps // every) - step // every if every else 0  # the last step counts too
            asides += times * mean(self._asides.get(name, [expected]))
        return usual * (self._steps - step) + (asides if step < self._steps else 0.0)

    def seconds_left(self) -> float:
        """An estimate for the remaining steps and what is done beside them."""
        return self._seconds_from(self._step)

    def _say_cost(self) -> None:
        """Announce how long all steps of this process will take, and what to do if that is too long."""
        seconds, steps = self._seconds_from(self._begun_at), self._steps - self._begun_at
        per_step = seconds / steps
        if seconds < self.WORTH_SAYING:
            return
        text = f"{steps:,} steps that are left" if self._begun_at else f"{steps:,} steps"
        end = "stop with Ctrl-C and go on at any time"
        if self._max_minutes is not None and seconds > self._max_minutes * 60:
            limit = format_seconds(self._max_minutes * 60)
            end = f"training.max_minutes stops it after {limit}, and gankit resume goes on for as long again"
        text += f": about {format_seconds(seconds)} on this machine; {end}"
        fewer = int(self.SHORTER / per_step)
        if seconds > self.LONG and not self._begun_at and fewer:
            fewer -= fewer % 10 ** (len(str(fewer)) - 1)  # one digit, then zeros
            text += f"; training.steps={fewer} takes {format_seconds(per_step * fewer)}"
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
        """Show the critic's losses below the bar, as many as fit; a plug-in's prefix before ":" is left out."""
        critic = {name.removeprefix("critic/"): value for name, value in losses.items() if name.startswith("critic/")}
        words = ", ".join(f"{harmless(name.rpartition(':')[2])}={value:.3g}" for name, value in critic.items())
        columns = self._bar.format_dict["ncols"]
        width = columns and max(columns, len("..."))  # a placeholder that is wider is an error
        shown = textwrap.shorten(words, width, break_on_hyphens=False, placeholder=" ...") if width else words
        self._losses.set_description_str(shown)
        if self._prints_lines:
            left = format_seconds(self.seconds_left())
            self.say(f"step {self._step:,} of {self._steps:,}: {self._description}, {left} left; {words}")

    def say(self, text: str) -> str:
        """Print a line above the bar, and return it."""
        if not self._quiet:
            self._bar.write(harmless(text), file=self._stream)
        return text

    def say_stopped(self, reason: str, folder: Path) -> str:
        """Say where the training was stopped, and how it goes on."""
        at = f"step {self._step:,} of {self._steps:,} after {format_seconds(time.monotonic() - self._start)}"
        return self.say(f"{reason}: stopped at {at}; {resume_hint(folder)}")

    def say_lost(self, saved: int, folder: Path) -> str:
        """Say what is lost of a training that was stopped at once, by the step of its newest checkpoint."""
        since = f"the checkpoint of step {saved:,}" if saved else "the start"
        at = f"step {self._step:,} of {self._steps:,}"
        return self.say(f"stopped at once at {at}: everything since {since} is lost; {resume_hint(folder)}")

    def close(self) -> None:
        """Close the bar, and leave its last state on the screen."""
        self._losses.leave = bool(self._losses.format_dict["prefix"])  # an empty line would stay too
        self._bar.close()  # first, since the line that is closed first is drawn on top
        self._losses.close()
