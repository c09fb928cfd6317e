"""Runs that are killed, interrupted or damaged go on exactly as if nothing had been."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
from same_runs import Killed, assert_same_run
from torch import Tensor

import gankit
from gankit.errors import RunError
from gankit.runs import checkpoint
from gankit.training.stopping import StopRequest

Small = Callable[..., list[str]]

CLASS_LOSSES = 'losses=["wasserstein", {name="auxiliary-class", fake=false, generator=0.5}]'
RECIPES = {
    "wgan-gp": [],
    "diffaugment": ["augment.name=diffaugment", "data.flip=true", "data.balance=0.5"],
    "conditional": ["data.conditional=true", "data.held_out=0.2"],
    "conditions": ['data.conditional=["severity"]', "critic.spectral=true"],
    "class head": ["data.conditional=true", "data.weights=severe", "critic.class_head=true", CLASS_LOSSES],
    "fade": ["data.conditional=true", "training.label_fade=[1, 9]", "training.tick_every=1"],
    "fade of conditions": ['data.conditional=["severity"]', "training.label_fade=[0, 5]"],
    "consistency": ["augment.name=diffaugment", 'losses=[{name="hinge"}, {name="consistency"}, {name="r1", every=3}]'],
    "clipping": ['losses=["wasserstein", "weight-clipping"]', "training.optimizer=RMSprop", "training.lr_decay=none"],
    "float64": ["training.precision=float64", "training.averaging=0"],
    "bf16": ["training.precision=bf16"],
}


def die_at_step_6(row: dict[str, Any]) -> None:
    if row["step"] == 6:
        raise Killed


# What the others have, these have too, or gankit does the same with it.
QUICKLY = {"wgan-gp", "diffaugment", "class head", "fade of conditions", "consistency", "bf16"}


@pytest.mark.parametrize(
    "recipe", [pytest.param(recipe, marks=[] if recipe in QUICKLY else pytest.mark.slow) for recipe in RECIPES]
)
def test_killed_and_resumed_is_bitwise_as_never_stopped(recipe: str, small: Small, tmp_path: Path) -> None:
    def copy_at_step_6(row: dict[str, Any]) -> None:
        if row["step"] == 6:  # what a run that is killed now leaves
            shutil.copytree(tmp_path / "whole", tmp_path / "cut")

    gankit.train(gankit.load("wgan-gp", *small(*RECIPES[recipe])), tmp_path / "whole", on_tick=copy_at_step_6)
    assert gankit.open_run(tmp_path / "cut").steps == 4
    torch.manual_seed(7)  # what the resuming process drew before must not matter
    run = gankit.resume(tmp_path / "cut")
    assert run.finished
    assert run.steps == 6
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_without_a_checkpoint_a_run_starts_at_step_0(small: Small, tmp_path: Path) -> None:
    experiment = gankit.load("wgan-gp", *small())
    gankit.train(experiment, tmp_path / "whole")

    def die(row: dict[str, Any]) -> None:
        raise Killed

    with pytest.raises(Killed):
        gankit.train(experiment, tmp_path / "cut", on_tick=die)
    assert not (tmp_path / "cut" / "checkpoints").exists()
    gankit.resume(tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_broken_newest_checkpoint_falls_back_on_the_one_before(small: Small, tmp_path: Path) -> None:
    experiment = gankit.load("wgan-gp", *small("training.checkpoint_every=2"))
    gankit.train(experiment, tmp_path / "whole")
    gankit.train(experiment, tmp_path / "cut")
    newest = sorted((tmp_path / "cut" / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    assert not gankit.open_run(tmp_path / "cut").finished
    gankit.resume(tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("kind", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupt_saves_and_the_resumed_process_ends_the_same(
    kind: signal.Signals, small: Small, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    overrides = small("training.steps=50", "training.tick_every=3", "training.checkpoint_every=25")
    gankit.train(gankit.load("wgan-gp", *overrides), whole)
    started = processes.Started("train", "wgan-gp", *overrides, "--out", str(cut))
    log = cut / "log.jsonl"
    while not log.exists() or not log.read_text():
        assert started.processes[0].is_alive()
        time.sleep(0.05)
    started.send_signal(kind)
    started.send_signal(kind)  # as a terminal and a wrapper together send it
    done = started.wait()
    assert done.returncode == 130, done.stderr
    assert "gankit resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert 0 < (steps := gankit.open_run(cut).steps) < 50
    assert len(gankit.open_run(cut).log) == steps // 3, "an interrupt leaves no line of its own"
    assert processes.run("resume", str(cut)).returncode == 0
    assert_same_run(whole, cut)
    assert gankit.resume(cut).finished
    for folder in ("samples", "checkpoints"):
        assert [file.name for file in sorted((cut / folder).iterdir())] == [
            file.name for file in sorted((whole / folder).iterdir())
        ]


def test_a_damaged_checkpoint_is_passed_over(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    gankit.train(gankit.load("wgan-gp", *small()), whole)
    six = sorted((whole / "checkpoints").iterdir())[-1]
    content = torch.load(six, weights_only=True)
    content["state"]["generators"] = content["state"].pop("generator")
    changed = bytearray(six.read_bytes())
    changed[len(changed) // 2] ^= 1  # within a weight
    for damage, reason in (
        (lambda path: path.write_bytes(changed), "cannot be read (it was altered after it was written)"),
        (lambda path: torch.save(content | {"format": 2}, path), "the saved generator does not fit the experiment"),
    ):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(whole, out)
        damage(out / "checkpoints" / six.name)
        (out / "generator.safetensors").unlink()
        gankit.resume(out)
        said = " ".join(capsys.readouterr().err.split())
        assert reason in said
        assert "going on from step 4" in said
        assert_same_run(whole, out)
    for path in (out / "checkpoints").iterdir():
        path.write_bytes(changed)
    with pytest.raises(RunError, match=r"none of 2 checkpoints can be read .* put back a copy of one") as raised:
        gankit.resume(out)
    assert "delete" not in str(raised.value)
    (out / "generator.safetensors").write_bytes(
        (whole / "generator.safetensors").read_bytes().replace(b"uint8", b"uint9")
    )
    with pytest.raises(RunError, match=r"generator\.safetensors was altered after it was written"):
        gankit.open_run(out).sample(1)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no terminals that close")
def test_a_terminal_that_closes_asks_for_a_stop_unless_nohup_says_otherwise() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        for asked, meaning in ((True, signal.SIG_DFL), (False, signal.SIG_IGN)):
            signal.signal(signal.SIGHUP, meaning)
            with StopRequest() as stop:
                os.kill(os.getpid(), signal.SIGHUP)
            assert stop.requested == asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_handler_of_the_program_that_python_runs_in_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As R's: Python shows None in its place, and could not put it back."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(signal, "getsignal", lambda kind: None if kind == signal.SIGINT else before)
    set_for: list[int] = []
    monkeypatch.setattr(signal, "signal", lambda kind, handler: set_for.append(kind))
    with StopRequest():
        assert signal.SIGTERM in set_for
    assert signal.SIGINT not in set_for


def test_a_training_outlives_its_terminal(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    for number, stream in enumerate((Gone(), None)):
        monkeypatch.setattr(sys, "stderr", stream)
        overrides = small("training.steps=2", 'data.conditional=["severe"]')
        assert gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / str(number)).finished


def test_resuming_another_seed_or_a_plain_rand_in_a_part(small: Small, tmp_path: Path) -> None:
    """A stranger's part that draws from torch's own generator resumes exactly too."""

    @gankit.augments.register("noise")
    class Noise(gankit.Augment):
        def forward(self, images: Tensor) -> Tensor:
            return images + 0.1 * torch.randn_like(images)

    experiment = gankit.load("wgan-gp", *small("augment.name=noise", "training.seed=5"))
    gankit.train(experiment, tmp_path / "whole")

    with pytest.raises(Killed):
        gankit.train(experiment, tmp_path / "cut", on_tick=die_at_step_6)
    gankit.resume(tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_what_a_kill_at_the_very_end_left_is_gone_after_resuming(small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("training.checkpoint_every=2")), tmp_path / "run")
    files = {path.name: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    for name in ("checkpoints/step-00000002.pt", ".lock", ".lock-holder", ".generator.safetensors.1.tmp"):
        (run.path / name).write_bytes(b"")
    assert gankit.resume(run.path).finished
    assert {path.name: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == files


def test_a_run_killed_between_its_two_last_files_still_exports_its_generator(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = gankit.load("wgan-gp", *small())
    gankit.train(experiment, tmp_path / "whole")
    for name in ("save", "export"):
        real, calls = getattr(checkpoint, name), []

        def die(*arguments: Any, real: Any = real, calls: list[int] = calls) -> Any:
            calls.append(1)
            if len(calls) == 2:  # the first is at step 4, the second at the end
                raise Killed
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, name, die)
            with pytest.raises(Killed):
                gankit.train(experiment, tmp_path / name)
        gankit.resume(tmp_path / name)
        assert_same_run(tmp_path / "whole", tmp_path / name)
    (tmp_path / "save" / "generator.safetensors").unlink()
    gankit.resume(tmp_path / "save")
    assert_same_run(tmp_path / "whole", tmp_path / "save")


def test_resuming_on_other_data_is_refused(small: Small, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images, severity = draw.integers(0, 255, (12, 1, 8, 8), dtype=np.uint8), draw.normal(size=12)

    def data(n: int, scale: float = 1.0) -> gankit.Dataset:
        made: gankit.Dataset = gankit.wrap("dataset", images[:n], facts={"severity": scale * severity[:n]})
        return made

    experiment = gankit.load("wgan-gp", *small('data.conditional=["severity"]', "training.max_minutes=0.00001"))
    run = gankit.train(experiment, tmp_path / "run", data=data(12))
    with pytest.raises(RunError, match="images was 12, is 11"):
        gankit.resume(run.path, data=data(11))
    with pytest.raises(RunError, match="condition_scale was"):
        gankit.resume(run.path, data=data(12, 3.0))
    assert gankit.resume(run.path, data=data(12)).steps == 2


def test_a_run_that_started_from_another_resumes_without_it(small: Small, tmp_path: Path) -> None:
    first = gankit.train(gankit.load("wgan-gp", *small()), tmp_path / "first")
    overrides = small(f"training.start_from={first.path}", "training.max_minutes=0.00001")
    second = gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / "second")
    first.path.rename(tmp_path / "moved")
    assert gankit.resume(second.path).steps == 2


@pytest.mark.parametrize("more", [[], ["evaluation.every=3", "training.checkpoint_every=100"]])
def test_a_run_that_is_moved_while_it_trains_goes_on_where_it_is(more: list[str], small: Small, tmp_path: Path) -> None:
    experiment = gankit.load("wgan-gp", *small("training.steps=9", "training.sample_every=9", *more))
    whole = gankit.train(experiment, tmp_path / "whole")

    def move(row: dict[str, Any]) -> None:
        if row["step"] == 3:
            (tmp_path / "run").rename(tmp_path / "moved")

    gone = rf"^{re.escape(str(tmp_path / 'run'))} is gone: .+ gankit resume\), put it back"
    with pytest.raises(RunError, match=gone):
        gankit.train(experiment, tmp_path / "run", on_tick=move)
    assert not (tmp_path / "run").exists(), "nothing is written into another folder of this name"
    gankit.resume(tmp_path / "moved")
    assert_same_run(whole.path, tmp_path / "moved")


def test_other_images_of_the_same_number_are_refused(small: Small, arrays: Path, tmp_path: Path) -> None:
    words = small("data.held_out=0.25", "data.conditional=false", "training.steps=4")
    run = gankit.train(gankit.load("wgan-gp", *words), tmp_path / "run")
    written = run.path / "experiment.toml"
    before, stored = written.read_text().replace("steps = 4", "steps = 6"), arrays.read_bytes()  # something is left

    def refused() -> None:
        for look in (gankit.resume, lambda path: gankit.evaluate(path, path)):
            with pytest.raises(RunError, match=r"as many images, but other ones, or other ones are held out\); put"):
                look(run.path)

    assert "seed = 0" in before
    written.write_text(before.replace("seed = 0", "seed = 1"))  # of which other images are held out
    refused()
    written.write_text(before)
    with np.load(arrays) as whole:
        np.savez(arrays, **{name: whole[name][::-1] for name in whole})
    refused()
    arrays.write_bytes(stored)
    assert gankit.resume(run.path).steps == 6
