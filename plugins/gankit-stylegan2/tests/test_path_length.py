"""The path length regularisation against closed forms."""

from __future__ import annotations

import pytest
import torch
from gankit.interfaces import Generator, ImageSpec, Turn
from torch import nn

from gankit_stylegan2 import PathLength, StyleGAN2Generator
from gankit_stylegan2.path_length import path_lengths


class Linear(Generator):
    """Images that are linear in the styles: every layer adds the same map of its style."""

    def __init__(self, layers=3, latent_dim=4):
        super().__init__()
        self.latent_dim, self.style_layers = latent_dim, layers
        self.weight = nn.Parameter(torch.randn(1 * 2 * 3, latent_dim, dtype=torch.float64))

    def mapping(self, z, labels=None):
        """Latents are styles."""
        return z

    def synthesis(self, styles):
        """The sum over the layers."""
        return (styles.sum(1) @ self.weight.T).view(-1, 1, 2, 3)

    def forward(self, z, labels=None):
        """The same style for all layers."""
        return self.synthesis(z[:, None].expand(-1, self.style_layers, -1))


class Draws:
    """The noise of a turn, to be read again."""

    def __init__(self):
        self.seen = []

    def normal(self, *shape):
        """Standard normal values, kept."""
        self.seen.append(torch.randn(shape, dtype=torch.float64))
        return self.seen[-1]


def turn(generator, n, log=lambda name, value: None):
    """A generator's turn, and its draws."""
    draws = Draws()
    made = Turn(
        "generator", generator, nn.Identity(), real=lambda: torch.zeros(n), labels=None,
        latents=torch.randn(n, generator.latent_dim, dtype=torch.float64), step=0, random=draws, log=log,
    )  # fmt: skip
    return made, draws


def test_lengths_of_a_linear_generator():
    """J^T y is A^T y whatever the style; here for each of the layers, over the pixels' number, and a starts at 0."""
    torch.manual_seed(0)
    generator, loss, logged = Linear(), PathLength(), {}
    made, draws = turn(generator, 5, lambda name, value: logged.update({name: value.item()}))
    value = loss.generator(made)
    noise = draws.seen[0].flatten(1) / 6**0.5
    lengths = (noise @ generator.weight).norm(dim=1)
    torch.testing.assert_close(value, lengths.square().mean())
    assert loss.mean_length.item() == pytest.approx(0.01 * lengths.mean().item())
    assert logged == {"path_length": pytest.approx(lengths.mean().item())}
    before = loss.mean_length.item()
    made, draws = turn(generator, 5)
    value = loss.generator(made)
    lengths = (draws.seen[0].flatten(1) / 6**0.5 @ generator.weight).norm(dim=1)
    torch.testing.assert_close(value, (lengths - before).square().mean())


def test_gradients_of_the_penalty_are_those_of_the_closed_form():
    """With respect to the weights, through the second derivative."""
    torch.manual_seed(0)
    generator = Linear()
    made, draws = turn(generator, 5)
    (found,) = torch.autograd.grad(PathLength().generator(made), generator.weight)
    closed = ((draws.seen[0].flatten(1) / 6**0.5) @ generator.weight).square().sum(1).mean()
    torch.testing.assert_close(found, torch.autograd.grad(closed, generator.weight)[0])


def test_the_mean_follows_the_lengths():
    """Towards their mean, at the rate that is set."""
    torch.manual_seed(0)
    generator, loss = Linear(), PathLength(rate=0.2)
    for _ in range(60):
        loss.generator(turn(generator, 64)[0])
    made, draws = turn(generator, 4096)
    loss.generator(made)
    typical = ((draws.seen[0].flatten(1) / 6**0.5) @ generator.weight).norm(dim=1).mean()
    assert loss.mean_length.item() == pytest.approx(typical.item(), rel=0.05)


def test_the_generator_alone_is_regularised():
    """The critic's turn adds nothing."""
    assert PathLength().critic(turn(Linear(), 2)[0]) is None


def test_lengths_of_the_generator_beside_finite_differences():
    """|J^T y| over the root of the layers' number, from images at styles that are moved a little in each direction."""
    torch.manual_seed(0)
    settings = {"width": 2, "max_width": 4, "latent_dim": 5, "style_dim": 3, "mapping_layers": 2, "noise": False}
    generator = StyleGAN2Generator(ImageSpec(3, 8, 8), **settings).double()
    made, draws = turn(generator, 2)
    found = path_lengths(generator, made)
    styles = generator.mapping(made.latents)[:, None].expand(-1, generator.style_layers, -1).detach()
    products = torch.zeros_like(styles)
    for layer in range(generator.style_layers):
        for k in range(3):
            step = torch.zeros_like(styles)
            step[:, layer, k] = 1e-5
            slopes = (generator.synthesis(styles + step) - generator.synthesis(styles - step)) / 2e-5
            products[:, layer, k] = (slopes * draws.seen[0]).sum((1, 2, 3)) / 8  # the root of 8 times 8 pixels
    expected = products.square().sum(2).mean(1).sqrt()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert expected.min() > 0
