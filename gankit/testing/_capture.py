"""Whether a part keeps the promise `capturable`: a turn is recorded and replayed, as CUDA graphs do, on any device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gankit.distributed import shard
from gankit.experiments.experiment import Experiment
from gankit.interfaces import Side, Turn
from gankit.nn.copies import buffers_of, restore_buffers
from gankit.training.data import TrainingData
from gankit.training.execution.graphs import WARM_UPS, Graphs
from gankit.training.inputs import SIDES
from gankit.training.log import TickLog
from gankit.training.step import Stepper

aten: Any = torch.ops.aten
READ_BACK = {
    aten._local_scalar_dense, aten.equal, aten.allclose, aten.is_nonzero, aten.nonzero, aten.masked_select,
    aten.bincount, aten._unique2, aten.unique_dim, aten.unique_consecutive, aten._linalg_check_errors,
}  # fmt: skip
"""Operations whose result is read on the host, or whose shape is, or whether they worked."""
FROM_NUMBERS = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}
"""Functions that may make a tensor of Python's numbers, which are copied from the host."""
STEPS = WARM_UPS + 2


class ReplayRecorder:
    """Records operations on the CPU as a CUDA graph does: numbers among their arguments stay as they were.

    A replay does the same operations on the same memory: whatever Python decides anew in each turn, it does not see.
    A recording leaves the buffers of `modules` as they were.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        self._modules = modules

    def warm_up(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def record(self, compute: Callable[[], None]) -> Callable[[], None]:
        before = buffers_of(self._modules)
        with _Tape() as tape:
            compute()
        restore_buffers(self._modules, before)
        return cast(Callable[[], None], tape.replay)

    def recover(self) -> None:
        """As `Recorder.recover`."""

    def free(self) -> None:
        """As `Recorder.free`."""


class _Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The operations of a turn, in their order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[Any, Any, Any, list[tuple[int, Tensor]]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket in READ_BACK or _depends_on_values(func, args, kwargs):
            raise RuntimeError(f"{func} reads a value back to the host")
        if func is aten.lift_fresh.default and args[0].dim():  # one number needs no copy
            raise RuntimeError("numbers are copied from the host: keep them in a buffer")
        out = func(*args, **kwargs)
        given = {_memory(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        new = [
            (number, value)
            for number, value in enumerate(tree_leaves(out))
            if isinstance(value, Tensor) and _memory(value) not in given
        ]
        self.operations.append((func, args, kwargs, new))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, new in self.operations:
            leaves = tree_leaves(func(*args, **kwargs))
            for number, memory in new:
                memory.copy_(leaves[number])


def _depends_on_values(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether the shape of a result follows from values: of a mask that picks elements, or of repetitions."""
    if func is aten.repeat_interleave.Tensor:
        return kwargs.get("output_size") is None
    # A mask's elements are counted, but for setting all of them to one number.
    counts_mask = func is aten.index.Tensor or (
        func.overloadpacket in (aten.index_put, aten.index_put_) and args[2].numel() != 1
    )
    return counts_mask and any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1])


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def replay_turns(stepper: Stepper, report: Callable[[str], None], exact: bool = True) -> Graphs:
    """Let a training on the CPU record and replay its turns."""
    modules = [part for part in stepper.parts.values() if isinstance(part, nn.Module)]
    random = [stepper.inputs.loss_rng]
    graphs = Graphs(ReplayRecorder(modules), modules, random, stepper.log.add, report, exact)
    stepper.execution = graphs
    return graphs


def assert_capturable(experiment: Experiment, data: TrainingData) -> None:
    """Assert that replayed steps equal eager ones and stay on their device; also with CUDA graphs if there is a GPU."""
    eager, replayed = (_stepper(experiment, data, "cpu", graphs=False) for _ in range(2))
    said: list[str] = []
    _assert_equal_steps(eager, replayed, replay_turns(replayed, said.append), said)
    for side in SIDES:
        _assert_stays_on_its_device(replayed, side)
    if torch.cuda.is_available():
        eager, replayed = (_stepper(experiment, data, "cuda", graphs=graphs) for graphs in (False, True))
        assert isinstance(replayed.execution, Graphs)
        with replayed.computing():
            _assert_equal_steps(eager, replayed, replayed.execution, replayed.warnings)


def _stepper(experiment: Experiment, data: TrainingData, device: str, graphs: bool) -> Stepper:
    training = experiment.training.model_copy(update={"device": device, "graphs": graphs})
    changed = experiment.model_copy(update={"training": training})
    return Stepper(changed, data, TickLog(Path(), tensorboard=False))


def _assert_equal_steps(eager: Stepper, replayed: Stepper, graphs: Graphs, said: list[str]) -> None:
    numbers: dict[str, Any] = {}
    for step in range(STEPS):
        for stepper in (eager, replayed):
            stepper.advance()
        now = _numbers(eager)
        changed = [key for key, value in now.items() if step and numbers.get(key) != value]
        assert not changed, f"{changed[0]} is a number that changes in a step: keep it in a buffer (capturable = True)"
        numbers = now
    assert not said, said[0]
    assert graphs.recorded, "no turn was recorded"
    for name, part in eager.stateful().items():
        other = replayed.stateful()[name]
        for a, b in zip(tree_leaves(part.state_dict()), tree_leaves(other.state_dict()), strict=True):
            same = torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) if isinstance(a, Tensor) else a == b
            assert same, (
                f"the state of {name} differs once turns are replayed: what changes between steps must be in buffers, "
                "and losses must not depend on turn.step (capturable = True)"
            )


def _numbers(stepper: Stepper) -> dict[str, Any]:
    """The numbers that parts hold as attributes."""
    found: dict[str, Any] = {}
    for name, part in stepper.parts.items():
        modules = part.named_modules() if isinstance(part, nn.Module) else [("", part)]
        for path, module in modules:
            attributes = vars(module).items()
            found |= {
                f"{name}: {path}.{k}": v for k, v in attributes if isinstance(v, (int, float)) and k != "training"
            }
    return found


def _assert_stays_on_its_device(stepper: Stepper, side: Side) -> None:
    """On the meta device, which holds no values: nothing can be read back, and what comes from the CPU is seen."""
    made = {name: make() for name, make in stepper.inputs.of(side, shard(stepper.settings.batch), 0).items()}
    there = {name: torch.empty_like(value, device="meta") for name, value in made.items()}
    parts = stepper.parts.values()
    for part in parts:
        if isinstance(part, nn.Module):
            part.to("meta")

    class Draws:
        def uniform(self, *shape: int) -> Tensor:
            return torch.rand(shape, device="meta", dtype=stepper.like.dtype)

        normal = uniform

    turn = Turn(
        side, stepper.generator, stepper.critic, real=lambda: there["real"], labels=there.get("labels"),
        latents=there["latents"], step=0, random=Draws(), augment=stepper.gan.augment,
        held_out=lambda: (there["held_out"], there.get("held_out_labels")),
    )  # fmt: skip
    with (
        stepper.frozen_critic() if side == "generator" else contextlib.nullcontext(),
        _Crossings() as crossings,
        _FromNumbers(crossings.seen),
    ):
        for term in stepper.gan.losses:
            value = getattr(term.loss, side)(turn)
            if value is not None:
                value.backward(retain_graph=True)
    assert not crossings.seen, (
        f"on the {side}'s turn {crossings.seen[0]} copies a tensor between devices, or takes its number at the "
        "recording: make tensors on the device of the inputs, and keep constants in buffers (capturable = True)"
    )


class _Crossings(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes in `seen` copies between devices, and operations that take a single number of the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if len({value.device for value in tree_leaves((args, kwargs, out)) if isinstance(value, Tensor)}) > 1:
            self.seen.append(str(func))
        return out


class _FromNumbers(TorchFunctionMode):
    """Notes in `seen` the functions that make tensors of Python's numbers on the device."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self._seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in FROM_NUMBERS and out.is_meta and not any(isinstance(value, Tensor) for value in args[-1:]):
            self._seen.append(func.__name__)
        return out
