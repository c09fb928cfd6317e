"""Soft margin loss: the hinge loss of Lim and Ye 2017 (arXiv 1705.02894) with softplus in place of max(0, x)."""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor
from torch.nn.functional import softplus

from gankit.interfaces import Loss, Turn


class SoftMargin(Loss):
    """The critic pushes scores of reals above the margin and scores of fakes below its negative, softly.

    After Lim and Ye 2017 (arXiv 1705.02894); a margin of 0 is the non-saturating loss.

    Args:
        margin: the score beyond which the critic gains little.
    """

    def __init__(self, *, margin: Annotated[float, Ge(0)] = 1.0) -> None:
        self.margin = margin

    def critic(self, turn: Turn) -> Tensor:
        """Mean of softplus(margin - real_scores) plus mean of softplus(margin + fake_scores), scores (n, ...)."""
        return softplus(self.margin - turn.real_scores).mean() + softplus(self.margin + turn.fake_scores).mean()

    def generator(self, turn: Turn) -> Tensor:
        """Mean of softplus(-fake_scores), scores (n, ...)."""
        return softplus(-turn.fake_scores).mean()
