"""Auxiliary classifier, AC-GAN (Odena, Olah and Shlens 2017, arXiv 1610.09585, equation 3)."""

from typing import Annotated, Any, final

from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from gankit.errors import PartError
from gankit.interfaces import ClassHead, ImageSpec, Loss, Turn
from gankit.interfaces.turn import at_least_float32


@final
class AuxiliaryClass(Loss):
    """The critic classifies reals and fakes; the generator makes fakes whose class the critic recognises.

    Use it together with an adversarial loss. The logits come from the features that give the scores, so that there is
    no second pass. The loss favours samples that are easy to classify, at the cost of variety.

    Args:
        image: must have classes.
        fake: whether the critic learns to classify fakes too, as published, or only reals.
        generator: the factor of the generator's term; code published with WGAN-GP (arXiv 1704.00028) uses 0.1, and
            `fake=False`.

    Raises:
        PartError: the images have no classes, or the networks are not conditioned on them.
    """

    capturable = True
    needs = (ClassHead,)

    def __init__(self, image: ImageSpec, *, fake: bool = True, generator: Annotated[float, Ge(0)] = 1.0) -> None:
        if not image.classes:
            raise PartError("loss auxiliary-class needs classes: set data.conditional=true")
        self.classify_fakes = fake
        self.generator_factor = generator

    def critic(self, turn: Turn) -> Tensor:
        """Cross-entropy of the classes of reals, plus that of fakes where `fake` is set; a scalar."""
        value = _cross_entropy(turn, turn.real_features)
        if self.classify_fakes:
            value = value + _cross_entropy(turn, turn.fake_features)
        return value

    def generator(self, turn: Turn) -> Tensor | None:
        """The factor times the cross-entropy of the classes of fakes, a scalar; None for a factor of 0."""
        if not self.generator_factor:
            return None
        return self.generator_factor * _cross_entropy(turn, turn.fake_features)


def _cross_entropy(turn: Turn, features: Any) -> Tensor:
    """The mean cross-entropy of the turn's (n,) labels and the classes that the critic finds in features; a scalar."""
    critic, labels = turn.critic, turn.labels
    assert isinstance(critic, ClassHead)  # as `needs` says
    assert labels is not None  # images with classes, which the constructor demands, have them
    return F.cross_entropy(at_least_float32(critic.class_logits(features)), labels)
