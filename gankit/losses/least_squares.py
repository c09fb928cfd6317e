"""Least-squares loss (Mao et al. 2017, LSGAN, arXiv 1611.04076, equation 9, with its factors 1/2)."""

from typing import final

from torch import Tensor

from gankit.interfaces import Loss, Turn


@final
class LeastSquares(Loss):
    """The critic moves scores of reals to 1 and scores of fakes to 0; the generator moves those of fakes to 1."""

    capturable = True

    def critic(self, turn: Turn) -> Tensor:
        """Half the mean of (real_scores - 1)^2 plus half that of fake_scores^2, scores (n, ...); a scalar."""
        return ((turn.real_scores - 1).square().mean() + turn.fake_scores.square().mean()) / 2

    def generator(self, turn: Turn) -> Tensor:
        """Half the mean of (fake_scores - 1)^2; a scalar."""
        return (turn.fake_scores - 1).square().mean() / 2
