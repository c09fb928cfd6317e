"""Networks, and functions of them, compiled by `torch.compile` while a training asks for it (`training.compile`).

Turns and penalties call networks through `call`, which is a plain call outside of `Compilation.attempt`.
Networks themselves stay as they are: nothing of the compiler is in their state, their copies or their exports, and a
part that calls a network by itself, to differentiate it twice, meets the network that its author wrote.
"""

from __future__ import annotations

import copy
import inspect
import logging
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, final

import torch
from torch import nn

from gankit.nn.copies import buffers_of, restore_buffers

Result = TypeVar("Result")
_active: Compilation | None = None


def call(function: Callable[..., Result], *arguments: Any) -> Result:
    """`function(*arguments)`: a network, its method, or a function of one; compiled where a training compiles."""
    return function(*arguments) if _active is None else _active.run(function, *arguments)


def compiles_penalties() -> bool:
    """Whether gradients that penalties differentiate again are compiled too, by `torch.func` within `call`."""
    return _active is not None and _active.gradients


@final
class Compilation:
    """The compiled functions of one training, and on which side's turns they failed.

    Compilation ends for a side when it fails there: without a C++ compiler, with a network that the compiler cannot
    read, or with a loss that differentiates twice what was compiled. The turn is then repeated without it, from the
    same state.

    Args:
        parts: networks, losses and whatever else a turn may change before its optimiser's step.
        report: takes a line for the user when compilation ends for a side.
        gradients: whether gradients that penalties differentiate again are compiled too.
    """

    def __init__(self, parts: list[Any], report: Callable[[str], None], gradients: bool = True) -> None:
        self.gradients = gradients
        self._modules = [part for part in parts if isinstance(part, nn.Module)]
        self._others = [part for part in parts if not isinstance(part, nn.Module)]
        self._report = report
        self._functions: dict[Callable[..., Any], Callable[..., Any]] = {}
        self._failed: set[str] = set()
        # Each shape is compiled by itself: code for any shape depends on which shape came first, and so would the
        # rounding of a resumed training. Random draws are those of the uncompiled network.
        self._options: dict[str, Any] = {"fullgraph": True, "dynamic": False, "options": {"fallback_random": True}}
        if "isolate_recompiles" in inspect.signature(torch.compile).parameters:
            self._options["isolate_recompiles"] = True  # other trainings of this process do not count

    def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Apply a function to its arguments as compiled code, which is made at the first call."""
        if function not in self._functions:
            self._functions[function] = torch.compile(function, **self._options)
        # The compiler warns of its own inner workings; `attempt` reports what stops it.
        before = logging.root.manager.disable
        logging.disable(max(logging.WARNING, before))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._functions[function](*arguments)  # type: ignore[no-any-return]
        finally:
            logging.disable(before)

    def attempt(self, side: str, work: Callable[[], Result]) -> Result:
        """The result of `work`, compiled where that works; `work` must start from the same seed when called again."""
        if side in self._failed:
            return work()
        global _active
        # Only the buffers of modules: their parameters change no earlier than the optimiser's step.
        buffers, states = buffers_of(self._modules), [copy.deepcopy(part.state_dict()) for part in self._others]
        outer, _active = _active, self
        try:
            return work()
        except Exception as error:
            reason = _first_line(error)  # the error itself would keep the turn's memory
        finally:
            _active = outer
        restore_buffers(self._modules, buffers)
        for part, state in zip(self._others, states, strict=True):
            part.load_state_dict(state)
        result = work()  # raises what was no fault of the compiler
        self.give_up(side, reason)
        return result

    def give_up(self, side: str, reason: str) -> None:
        """Compile nothing more on this side's turns, and say so."""
        self._failed.add(side)
        self._report(f"training.compile: the {side}'s turns go on without it: {reason}")

    def state_dict(self) -> dict[str, list[str]]:
        """The sides that go on without compilation, so that a resumed training rounds as an unbroken one."""
        return {"failed": sorted(self._failed)}

    def load_state_dict(self, state: dict[str, list[str]]) -> None:
        """Load the sides that go on without compilation; those of this process stay so."""
        self._failed |= set(state["failed"])


def _first_line(error: Exception) -> str:
    """The first line of an error that says something."""
    if type(error).__name__ == "FailOnRecompileLimitHit":
        return "it would be compiled for too many shapes"
    lines: list[str] = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
