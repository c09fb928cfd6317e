"""Turns that are recorded once and replayed, where a training can do so; else they run eagerly.

A GAN's networks are small, so that a GPU computes a turn faster than Python can ask for its operations. A recording
holds them all: forward passes, losses, penalties and backward pass. Inputs, optimiser, averaging, `after_step` and the
log stay outside.
"""

from __future__ import annotations

import contextlib
import pickle
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol, final

import numpy as np
import torch
from torch import Tensor, nn

from gankit import distributed
from gankit.errors import PartError, typed_line
from gankit.experiments.experiment import Training
from gankit.interfaces import Turn
from gankit.nn.compilation import Compilation
from gankit.nn.copies import buffers_of, restore_buffers
from gankit.training.execution.arithmetic import noting_nondeterminism
from gankit.training.execution.cuda import CudaRecorder
from gankit.training.execution.work import Eager, LogValue, ReadInput, Work

WARM_UPS = 2
"""Turns of each kind that run eagerly before the one that is recorded: libraries choose their kernels in the first."""
ROUNDING = 1e-2
"""How far a replay may be from an eager turn where operations are not deterministic, relative to the largest norm."""

DRAWS = "the turn draws on the host"


class Recorder(Protocol):
    """What records operations on a device and replays them."""

    def warm_up(self) -> contextlib.AbstractContextManager[None]:
        """A context for turns that run eagerly before they are recorded."""
        ...

    def record(self, compute: Callable[[], None]) -> Callable[[], None]:
        """Record the operations of `compute` without doing them; return what does them, in the same memory."""
        ...

    def recover(self) -> None:
        """Make torch usable again after `record` raised."""
        ...

    def free(self) -> None:
        """Give back memory that nothing uses."""
        ...


@dataclass
class _Results:
    """What a turn has computed. Replays overwrite these tensors in place."""

    turn: Turn  # holds the images, scores and features that were asked for, without autograd graph
    gradients: list[Tensor | None]  # of each parameter of the turn's network
    logged: list[tuple[str, Tensor]]  # by losses, with their names


@dataclass
class _Recording:
    """The recorded operations of one kind of turn: `replay` reads `inputs` and fills the memory of `results`."""

    replay: Callable[[], None]
    inputs: dict[str, Tensor]
    results: _Results


@final
class Graphs:
    """Each kind of turn runs eagerly a few times, is recorded, and then replayed with new inputs and draws.

    The turn that is recorded is also computed eagerly. If the recording fails or the replay differs, in any process,
    graphs are switched off with one line, and the training goes on from the eager turn.

    Args:
        recorder: of the device.
        modules: networks, losses and the augment, whose buffers a turn may change.
        generators: from which turns draw, besides torch's own.
        log: takes the values that losses log.
        report: takes a line for the user.
        exact: whether operations are to be deterministic. A replay must then equal an eager turn bit by bit. Rounding
            may differ only if the turn has an operation without a deterministic form.
    """

    def __init__(
        self,
        recorder: Recorder,
        modules: list[nn.Module],
        generators: list[torch.Generator],
        log: LogValue,
        report: Callable[[str], None],
        exact: bool = True,
    ) -> None:
        self._recorder, self._modules, self._generators = recorder, modules, generators
        self._log, self._report, self._exact = log, report, exact
        self._eager: Eager | None = None  # once graphs are given up
        self._eager_turns: Counter[tuple[str, ...]] = Counter()  # by key
        self._recordings: dict[tuple[str, ...], _Recording] = {}

    @property
    def recorded(self) -> list[tuple[str, ...]]:
        """The keys of the turns that are replayed."""
        return list(self._recordings)

    def close(self) -> None:
        """Free all graphs and their memory; further turns run eagerly."""
        self._eager = Eager(self._log)
        self._recordings.clear()
        self._recorder.free()

    def run(self, work: Work) -> Turn | None:
        """As `Eager.run`."""
        if self._eager is not None:
            return self._eager.run(work)
        if (recording := self._recordings.get(work.key)) is not None:
            work.seed()
            for name, memory in recording.inputs.items():
                memory.copy_(work.inputs[name](), non_blocking=True)
            recording.replay()
            return self._finish(work, recording.inputs, recording.results)
        self._eager_turns[work.key] += 1
        if self._eager_turns[work.key] > WARM_UPS:
            return self._record_and_compare(work)
        with self._recorder.warm_up():
            return Eager(self._log).run(work)

    def _finish(self, work: Work, inputs: dict[str, Tensor], results: _Results) -> Turn:
        """Set the gradients of a turn that was computed from these inputs, log its values, and return it."""
        for parameter, gradient in zip(work.network.parameters(), results.gradients, strict=True):
            parameter.grad = gradient
        for name, value in results.logged:
            self._log(name, value)
        # `after_step` may read an input that the turn did not read before: it is made when read.
        turn = work.build_turn(lambda name: inputs[name] if name in inputs else work.inputs[name](), self._log)
        turn.copy_results(results.turn)
        return turn

    def _compute(self, work: Work, read: ReadInput) -> _Results | None:
        """Do a turn from the present state; None where no loss has a value. Keeps no memory of an autograd graph."""
        logged: list[tuple[str, Tensor]] = []
        computed = work.compute(read, lambda name, value: logged.append((name, value.clone())))
        if computed is None:
            return None
        turn = work.build_turn(read, self._log)
        turn.copy_results(computed)
        return _Results(turn, [parameter.grad for parameter in work.network.parameters()], logged)

    def _record_and_compare(self, work: Work) -> Turn | None:
        """Do a turn eagerly, record it, replay it from the same state, and compare."""
        before, inputs = buffers_of(self._modules), dict[str, Tensor]()

        def keep(name: str) -> Tensor:
            if name not in inputs:
                inputs[name] = work.inputs[name]().clone()
            return inputs[name]

        work.seed()
        seeded = _python_state()
        with self._recorder.warm_up(), noting_nondeterminism() as operations:
            eager = self._compute(work, keep)
        if eager is None:
            return None
        after, generators = buffers_of(self._modules), self._all_generators()
        states = [generator.get_state() for generator in generators]
        recorded: list[_Recording] = []  # filled by `record`

        def record() -> str | None:
            addresses = self._buffer_addresses()
            recorded.append(self._new_recording(work, inputs, before))
            if _python_state() != seeded:
                return DRAWS
            # Each replay would begin with the values of the old tensor.
            return "the turn puts a new tensor in place of a buffer" if self._buffer_addresses() != addresses else None

        def replay() -> str | None:
            work.seed()
            recorded[0].replay()
            # Where only the eager turn has drawn from it, each replay would repeat the recorded draws.
            if not torch.equal(torch.default_generator.get_state(), states[0]):
                return DRAWS
            exact = self._exact and not operations
            difference = _difference(work.network, eager, recorded[0].results, exact)
            return difference or _first_unequal(["buffers"] * len(after), after, buffers_of(self._modules), exact)

        # All processes agree on each outcome before they go on, since a replay may sum over all of them.
        problem = _problem(record) or _problem(replay)
        if problem is None:
            self._recordings[work.key] = recorded[0]
            return self._finish(work, inputs, recorded[0].results)
        recorded.clear()
        self._recorder.recover()
        restore_buffers(self._modules, after)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        self._report(f"training.graphs: switched off at the {work.side}'s turn: {problem}")
        turn = self._finish(work, inputs, eager)
        self.close()
        return turn

    def _new_recording(self, work: Work, inputs: dict[str, Tensor], before: list[Tensor]) -> _Recording:
        """Record a turn, and leave buffers in the state before it, for the first replay."""
        restore_buffers(self._modules, before)
        for parameter in work.network.parameters():  # so that gradients are made in the memory of the recording
            parameter.grad = None
        self._recorder.free()
        computed: list[_Results] = []  # filled by `compute`

        def compute() -> None:
            results = self._compute(work, inputs.__getitem__)
            assert results is not None  # as in the eager turn
            computed.append(results)

        work.seed()
        replay = self._recorder.record(compute)
        return _Recording(replay, inputs, computed[0])

    def _buffer_addresses(self) -> list[int]:
        return [buffer.data_ptr() for module in self._modules for buffer in module.buffers()]

    def _all_generators(self) -> list[Any]:
        """All generators from which turns draw, the global ones of torch for these devices among them."""
        gpus = {generator.device.index for generator in self._generators if generator.device.type == "cuda"}
        own = [*self._generators, *(torch.cuda.default_generators[i] for i in sorted(gpus))]
        return [torch.default_generator, *own, _NUMPY, _PYTHON]


_NUMPY = SimpleNamespace(get_state=partial(np.random.get_state, legacy=False), set_state=np.random.set_state)
_PYTHON = SimpleNamespace(get_state=random.getstate, set_state=random.setstate)


def _python_state() -> bytes:
    """The states of the global generators of NumPy, of whatever kind, and of Python, which are compared as a whole."""
    return pickle.dumps([generator.get_state() for generator in (_NUMPY, _PYTHON)])


def _problem(attempt: Callable[[], str | None]) -> str | None:
    """What an attempt returns or raises, here or in another process; None where it works in all of them.

    The error itself is not kept: it would keep the memory of a failed recording.
    """
    try:
        problem = attempt()
    except Exception as error:
        # Where ending the recording failed as well, the first error is the cause.
        problem = typed_line(error.__context__ or error, 200)
    elsewhere = distributed.any_rank(problem is not None)
    return problem or ("recording failed in another process" if elsewhere else None)


def _difference(network: nn.Module, eager: _Results, replayed: _Results, exact: bool) -> str | None:
    """What an eager turn and a replay compute differently, in words, or None; `network` is that of the turn."""
    logged = [name for name, _ in eager.logged]
    if logged != [name for name, _ in replayed.logged]:
        return "the first replay logs other values than an eager turn"
    gradients = [f"the gradient of {name}" for name, _ in network.named_parameters()]
    eager_values, replayed_values = ([value for _, value in results.logged] for results in (eager, replayed))
    difference = _first_unequal(gradients, eager.gradients, replayed.gradients, exact)
    return difference or _first_unequal(logged, eager_values, replayed_values, exact)


def _first_unequal(
    names: list[str], expected: Sequence[Tensor | None], found: Sequence[Tensor | None], exact: bool
) -> str | None:
    """The first tensor of a replay that is not as expected (if not `exact`, beyond rounding), in words; or None."""
    # Compare with the largest norm: some tensors, such as gradients of a last bias, are zero but for rounding.
    largest = max((float(tensor.double().norm()) for tensor in expected if tensor is not None), default=0.0)
    for name, a, b in zip(names, expected, found, strict=True):
        if a is None or b is None:
            equal = a is b
        elif exact or not a.is_floating_point():
            equal = torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
        else:  # up to rounding
            equal = not (a.double() - b.double()).norm() > ROUNDING * largest
        if not equal:
            return f"the first replay differs from an eager turn in {name}"
    return None


def choose(
    settings: Training,
    device: torch.device,
    parts: Mapping[str, Any],
    loss_rng: torch.Generator,
    log: LogValue,
    report: Callable[[str], None],
    compilation: Compilation,
) -> Eager | Graphs:
    """The way that the settings ask for; eager with `training.graphs="auto"` where turns cannot be recorded.

    `parts` are networks, losses and the augment, by the name that errors use; for `log` and `report` see `Graphs`.
    `compilation` is used where the settings ask for it.

    Raises:
        PartError: `training.graphs=true`, and turns cannot be recorded; names the part or the reason.
    """
    obstacle = _obstacle(settings, device, parts)
    if settings.graphs is True and obstacle:
        raise PartError(f"training.graphs=true: {obstacle}; set training.graphs=auto")
    if obstacle or not settings.graphs:
        return Eager(log, compilation if settings.compile else None)
    modules = [part for part in parts.values() if isinstance(part, nn.Module)]
    return Graphs(CudaRecorder(device, [loss_rng]), modules, [loss_rng], log, report, settings.deterministic)


def _obstacle(settings: Training, device: torch.device, parts: Mapping[str, Any]) -> str | None:
    """Why turns cannot be recorded, or None."""
    if device.type != "cuda":
        return f"graphs need a CUDA device, and training.device is {device.type}"
    if settings.compile:
        return "graphs and training.compile exclude each other"
    if settings.accumulate > 1:
        return "graphs and training.accumulate exclude each other"
    for name, part in parts.items():
        if not part.capturable:
            return f"{name} does not say that it can be captured (capturable = True)"
    if distributed.has_synchronised_norms(*(part for part in parts.values() if isinstance(part, nn.Module))):
        return "batch normalisation is synchronised between processes"
    return None
