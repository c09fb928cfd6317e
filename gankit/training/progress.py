"""What a training says on the terminal: how far it is, how long it will take, and how to resume it."""

import shlex
import textwrap
import time
from pathlib import Path

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

    The time left is estimated from all steps with the present number of threads, so that it hardly jumps. The time of a
    whole training is announced as soon as enough steps, a whole period or a minute have been measured.

    Args:
        steps: generator updates in all.
        done: those done before.
        images_per_step: real images that the critic sees in a step.
        max_minutes: minutes after which the training stops by itself; None for no limit.
        quiet: show and say nothing; set in every process but the first.
        period: after so many steps come steps of the same kinds again; losses that are not due in every step make some
            slower than others.
        evaluates: whether the announcement says that evaluations come on top.
    """

    ANNOUNCED_AFTER = ((5, 0.0), (2, 10.0), (1, 60.0))
    """Steps and seconds: the time is announced after 5 steps, after 2 if they took 10 s, or after 1 if it took 60 s."""
    WORTH_SAYING = 60.0
    """Trainings that take fewer seconds start without an announcement."""
    LONG, SHORTER = 2 * 3600.0, 45 * 60.0
    """For a training of more than LONG seconds, the number of steps that take SHORTER seconds is announced too."""
    JUST_BEGUN = 100
    """If the number of threads changes within this many steps from the start, the time is announced once more."""

    def __init__(
        self, steps: int, done: int, images_per_step: int, max_minutes: float | None = None, quiet: bool = False,
        period: int = 1, evaluates: bool = False,
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
        self._max_minutes, self._period, self._evaluates = max_minutes, period, evaluates
        self._start = time.monotonic()
        self._last_measured = (done, self._start)
        # Step and time from which the present speed is measured: the end of this process's first step, which also loads
        # and compiles, or the last change of the number of threads.
        self._counted_from = (done, self._start)
        self._cost_said = False
        self._description = ""

    def step(self, step: int, on_trial: bool = False) -> None:
        """Move the bar to a step; while threads are `on_trial`, a step says little about the time of others."""
        now = time.monotonic()
        if self._step == self._begun_at:  # the first step of this process
            self._counted_from = (step, now)
        self._bar.update(step - self._step)
        self._step = step
        done, taken = step - self._begun_at, now - self._start
        # While threads are on trial, or within a period, only a minute says enough.
        within = on_trial or (step - self._counted_from[0]) % self._period
        enough = self.ANNOUNCED_AFTER[-1:] if within else self.ANNOUNCED_AFTER
        if not self._cost_said and any(done >= least and taken > seconds for least, seconds in enough):
            self._cost_said = True
            self._say_cost()

    def count_anew(self) -> None:
        """Measure the time of steps from here on: the number of threads has changed."""
        self._counted_from = (self._step, time.monotonic())
        if self._step - self._begun_at <= self.JUST_BEGUN:
            self._cost_said = False

    def _seconds_per_step(self) -> float:
        step, since = self._counted_from
        if self._step == step:  # nothing else is known yet
            step, since = self._begun_at, self._start
        return (time.monotonic() - since) / max(self._step - step, 1)

    def seconds_left(self) -> float:
        """An estimate for the remaining steps, at the present speed."""
        return self._seconds_per_step() * (self._steps - self._step)

    def _say_cost(self) -> None:
        """Announce how long all steps of this process will take, and what to do if that is too long."""
        per_step, steps = self._seconds_per_step(), self._steps - self._begun_at
        seconds = per_step * steps
        if seconds < self.WORTH_SAYING:
            return
        text = f"{steps:,} steps that are left" if self._begun_at else f"{steps:,} steps"
        end = "stop with Ctrl-C and go on at any time"
        if self._max_minutes is not None and seconds > self._max_minutes * 60:
            limit = format_seconds(self._max_minutes * 60)
            end = f"training.max_minutes stops it after {limit}, and gankit resume goes on for as long again"
        more = ", without evaluations" if self._evaluates else ""
        text += f": about {format_seconds(seconds)} on this machine{more}; {end}"
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
