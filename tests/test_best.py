"""Judging while training: a fixed subset, reals once, and the best generator kept beside the last one."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from same_runs import Killed

import gankit
from gankit import GankitError, Metric
from gankit.evaluation.while_training import MetricsWhileTraining
from gankit.interfaces import Rows
from gankit.runs import checkpoint
from gankit.runs.run import BEST, open_run

Small = Callable[..., list[str]]
EVERY = ("evaluation.every=1", "training.tick_every=1", "evaluation.count=8", "training.lr_decay=none")


class Scripted(Metric):
    """Values from a list, one a call after that which checks the evaluation before training."""

    better = "lower"
    script: tuple[float, ...] = ()
    calls = 0

    def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
        """The next value."""
        Scripted.calls += 1
        return {"scripted": Scripted.script[Scripted.calls - 1] if Scripted.calls > 0 else -1e9}


gankit.metrics.register("scripted-value")(Scripted)


def scripted(
    small: Small, out: Path, values: tuple[float, ...], *more: str, better: str | None = "lower"
) -> gankit.Run:
    Scripted.script, Scripted.calls = values, -1
    Scripted.better = better  # type: ignore[assignment]
    return gankit.train(gankit.load("wgan-gp", *small(*EVERY, 'evaluation.metrics=["scripted-value"]', *more)), out)


@pytest.mark.parametrize(
    ("values", "better", "step"),
    [
        pytest.param((5, 3, 4, 3, 9, 9), "lower", 2, marks=pytest.mark.slow),
        ((5, 3, 4, 2, 9, 9), "lower", 4),
        ((5, 3, 4, 7, 7, 1), "higher", 4),
        ((math.nan, 3, math.nan, 4, 5, -math.inf), "lower", 2),
        ((1, 2, 3, 4, 5, 6), None, None),
    ],
)
def test_the_best_is_kept(
    values: tuple[float, ...], better: str | None, step: int | None, small: Small, tmp_path: Path
) -> None:
    run = scripted(small, tmp_path / "run", values, better=better)
    if step is None:
        assert run.best is None
        with pytest.raises(GankitError, match="no best generator was kept"):
            open_run(run.path, best=True)
        return
    assert run.best == {"metric": "scripted", "value": values[step - 1], "step": step}
    kept = torch.load(run.path / "checkpoints" / "best.pt", weights_only=True)
    assert kept["step"] == step
    assert run.steps == 6  # the newest checkpoint is still the last one
    assert (run.path / "generator.safetensors").is_file()


def test_the_best_generator_is_the_one_of_its_step(small: Small, tmp_path: Path) -> None:
    best = open_run(scripted(small, tmp_path / "run", (5, 4, 3, 9, 9, 9)).path, best=True)
    shorter = scripted(small, tmp_path / "short", (9, 9, 9), "training.steps=3")
    np.testing.assert_array_equal(best.sample(4), shorter.sample(4))
    assert not np.array_equal(best.sample(4), open_run(best.path).sample(4))
    report = gankit.evaluate(best, best, ["frechet"], "pixels")
    assert report["protocol"]["fake"] == "run run (best)"
    assert report != gankit.evaluate(open_run(best.path), best, ["frechet"], "pixels")


def test_it_can_be_switched_off(small: Small, tmp_path: Path) -> None:
    assert scripted(small, tmp_path / "run", (5, 4, 3, 2, 1, 0), "evaluation.keep_best=false").best is None


def test_a_run_killed_after_its_best_ends_as_one_never_stopped(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gankit.train(gankit.load("wgan-gp", *small(*EVERY)), tmp_path / "whole")

    def kill(row: dict[str, object]) -> None:
        if row["step"] == 6:
            raise Killed

    # Checkpoints are written at step 4: what came after is done again.
    with pytest.raises(Killed):
        gankit.train(gankit.load("wgan-gp", *small(*EVERY)), tmp_path / "part", on_tick=kill)
    part = gankit.resume(tmp_path / "part")
    for name in (BEST, "generator.safetensors"):
        assert (part.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert part.best == whole.best
    assert [row["metrics"] for row in part.log] == [row["metrics"] for row in whole.log]
    restored = [checkpoint.restore(run.path / "checkpoints") for run in (part, whole)]
    assert [found.step for found in restored if found] == [6, 6]


def test_reals_are_a_fixed_subset_and_their_features_made_once(arrays: Path) -> None:
    seen: list[int] = []

    def brightness(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return images.mean((2, 3))

    gankit.features.register("brightness")(gankit.wrap("features", brightness, dim=3))
    dataset = gankit.build("dataset", "npz", path=str(arrays))
    table = {"features": "brightness", "metrics": ["frechet", "frechet"], "subset": 10}
    settings = gankit.load({"data": {"name": "npz", "path": str(arrays)}, "evaluation": table}).evaluation
    judge = MetricsWhileTraining(settings, dataset, (0, 255))
    assert judge.count == 10
    fake = dataset.images[:10]
    values = [judge.values(fake, None) for _ in range(3)]
    assert seen == [10] * 4  # reals once, fakes three times
    assert values[0] == values[1] == values[2]
    assert set(values[0]) == {"frechet", "frechet-2"}
    assert MetricsWhileTraining(settings, dataset, (0, 255)).values(fake, None) == values[0]
    everything = settings.model_copy(update={"subset": None})
    assert MetricsWhileTraining(everything, dataset, (0, 255)).count == 40


def test_held_out_images_are_the_reference(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    make = MetricsWhileTraining.__init__

    def spy(self: MetricsWhileTraining, settings: Any, reference: gankit.Dataset, *more: Any) -> None:
        counts.append(len(reference))
        make(self, settings, reference, *more)

    monkeypatch.setattr(MetricsWhileTraining, "__init__", spy)
    gankit.train(gankit.load("wgan-gp", *small(*EVERY, "data.held_out=0.25")), tmp_path / "run")
    assert counts in ([8], [12])  # whole groups of four of 40


def test_copies_of_training_images_are_seen_beside_held_out_ones() -> None:
    draw = np.random.default_rng(0)
    training, held_out = (gankit.wrap("dataset", draw.integers(0, 256, (40, 1, 6, 6), dtype=np.uint8)) for _ in "ab")
    table = {"features": "pixels", "metrics": ["memorisation"]}
    settings = gankit.load({"data": {"name": "eyes"}, "evaluation": table}).evaluation
    judge = MetricsWhileTraining(settings, held_out, (0, 255), training)
    assert judge.values(training.images[:20], None)["near-copies"] == 1
    assert judge.values(draw.integers(0, 256, (20, 1, 6, 6), dtype=np.uint8), None)["near-copies"] < 0.3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['evaluation.metrics=["intra-class"]'], "intra-class needs the class of each image"),
        (['evaluation.metrics=["inception-score"]'], "no class logits"),
        (["evaluation.features={name='torchscript', path='nowhere.pt'}"], "nowhere.pt"),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused_before_training(
    overrides: list[str], message: str, small: Small, tmp_path: Path
) -> None:
    with pytest.raises(GankitError, match=message):
        gankit.train(gankit.load("wgan-gp", *small(*EVERY, *overrides)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_features_that_cannot_be_built_are_refused_before_images_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"features": {"name": "torchscript", "path": "nowhere.pt"}, "metrics": ["frechet"]}
    settings = gankit.load({"data": {"name": "eyes"}, "evaluation": table}).evaluation
    images = np.zeros((20, 1, 6, 6), dtype=np.uint8)
    dataset = gankit.wrap("dataset", images)
    monkeypatch.setattr(type(dataset), "digest", lambda self: pytest.fail("the images are read"))
    with pytest.raises(GankitError, match=r"nowhere\.pt"):
        MetricsWhileTraining(settings, dataset, (0, 255)).values(images, None)


def test_values_that_fail_later_cost_no_training(
    small: Small, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Fails(Scripted):
        def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
            Scripted.calls += 1
            if Scripted.calls == 2:
                raise GankitError("this one is broken")
            return {"scripted": 1.0}

    Scripted.calls = -1
    gankit.metrics.register("fails-once")(Fails)
    run = gankit.train(gankit.load("wgan-gp", *small(*EVERY, 'evaluation.metrics=["fails-once"]')), tmp_path / "run")
    assert run.finished
    assert ["metrics" in row for row in run.log] == [True, False, True, True, True, True]
    assert "step 2 could not be evaluated: this one is broken" in capfd.readouterr().err


def test_a_stop_between_two_evaluations_adds_none(small: Small, tmp_path: Path) -> None:
    overrides = small("evaluation.every=2", "training.tick_every=2", "training.steps=8", "training.lr_decay=none")
    experiment = gankit.load("wgan-gp", *overrides)
    whole = gankit.train(experiment, tmp_path / "whole")
    part = gankit.train(gankit.load(experiment, "training.max_minutes=1e-9"), tmp_path / "part")
    while not part.finished:
        part = gankit.resume(part.path)  # one step at a time
    judged = [[row["step"] for row in run.log if "metrics" in row] for run in (whole, part)]
    assert judged == [[4, 8], [4, 8]]
    assert part.best == whole.best


def test_an_interrupt_during_an_evaluation_loses_no_step(small: Small, tmp_path: Path) -> None:
    class Interrupts(Scripted):
        def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
            Scripted.calls += 1
            if Scripted.calls == 3:
                signal.raise_signal(signal.SIGINT)
            return {"scripted": 1.0}

    Scripted.calls = -1
    gankit.metrics.register("interrupts")(Interrupts)
    overrides = small(*EVERY, 'evaluation.metrics=["interrupts"]', "training.checkpoint_every=100")
    with pytest.raises(KeyboardInterrupt):
        gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / "run")
    assert open_run(tmp_path / "run").steps == 3
