"""An augment that is applied with a probability (Karras et al. 2020, arXiv 2006.06676, section 2.2)."""

from collections.abc import Mapping
from typing import Annotated, final

import torch
from annotated_types import Ge, Le
from torch import Tensor

from gankit.augments import get
from gankit.interfaces import Augment, Loss, Turn
from gankit.registry import Scheduled, fill_at, value_at

Probability = Annotated[float, Ge(0), Le(1)]


@final
class Sometimes(Augment):
    """Another augment, applied to each sample with a probability, which a schedule may move.

    A critic does not need augmentation before it overfits: R3GAN raises the probability from 0 over the first part of a
    training (Huang et al. 2024, arXiv 2501.05441, appendix D). The plug-in `gankit-adaptive-augment` replaces the
    schedule: it follows how much the critic overfits. Coins come from torch's global generator. `inner` is always
    computed, so that nothing is read back from the device.

    Args:
        inner: the augment, as a name or a table.
        probability: a number from 0 to 1, or a table `{ start = 0, end = 0.3, steps = 10000 }`.

    Attributes:
        p: the probability now, a scalar buffer.
    """

    p: Tensor

    def __init__(
        self,
        *,
        inner: Augment = "diffaugment",  # type: ignore[assignment]  # a name, for the registry
        probability: Scheduled[Probability] = 0.5,
    ) -> None:
        super().__init__()
        # The registry passes an augment that is already built; a direct call may leave the default.
        inner = get(inner)() if isinstance(inner, str) else inner
        self.inner, self.probability = inner, probability
        self.needs_held_out, self.capturable = inner.needs_held_out, inner.capturable
        self.register_buffer("p", torch.tensor(float(value_at(probability, 0))))

    def use_losses(self, losses: Mapping[str, Loss]) -> None:
        """Pass the losses on to `inner`."""
        self.inner.use_losses(losses)

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) in [-1, 1] to the same shape and type, not clamped; each sample as it is, or through `inner`."""
        coins = torch.rand(len(images), 1, 1, 1, device=images.device)  # float32: half precision is too coarse
        return torch.where(coins < self.p, self.inner(images), images)

    def before_step(self, step: int) -> dict[str, float] | None:
        """Set the probability of this step; the log shows it where it moves."""
        p = fill_at(self.p, self.probability, step)
        return None if p is None else {"augment_probability": p}

    def after_step(self, turn: Turn) -> None:
        """Pass the turn on to `inner`."""
        self.inner.after_step(turn)
