"""Judging while training: a fixed subset, reals once, and the best generator kept beside the last one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gankit
from gankit import Batch, GankitError, Metric, checkpoint
from gankit.in_training import InTraining
from gankit.run import BEST, open_run

Small = Callable[..., list[str]]
EVERY = ("evaluation.every=1", "training.tick_every=1", "evaluation.count=8", "training.lr_decay=none")


class Scripted(Metric):
    """Values from a list, one a call after that which checks the evaluation before training."""

    better = "lower"
    script: tuple[float, ...] = ()
    calls = 0

    def update(self, batch: Batch) -> None:
        """Nothing is needed."""

    def compute(self) -> dict[str, float]:
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
        ((5, 3, 4, 3, 9, 9), "lower", 2),
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

    class Killed(BaseException):
        pass

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
    assert restored[0] is not None
    assert restored[1] is not None
    assert restored[0][0] == restored[1][0] == 6


def test_reals_are_a_fixed_subset_and_their_features_made_once(arrays: Path) -> None:
    seen: list[int] = []

    def brightness(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return images.mean((2, 3))

    gankit.features.register("brightness")(gankit.wrap("features", brightness, dim=3))
    dataset = gankit.build("dataset", "npz", path=str(arrays))
    table = {"features": "brightness", "metrics": ["frechet", "frechet"], "subset": 10}
    settings = gankit.load({"data": {"name": "npz", "path": str(arrays)}, "evaluation": table}).evaluation
    judge = InTraining(settings, dataset, (0, 255))
    assert judge.count == 10
    fake = dataset.images[:10]
    values = [judge.values(fake, None) for _ in range(3)]
    assert seen == [10] * 4  # reals once, fakes three times
    assert values[0] == values[1] == values[2]
    assert set(values[0]) == {"frechet", "frechet-2"}
    assert InTraining(settings, dataset, (0, 255)).values(fake, None) == values[0]
    everything = settings.model_copy(update={"subset": None})
    assert InTraining(everything, dataset, (0, 255)).count == 40


def test_held_out_images_are_the_reference(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    make = InTraining.__init__

    def spy(self: InTraining, settings: Any, reference: gankit.Dataset, *more: Any) -> None:
        counts.append(len(reference))
        make(self, settings, reference, *more)

    monkeypatch.setattr(InTraining, "__init__", spy)
    gankit.train(gankit.load("wgan-gp", *small(*EVERY, "data.held_out=0.25")), tmp_path / "run")
    assert counts in ([8], [12])  # whole groups of four of 40
