"""What strangers' parts do to gradients and inputs, and cautions about what trains and may not be meant."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import strangers
import torch
from strangers import IMAGES, Painter, Scoring, Trained, Viewed
from torch import Tensor, nn

import gankit
from gankit.errors import PartError
from gankit.runs.networks import PROBE_BATCH

trained = strangers.trained


class Inverting(nn.Module):
    def forward(self, images: Tensor) -> Any:
        return images.neg_()


class Rounded(nn.Module):
    def forward(self, images: Tensor) -> Any:
        return torch.from_numpy(images.detach().numpy()).round()


class InPlace(Scoring):
    def forward(self, images: Tensor) -> Any:
        return super().forward(nn.functional.leaky_relu_(images))


class Deaf(Scoring):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images.detach())


class Fixed(Scoring):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images).detach()


class Still(Painter):
    def forward(self, z: Tensor) -> Any:
        return super().forward(z).detach()


class Idle(gankit.Loss):
    """Trains nothing on the critic's turn."""

    def critic(self, turn: gankit.Turn) -> Tensor:
        return turn.fake_scores.mean().detach()

    def generator(self, turn: gankit.Turn) -> Tensor:
        return turn.fake.square().mean()


class Elsewhere(gankit.Loss):
    """Reaches parameters of its own, and no others."""

    def __init__(self) -> None:
        self.own = torch.ones((), requires_grad=True)

    def generator(self, turn: gankit.Turn) -> Tensor:
        return self.own * turn.fake.detach().mean()


class Overwriting(gankit.Loss):
    def critic(self, turn: gankit.Turn) -> Tensor:
        return turn.real_scores.mean() + turn.raw_real.mul_(0.5).mean()


BLOCKS = "lets no gradient through: leave out detach"


@pytest.mark.parametrize(
    ("parts", "losses", "message"),
    [
        ({"augment": gankit.wrap("augment", Inverting)}, ["hinge"], "augment mine changes its input in place"),
        ({"critic": gankit.wrap("critic", InPlace)}, ["hinge"], "critic mine changes its input in place"),
        ({"augment": gankit.wrap("augment", Rounded)}, ["hinge"], f"^augment mine {BLOCKS}"),
        ({"critic": gankit.wrap("critic", Deaf)}, ["hinge"], f"^critic mine {BLOCKS}"),
        ({"critic": gankit.wrap("critic", Deaf)}, ["wasserstein", "gradient-penalty"], f"^critic mine {BLOCKS}"),
        ({"critic": gankit.wrap("critic", Fixed)}, ["hinge"], f"^critic mine {BLOCKS}"),
        ({"generator": gankit.wrap("generator", Still, latent_dim=16)}, ["hinge"], f"^generator mine {BLOCKS}"),
        ({"loss": Overwriting}, ["hinge", "mine"], r"loss mine changes turn\.raw_real and turn\.real in place"),
        ({"loss": Idle}, ["mine"], "loss mine trains nothing on the critic's turn"),
    ],
)
def test_gradients_that_are_kept_and_inputs_that_are_changed(
    parts: dict[str, Any], losses: list[str], message: str, trained: Trained
) -> None:
    with pytest.raises(PartError, match=message):
        trained(f"losses={losses}".replace("'", '"'), **parts)


@pytest.mark.parametrize(("kind", "side"), [(Idle, "critic"), (Elsewhere, "generator")])
def test_a_loss_that_trains_nothing_is_named(
    kind: type, side: str, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(loss=kind)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert f"loss mine trains nothing on the {side}'s turn, as no gradient of it reaches the {side}" in line


class Counted(nn.Module):
    """Fills a list in `forward`, and empties it in `after_step`."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, images: Tensor) -> Any:
        self.seen.append(images.mean().detach())
        return images - 0.01 * self.mean

    def after_step(self, turn: gankit.Turn) -> None:
        self.mean.copy_(torch.stack(self.seen).mean())
        self.seen.clear()


def test_what_forward_fills_and_after_step_empties_is_no_lost_state(trained: Trained) -> None:
    class Filling(Counted, gankit.Augment):
        pass

    assert trained('losses=["hinge"]', augment=Filling).finished


def test_a_loss_that_is_nan_for_the_small_batch_alone_is_trained(trained: Trained) -> None:
    small = []

    class Rare(gankit.Loss):
        """The mean of what the small batch lacks, as a class may be."""

        def critic(self, turn: gankit.Turn) -> Tensor:
            small.append(len(turn.fake_scores) == PROBE_BATCH)
            chosen = torch.arange(len(turn.fake_scores)) >= PROBE_BATCH
            return (turn.fake_scores.flatten() * chosen).sum() / chosen.sum()

    assert trained(f"training.batch={2 * PROBE_BATCH}", 'losses=["hinge", "mine"]', loss=Rare).finished
    assert any(small)
    assert not all(small)


class Checkpointed(Scoring):
    """Computes its score once more in the backward pass, which `torch.autograd.grad` refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(768, 768)

    def forward(self, images: Tensor) -> Any:
        return torch.utils.checkpoint.checkpoint(self.score, self.mix(images.flatten(1)), use_reentrant=True)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_a_critic_with_a_re_entrant_checkpoint_trains(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert trained('losses=["hinge"]', critic=gankit.wrap("critic", Checkpointed)).finished
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("of_gradients", [True, False])
def test_hooks_of_an_instances_parameters_stay(of_gradients: bool, trained: Trained) -> None:
    critic = Viewed()
    if of_gradients:
        critic.score.weight.register_hook(torch.zeros_like)
    else:
        critic.score.weight.register_post_accumulate_grad_hook(lambda weight: setattr(weight, "grad", None))
    run = trained("training.checkpoint_every=1", critic=gankit.wrap("critic", critic))
    trained_critic: Any = run.critic
    assert torch.equal(trained_critic.module.score.weight, critic.score.weight)
    assert not torch.equal(trained_critic.module.conv.weight, critic.conv.weight)


class Hooked(Viewed):
    """Counts the gradients of its scores in a buffer, by a hook that is one of its methods."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.score.weight.register_hook(self.count)

    def count(self, gradient: Tensor) -> None:
        self.calls += 1


def test_a_hook_that_is_a_method_is_one_of_the_copy(trained: Trained) -> None:
    critic = Hooked()
    run = trained("training.checkpoint_every=1", critic=gankit.wrap("critic", critic))
    trained_critic: Any = run.critic
    assert trained_critic.module.calls > 0
    assert not critic.calls


class Second(gankit.Loss):
    """Fails in the second turn of a critic."""

    def critic(self, turn: gankit.Turn) -> Tensor:
        if turn.step == 1:
            raise KeyError("gone")
        return turn.real_scores.mean()


def test_an_error_in_the_look_at_gradients_names_the_part(trained: Trained) -> None:
    with pytest.raises(PartError, match=r"^in a trial step loss mine raised KeyError: 'gone'"):
        trained(loss=Second)


class Learning(nn.Module, gankit.Loss):
    """Trains a scale of its own, and no network on the critic's turn."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def critic(self, turn: gankit.Turn) -> Tensor:
        return (self.scale - turn.real.std()).square()

    def after_step(self, turn: gankit.Turn) -> None:
        if self.scale.grad is not None:
            self.scale.data -= 0.1 * self.scale.grad
            self.scale.grad = None


def test_a_loss_that_trains_parameters_of_its_own_is_not_idle(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(loss=Learning)
    assert "trains nothing" not in capsys.readouterr().err


class OverwritingFakes(gankit.Loss):
    def generator(self, turn: gankit.Turn) -> Tensor:
        return turn.fake.mul_(0.5).mean()


TANH = gankit.wrap("generator", Painter, latent_dim=16)
IN_PLACE = "changes its input in place"


@pytest.mark.parametrize(
    ("parts", "losses", "message"),
    [
        ({"critic": gankit.wrap("critic", InPlace)}, ["hinge"], f"^critic mine {IN_PLACE}"),
        ({"critic": gankit.wrap("critic", InPlace)}, ["mine", "hinge"], f"^critic mine {IN_PLACE}"),
        ({"augment": gankit.wrap("augment", Inverting)}, ["hinge"], f"^augment mine {IN_PLACE}"),
        ({"loss": OverwritingFakes}, ["hinge", "mine"], r"^loss mine changes turn\.raw_fake and turn\.fake in place"),
    ],
)
def test_what_changes_images_that_a_generator_differentiates_is_named(
    parts: dict[str, Any], losses: list[str], message: str, trained: Trained
) -> None:
    if "loss" not in parts and "mine" in losses:
        parts = {**parts, "loss": Idle}
    with pytest.raises(PartError, match=message):
        trained(f"losses={losses}".replace("'", '"'), generator=TANH, **parts)


def test_an_augment_without_gradient_may_change_what_the_critic_alone_sees(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    trained("augment.scope=critic-turn", 'losses=["hinge"]', augment=gankit.wrap("augment", Rounded))
    assert "trains nothing" not in capsys.readouterr().err


# Cautions


class Bright(Painter):
    def forward(self, z: Tensor) -> Any:
        return super().forward(z).sigmoid()


class Bounded(Scoring):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images).sigmoid()


class BatchNormed(Painter):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)

    def inner(self, z: Tensor) -> Tensor:
        return self.norm(super().inner(z))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("parts", "caution"),
    [
        ({"generator": gankit.wrap("generator", Bright, latent_dim=16)}, "makes no value below 0"),
        ({"generator": gankit.wrap("generator", BatchNormed, latent_dim=16)}, "uses batch statistics in evaluation"),
        ({"critic": gankit.wrap("critic", Bounded)}, "gives only scores between 0 and 1"),
    ],
)
def test_cautions_about_networks(
    parts: dict[str, Any], caution: str, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    trained('losses=["hinge"]', **parts)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert caution in line


def test_cautions_about_labels(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.arange(24) % 3
    agreement = np.where(labels == 2, 0.4, 0.9)
    rare = gankit.wrap("dataset", IMAGES, labels=labels, class_names=("a", "b", "c"), agreement=agreement)
    run = trained("data.conditional=true", "data.min_agreement=0.6", data=rare)
    assert "warning: data: no training image is of class c:" in capsys.readouterr().err
    with pytest.raises(gankit.GankitError, match="no training image of class c"):
        run.sample(2, labels="c")
    trained("data.conditional=true", data=gankit.wrap("dataset", IMAGES, labels=np.zeros(24, int)), name="one")
    assert "there is a single class" in capsys.readouterr().err


class Faint(Scoring):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images).abs() / 1000


class Noisy(Painter):
    def inner(self, z: Tensor) -> Tensor:
        x = super().inner(z)
        return x + torch.randn_like(x)


def test_sound_parts_get_no_caution(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    trained("data.conditional=true")
    trained(critic=gankit.wrap("critic", Faint), name="faint")
    trained(generator=gankit.wrap("generator", Noisy, latent_dim=16), name="noisy")
    cautions = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert [line for line in cautions if "fewer than 10 training images" not in line] == []  # which is of the images


class Lazily(gankit.Loss, nn.Module):
    """Has a layer without a shape until it is first used."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.weigh = nn.LazyLinear(1)

    def critic(self, turn: gankit.Turn) -> Tensor:
        return 0.1 * torch.tanh(self.weigh(turn.fake_scores.reshape(-1, 1))).mean()


def test_a_loss_with_a_lazy_layer_trains(trained: Trained) -> None:
    assert trained('losses=["hinge", "mine"]', loss=Lazily).finished


class PartlySingle(Scoring):
    """Computes with fewer bits than float64 inside, as a normalisation in float32 does."""

    def forward(self, images: Tensor) -> Any:
        return self.score(nn.functional.softplus(self.score.weight * images.flatten(1).float()).type(images.dtype))


class Iterating(Scoring):
    """Changes its state at each call, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Any:
        self.calls = self.calls + 1
        return self.score(nn.functional.softplus(images.flatten(1))) * (1 + 1 / self.calls)


@pytest.mark.parametrize("kind", [PartlySingle, Iterating])
def test_differences_that_say_nothing_are_no_caution(
    kind: type[nn.Module], trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(critic=gankit.wrap("critic", kind))
    assert "finite differences" not in capsys.readouterr().err


class Squares(torch.autograd.Function):
    """Its backward forgets that it depends on the input, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.input = x.detach()
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return 2 * gradient * ctx.input


class Detaching(Scoring):
    def forward(self, images: Tensor) -> Any:
        return self.score(Squares.apply(images.flatten(1) * self.score.weight[0]))


def test_a_backward_that_is_not_differentiated_is_told(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    trained(critic=gankit.wrap("critic", Detaching))
    said = capsys.readouterr().err
    assert "critic mine gives penalties wrong gradients (off by" in said
    assert "compute there with torch alone" in said
