"""Auxiliary classifier, AC-GAN (Odena, Olah and Shlens 2017, arXiv 1610.09585, equation 3)."""

from __future__ import annotations

from typing import Annotated, Any, final

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from gankit.errors import PartError
from gankit.interfaces import ClassHead, ImageSpec, Loss, Turn


@final
class AuxiliaryClass(Loss):
    """The critic names the classes of reals and fakes; the generator makes fakes of which it names the right one.

    A term beside an adversarial loss. The logits come from the features that give the scores, so that it costs no
    second pass. It favours samples that are easy to tell apart over variety.

    Args:
        image: must have classes.
        fake: whether the critic learns from fakes too, as published; without, from reals alone.
        generator: the factor of the generator's term; code published with WGAN-GP (arXiv 1704.00028) has 0.1, and no
            fakes.

    Raises:
        PartError: the images have no classes, or not as labels of the networks.
    """

    needs = (ClassHead,)

    def __init__(self, image: ImageSpec, *, fake: bool = True, generator: Annotated[float, Ge(0)] = 1.0) -> None:
        if not image.classes:
            raise PartError("loss auxiliary-class needs classes: set data.conditional=true")
        self.fake = fake
        self.factor = generator

    def critic(self, turn: Turn) -> Tensor:
        """Cross-entropy of the classes of reals, plus that of fakes; a scalar."""
        value = _cross_entropy(turn, turn.real_features)
        return value + _cross_entropy(turn, turn.fake_features) if self.fake else value

    def generator(self, turn: Turn) -> Tensor | None:
        """The factor times the cross-entropy of the classes of fakes, a scalar; None for a factor of 0."""
        return self.factor * _cross_entropy(turn, turn.fake_features) if self.factor else None


def _cross_entropy(turn: Turn, features: Any) -> Tensor:
    critic, labels = turn.critic, turn.labels
    assert isinstance(critic, ClassHead)
    assert labels is not None
    logits = critic.class_logits(features)
    return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels)
