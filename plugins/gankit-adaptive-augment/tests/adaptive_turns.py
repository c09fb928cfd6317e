"""Turns with scores that are known beforehand, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from gankit.interfaces import Augment, Critic, Generator, Side, Turn
from torch import Tensor

from gankit_adaptive_augment import AdaptiveAugment

N = 8


class Brighter(Augment):
    """Adds 1, and counts the steps it is told of."""

    def __init__(self, needs_held_out: bool = False) -> None:
        super().__init__()
        self.needs_held_out = needs_held_out
        self.sides: list[Side] = []

    def forward(self, images: Tensor) -> Tensor:
        return images + 1

    def after_step(self, turn: Turn) -> None:
        self.sides.append(turn.side)


class Grey(Critic):
    """The mean grey level, times a factor, plus a constant: a score for images of one grey is chosen at will."""

    def __init__(self, factor: float = 1.0, constant: float = 0.0, patches: int = 0) -> None:
        super().__init__()
        self.factor, self.constant, self.patches = factor, constant, patches
        self.passes = 0

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        self.passes += 1
        scores = self.factor * images.mean((1, 2, 3)) + self.constant
        if not self.patches:
            return scores
        ramp = torch.linspace(-30, 30, self.patches).to(scores)  # sums to 0: only the mean of a sample tells
        return scores[:, None, None] + ramp


class Plain(Generator):
    """Images of one grey."""

    latent_dim = 1

    def __init__(self, grey: float) -> None:
        super().__init__()
        self.grey = grey

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return torch.full((len(z), 1, 2, 2), self.grey, dtype=z.dtype)


def plain(*greys: float) -> Tensor:
    """N images, of these greys in turn."""
    return torch.tensor(greys).repeat(N // len(greys))[:, None, None, None].expand(-1, 1, 2, 2)


def make_turn(
    real: Tensor, *, fake: float = -1.0, held_out: Tensor | None = None, critic: Critic | None = None,
    side: Side = "critic", augment: Augment | None = None,
    log: Callable[[str, Tensor], None] = lambda name, value: None, **several: Any,
) -> Turn:  # fmt: skip
    class NoDraws:
        def uniform(self, *shape: int) -> Tensor:
            raise AssertionError("draws come from torch's generator")

        normal = uniform

    return Turn(
        side, Plain(fake), critic or Grey(), real=lambda: real, labels=None, latents=torch.zeros(N, 1), step=0,
        random=NoDraws(), held_out=None if held_out is None else lambda: (held_out, None), log=log, augment=augment,
        **several,
    )  # fmt: skip


def step(augment: AdaptiveAugment, turn: Turn) -> float:
    """One critic step, with scores asked for before it as a loss does; the new p."""
    _ = turn.real_scores, turn.fake_scores
    augment.after_step(turn)
    return augment.p.item()


def adaptive(**settings: Any) -> AdaptiveAugment:
    """Around `Brighter`; p changes by 0.125 at a time."""
    interval = settings.setdefault("interval", 1)
    return AdaptiveAugment(**{"inner": Brighter(), "images": 8 * N * interval, "p_max": 1.0, **settings})
