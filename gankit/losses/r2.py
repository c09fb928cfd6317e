"""R2 penalty on fakes (Mescheder et al. 2018, arXiv 1801.04406, equation 10; with R1 in R3GAN, arXiv 2501.05441)."""

from typing import final

from torch import Tensor

from gankit.interfaces import Loss, Turn
from gankit.nn.gradients import score_gradients


@final
class R2(Loss):
    """Half the mean squared slope of the critic at the fakes that it sees; the half is the paper's.

    The weight is the gamma of Mescheder et al. and of R3GAN, who write gamma / 2 E |grad D|^2: do not halve it.
    R3GAN gives `r1` and `r2` one gamma.
    """

    capturable = True
    per_sample = True  # needs a critic that scores each sample without looking at the others
    default_weight = 10.0

    def critic(self, turn: Turn) -> Tensor:
        """Half the mean squared norm of d score / d fake, over the fakes of the turn; a scalar."""
        gradients = score_gradients(turn.critic, turn.fake, turn.labels)
        return gradients.flatten(1).square().sum(1).mean() / 2
