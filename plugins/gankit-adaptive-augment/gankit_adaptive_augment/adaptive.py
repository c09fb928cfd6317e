"""Adaptive discriminator augmentation (Karras et al. 2020, arXiv 2006.06676, section 3, equation 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Self, final

import torch
from gankit.interfaces import Augment, Turn
from gankit.registry import nested_part
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

Rule = Literal["sign", "held-out"]

TARGETS: Final[dict[Rule, float]] = {"sign": 0.6, "held-out": 0.5}
"""Where a measure of overfitting is kept by default: what the paper's authors use for either."""

if TYPE_CHECKING:
    AnyAugment = Any
else:
    AnyAugment = nested_part("augment")


@final
class AdaptiveAugment(Augment):
    """Any augment, applied to each sample with a probability p that follows how much the critic overfits.

    A measure r of overfitting, 0 for none and 1 for a critic that knows its training images by heart, is averaged over
    `interval` critic steps. Above the target p then rises, otherwise it falls, at a speed that takes `images` real
    images from 0 to 1, and stays in [0, p_max]. With D the critic's score of an image as the critic sees it:

    - "sign": r = E[sign D(training)]. It needs a critic for which 0 divides real from generated: non-saturating,
      hinge and least-squares losses around 0. A Wasserstein or relativistic critic may add any constant to all scores,
      and the sign then says nothing.
    - "held-out": r = (E D(training) - E D(held-out)) / (E D(training) - E D(generated)). Neither a constant nor a
      positive factor on the scores changes it, so that it is valid for Wasserstein critics too. It asks for
      `data.held_out` and costs one more pass of the critic, without graph, a critic step.

    Both means of the fraction are taken over the interval before they are divided. Where the critic does not score
    training images above generated ones there is nothing to overfit with: r is then 0. Else it is limited to [-1, 1].
    The coin is one a sample, from torch's global generator, around the whole of `inner`, whereas the paper throws one
    for each of its transformations. `inner` is always computed, since nothing is read back from the device.

    Args:
        inner: the augment, as a name or a table of its own.
        rule: "sign" or "held-out".
        target: where r is kept; 0.6 for "sign", the paper's value. 0.5 for "held-out", that of the paper's code: a
            critic that scores unseen images half-way between what it was trained on and what is generated.
        interval: critic steps between changes of p.
        images: real images shown to the critic in which p goes from 0 to 1. The paper's 500 000 suits trainings of
            millions; for shorter ones take a tenth to a fiftieth of the images that the critic will see.
        start: p before the first change.
        p_max: the largest p. Above about 0.8 the generator begins to draw augmented images (the paper, section 2.2).

    Attributes:
        p: a buffer without shape, in [0, p_max].
        r: a buffer without shape, the last measured r; 0 before the first.
    """

    class Settings(BaseModel):
        """Settings of the table `augment`."""

        inner: AnyAugment = Field(default="diffaugment", validate_default=True)
        rule: Rule = "sign"
        target: float | None = Field(default=None, gt=-1, lt=1)
        interval: int = Field(default=4, ge=1)
        images: int = Field(default=500_000, ge=1)
        start: float = Field(default=0.0, ge=0, le=1)
        p_max: float = Field(default=0.8, gt=0, le=1)

        @model_validator(mode="after")
        def _fits(self) -> Self:
            if self.rule == "held-out" and self.target is not None and self.target <= 0:
                raise ValueError(
                    f"target={self.target} with rule held-out: unseen images would have to score above those of "
                    "training; choose a target between 0 and 1"
                )
            if self.start > self.p_max:
                raise ValueError(f"start={self.start} is above p_max={self.p_max}; choose a start up to p_max")
            return self

    p: Tensor
    r: Tensor
    _sums: Tensor
    _steps: Tensor
    _held_out: Tensor
    _ready: Tensor

    def __init__(
        self,
        *,
        inner: Augment,
        rule: Rule = "sign",
        target: float | None = None,
        interval: int = 4,
        images: int = 500_000,
        start: float = 0.0,
        p_max: float = 0.8,
    ) -> None:
        super().__init__()
        self.inner = inner
        self.rule, self.interval, self.images, self.p_max = rule, interval, images, p_max
        self.target = TARGETS[rule] if target is None else target
        self.needs_held_out = rule == "held-out" or inner.needs_held_out
        self.register_buffer("p", torch.tensor(float(start)))
        self.register_buffer("r", torch.zeros(()))
        self.register_buffer("_sums", torch.zeros(2))  # numerator and denominator of r
        self.register_buffer("_steps", torch.zeros((), dtype=torch.int64))  # that these are the sums of
        self.register_buffer("_held_out", torch.zeros(()))  # E D(held-out) of the critic as it is now
        self.register_buffer("_ready", torch.tensor(rule == "sign"))  # whether that is known

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) in [-1, 1] to the same shape and type, not clamped; each sample as it is, or through `inner`."""
        changed = self.inner(images)
        coins = torch.rand(len(images), 1, 1, 1, device=images.device)  # float32: half precision is too coarse for p
        return torch.where(coins < self.p, changed, images)

    def after_step(self, turn: Turn) -> None:
        """On the critic's turn: measure, and every `interval` steps change p; logs `augment/p` and `augment/r`.

        The scores of reals and fakes are those that the losses saw, from before the step. Held-out images are scored
        after it, and compared with the reals of the next turn: so all scores of a fraction come from the same weights,
        and neither a critic that drifts nor weight clipping moves r. The first turn has none to compare with yet.
        """
        self.inner.after_step(turn)
        if turn.side != "critic":
            return
        with torch.no_grad():
            if self.rule == "sign":
                agreed = _each(turn.real_scores).sign().mean()
                measured = torch.stack([agreed, torch.ones_like(agreed)])
            else:
                real, fake = _each(turn.real_scores).mean(), _each(turn.fake_scores).mean()
                measured = torch.stack([real - self._held_out, real - fake])
            # Over all processes, so that each of them has the same p.
            self._add(turn.average(measured).to(self._sums.dtype))
            self._adjust(turn.batch)
            if self.rule == "held-out":
                held_out = turn.critic(turn.held_out, turn.held_out_labels)
                self._held_out.copy_(turn.average(_each(held_out).mean()))
                self._ready.fill_(True)
            turn.log("augment/p", self.p.clone())
            turn.log("augment/r", self.r.clone())

    def _add(self, measured: Tensor) -> None:
        self._sums += torch.where(self._ready, measured, 0)
        self._steps += self._ready

    def _adjust(self, batch: int) -> None:
        """Change p where an interval is over, which `where` decides so that nothing is read back."""
        over = self._steps == self.interval
        numerator, denominator = self._sums
        separates = denominator > 0
        r = torch.where(separates, numerator / torch.where(separates, denominator, 1), 0).clamp(-1, 1)
        change = (r - self.target).sign() * (batch * self.interval / self.images)
        self.r.copy_(torch.where(over, r, self.r))
        self.p.copy_(torch.where(over, self.p + change, self.p).clamp(0, self.p_max))
        self._sums.masked_fill_(over, 0)
        self._steps.masked_fill_(over, 0)

    def extra_repr(self) -> str:
        """Show the settings."""
        return (
            f"rule={self.rule}, target={self.target}, interval={self.interval}, images={self.images}, "
            f"p_max={self.p_max}"
        )


def _each(scores: Tensor) -> Tensor:
    """(n, ...) scores of any type to (n,), at least float32."""
    each = scores.flatten(1).mean(1) if scores.dim() > 1 else scores
    return each.to(torch.promote_types(each.dtype, torch.float32))
