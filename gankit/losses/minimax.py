"""Minimax loss, which saturates (Goodfellow et al. 2014, arXiv 1406.2661, equation 1)."""

from typing import final

from torch import Tensor
from torch.nn.functional import softplus

from gankit.interfaces import Loss, Turn


@final
class Minimax(Loss):
    """Cross-entropy of "real or generated", which the critic minimises and the generator maximises.

    Scores are logits: the paper's D is sigmoid(score), so that -log D = softplus(-score) and
    -log(1 - D) = softplus(score), finite at any score. The generator's gradient vanishes while the critic is confident;
    `non-saturating` is the paper's remedy.
    """

    positive_for_reals = "scores"
    capturable = True

    def critic(self, turn: Turn) -> Tensor:
        """Mean of -log D(real) plus mean of -log(1 - D(fake)), from scores (n, ...); a scalar."""
        return softplus(-turn.real_scores).mean() + softplus(turn.fake_scores).mean()

    def generator(self, turn: Turn) -> Tensor:
        """Mean of log(1 - D(fake)); a scalar."""
        return -softplus(turn.fake_scores).mean()
