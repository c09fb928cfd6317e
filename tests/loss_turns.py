"""Turns of given latents and images, and critics and augments whose formulas are known."""

import torch
from torch import nn

from gankit.interfaces import Augment, Critic, Generator, Turn


class Latents(Generator):
    """Latents are the images."""

    latent_dim = 1

    def __init__(self, pixels=1):
        super().__init__()
        self.latent_dim = pixels
        self.gain = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, z, labels=None):
        return self.gain * z.reshape(len(z), -1, 1, 1)


class Pixels(Critic):
    """Every pixel is a score."""

    def forward(self, images, labels=None):
        return images


class Linear(Critic):
    def __init__(self, *weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64).reshape(-1, 1, 1))
        self.calls = 0

    def forward(self, images, labels=None):
        self.calls += 1
        return (images * self.weight).flatten(1).sum(1)


class HalfSquare(Critic):
    """The slope is the image."""

    def forward(self, images, labels=None):
        return images.flatten(1).square().sum(1) / 2


class Brighter(Augment):
    def forward(self, images):
        return images + 0.5


class Draws:
    def uniform(self, *shape):
        return torch.full(shape, 0.25, dtype=torch.float64)


def turn(real, fake, critic=None, side="critic", **options):
    """A turn with the given (n, pixels) reals and fakes."""
    real, fake = torch.as_tensor(real, dtype=torch.float64), torch.as_tensor(fake, dtype=torch.float64)
    return Turn(
        side,
        Latents(fake.shape[1]),
        critic or Pixels(),
        real=lambda: real[..., None, None],
        labels=None,
        latents=fake,
        step=0,
        random=Draws(),
        **options,
    )
