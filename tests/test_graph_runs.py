"""Runs that replay their turns: a GPU that is lost, a kill, where turns run eagerly, and broken promises of parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from replayed_turns import PYTHON, RESNET, Drawing, stepper
from torch import Tensor

import gankit
from gankit.errors import PartError, RunError
from gankit.interfaces import Augment
from gankit.testing import AugmentTests, LossTests, isolated_registry
from gankit.testing._capture import ReplayRecorder
from gankit.training.execution import choice
from gankit.training.execution.graphs import Graphs
from gankit.training.execution.work import Eager


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
    monkeypatch.setattr(choice, "CudaRecorder", Recorded)
    small = stepper("wgan-gp", *RESNET)
    parts: dict[str, Any] = {
        "critic resnet": dataclasses.make_dataclass("C", [("capturable", bool)])(change != "stranger"),
        "generator resnet": small.generator,
    }
    settings = small.settings.model_copy(update={"graphs": graphs, "compile": change == "compile"})
    monkeypatch.setattr(choice.distributed, "has_synchronised_norms", lambda *_: change == "norms")

    def choose() -> Any:
        return choice.choose(
            settings, torch.device("cuda"), parts, small.inputs.loss_rng, small.log.add, pytest.fail, small.compilation
        )

    if outcome in ("eager", "graphs"):
        assert isinstance(choose(), Graphs) == (outcome == "graphs")
    else:
        with pytest.raises(PartError, match=f"^training.graphs=true: {outcome}; set training.graphs=auto$"):
            choose()


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
    **dict.fromkeys(PYTHON, (Drawing, "the turn draws on the host")),
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
