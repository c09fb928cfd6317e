"""The hinge loss with a random margin, as in published trainings of FastGAN (Liu et al. 2021, arXiv 2101.04775)."""

from __future__ import annotations

from typing import final

from gankit.interfaces import Loss, Turn
from torch import Tensor

LEAST = 0.8
"""The smallest margin."""


@final
class FastGANHinge(Loss):
    """The critic pushes reals above a margin and fakes below minus a margin; the generator raises the scores of fakes.

    Each score has a margin of its own, drawn anew from 0.8 to 1 in each update, where the hinge loss always has 1.
    """

    capturable = True
    positive_for_reals = "scores"

    def critic(self, turn: Turn) -> Tensor:
        """Mean of max(0, m - real_scores) plus mean of max(0, m + fake_scores), scores (n, ...); a scalar."""
        margins = [LEAST + (1 - LEAST) * turn.random.uniform(*turn.real_scores.shape) for _ in range(2)]
        return (margins[0] - turn.real_scores).relu().mean() + (margins[1] + turn.fake_scores).relu().mean()

    def generator(self, turn: Turn) -> Tensor:
        """Minus the mean of fake_scores; a scalar."""
        return -turn.fake_scores.mean()
