"""What a training counts and weighs: turns, parts of a batch, weights of losses, rates, averages."""

from __future__ import annotations

import contextlib
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
from gankit.errors import PartError, RunError
from gankit.interfaces import Loss, Side, Turn
from gankit.training.trainer import Trainer

Small = Callable[..., list[str]]


class Scripted(Loss):
    """A penalty of given values, one for each tenth of a training of 20 updates; computed on every second update."""

    per_sample = True
    __hash__ = None  # type: ignore[assignment]  # as of a dataclass

    def __init__(self, *, values: tuple[float, ...] = ()) -> None:
        self.values = values

    def critic(self, turn: Turn) -> Tensor:
        return turn.real_scores.mean() * 0 + self.values[turn.step // 2]


def scripted(small: Small, *values: float, every: int = 2, weight: float = 10) -> gankit.Experiment:
    """A training with a line of the log for each value."""
    gankit.losses.register("scripted")(Scripted)
    losses = f'losses=["wasserstein", {{name="scripted", values={list(values)}, every={every}, weight={weight}}}]'
    steps = ("training.steps=20", "training.tick_every=2", "training.critic_steps=1", "training.checkpoint_every=2")
    return gankit.load("wgan-gp", *small(losses, *steps))


HELD = (1.0,) * 7


@pytest.mark.parametrize(
    ("values", "warned"),
    [
        ((900, *HELD, 1, 1), []),  # the first tenth is no sign of anything
        ((900, 90, *HELD, 1), [4]),
        ((90, 80, 70, 60, 50, 40, 30, 20, 11, 9), [4]),  # falls all the time
        ((1, 90, 1, 90, 1, 1, 1, 1, 1, 90), [4]),
    ],
)
def test_a_lazy_penalty_that_falls_again_is_only_warned_of(
    values: tuple[float, ...], warned: list[int], small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gankit.train(scripted(small, *values), tmp_path / "run").finished
    said = capsys.readouterr().err
    assert said.count("no longer restrains the critic") == len(warned)
    for step in warned:
        assert f"by step {step}: as it is not computed on every update, it no longer restrains the critic" in said


@pytest.mark.parametrize("stopped_after", [None, 4, 6])
def test_a_lazy_penalty_that_stays_lost_ends_the_training_as_one_that_was_stopped(
    stopped_after: int | None, small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, experiment = tmp_path / "run", scripted(small, 1, 30, 20, 20, *HELD[1:])

    def stop(row: dict[str, Any]) -> None:
        if row["step"] == stopped_after:
            raise Killed

    start = contextlib.suppress(Killed) if stopped_after else pytest.raises(RunError)
    with start:
        gankit.train(experiment, folder, on_tick=stop)
    with pytest.raises(RunError) as error:
        gankit.resume(folder)
    assert str(error.value) == (
        f"{folder}: the training diverged by step 8 (losses.scripted is 20 after 20: as it is "
        "not computed on every update, it no longer restrains the critic); start anew with losses.scripted.every=1, or "
        "with a lower training.critic_lr; checkpoints stay"
    )
    assert [path.name for path in (folder / "checkpoints").glob("*6.pt")] == ["step-00000006.pt"]
    assert [row["step"] for row in gankit.open_run(folder).log] == [2, 4, 6]
    assert capsys.readouterr().err.count("warning: losses.scripted is 30 by step 4") == (
        2 if stopped_after == 4 else 1  # the line of step 4 comes before its checkpoint, and is written again
    )


def test_a_penalty_on_every_update_and_one_below_what_the_critic_gains_are_not_lost(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gankit.train(scripted(small, *[900] * 20, every=1), tmp_path / "every")
    large = scripted(small, *[900] * 10)
    held = gankit.load(large, "losses.wasserstein.weight=1e9")
    gankit.train(held, tmp_path / "held")
    flat = scripted(small, *[0.74] * 10, weight=200)  # as of a critic without any slope yet, which 1 stands for
    gankit.train(flat, tmp_path / "flat")
    assert "restrains" not in capsys.readouterr().err
    rising = "losses.scripted.weight={start=10.0,end=1000.0,steps=20}"
    gankit.train(gankit.load(scripted(small, *range(40, 20, -2)), rising), tmp_path / "rising")  # the penalty falls
    with pytest.raises(RunError, match="diverged by step 6"):
        gankit.train(large, tmp_path / "lost")


def test_real_trainings_with_a_lazy_penalty_recover_or_end(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = small(
        "losses.gradient-penalty.every=16", "training.critic_steps=4", "training.tick_every=4",
        "training.lr_decay=none", "training.checkpoint_every=4",
    )  # fmt: skip
    moderate = gankit.load("wgan-gp", *settings, "training.critic_lr=2e-2", "training.steps=24")
    run = gankit.train(moderate, tmp_path / "moderate")
    penalties = [10 * row["critic/gradient-penalty"] for row in run.log]
    assert run.finished
    assert max(penalties) > 100 > penalties[-1]
    assert "no longer restrains the critic" in capsys.readouterr().err
    steep = gankit.load("wgan-gp", *settings, "training.critic_lr=5e-2", "critic.width=16", "training.steps=400")
    with pytest.raises(RunError, match=r"losses\.gradient-penalty is .* start anew with"):
        gankit.train(steep, tmp_path / "steep")
    assert list((tmp_path / "steep" / "checkpoints").glob("step-*.pt"))


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
