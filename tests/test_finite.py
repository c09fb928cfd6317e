"""Numbers that are not finite end a training in one line, with the step and the name of what holds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gankit
from gankit.errors import DataError, PartError, RunError
from gankit.runs import checkpoint
from gankit.training.rehearsal import rehearse
from gankit.training.step import Stepper

Small = Callable[..., list[str]]
BAD = (float("nan"), float("inf"))


def spoil(monkeypatch: pytest.MonkeyPatch, change: Callable[[Stepper], Any]) -> None:
    """Change what a stepper holds after its second step, outside the rehearsal of a training."""
    advance = Stepper.advance

    def advance_and_spoil(self: Stepper, *arguments: Any) -> None:
        advance(self, *arguments)
        if self.step == 2 and self.settings.critic_steps > 1:
            with torch.no_grad():
                change(self)

    monkeypatch.setattr(Stepper, "advance", advance_and_spoil)


def set_first(tensor: torch.Tensor, value: float) -> None:
    tensor.view(-1)[0] = value


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("generator.", lambda stepper, bad: set_first(list(stepper.generator.parameters())[-1], bad)),
        ("critic.", lambda stepper, bad: set_first(list(stepper.critic.parameters())[-1], bad)),
        ("averaged generator.", lambda stepper, bad: set_first(list(stepper.averaged.module.parameters())[-1], bad)),
    ],
)
def test_weights_that_are_not_finite_are_named(
    name: str, change: Any, bad: float, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda stepper: change(stepper, bad))
    overrides = small("training.steps=2", "training.averaging=0.9")
    with pytest.raises(RunError, match=rf"diverged by step 2 \({name}[\w.]+(, [\w. ]+)* not finite\)") as caught:
        gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.parametrize("name", ["generator", "critic", "averaged"])
@pytest.mark.parametrize("bad", BAD)
def test_a_run_with_weights_that_are_not_finite_is_no_start(
    name: str, bad: float, small: Small, tmp_path: Path
) -> None:
    averaging = "training.averaging=0.9"
    first = gankit.train(gankit.load("wgan-gp", *small(averaging)), tmp_path / "first")
    for path in first.path.glob("checkpoints/step-*.pt"):
        content = torch.load(path, weights_only=True)
        key, weight = next((k, v) for k, v in content["state"][name].items() if v.is_floating_point())
        content["state"][name][key] = torch.full_like(weight, bad)
        checkpoint.save(path.parent, content["step"], content["state"])
    experiment = gankit.load("wgan-gp", *small(averaging, f"training.start_from={first.path}"))
    with pytest.raises(RunError, match=rf"start_from: {first.path}: .* NaN or infinity \({name}.*\): take another run"):
        gankit.train(experiment, tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_a_buffer_of_nan_is_named(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(stepper: Stepper) -> None:
        for name, buffer in stepper.generator.named_buffers():
            if name.endswith("running_mean"):
                set_first(buffer, float("nan"))

    spoil(monkeypatch, change)
    overrides = small("training.steps=2", "generator.name=dcgan")
    with pytest.raises(RunError, match=r"diverged by step 2 \(generator\.[\w.]*running_mean"):
        gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / "run")


def test_weights_that_are_not_finite_end_the_training_at_an_evaluation(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda stepper: set_first(next(stepper.averaged.module.parameters()), float("nan")))  # type: ignore[union-attr]
    overrides = small("training.averaging=0.9", "evaluation.every=1", "training.tick_every=3")
    with pytest.raises(RunError, match="diverged by step 3"):
        gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / "run")


def test_a_trial_step_that_is_not_finite_is_refused(small: Small, tmp_path: Path) -> None:
    overrides = small("losses.gradient-penalty.weight=1e30", "training.optimizer=SGD")
    with pytest.raises(PartError, match=r"^in a trial step \w+/\w+.* became infinite or NaN; lower the weights"):
        gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("bad", BAD)
def test_images_that_are_not_finite_are_named(bad: float, small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("training.steps=1")), tmp_path / "run")
    run.generator.register_forward_hook(lambda module, inputs, output: output.index_fill(0, torch.tensor([3]), bad))
    with pytest.raises(RunError, match="image 3 of the generator holds NaN or infinity"):
        run.sample(5)


@pytest.mark.parametrize("bad", BAD)
def test_images_of_the_data_are_finite(
    bad: float, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gankit.training.trainer.rehearse", rehearse)  # it reads the images; tests share another one's
    images = np.random.default_rng(0).random((12, 8, 8, 3), dtype=np.float32)
    images[7, 1, 2, 0] = bad
    np.savez(tmp_path / "d.npz", images=images)
    with pytest.raises(DataError, match="outside value_range"):
        gankit.train(
            gankit.load("wgan-gp", *small(f"data.path={tmp_path / 'd.npz'}", "data.value_range=[0, 1]")),
            tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()
