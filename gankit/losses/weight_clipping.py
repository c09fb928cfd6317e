"""Weight clipping of the original WGAN (Arjovsky et al. 2017, arXiv 1701.07875, algorithm 1)."""

from __future__ import annotations

from typing import Annotated, final

import torch
from annotated_types import Gt

from gankit.interfaces import Loss, Turn


@final
class WeightClipping(Loss):
    """No term of the objective: after each critic step all its parameters are clamped to [-clip, clip].

    This bounds the critic's slope, roughly; `gradient-penalty` was made to replace it. The paper trains with RMSprop
    at 5e-5 beside it.

    Args:
        clip: the largest absolute value that a parameter of the critic keeps.
    """

    def __init__(self, *, clip: Annotated[float, Gt(0)] = 0.01) -> None:
        self.clip = clip

    def after_step(self, turn: Turn) -> None:
        """Clamp the critic's parameters in place, on the critic's turn."""
        if turn.side == "critic":
            with torch.no_grad():
                for parameter in turn.critic.parameters():
                    parameter.clamp_(-self.clip, self.clip)
