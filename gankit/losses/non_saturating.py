"""Non-saturating loss (Goodfellow et al. 2014, arXiv 1406.2661, section 3)."""

from typing import final

from torch import Tensor
from torch.nn.functional import softplus

from gankit.interfaces import Loss, Turn


@final
class NonSaturating(Loss):
    """The critic minimises the cross-entropy of "real or generated"; the generator maximises log D(fake).

    In `minimax` the generator minimises log(1 - D(fake)) instead, whose gradient vanishes. Scores are logits, and both
    logarithms are computed with softplus, as in `minimax`. This is the loss of DCGAN and, with `r1`, of StyleGAN2.
    """

    positive_for_reals = "scores"
    capturable = True

    def critic(self, turn: Turn) -> Tensor:
        """Mean of -log D(real) plus mean of -log(1 - D(fake)), from scores (n, ...); a scalar."""
        return softplus(-turn.real_scores).mean() + softplus(turn.fake_scores).mean()

    def generator(self, turn: Turn) -> Tensor:
        """Mean of -log D(fake); a scalar."""
        return softplus(-turn.fake_scores).mean()
