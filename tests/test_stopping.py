"""How a training stops: between two updates, within an evaluation, at once; and how it goes on."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import gankit
from gankit.evaluation.while_training import MetricsWhileTraining
from gankit.runs import checkpoint
from gankit.training.step import Stepper
from gankit.training.stopping import StopRequest

Small = Callable[..., list[str]]
NOT_ON_WINDOWS = pytest.mark.skipif(os.name == "nt", reason="there is no such signal")


def interrupt(kind: signal.Signals = signal.SIGINT) -> None:
    signal.raise_signal(kind)  # os.kill would end the process on Windows


def log_without_times(folder: Path) -> list[dict[str, Any]]:
    rows = gankit.open_run(folder).log
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


def assert_same_run(a: Path, b: Path) -> None:
    assert (a / "generator.safetensors").read_bytes() == (b / "generator.safetensors").read_bytes()
    assert log_without_times(a) == log_without_times(b)


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Interrupts so many times in the update of one side with this number."""
    update = Stepper.update

    def at(side: str, number: int, times: int = 1, kind: signal.Signals = signal.SIGINT) -> None:
        left = [times]

        def interrupted(self: Stepper, which: Any, batch: int, index: int) -> None:
            update(self, which, batch, index)
            while (which, index) == (side, number) and self.settings.steps == 6 and self.step == 4 and left[0]:
                left[0] -= 1
                interrupt(kind)

        monkeypatch.setattr(Stepper, "update", interrupted)

    return at


LABELLED = ["data.conditional=true", "critic.spectral=true", "augment.name=diffaugment"]


@pytest.mark.parametrize(
    ("side", "number", "turns", "recipe"),
    [
        ("critic", 12, 1, []),
        pytest.param("critic", 14, 3, LABELLED, marks=pytest.mark.slow),
        ("generator", 4, 0, []),
    ],
)
def test_an_interrupt_breaks_a_step_off_between_updates_and_the_resumed_run_is_bitwise_the_same(
    side: str, number: int, turns: int, recipe: list[str], small: Small, tmp_path: Path,
    interrupt_at: Callable[..., None], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    experiment = gankit.load("wgan-gp", *small("training.critic_steps=3", *recipe))
    gankit.train(experiment, tmp_path / "whole")
    interrupt_at(side, number)
    with pytest.raises(KeyboardInterrupt):
        gankit.train(experiment, tmp_path / "cut")
    restored = checkpoint.restore(tmp_path / "cut" / "checkpoints")
    assert restored is not None
    assert (restored.step, restored.state["turns"]) == (4 if turns else 5, turns)
    said = capsys.readouterr().err
    assert "finishing this update, then saving" in said
    assert f"interrupted: stopped at step {restored.step} of 6" in said
    torch.manual_seed(7)
    assert gankit.resume(tmp_path / "cut").finished
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("interrupted", [1, 2], ids=["on the way", "at the end"])
def test_an_interrupt_breaks_an_evaluation_off_and_the_resumed_run_repeats_it(
    interrupted: int, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = gankit.load("wgan-gp", *small("evaluation.every=1"))
    gankit.train(experiment, tmp_path / "whole")
    values, calls = MetricsWhileTraining.values, [0]

    def interrupted_values(self: MetricsWhileTraining, *arguments: Any) -> dict[str, float]:
        calls[0] += 1
        if calls[0] == interrupted + 1:  # after the trial at the start
            interrupt()
            pytest.fail("the evaluation went on")
        return values(self, *arguments)

    monkeypatch.setattr(MetricsWhileTraining, "values", interrupted_values)
    with pytest.raises(KeyboardInterrupt):
        gankit.train(experiment, tmp_path / "cut")
    step = 3 * interrupted
    assert f"interrupted: stopped at step {step} of 6" in capsys.readouterr().err
    assert [row["step"] for row in log_without_times(tmp_path / "cut")] == list(range(3, step, 3))
    gankit.resume(tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert gankit.open_run(tmp_path / "cut").best == gankit.open_run(tmp_path / "whole").best


def test_a_second_interrupt_stops_at_once_and_says_what_is_lost(
    small: Small, tmp_path: Path, interrupt_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(StopRequest, "GRACE", -1.0)
    interrupt_at("critic", 8, times=2)
    experiment = gankit.load("wgan-gp", *small("training.checkpoint_every=3"))
    with pytest.raises(KeyboardInterrupt):
        gankit.train(experiment, tmp_path / "run")
    assert (
        "stopped at once at step 4 of 6: everything since the checkpoint of step 3 is lost; "
        f"go on with: gankit resume {tmp_path / 'run'}"
    ) in capsys.readouterr().err
    assert gankit.open_run(tmp_path / "run").steps == 3


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, pytest.param("SIGHUP", marks=NOT_ON_WINDOWS)])
def test_a_signal_that_the_process_was_started_to_ignore_stops_nothing(
    kind: signal.Signals | str, small: Small, tmp_path: Path, interrupt_at: Callable[..., None]
) -> None:
    """As a shell's script starts what it leaves in the background, and nohup."""
    number = signal.Signals[kind] if isinstance(kind, str) else kind
    interrupt_at("critic", 8, kind=number)
    before = signal.signal(number, signal.SIG_IGN)
    try:
        assert gankit.train(gankit.load("wgan-gp", *small()), tmp_path / "run").finished
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("rank", [None, "0", "1"])
@pytest.mark.parametrize("when", ["loading", "at work", "after words of its own"])
@pytest.mark.parametrize("kind", [None, signal.SIGTERM, pytest.param("SIGHUP", marks=NOT_ON_WINDOWS)])
def test_an_interrupted_command_says_one_line_also_if_it_has_several_processes(
    when: str, rank: str | None, kind: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*given: object) -> None:
        if kind and when == "at work":
            interrupt(getattr(signal, str(kind), kind))
        raise KeyboardInterrupt(*["go on with: gankit resume"] * (when == "after words of its own"))

    if when == "loading":
        module = ModuleType("gankit.cli")
        module.__getattr__ = interrupted  # type: ignore[method-assign]
        monkeypatch.setitem(sys.modules, "gankit.cli", module)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("gankit.cache.clear_cache", interrupted)
    monkeypatch.setattr(sys, "argv", ["gankit", "cache", "clear"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("gankit", run_name="__main__")
    assert stop.value.code == 130
    out, err = capsys.readouterr()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    silent = when == "after words of its own" or rank == "1"
    assert (out, err) == ("", "" if silent else "gankit: interrupted\n")
