"""The number of CPU threads of every step, chosen while training and recorded, so that a resumed run repeats it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, final

import torch

from gankit.files import write_atomically
from gankit.nn.threads import ThreadChoice
from gankit.runs.record import read_log
from gankit.training.step import Stepper

FILE = "threads.jsonl"


@final
class StepThreads:
    """Advances a training, each step with its recorded number of threads, else with one chosen before it.

    Rounding depends on the number of threads. So each choice is in the run's folder before the step that it is for, and
    a resumed run repeats the recorded choices for as long as there are any. In a new run nothing is chosen until
    `start`. Options are those of `thread_options`; they are empty where the number is fixed.
    """

    def __init__(self, folder: Path, options: Sequence[int]) -> None:
        self._path, self._options = folder / FILE, options
        self._rows = [row for row in read_log(self._path) if _is_valid(row)] if options else []
        self._choice: ThreadChoice | None = None
        self._announced: int | None = None
        if self._rows:
            last = self._rows[-1]
            self._announced = last["threads"]
            self._choice = ThreadChoice(options, last["threads"], last.get("seconds"))
        self._is_cold = True  # the first step of a process also loads and compiles

    def start(self) -> None:
        """Begin to try numbers of threads, at step 0 of a new run; does nothing where there is nothing to choose."""
        if len(self._options) > 1:
            self._choice = ThreadChoice(self._options)
            self._record(0)

    def threads_for(self, step: int) -> int | None:
        """The number of threads for a step; -1, before the first step, counts as 0. None where it is fixed."""
        rows = [row for row in self._rows if row["step"] <= max(step, 0)]
        return rows[-1]["threads"] if rows else None

    @property
    def on_trial(self) -> bool:
        """Whether the present number of threads is on trial, so that the next steps may have another one."""
        return self._choice is not None and self._choice.trying

    def advance(self, stepper: Stepper, is_stopped: Callable[[], bool]) -> str:
        """Do `stepper.advance(is_stopped)` with the step's threads; returns a line for the user on a choice, or ""."""
        step, choice = stepper.step, self._choice
        if choice is None:
            stepper.advance(is_stopped)
            return ""
        torch.set_num_threads(self.threads_for(step) or 1)  # if the file is damaged the number is lost: any will do
        is_begun = stepper.critic_updates > 0
        start = perf_counter()
        stepper.advance(is_stopped)
        seconds = perf_counter() - start
        is_cold, self._is_cold = self._is_cold, False
        is_partial = is_begun or stepper.critic_updates > 0
        is_repeated = step < self._rows[-1]["step"]  # an earlier process did this step, and recorded its next choice
        return "" if is_cold or is_partial or is_repeated else self._note(choice, seconds, stepper.step)

    def _note(self, choice: ThreadChoice, seconds: float, step: int) -> str:
        """Tell the choice what a whole step took; record what it chooses for `step`, the next, and put it in words."""
        before = choice.threads, choice.trying
        choice.note(seconds)
        if (choice.threads, choice.trying) == before:
            return ""
        self._record(step)
        if choice.trying or choice.threads == self._announced:
            return ""
        self._announced = choice.threads
        return (
            f"using {choice.threads} of {self._options[-1]} CPU threads, the fastest at present: {choice.usual:.2g} s "
            "per step"
        )

    def _record(self, step: int) -> None:
        """Record the number of threads from a step on, with the seconds per step where it is settled."""
        assert self._choice is not None
        row: dict[str, Any] = {"step": step, "threads": self._choice.threads}
        if not self._choice.trying:
            row["seconds"] = self._choice.usual
        self._rows.append(row)
        write_atomically(self._path, "".join(json.dumps(row) + "\n" for row in self._rows))


def _is_valid(row: dict[str, Any]) -> bool:
    """Whether a row is as `StepThreads` writes it, and not damaged."""
    threads, seconds = row.get("threads"), row.get("seconds", 0.0)
    return isinstance(threads, int) and threads > 0 and isinstance(seconds, float)
