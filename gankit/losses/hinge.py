"""Hinge loss (Lim and Ye 2017, arXiv 1705.02894; as in Miyato et al. 2018, arXiv 1802.05957, equations 16 and 17)."""

from typing import final

from torch import Tensor

from gankit.interfaces import Loss, Turn


@final
class Hinge(Loss):
    """The critic raises scores of reals to 1 and lowers those of fakes to -1, no further.

    The generator raises the scores of its fakes.
    """

    positive_for_reals = "scores"
    capturable = True

    def critic(self, turn: Turn) -> Tensor:
        """Mean of max(0, 1 - real_scores) plus mean of max(0, 1 + fake_scores), scores (n, ...); a scalar."""
        return (1 - turn.real_scores).relu().mean() + (1 + turn.fake_scores).relu().mean()

    def generator(self, turn: Turn) -> Tensor:
        """Minus the mean of fake_scores; a scalar."""
        return -turn.fake_scores.mean()
