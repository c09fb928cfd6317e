"""Relativistic pairing loss, RpGAN (Jolicoeur-Martineau 2018, arXiv 1807.00734; as in R3GAN, arXiv 2501.05441)."""

from typing import final

from torch import Tensor
from torch.nn.functional import softplus

from gankit.interfaces import Loss, Turn


@final
class Relativistic(Loss):
    """The critic learns to give each real a higher score than its paired fake; the generator learns the opposite.

    The loss is softplus(-t) = -log sigmoid(t): t is the real's score minus the fake's for the critic, and the reverse
    for the generator. R3GAN adds `r1` and `r2`. A real and its fake share a label, so that both are of one class.
    """

    positive_for_reals = "differences"
    capturable = True

    def critic(self, turn: Turn) -> Tensor:
        """Mean of softplus(fake_scores - real_scores), scores (n, ...) pair by pair; a scalar."""
        return softplus(turn.fake_scores - turn.real_scores).mean()

    def generator(self, turn: Turn) -> Tensor:
        """Mean of softplus(real_scores - fake_scores); a scalar."""
        return softplus(turn.real_scores - turn.fake_scores).mean()
