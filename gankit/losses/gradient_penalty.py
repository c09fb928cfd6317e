"""Gradient penalty of WGAN-GP (Gulrajani et al. 2017, arXiv 1704.00028, equation 3 and algorithm 1)."""

from collections.abc import Callable
from typing import Annotated, final

import torch
from annotated_types import Ge
from torch import Tensor

from gankit.errors import DataError
from gankit.interfaces import Loss, Turn
from gankit.nn.gradients import score_gradients


def gradient_penalty(
    critic: Callable[..., Tensor],
    real: Tensor,
    fake: Tensor,
    labels: Tensor | None = None,
    *,
    target: float = 1.0,
    one_sided: bool = False,
    alpha: Tensor | None = None,
) -> Tensor:
    """Squared distance of the critic's slope from `target`, at one point between each real and its fake.

    With x = alpha real + (1 - alpha) fake, the penalty is (norm of d critic(x) / dx - target)^2, where the norm is
    taken over all elements of a sample. It can be differentiated with respect to the critic's parameters, even where
    the slope is zero, but not to images, which are detached. The norm and the penalty are computed in float32 or finer;
    the critic may run in bfloat16, since `score_gradients` turns off autocast to float16 only.

    Args:
        critic: any callable or module that scores each sample without looking at the others (so without batch
            normalisation): `critic(images)`, or `critic(images, labels)` where labels are given. Scores of shape
            (n, ...) are averaged per sample before they are differentiated.
        real: (n, ...) of any trailing shape.
        fake: the same shape.
        labels: None, (n,) int64 classes, or (n, k) float conditions; shared by each real, its fake and the point
            between them.
        target: the slope that costs nothing.
        one_sided: whether smaller slopes cost nothing either.
        alpha: the real image's share, n values in [0, 1] of shape (n,) or (n, 1, ...); drawn uniformly if None.

    Returns:
        (n,) penalties, one per sample, to be averaged and weighted by the caller.

    Raises:
        DataError: shapes of `real` and `fake` differ, or `alpha` is not one number per sample.
        PartError: the critic's scores cannot be differentiated, or are not (n, ...): one score or map per sample.
    """
    if real.shape != fake.shape:
        raise DataError(f"real {tuple(real.shape)} and fake {tuple(fake.shape)} must have one shape")
    n = len(real)
    dtype = torch.promote_types(torch.promote_types(real.dtype, fake.dtype), torch.float32)
    real, fake = real.to(dtype), fake.to(dtype)
    alpha = torch.rand(n, dtype=dtype, device=real.device) if alpha is None else torch.as_tensor(alpha)
    if alpha.numel() != n or alpha.shape[:1] != real.shape[:1]:
        raise DataError(f"alpha has shape {tuple(alpha.shape)}, it must be ({n},): one number per sample")
    alpha = alpha.to(real).reshape(n, *[1] * (real.ndim - 1))
    gradients = score_gradients(critic, torch.lerp(fake, real, alpha), labels)
    rows = gradients[:, None].flatten(1)  # (n, elements of a sample), also for images of shape (n,)
    # Unlike a hand-written root of a sum of squares, this norm has gradient 0 (not NaN) at zero.
    slopes: Tensor = torch.linalg.vector_norm(rows, dim=1)
    excess = slopes - target
    return (excess.relu() if one_sided else excess).square()


@final
class GradientPenalty(Loss):
    """The critic's mean `gradient_penalty` between the reals and the fakes that it sees.

    Where an augment acts on both, the augmented images are interpolated: the penalty then acts on images such as those
    that the critic scores. The weight is the paper's lambda.

    Args:
        target: the slope that the critic should have.
        one_sided: whether smaller slopes cost nothing.
    """

    capturable = True
    per_sample = True  # needs a critic that scores each sample without looking at the others
    default_weight = 10.0

    def __init__(self, *, target: Annotated[float, Ge(0)] = 1.0, one_sided: bool = False) -> None:
        self.target = target
        self.one_sided = one_sided

    def critic(self, turn: Turn) -> Tensor:
        """Mean `gradient_penalty` over the reals, fakes and labels of the turn; a scalar."""
        alpha = turn.random.uniform(len(turn.real))
        penalties = gradient_penalty(
            turn.critic, turn.real, turn.fake, turn.labels, target=self.target, one_sided=self.one_sided, alpha=alpha
        )
        return penalties.mean()
