"""Balanced consistency regularisation, bCR (Zhao et al. 2020, arXiv 2002.04724, algorithm 1)."""

from typing import Annotated, final

import torch
from annotated_types import Ge
from torch import Tensor

from gankit.interfaces import Augment, Loss, Turn
from gankit.interfaces.turn import at_least_float32


@final
class Consistency(Loss):
    """The critic should score an image and a random view of it alike, for reals and for fakes.

    According to the paper, regularising reals alone (`fake = 0`, CR-GAN, arXiv 1910.12027) lets traces of the augment
    leak into the samples. To reproduce published bCR, where the adversarial loss sees raw images, set the augment's
    scope to "on-request". The default factors, 10, are those of published configurations.

    Args:
        real: the factor of the term on reals; 0 leaves it out.
        fake: the factor of the term on fakes; 0 leaves it out.
    """

    capturable = True
    needs = (Augment,)

    def __init__(self, *, real: Annotated[float, Ge(0)] = 10.0, fake: Annotated[float, Ge(0)] = 10.0) -> None:
        self.real = real
        self.fake = fake

    def critic(self, turn: Turn) -> Tensor | None:
        """The sum over reals and fakes of factor * mean((score - score of a fresh view)^2).

        Scores are (n, ...), the sum is a scalar; None where both factors are 0.
        """
        terms = []
        # If the critic's images are not augmented, `turn` already holds the scores of the raw ones.
        if self.real:
            raw_scores = turn.real_scores if turn.real is turn.raw_real else turn.critic(turn.raw_real, turn.labels)
            terms.append(self.real * _disagreement(turn, raw_scores, turn.raw_real))
        if self.fake:
            raw_scores = turn.fake_scores if turn.fake is turn.raw_fake else turn.critic(turn.raw_fake, turn.labels)
            terms.append(self.fake * _disagreement(turn, raw_scores, turn.raw_fake))
        return torch.stack(terms).sum() if terms else None


def _disagreement(turn: Turn, scores: Tensor, images: Tensor) -> Tensor:
    """The mean of (score - score of a fresh view)^2 of (n, c, h, w) images with (n, ...) scores; a scalar."""
    view_scores = turn.critic(turn.augmented(images), turn.labels)
    return (at_least_float32(scores) - at_least_float32(view_scores)).square().mean()
