"""The loss of reconstructions: its value, what it trains, and the reals alone."""

from __future__ import annotations

import gankit
import pytest
import torch
from gankit.interfaces import ImageSpec, Turn

from gankit_fastgan import FastGANCritic, FastGANGenerator, Reconstruction

IMAGE = ImageSpec(3, 32, 32)


class Draws:
    """Draws of a turn, and what was asked of them."""

    def __init__(self):
        self.source = torch.Generator().manual_seed(0)
        self.shapes = []

    def uniform(self, *shape):
        """Values in [0, 1)."""
        self.shapes.append(shape)
        return torch.rand(shape, generator=self.source)

    normal = uniform


def turn(side="critic", *, norm="batch", generator_seed=1, real=None, draws=None):
    """A turn with a fresh critic, always the same."""
    torch.manual_seed(generator_seed)
    generator = FastGANGenerator(IMAGE, width=2, latent_dim=5)
    torch.manual_seed(0)
    critic = FastGANCritic(IMAGE, width=2, norm=norm)
    real = torch.rand(6, *IMAGE.shape) * 2 - 1 if real is None else real
    made = Turn(
        side, generator, critic, real=lambda: real, labels=None, latents=torch.randn(len(real), 5), step=0,
        random=draws or Draws(), critic_mixes=norm == "batch",
    )  # fmt: skip
    critic.requires_grad_(side == "critic")
    return made


def gradients(module):
    """Of every parameter, zeros where none arrived."""
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in module.parameters()]


def test_value_is_the_mean_absolute_difference_of_both():
    """Computed from the critic's own methods, one sample at a time."""
    one = turn(norm="none")
    one.critic.eval()
    value = Reconstruction().critic(one)
    corners = torch.rand(6, 2, generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for i in range(6):
        features = one.critic.features(one.real[i : i + 1])
        made = one.critic.reconstruct(features, corners[i : i + 1])
        whole, small, part = one.critic.shown(one.real[i : i + 1], corners[i : i + 1])
        assert torch.equal(whole, one.real[i : i + 1])  # at 32x32 nothing is reduced
        assert torch.equal(small, torch.nn.functional.avg_pool2d(whole, 2))  # what the second branch sees
        top, left = (int(corner * 9) * 2 for corner in corners[i])
        assert torch.equal(part, one.real[i : i + 1, :, top : top + 16, left : left + 16])
        expected += sum((a - b).abs().mean().item() for a, b in zip(made, (whole, small, part), strict=True)) / 6
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_draws_one_corner_a_sample():
    """From the turn, so that a resumed run crops alike."""
    draws = Draws()
    Reconstruction().critic(turn(draws=draws))
    assert draws.shapes == [(6, 2)]


def test_the_generator_is_not_concerned():
    """It is silent on the generator's turn, and its critic's term sends the generator nothing."""
    assert Reconstruction().generator(turn("generator")) is None
    one = turn()
    Reconstruction().critic(one).backward()
    assert all(parameter.grad is None for parameter in one.generator.parameters())


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_decoders_learn_from_reals_alone(norm):
    """The adversarial loss leaves them alone, and other fakes change nothing, in one pass or in two."""
    hinge, loss = gankit.build("loss", "hinge"), Reconstruction()
    one = turn(norm=norm)
    hinge.critic(one).backward(retain_graph=True)
    decoders = torch.nn.ModuleList([one.critic.wholes, one.critic.part])
    assert all(parameter.grad is None for parameter in decoders.parameters())
    loss.critic(one).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in one.critic.wholes.parameters())
    assert any(gradient.any() for gradient in gradients(one.critic.part))

    found = []
    for seed in (1, 2):
        other = turn(norm=norm, generator_seed=seed)
        (hinge.critic(other) * 0 + loss.critic(other)).backward()  # the fakes take part in the pass
        found.append((other.fake, gradients(other.critic)))
    assert not torch.equal(found[0][0], found[1][0])
    for a, b in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_encoder_learns_and_scores_do_not():
    """The features are trained, the head is not."""
    one = turn()
    Reconstruction().critic(one).backward()
    assert all(parameter.grad is not None for parameter in one.critic.encoders.parameters())
    assert all(parameter.grad is None for parameter in one.critic.heads.parameters())


def test_shares_the_pass_of_the_scores(monkeypatch):
    """Hinge and reconstruction together pass the critic's encoder once a batch."""
    one = turn()
    calls = []
    features = FastGANCritic.features
    monkeypatch.setattr(FastGANCritic, "features", lambda self, x: calls.append(len(x)) or features(self, x))
    gankit.build("loss", "hinge").critic(one)
    Reconstruction().critic(one)
    assert calls == [6, 6]  # reals, and fakes: batch normalisation keeps them apart


@pytest.mark.slow
def test_can_be_learned():
    """The loss falls on a few images, in a few steps."""
    torch.manual_seed(0)
    critic = FastGANCritic(IMAGE, width=4)
    real = torch.randn(6, 3, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3).tanh()
    adam = torch.optim.Adam(critic.parameters(), lr=5e-3)
    values, draws = [], Draws()
    for _ in range(30):
        adam.zero_grad()
        one = turn(real=real, draws=draws)
        one.critic = critic
        value = Reconstruction().critic(one)
        value.backward()
        adam.step()
        values.append(value.item())
    assert values[-1] < 0.7 * values[0]
