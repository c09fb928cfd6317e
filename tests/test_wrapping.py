"""Parts made of a stranger's modules and functions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gankit
from gankit.errors import PartError
from gankit.interfaces import ClassHead, FeatureCritic, Loss, Turn
from gankit.runs import checkpoint

Small = Callable[..., list[str]]


class Painter(nn.Module):
    """A generator as a stranger writes it: no gankit, positional arguments, some without annotations."""

    def __init__(self, image: Any, latent: int = 5, hidden=3, bias=True) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.shape = (image.channels, image.height, image.width)
        self.body = nn.Sequential(
            nn.Linear(latent, hidden, bias), nn.Linear(hidden, int(np.prod(self.shape))), nn.Tanh()
        )

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.body(z).view(-1, *self.shape)
        return images


class Judge(nn.Module):
    def __init__(self, width: int = 2, *, pixels: int = 192) -> None:
        super().__init__()
        self.layer = nn.Linear(pixels, width)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.layer(images.flatten(1))
        return scores


class Labelled(Judge):
    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        assert labels is not None
        return super().forward(images) * (1 + labels[:, None])


class Fade(nn.Module):
    def __init__(self, share: float = 0.5) -> None:
        super().__init__()
        self.share = share

    def forward(self, images: Tensor) -> Tensor:
        return images * self.share


class Means(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def loss() -> Any:
    return gankit.wrap(
        "loss",
        critic=lambda turn: turn.fake_scores.mean() - turn.real_scores.mean(),
        generator=lambda turn: -turn.fake_scores.mean(),
    )


def trained(overrides: list[str], out: Path, *more: str, **options: Any) -> gankit.Run:
    kept = [text for text in overrides if not text.startswith(("generator.", "critic."))]
    return gankit.train(gankit.load("wgan-gp", *kept, "training.steps=2", *more), out, **options)


def test_classes_of_every_kind_train(small: Small, tmp_path: Path) -> None:
    gankit.generators.register("painter")(gankit.wrap("generator", Painter, latent_dim=7))
    gankit.critics.register("judge")(gankit.wrap("critic", Judge))
    gankit.augments.register("fade")(gankit.wrap("augment", Fade))
    gankit.features.register("means")(gankit.wrap("features", Means, dim=3))
    gankit.losses.register("mine")(loss())
    run = trained(
        small(), tmp_path / "run", "generator.name=painter", "generator.latent=7", "generator.hidden=4",
        "critic.name=judge", "critic.width=3", "augment.name=fade", "augment.share=0.25",
        'losses=["mine", {name="gradient-penalty", weight=2.0}]', "evaluation.features=means", "training.tick_every=1",
        "evaluation.every=2", "evaluation.count=8",
    )  # fmt: skip
    assert run.finished
    assert run.sample(3).shape == (3, 3, 8, 8)
    assert {"critic/mine", "critic/gradient-penalty", "generator/mine"} <= set(run.log[0])
    assert run.log[1]["metrics"]["frechet"] > 0
    assert run.generator.part.module.body[0].weight.shape == (4, 7)
    assert gankit.open_run(run.path).experiment == run.experiment
    assert gankit.evaluate(run, run, features="means", count=10)["metrics"]["frechet"]["value"] > 0


def test_instances_of_every_kind_train(small: Small, tmp_path: Path) -> None:
    image = gankit.ImageSpec(3, 8, 8)
    generator = gankit.wrap("generator", Painter(image), latent_dim=5)
    gankit.generators.register("painter")(generator)
    gankit.critics.register("judge")(gankit.wrap("critic", Judge()))
    gankit.augments.register("fade")(gankit.wrap("augment", lambda images: images * 0.5))
    gankit.losses.register("mine")(loss())
    before = [parameter.clone() for parameter in generator.parameters()]
    more = ["generator.name=painter", "critic.name=judge", "augment.name=fade", 'losses=["mine"]']
    first, second = (trained(small(), tmp_path / name, *more) for name in ("a", "b"))
    assert (first.path / "generator.safetensors").read_bytes() == (second.path / "generator.safetensors").read_bytes()
    for old, new in zip(before, generator.parameters(), strict=True):
        assert torch.equal(old, new)  # each training has a copy


def test_a_module_of_ones_own_loop() -> None:
    image = gankit.ImageSpec(3, 8, 8)
    generator = gankit.wrap("generator", Painter(image), latent_dim=5)
    critic = gankit.wrap("critic", Judge())
    assert isinstance(generator, gankit.Generator)
    assert isinstance(critic, gankit.Critic)
    fake, real = generator(torch.randn(4, 5)), torch.rand(4, 3, 8, 8)
    assert gankit.losses.gradient_penalty.gradient_penalty(critic, real, fake).shape == (4,)


def test_settings_of_wrapped_classes() -> None:
    gankit.generators.register("painter")(gankit.wrap("generator", Painter, latent_dim=5))
    model = gankit.generators.settings("painter")
    assert {name: field.annotation for name, field in model.model_fields.items()} == {
        "latent": int, "hidden": int, "bias": bool,
    }  # fmt: skip
    part = gankit.build("generator", "painter", gankit.ImageSpec(1, 4, 4))
    assert (part.latent_dim, part(torch.zeros(2, 5)).shape) == (5, (2, 1, 4, 4))
    with pytest.raises(PartError, match=r"painter.hiden: there is no such setting; did you mean 'hidden'\?"):
        gankit.build("generator", "painter", gankit.ImageSpec(1, 4, 4), hiden=3)
    assert gankit.generators.get("painter").__name__ == "Painter"
    assert "A generator as a stranger writes it" in (gankit.generators.get("painter").__doc__ or "")


def test_labels(small: Small, tmp_path: Path) -> None:
    gankit.generators.register("painter")(gankit.wrap("generator", Painter, latent_dim=5))
    gankit.critics.register("judge")(gankit.wrap("critic", Judge))
    gankit.critics.register("labelled")(gankit.wrap("critic", Labelled, labels=True))
    more = ["data.conditional=true", 'losses=["wasserstein"]']
    with pytest.raises(PartError, match="wrap it with labels=True"):
        trained(small(), tmp_path / "run", "generator.name=painter", "critic.name=labelled", *more)
    with pytest.raises(PartError, match="wrap it with labels=True"):
        trained(small(), tmp_path / "run", "critic.name=judge", *more)
    assert not (tmp_path / "run").exists()
    kept = [text for text in small(*more, "training.steps=2") if not text.startswith("critic.")]
    assert gankit.train(gankit.load("wgan-gp", *kept, "critic.name=labelled"), tmp_path / "run").finished


def test_a_loss_of_one_function_trains_one_side(small: Small, tmp_path: Path) -> None:
    gankit.losses.register("one-sided")(gankit.wrap("loss", critic=lambda turn: -turn.real_scores.mean()))
    with pytest.raises(PartError, match="none of one-sided trains the generator; add one that does"):
        gankit.train(gankit.load("wgan-gp", *small(), 'losses=["one-sided"]'), tmp_path / "run")


def test_a_loss_by_functions() -> None:
    one_sided = gankit.wrap("loss", critic=lambda turn: turn, per_sample=True)
    assert one_sided.per_sample is True
    turn: Turn = object()  # type: ignore[assignment]
    assert one_sided.critic(turn) is turn
    assert one_sided.generator(turn) is None
    assert gankit.wrap("loss").per_sample is False


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: gankit.wrap("generator", Judge()),
            r"wrap\('generator'\): missing a required .*argument: 'latent_dim'",
        ),
        (lambda: gankit.wrap("features", Means), r"wrap\('features'\): missing a required .*argument: 'dim'"),
        (
            lambda: gankit.wrap("critic", Judge(), width=3),
            r"wrap\('critic'\): got an unexpected keyword argument 'width'",
        ),
        (lambda: gankit.wrap("loss", discriminator=abs), "unexpected keyword argument 'discriminator'"),
        (lambda: gankit.wrap("metric", abs), "kind 'metric' cannot be wrapped; these can: generator, critic"),
        (lambda: gankit.wrap("crtic", abs), "kind 'crtic' cannot be wrapped"),
        (lambda: gankit.wrap("critic", "resnet"), r"wrap\('critic'\): a module, .* is needed, not 'resnet'"),
        (lambda: gankit.wrap("loss", abs), r"wrap\('loss'\) takes functions by name: critic="),
        (lambda: gankit.wrap("loss", critic="hinge"), r"wrap\('loss'\): critic must be a function, not 'hinge'"),
    ],
)
def test_errors(make: Callable[[], object], message: str) -> None:
    with pytest.raises(PartError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


# What else a module can do


class Wise(nn.Module):
    """A critic with inner features, a class head, and a step of its own."""

    def __init__(self, dim: int = 5) -> None:
        super().__init__()
        self.body, self.head, self.classes = nn.Linear(192, dim), nn.Linear(dim, 1), nn.Linear(dim, 2)
        self.register_buffer("step", torch.zeros(()))

    def features(self, images: Tensor) -> Tensor:
        return self.body(images.flatten(1)).relu()  # type: ignore[no-any-return]

    def score(self, features: Tensor) -> Tensor:
        return self.head(features)  # type: ignore[no-any-return]

    def class_logits(self, features: Tensor) -> Tensor:
        return self.classes(features)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        return self.score(self.features(images))

    def before_step(self, step: int) -> None:
        self.step.fill_(step)


def test_a_wrapped_critic_shows_its_features_and_classes(small: Small, tmp_path: Path) -> None:
    for critic in (gankit.wrap("critic", Wise()), gankit.wrap("critic", Wise)()):
        assert isinstance(critic, FeatureCritic)
        assert isinstance(critic, ClassHead)
        other = copy.deepcopy(critic)
        with torch.no_grad():
            next(critic.parameters()).zero_()
        x = torch.rand(2, 3, 8, 8)
        torch.testing.assert_close(other.score(other.features(x), None), other(x))
        assert not torch.equal(other.features(x), critic.features(x))  # the copy's own
        assert set(other.state_dict()) == set(critic.state_dict())
    assert not isinstance(gankit.wrap("critic", nn.Sequential(Judge())), FeatureCritic)
    gankit.critics.register("wise")(gankit.wrap("critic", Wise))
    run = trained(small(), tmp_path / "run", "critic.name=wise")
    assert run.critic.part.module.step == 2  # type: ignore[union-attr]


class Styled(nn.Module):
    """A generator in two halves, as StyleGAN's."""

    style_layers = 2

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.maps, self.paints = nn.Linear(5, width), nn.Linear(2 * width, 192)

    def mapping(self, z: Tensor) -> Tensor:
        return self.maps(z).tanh()  # type: ignore[no-any-return]

    def synthesis(self, styles: Tensor) -> Tensor:
        return self.paints(styles.flatten(1)).tanh().view(-1, 3, 8, 8)  # type: ignore[no-any-return]

    def forward(self, z: Tensor) -> Tensor:
        return self.synthesis(self.mapping(z)[:, None].expand(-1, 2, -1))


@runtime_checkable
class MapsLatents(Protocol):
    """What a loss on styles asks for."""

    style_layers: int

    def mapping(self, z: Tensor, labels: Tensor | None = None) -> Tensor: ...

    def synthesis(self, styles: Tensor) -> Tensor: ...


class Smooth(Loss):
    needs = (MapsLatents,)

    def generator(self, turn: Turn) -> Tensor:
        generator = turn.generator
        assert isinstance(generator, MapsLatents)
        styles = generator.mapping(turn.latents, turn.labels)[:, None].expand(-1, generator.style_layers, -1)
        torch.testing.assert_close(generator.synthesis(styles), turn.generator(turn.latents, turn.labels))
        return generator.synthesis(styles).square().mean()


def test_a_wrapped_generator_shows_its_two_halves(small: Small, tmp_path: Path) -> None:
    for generator in (
        gankit.wrap("generator", Styled(), latent_dim=5),
        gankit.wrap("generator", Styled, latent_dim=5)(),
    ):
        other = copy.deepcopy(generator)
        with torch.no_grad():
            generator.get_parameter(next(name for name, _ in generator.named_parameters() if "maps" in name)).zero_()
        assert isinstance(other, MapsLatents)
        z = torch.rand(2, 5)
        styles = other.mapping(z, None)[:, None].expand(-1, 2, -1)
        torch.testing.assert_close(other.synthesis(styles), other(z))
        assert not torch.equal(other(z), generator(z))  # the copy's own
    assert not isinstance(gankit.wrap("generator", Painter(gankit.ImageSpec(3, 8, 8)), latent_dim=5), MapsLatents)
    gankit.losses.register("smooth")(Smooth)
    gankit.generators.register("styled")(gankit.wrap("generator", Styled, latent_dim=5))
    overrides = ["generator.name=styled", "generator.width=3", "losses=['wasserstein', 'smooth']"]
    assert trained(small(), tmp_path / "run", *overrides).finished
    gankit.generators.register("painter")(gankit.wrap("generator", Painter, latent_dim=5))
    with pytest.raises(PartError, match=r"smooth needs .*MapsLatents"):
        trained(small(), tmp_path / "other", "generator.name=painter", "losses=['wasserstein', 'smooth']")


def test_a_wrapped_augment_and_loss_follow_the_steps_and_keep_their_state(small: Small, tmp_path: Path) -> None:
    class Adaptive(Fade):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("turns", torch.zeros(()))

        def after_step(self, turn: Turn) -> None:
            self.turns += 1

    class Mean:
        value = 0.0

        def __call__(self, turn: Turn) -> Tensor:
            self.value = 0.9 * self.value + turn.real_scores.mean().item()
            return turn.fake_scores.mean() * (1 + self.value) - turn.real_scores.mean()

        def state_dict(self) -> dict[str, float]:
            return {"value": self.value}

        def load_state_dict(self, state: dict[str, float]) -> None:
            self.value = state["value"]

    steps: list[int] = []
    gankit.augments.register("adaptive")(gankit.wrap("augment", Adaptive))
    mine = gankit.wrap("loss", critic=Mean(), generator=lambda turn: -turn.fake_scores.mean(), before_step=steps.append)
    gankit.losses.register("mine")(mine)
    run = trained(small("critic.width=4"), tmp_path / "run", "augment.name=adaptive", 'losses=["mine"]')
    state = checkpoint.restore(run.path / "checkpoints").state  # type: ignore[union-attr]
    assert state["loss mine"]["critic"]["value"] != 0
    assert state["augment"]["part.module.turns"] == 2 * (2 + 1)
    assert steps


def test_a_wrapped_network_may_declare_its_layout() -> None:
    assert gankit.wrap("critic", Judge(), channels_last=True).channels_last
    assert gankit.wrap("critic", Judge, channels_last=True)().channels_last
    assert not gankit.wrap("critic", Judge)().channels_last
