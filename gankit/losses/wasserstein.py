"""Wasserstein loss (Arjovsky et al. 2017, arXiv 1701.07875, equations 2 and 3)."""

from typing import final

from torch import Tensor

from gankit.interfaces import Loss, Turn


@final
class Wasserstein(Loss):
    """The critic widens the gap between the mean scores of reals and fakes; the generator raises its fakes' mean score.

    The gap estimates the Wasserstein distance, up to a factor, only if the critic is kept Lipschitz, by
    `gradient-penalty` or `weight-clipping`.
    """

    capturable = True

    def critic(self, turn: Turn) -> Tensor:
        """Mean of fake_scores minus mean of real_scores, each (n, ...); a scalar."""
        return turn.fake_scores.mean() - turn.real_scores.mean()

    def generator(self, turn: Turn) -> Tensor:
        """Minus the mean of fake_scores; a scalar."""
        return -turn.fake_scores.mean()
