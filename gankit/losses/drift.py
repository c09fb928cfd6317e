"""Drift term of progressive growing (Karras et al. 2018, PGGAN, arXiv 1710.10196, appendix A.1)."""

from typing import final

from torch import Tensor

from gankit.interfaces import Loss, Turn


@final
class Drift(Loss):
    """Keeps the critic's scores of reals near zero, which `wasserstein` leaves free.

    The default weight is the paper's epsilon, 0.001.
    """

    capturable = True
    default_weight = 1e-3

    def critic(self, turn: Turn) -> Tensor:
        """Mean of real_scores^2, scores (n, ...); a scalar."""
        return turn.real_scores.square().mean()
