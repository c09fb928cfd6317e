"""Weight clipping of the original WGAN (Arjovsky et al. 2017, arXiv 1701.07875, algorithm 1)."""

from typing import Annotated, final

import torch
from annotated_types import Gt

from gankit.interfaces import Loss, Turn


@final
class WeightClipping(Loss):
    """Clamps all parameters of the critic to [-clip, clip] after each critic step; it adds no term to the objective.

    This bounds the critic's slope, roughly; `gradient-penalty` was made to replace it. The paper trains with RMSprop
    at a learning rate of 5e-5.

    Args:
        clip: the largest absolute value of the critic's parameters.
    """

    capturable = True

    def __init__(self, *, clip: Annotated[float, Gt(0)] = 0.01) -> None:
        self.clip = clip

    def after_step(self, turn: Turn) -> None:
        """Clamp the critic's parameters in place, on the critic's turn."""
        if turn.side == "critic":
            with torch.no_grad():
                for parameter in turn.critic.parameters():
                    parameter.clamp_(-self.clip, self.clip)
