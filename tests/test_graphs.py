"""Turns that are recorded and replayed; on the CPU, where a replay repeats the operations of one turn in its memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import replayed_turns
import torch
from replayed_turns import LOOKS_AFTER, PYTHON, RESNET, STEPS, Drawing, advanced, stepper
from torch import Tensor

import gankit
from gankit.interfaces import Augment
from gankit.nn import modes
from gankit.testing._capture import ReplayRecorder, replay_turns
from gankit.training.execution.graphs import Graphs

strangers = replayed_turns.strangers

RECIPES = {
    "wgan-gp": ("wgan-gp", [*RESNET, "data.flip=true", "training.dequantise=true", "data.conditional=true"]),
    "diffaugment": ("wgan-gp-diffaugment", RESNET),
    "dcgan": ("dcgan", ["generator.width=4", "critic.width=4"]),
    "sngan": ("sngan", ["generator.width=4", "critic.width=4"]),
    "r3gan": ("r3gan", ["generator.width=8", "critic.width=8", "generator.blocks=1", "critic.blocks=1"]),
    "as on a GPU": ("sngan", [
        "generator.width=4", "critic.width=4", "critic.norm=layer", 'losses=["hinge","r1"]', "augment.name=diffaugment",
        "training.precision=bf16",
    ]),
    "wgan": ("wgan", ["generator.width=4", "critic.width=4"]),
    "lazy and moving": ("wgan-gp", [
        *RESNET, 'data.conditional=["a"]', "training.label_fade=[0,4]", "training.precision=bf16",
        'losses=["hinge",{name="r1",every=3,weight={start=1.0,end=3.0,steps=9}}]',
        'augment={name="sometimes",probability={start=0.0,end=0.9,steps=9}}',
    ]),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("diffaugment", "dcgan", "sngan", "r3gan", "wgan")))
        for name in RECIPES
    ],
)
def test_replays_are_bitwise_what_eager_turns_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, overrides = RECIPES[name]
    if name == "as on a GPU":
        monkeypatch.setattr(modes, "FEW_KERNEL_DEVICES", {"cpu"})
    eager, replayed = (stepper(recipe, *overrides) for _ in range(2))
    told: list[str] = []
    graphs = replay_turns(replayed, told.append)
    assert advanced(replayed) == advanced(eager)
    assert not told
    kinds = {key[0] for key in graphs.recorded}
    assert kinds == {"critic", "generator"}
    if "lazy" in name:  # one recording for each set of losses that are due
        assert len(graphs.recorded) == 3


@pytest.mark.usefixtures("strangers")
def test_what_acts_after_a_step_sees_that_step() -> None:
    eager, replayed = (stepper("wgan-gp", *LOOKS_AFTER) for _ in range(2))
    replay_turns(replayed, pytest.fail)
    assert advanced(replayed) == advanced(eager)


class Failing(ReplayRecorder):
    """Cannot record: there is no memory for it, or the driver is too old."""

    error: Exception
    memory: Any = None

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        memory = torch.empty(1)
        self.memory = weakref.ref(memory)
        super().record(work)
        raise type(self.error)(*self.error.args)  # one that keeps no memory for the next test

    def recover(self) -> None:
        assert self.memory() is None, "what failed to be recorded still takes memory"
        super().recover()


class Wrong(ReplayRecorder):
    """Replays something else."""

    spoilt: torch.nn.Parameter

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        replay = super().record(work)

        def spoil() -> None:
            replay()
            assert self.spoilt.grad is not None
            self.spoilt.grad.add_(1e-6)

        return spoil


class Graph(ReplayRecorder):
    """Does not draw on the host when it replays, as a graph of a GPU."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        replay = super().record(work)

        def replay_there() -> None:
            state = torch.default_generator.get_state()
            replay()
            torch.default_generator.set_state(state)

        return replay_there


ERRORS = {
    "no memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has\nmore"),
    "old driver": RuntimeError("CUDA error: operation not supported\nCUDA kernel errors might be asynchronous"),
}


def wrong(graphs: Graphs, spoilt: torch.nn.Parameter) -> Wrong:
    recorder = Wrong(graphs._modules)
    recorder.spoilt = spoilt
    return recorder


@pytest.mark.usefixtures("strangers")
@pytest.mark.parametrize(
    "fault",
    [
        "reads back",
        "another replay",
        "a draw on the host",
        *PYTHON,
        "no memory",
        pytest.param("old driver", marks=pytest.mark.slow),
    ],
)
def test_a_failed_recording_goes_on_eagerly_from_the_same_state(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Drawing, "fault", fault)
    eager, replayed = (stepper("wgan-gp", *LOOKS_AFTER) for _ in range(2))
    told: list[str] = []
    graphs = replay_turns(replayed, told.append)
    if fault == "another replay":
        graphs._recorder = wrong(graphs, next(replayed.critic.parameters()))
    elif fault == "a draw on the host":
        graphs._recorder = Graph(graphs._modules)
    elif fault in ERRORS:
        recorder = graphs._recorder = Failing(graphs._modules)
        recorder.error = ERRORS[fault]
    assert advanced(replayed) == advanced(eager)
    assert len(told) == 1
    assert "\n" not in told[0]
    reason = {**dict.fromkeys(PYTHON, "the turn draws on the host"),
              "reads back": "RuntimeError: aten._local_scalar_dense.default reads a value back to the host",
              "another replay": "the first replay differs from an eager turn in the gradient of ",
              "a draw on the host": "the turn draws on the host",
              "no memory": "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB",
              "old driver": "RuntimeError: CUDA error: operation not supported"}[fault]  # fmt: skip
    assert told[0].startswith(f"training.graphs: switched off at the critic's turn: {reason}")
    assert not graphs.recorded


class Replacing(Augment):
    """Counts its calls in a buffer, by a new tensor each time."""

    capturable = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return images / self.calls


def test_a_buffer_that_is_replaced_is_noticed() -> None:
    """The first replay is right, and all that follow would be wrong."""
    gankit.augments.register("replacing")(Replacing)
    eager, replayed = (stepper("wgan-gp", "augment.name=replacing", *RESNET) for _ in range(2))
    told: list[str] = []
    replay_turns(replayed, told.append)
    assert advanced(replayed) == advanced(eager)
    assert told == [
        "training.graphs: switched off at the critic's turn: the turn puts a new tensor in place of a buffer"
    ]


@pytest.mark.usefixtures("strangers")
def test_what_python_decides_in_each_turn_would_be_out_of_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the comparisons above would notice."""
    monkeypatch.setattr(Drawing, "fault", "depends on the step")
    eager, replayed = (stepper("wgan-gp", *LOOKS_AFTER) for _ in range(2))
    replay_turns(replayed, pytest.fail)
    assert advanced(replayed) != advanced(eager)


def test_rounding_is_allowed_where_algorithms_are_not_deterministic() -> None:
    replayed = stepper("wgan-gp", *RESNET)
    graphs = replay_turns(replayed, pytest.fail, exact=False)
    graphs._recorder = wrong(graphs, list(replayed.critic.parameters())[-1])
    advanced(replayed)
    assert graphs.recorded


@pytest.mark.usefixtures("strangers")
@pytest.mark.filterwarnings("ignore:put_ does not")
def test_rounding_is_allowed_where_an_operation_has_no_deterministic_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Drawing, "fault", "no deterministic form")
    replayed = stepper("wgan-gp", *LOOKS_AFTER)
    graphs = replay_turns(replayed, pytest.fail)
    graphs._recorder = wrong(graphs, list(replayed.critic.parameters())[-1])
    advanced(replayed, 3)
    assert graphs.recorded


def test_no_process_replays_where_another_one_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    replayed = stepper("wgan-gp", *RESNET)
    graphs = replay_turns(replayed, told.append)
    monkeypatch.setattr("gankit.training.execution.graphs.distributed.any_rank", lambda problem: True)
    advanced(replayed, 3)
    assert told == ["training.graphs: switched off at the critic's turn: recording failed in another process"]
    assert not graphs.recorded


def test_a_closed_training_goes_on_eagerly() -> None:
    eager, replayed = (stepper("wgan-gp", *RESNET) for _ in range(2))
    graphs = replay_turns(replayed, pytest.fail)
    for _ in range(4):
        replayed.advance()
    replayed.close()
    assert not graphs.recorded
    assert advanced(replayed, STEPS - 4) == advanced(eager)
