"""Turns that are recorded and replayed; on the CPU, where a replay repeats the operations of one turn in its memory."""

from __future__ import annotations

import dataclasses
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gankit
from gankit.errors import PartError, RunError
from gankit.interfaces import Augment, Loss, Turn
from gankit.nn import modes
from gankit.testing import AugmentTests, LossTests, isolated_registry
from gankit.testing._capture import ReplayRecorder, replay_turns
from gankit.training.data import prepare
from gankit.training.execution.graphs import Graphs, choose
from gankit.training.execution.work import Eager
from gankit.training.log import TickLog
from gankit.training.step import Stepper

SMALL = ["training.batch=3", "training.generator_batch=3", "training.critic_steps=2", "training.device=cpu"]
RESNET = ["generator.width=4", "generator.latent_dim=6", "critic.width=4", "critic.flat_blocks=1"]
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 3, 8, 8), np.uint8)
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
STEPS = 5


def stepper(recipe: str, *overrides: str) -> Stepper:
    experiment = gankit.load(gankit.load(recipe), *SMALL, *overrides)
    facts = {"a": np.linspace(0, 1, 24)}
    images = gankit.wrap("dataset", IMAGES, labels=np.arange(24) % 3, facts=facts)
    return Stepper(experiment, prepare(experiment.data, 0, images), TickLog(Path("unused"), False))


def state(of: Stepper) -> list[Any]:
    """All that a resumed training needs, and the means of the log."""
    values: list[Any] = []

    def gather(value: Any) -> None:
        if isinstance(value, dict):
            for item in value.values():
                gather(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                gather(item)
        else:
            values.append(value.numpy().tobytes() if isinstance(value, Tensor) else value)

    gather(of.state_dict())
    return [*values, of.log.means()]


def advanced(of: Stepper, steps: int = STEPS) -> list[Any]:
    for _ in range(steps):
        of.advance()
    return state(of)


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


class Scored(Augment):
    """Looks after a step at what the turn computed, at what it did not, and draws."""

    capturable = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sum", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        return images + torch.rand(len(images), 1, 1, 1, device=images.device) * 0.1

    def after_step(self, turn: Turn) -> None:
        with torch.no_grad():
            self.sum += turn.real_scores.mean() + turn.held_out_scores.mean() + torch.rand(())
            turn.log("sum", self.sum.clone())


class Drawing(Loss):
    """Draws, logs and fails as told."""

    capturable = True
    fault: Any = None

    def critic(self, turn: Turn) -> Tensor:
        drawn = turn.random.uniform(len(turn.real)).mean()
        drawn = drawn + torch.rand((), device=None if self.fault == "a draw on the host" else drawn.device)
        turn.log("drawn", drawn)
        value = drawn * turn.real_scores.square().mean()
        if self.fault == "reads back":
            value.item()
        elif self.fault == "picks by a mask":
            value = value + turn.real_scores[turn.real_scores > 0].sum()
        elif self.fault == "repeats":
            value = value * torch.ones(1).repeat_interleave(torch.ones(1, dtype=torch.int64)).to(value)
        elif self.fault == "solves":
            value = value * torch.linalg.inv(torch.eye(2)).trace()
        elif self.fault == "a number":
            value = value * torch.tensor(1.0, device=value.device)
        elif self.fault == "an index of numbers":
            value = value + turn.real_scores[[0]].sum()
        elif self.fault == "no deterministic form":
            warnings.warn("put_ does not have a deterministic implementation, but ...", stacklevel=1)
        elif self.fault == "depends on the step":
            value = value * (1 + turn.step)
        return value


@pytest.fixture
def strangers() -> None:
    gankit.augments.register("scored")(Scored)
    gankit.losses.register("drawing")(Drawing)


LOOKS_AFTER = ["augment.name=scored", "data.held_out=0.3", 'losses=["hinge","drawing"]', *RESNET]


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
    reason = {"reads back": "RuntimeError: aten._local_scalar_dense.default reads a value back to the host",
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


def replaying(monkeypatch: pytest.MonkeyPatch, recorder: Callable[[Any], Any]) -> list[Graphs]:
    """Let trainings replay, and give what replays."""
    made: list[Graphs] = []

    def choose(settings: Any, device: Any, parts: Any, random: Any, log: Any, report: Any, compilation: Any) -> Any:
        modules = [part for part in parts.values() if isinstance(part, torch.nn.Module)]
        if settings.graphs is False:  # a rehearsal
            return Eager(log)
        made.append(Graphs(recorder(modules), modules, [random], log, report))
        return made[-1]

    monkeypatch.setattr("gankit.training.step.choose", choose)
    return made


class Lost(ReplayRecorder):
    """Of a GPU that fails in a replay, and in all that follows."""

    replays = 0

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        replay = super().record(work)

        def replay_for_a_while() -> None:
            self.replays += 1
            self.check()
            replay()

        return replay_for_a_while

    def check(self) -> None:
        if self.replays > 6:
            raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronous")

    def free(self) -> None:
        self.check()


def test_a_gpu_that_disappears_ends_the_run_with_one_line_and_keeps_the_checkpoint(
    small: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = replaying(monkeypatch, Lost)
    experiment = gankit.load("wgan-gp", *small("training.checkpoint_every=1"))
    failed = r"^\S+run: the GPU failed after step (\d) \(CUDA error: unspecified launch failure\); when it works"
    with pytest.raises(RunError, match=failed) as caught:
        gankit.train(experiment, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert len(made[0].recorded) == 0
    steps = gankit.open_run(tmp_path / "run").steps
    assert f"after step {steps} " in str(caught.value)
    assert 2 < steps < 6
    monkeypatch.undo()
    assert gankit.resume(tmp_path / "run").finished


def test_a_run_that_is_killed_while_it_replays_ends_as_an_eager_one(
    small: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = gankit.load("wgan-gp", *small("augment.name=diffaugment", "training.tick_every=1"))
    eager = gankit.train(experiment, tmp_path / "eager")
    made = replaying(monkeypatch, ReplayRecorder)

    def power_cut(row: dict[str, Any]) -> None:
        if row["step"] == 5:
            assert len(made[0].recorded) == 2
            raise SystemExit

    with pytest.raises(SystemExit):
        gankit.train(experiment, tmp_path / "broken", on_tick=power_cut)
    assert not made[0].recorded  # memory is freed when a training ends
    assert gankit.open_run(tmp_path / "broken").steps == 4
    resumed = gankit.resume(tmp_path / "broken")
    assert resumed.exported.read_bytes() == eager.exported.read_bytes()
    rows = [[{k: v for k, v in row.items() if "/" in k} for row in run.log] for run in (eager, resumed)]
    assert rows[0] == rows[1]


def test_without_a_gpu_turns_run_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `CUDA_VISIBLE_DEVICES=`."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for graphs in ("auto", "false"):
        assert isinstance(
            stepper("wgan-gp", *RESNET, "training.device=auto", f"training.graphs={graphs}").execution, Eager
        )


def test_true_is_refused_where_there_is_no_cuda_device() -> None:
    with pytest.raises(PartError, match=r"^training\.graphs=true: graphs need a CUDA device, .* is cpu; set .*=auto$"):
        stepper("wgan-gp", *RESNET, "training.graphs=true")


class Recorded:
    def __init__(self, device: torch.device, generators: list[torch.Generator]) -> None:
        pass


@pytest.mark.parametrize(
    ("graphs", "change", "outcome"),
    [
        ("auto", None, "graphs"),
        (True, None, "graphs"),
        (False, None, "eager"),
        ("auto", "stranger", "eager"),
        (True, "stranger", r"critic resnet does not say that it can be captured \(capturable = True\)"),
        ("auto", "compile", "eager"),
        (True, "compile", "graphs and training.compile exclude each other"),
        ("auto", "norms", "eager"),
        (True, "norms", "batch normalisation is synchronised between processes"),
    ],
)
def test_on_a_gpu_the_parts_decide(
    graphs: Any, change: str | None, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gankit.training.execution.graphs.CudaRecorder", Recorded)
    small = stepper("wgan-gp", *RESNET)
    parts: dict[str, Any] = {
        "critic resnet": dataclasses.make_dataclass("C", [("capturable", bool)])(change != "stranger"),
        "generator resnet": small.generator,
    }
    settings = small.settings.model_copy(update={"graphs": graphs, "compile": change == "compile"})
    monkeypatch.setattr("gankit.distributed.has_synchronised_norms", lambda *_: change == "norms")

    def chosen() -> Any:
        return choose(
            settings, torch.device("cuda"), parts, small.inputs.loss_rng, small.log.add, pytest.fail, small.compilation
        )

    if outcome in ("eager", "graphs"):
        assert isinstance(chosen(), Graphs) == (outcome == "graphs")
    else:
        with pytest.raises(PartError, match=f"^training.graphs=true: {outcome}; set training.graphs=auto$"):
            chosen()


class HostDraws(Augment):
    capturable = True

    def forward(self, images: Tensor) -> Tensor:
        return images * torch.rand(len(images), 1, 1, 1).to(images.device)


class Counting(Augment):
    """Keeps the number of its calls as a number."""

    capturable = True
    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return images / self.calls


PROMISES: dict[str, tuple[Any, str]] = {
    "reads back": (Drawing, "reads a value back to the host"),
    "picks by a mask": (Drawing, "reads a value back to the host"),
    "repeats": (Drawing, "reads a value back to the host"),
    "solves": (Drawing, "reads a value back to the host"),
    "a draw on the host": (Drawing, "aten.add.Tensor copies a tensor between devices, or takes its number"),
    "a number": (Drawing, "copies a tensor between devices, or takes its number"),
    "an index of numbers": (Drawing, "numbers are copied from the host: keep them in a buffer"),
    "depends on the step": (Drawing, "differs once turns are replayed: what changes between steps must be in buffers"),
    "draws on the host": (HostDraws, "copies a tensor between devices, or takes its number"),
    "counting": (Counting, r"\.calls is a number that changes in a step: keep it in a buffer"),
}


@pytest.mark.parametrize("fault", PROMISES)
def test_the_suites_catch_a_broken_promise(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part, message = PROMISES[fault]
    monkeypatch.setattr(Drawing, "fault", fault)
    suite: Any = LossTests() if part is Drawing else AugmentTests()
    monkeypatch.setattr(type(suite), "part", part, raising=False)
    suite.files = {}
    with isolated_registry(), pytest.raises(AssertionError, match=message):
        suite.test_can_be_replayed()
