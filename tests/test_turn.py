"""What a turn offers to losses and augments beside the scores: inner features, held-out images, the log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import gankit
from gankit.errors import PartError
from gankit.interfaces import Augment, Critic, FeatureCritic, Generator, Loss, Side, Turn
from gankit.seeds import TurnDraws
from gankit.training.data import prepare
from gankit.training.trainer import Trainer

Small = Callable[..., list[str]]


class Counting(Critic):
    """Scores from two tensors of features, counting the passes."""

    def __init__(self, mixes: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4) if mixes else nn.Identity()
        self.passes = 0

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.passes += 1
        inner = self.norm(self.conv(images))
        return inner, inner.mean((2, 3))

    def score(self, features: tuple[Tensor, Tensor], labels: Tensor | None = None) -> Tensor:
        return features[1].sum(1) if labels is None else features[1].sum(1) + labels

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.score(self.features(images), labels)


class Noise(Generator):
    latent_dim = 4

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return z.mean(1)[:, None, None, None].expand(-1, 3, 6, 6).tanh()


def turn(side: Side, critic: Critic, labels: Tensor | None = None, **more: object) -> Turn:
    draws = TurnDraws(torch.Generator().manual_seed(0), torch.empty(0), (0, 5, 5))
    real, latents = torch.rand(5, 3, 6, 6), torch.randn(5, 4)
    return Turn(side, Noise(), critic, real=lambda: real, labels=labels, latents=latents, step=0, random=draws, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("side", ["critic", "generator"])
@pytest.mark.parametrize("mixes", [False, True])
def test_features_and_scores_share_a_pass(side: Side, mixes: bool) -> None:
    critic = Counting(mixes)
    assert isinstance(critic, FeatureCritic)
    labels = torch.arange(5)
    seen = turn(side, critic, labels, critic_mixes=mixes)
    real, fake = seen.real_features, seen.fake_features
    assert critic.passes == (1 if side == "critic" and not mixes else 2)
    scores = seen.real_scores, seen.fake_scores
    assert critic.passes == (1 if side == "critic" and not mixes else 2)
    for found, images, score in ((real, seen.real, scores[0]), (fake, seen.fake, scores[1])):
        expected = critic.features(images)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)
        torch.testing.assert_close(score, critic(images, labels))


def test_the_residual_critic_shows_its_features() -> None:
    image = gankit.ImageSpec(3, 16, 16, classes=3)
    critic = gankit.build("critic", "resnet", image, width=4)
    assert isinstance(critic, FeatureCritic)
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(critic.score(critic.features(images), labels), critic(images, labels))


def test_a_critic_without_features_says_so() -> None:
    critic = gankit.wrap("critic", nn.Sequential(nn.Flatten(), nn.Linear(108, 1)))
    seen = turn("critic", critic)
    assert seen.real_scores.shape == (5, 1)
    with pytest.raises(PartError, match="not a FeatureCritic"):
        _ = seen.real_features


def test_no_held_out_images_are_named_as_missing() -> None:
    with pytest.raises(PartError, match=r"set data\.held_out"):
        _ = turn("critic", Counting()).held_out


class Watching(Augment):
    """Shifts grey by a constant, and keeps what it saw of held-out images."""

    needs_held_out = True
    seen: ClassVar[list[tuple[str, Tensor, Tensor | None, Tensor]]] = []

    def __init__(self) -> None:
        super().__init__()
        self.seen.clear()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        return images + 0.25

    def after_step(self, turn: Turn) -> None:
        self.calls += 1
        turn.log("augment/calls", self.calls)
        with torch.no_grad():
            self.seen.append((turn.side, turn.held_out, turn.held_out_labels, turn.held_out_scores))


@pytest.fixture
def watching() -> None:
    gankit.augments.register("watching")(Watching)


@pytest.mark.usefixtures("watching")
def test_an_augment_sees_each_turn_and_held_out_images(small: Small, tmp_path: Path) -> None:
    more = ["augment.name=watching", "data.held_out=0.25", "data.conditional=true", "training.steps=3"]
    experiment = gankit.load("wgan-gp", *small(*more))
    trainer = Trainer(experiment, tmp_path / "run", None)
    augment = trainer.stepper.gan.augment
    assert isinstance(augment, Watching)
    trainer.stepper.advance()
    assert [side for side, *_ in augment.seen] == ["critic", "critic", "generator"]
    held = trainer.data.held_out
    assert held is not None
    known = held.batch(torch.arange(len(held.dataset)).numpy(), trainer.stepper.like) + 0.25
    assert held.labels is not None
    for _, images, labels, scores in augment.seen:
        assert labels is not None
        assert scores.shape == (4,)
        for image, label in zip(images, labels, strict=True):
            matches = (known - image).abs().flatten(1).amax(1) < 0.01  # dequantisation moves by half a grey level
            assert matches.any()
            assert label in held.labels[matches.cpu()]
    log = trainer.log.means()
    assert log["augment/calls"] == 2.0  # the mean of 1, 2 and 3
    state = trainer.stepper.state_dict()
    assert state["augment"]["calls"] == 3


@pytest.mark.usefixtures("watching")
def test_what_augments_log_is_written_and_survives_a_resume(small: Small, tmp_path: Path) -> None:
    more = ["augment.name=watching", "data.held_out=0.25", "training.tick_every=1", "training.checkpoint_every=1"]
    run = gankit.train(gankit.load("wgan-gp", *small(*more, "training.steps=4")), tmp_path / "run")
    calls = [json.loads(line)["augment/calls"] for line in (run.path / "log.jsonl").read_text().splitlines()]
    assert calls == [2.0, 5.0, 8.0, 11.0]


@pytest.mark.usefixtures("watching")
def test_what_reads_held_out_images_is_refused_without_them(small: Small, tmp_path: Path) -> None:
    with pytest.raises(PartError, match="augment watching looks at held-out images"):
        gankit.train(gankit.load("wgan-gp", *small("augment.name=watching")), tmp_path / "run")
    assert not (tmp_path / "run").exists()

    class Gap(Loss):
        needs_held_out = True

        def critic(self, turn: Turn) -> Tensor:
            return turn.held_out_scores.mean()

    gankit.losses.register("gap")(Gap)
    losses = 'losses=[{name="wasserstein"}, {name="gap"}]'
    with pytest.raises(PartError, match="loss gap looks at held-out images"):
        gankit.train(gankit.load("wgan-gp", *small(losses)), tmp_path / "run")
    run = gankit.train(gankit.load("wgan-gp", *small(losses, "data.held_out=0.2")), tmp_path / "run")
    assert run.finished


def test_conditions_of_held_out_images_are_on_the_scale_of_training(arrays: Path) -> None:
    table = gankit.load("wgan-gp", "data.name=npz", f"data.path={arrays}", 'data.conditional=["severity"]',
                        "data.held_out=0.25").data  # fmt: skip
    data = prepare(table, 0)
    assert data.held_out is not None
    assert data.held_out.labels is not None
    severity = data.held_out.dataset.facts["severity"]
    expected = (severity - data.condition_mean[0]) / data.condition_scale[0]
    torch.testing.assert_close(data.held_out.labels[:, 0], torch.from_numpy(expected).float())
