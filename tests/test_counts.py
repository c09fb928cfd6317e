"""What a training counts and weighs: turns, parts of a batch, weights of losses, rates, averages."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from same_runs import Killed, assert_same_run
from torch import Tensor, nn

import gankit
from gankit.distributed import shard
from gankit.errors import PartError
from gankit.interfaces import Loss, Side, Turn
from gankit.training.trainer import Trainer

Small = Callable[..., list[str]]


def test_a_lazy_penalty_that_does_not_hold_the_critic_is_named_once(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for every, warned in (1, 0), (2, 1):
        overrides = small(
            "training.steps=4", "training.tick_every=2", "losses.gradient-penalty.weight=1e6",
            f"losses.gradient-penalty.every={every}",
        )  # fmt: skip
        gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / str(every))
        said = capsys.readouterr().err
        assert said.count("up to step 2: computed only once in 2 updates, it no longer restrains the critic") == warned
        assert said.count("restrains the critic") == warned


class Spy(Loss):
    """Counts what the trainer asks of a loss."""

    calls: list[tuple[str, int, int]] = []
    after: list[str] = []

    def __init__(self, *, which: int = 0) -> None:
        self.which = which

    def critic(self, turn: Turn) -> Tensor:
        assert not turn.fake.requires_grad
        assert all(p.requires_grad for p in turn.critic.parameters())
        Spy.calls.append(("critic", self.which, turn.step))
        return turn.fake_scores.mean() - turn.real_scores.mean()

    def generator(self, turn: Turn) -> Tensor:
        assert turn.fake.requires_grad
        assert not any(p.requires_grad for p in turn.critic.parameters())
        Spy.calls.append(("generator", self.which, turn.step))
        return -turn.fake_scores.mean()

    def after_step(self, turn: Turn) -> None:
        Spy.after.append(turn.side)


def test_counts_of_turns_optimiser_steps_and_intervals(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gankit.losses.register("spy")(Spy)
    Spy.calls, Spy.after = [], []
    monkeypatch.setattr("gankit.training.trainer.rehearse", lambda *_: [])  # only the training counts
    steps: list[int] = []
    original = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *a, **k: (steps.append(id(self)), original(self))[1])
    losses = 'losses=[{name="spy", which=1}, {name="spy", which=2, every=4}, {name="gradient-penalty", every=5}]'
    experiment = gankit.load("wgan-gp", *small(losses, "training.critic_steps=3", "training.steps=5"))
    gankit.train(experiment, tmp_path / "run")
    sides = [side for side, which, _ in Spy.calls if which == 1]
    assert sides == (["critic"] * 3 + ["generator"]) * 5
    assert len([c for c in Spy.calls if c[:2] == ("critic", 2)]) == 4  # updates 0, 4, 8, 12 of 15
    assert [step for side, which, step in Spy.calls if (side, which) == ("generator", 2)] == [0, 4]
    assert sorted(steps.count(optimizer) for optimizer in set(steps)) == [5, 15]
    assert Spy.after == [side for side in sides for _ in range(2)]  # once a step for each of the two


@pytest.mark.parametrize("side", ["critic", "generator"])
def test_parts_of_a_batch_give_the_gradients_of_the_whole(side: Side, small: Small, tmp_path: Path) -> None:
    """Through the penalty, labels, drawn flips, dequantising and a loss's running mean, in parts of unequal size."""

    @gankit.losses.register("about-its-mean")
    class AboutItsMean(nn.Module, Loss):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
            self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
            self.register_buffer("largest_mean", torch.tensor(-math.inf, dtype=torch.float64))

        def critic(self, turn: Turn) -> Tensor:
            return self.about(turn.fake_scores)

        def generator(self, turn: Turn) -> Tensor:
            return self.about(turn.fake_scores)

        def about(self, scores: Tensor) -> Tensor:
            value = (scores - self.mean).square().mean()
            self.mean.lerp_(scores.detach().mean(), 0.5)
            self.largest_mean.copy_(torch.maximum(self.largest_mean, scores.detach().mean()))
            self.updates += 1
            return value

    losses = 'losses=["wasserstein", "gradient-penalty", "about-its-mean"]'
    recipe = ("wgan-gp", *small("training.precision=float64", "training.dequantise=true", "data.flip=true", losses,
                                "data.conditional=true", "generator.norm=layer", "critic.spectral=true"))  # fmt: skip
    found = []
    for accumulate in (1, 3, 9):
        experiment = gankit.load(*recipe, f"training.accumulate={accumulate}")
        stepper = Trainer(experiment, tmp_path / "run", None).stepper
        stepper.update(side, 4, 5)
        gradients = torch.cat([p.grad.flatten() for p in getattr(stepper, side).parameters()])
        state = stepper.gan.losses[-1].loss.state_dict()  # type: ignore[attr-defined]
        found.append((gradients, *stepper.critic.buffers(), *state.values()))
        assert state["updates"] == 1
    for parts in found[1:]:
        torch.testing.assert_close(parts, found[0], rtol=1e-9, atol=1e-12)


def test_a_batch_in_parts_is_refused_beside_what_mixes_it(small: Small, tmp_path: Path) -> None:
    for recipe, more, said in (
        ("dcgan", [], "critic dcgan mixes the samples of a batch .*; set critic.norm=layer, or a smaller"),
        ("dcgan", ["critic.norm=none"], "generator dcgan mixes the samples .*; choose another generator, or a smaller"),
        ("wgan-gp", [], "generator resnet mixes .*; set generator.norm=layer, or a smaller"),
        ("wgan-gp", ["training.compile=true"], "training.compile works on whole batches"),
    ):
        experiment = gankit.load(recipe, "data.size=16", "training.accumulate=2", *more)
        with pytest.raises(PartError, match=f"^training.accumulate: {said}"):
            gankit.train(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_in_parts_resumes_exactly(small: Small, tmp_path: Path) -> None:
    experiment = gankit.load("wgan-gp-diffaugment", *small("training.accumulate=2", "generator.norm=layer"))
    gankit.train(experiment, tmp_path / "whole")

    def die(row: dict[str, Any]) -> None:
        raise Killed

    with pytest.raises(Killed):
        gankit.train(experiment, tmp_path / "cut", on_tick=die)
    gankit.resume(tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_the_effective_weight_of_every_loss(small: Small, tmp_path: Path) -> None:
    """The gradient that the critic receives is the sum of weight x every x gradient of each loss that is due."""
    losses = 'losses=["wasserstein", {name="gradient-penalty", weight=3.0, every=4}, {name="drift", weight=0.5}]'
    experiment = gankit.load("wgan-gp", *small(losses, "training.precision=float64"))
    stepper = Trainer(experiment, tmp_path / "run", None).stepper
    weights = {w.name: w.every * w.weight for w in stepper.gan.losses}  # type: ignore[operator]
    assert weights == {"wasserstein": 1.0, "gradient-penalty": 12.0, "drift": 0.5}
    for number, due in ((0, ["wasserstein", "gradient-penalty", "drift"]), (1, ["wasserstein", "drift"])):
        total = stepper.objective(stepper.turn("critic", shard(4), number), number)
        assert total is not None
        single = [
            weights[w.name] * w.loss.critic(stepper.turn("critic", shard(4), number))  # type: ignore[operator]
            for w in stepper.gan.losses
            if w.name in due
        ]
        torch.testing.assert_close(total, sum(single))


def test_defaults_of_weights() -> None:
    experiment = gankit.load("wgan-gp", 'losses=["wasserstein", "gradient-penalty"]')
    parts = gankit.training.assembly.build(experiment, gankit.ImageSpec(3, 8, 8))
    assert [w.weight for w in parts.losses] == [1.0, 10.0]


def test_linear_decay_never_reaches_zero_and_is_in_the_log(small: Small, tmp_path: Path) -> None:
    run = gankit.train(
        gankit.load("wgan-gp", *small("training.tick_every=1", "training.lr_decay=linear")), tmp_path / "run"
    )
    rates = [row["critic_lr"] for row in run.log]
    np.testing.assert_allclose(rates, [2e-4 * (6 - k) / 6 for k in range(6)])


def test_averaged_weights_follow_the_decay(small: Small, tmp_path: Path) -> None:
    experiment = gankit.load("wgan-gp", *small("training.averaging=0.5"))
    stepper = Trainer(experiment, tmp_path / "run", None).stepper
    expected = [p.detach().clone() for p in stepper.generator.parameters()]
    for step in range(4):
        stepper.advance()
        decay = min(0.5, (2 + step) / (11 + step))
        live = list(stepper.generator.parameters())
        expected = [p.detach().clone() if step == 0 else decay * e + (1 - decay) * p.detach()
                    for e, p in zip(expected, live, strict=True)]  # fmt: skip
    for mine, theirs in zip(stepper.averaged.module.parameters(), expected, strict=True):  # type: ignore[union-attr]
        torch.testing.assert_close(mine, theirs)
