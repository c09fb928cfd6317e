"""Adaptive discriminator augmentation (Karras et al. 2020, arXiv 2006.06676, section 3, equation 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self, final, runtime_checkable

import torch
from gankit.errors import PartError
from gankit.interfaces import Augment, Loss, Turn
from gankit.registry import nested_part
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

Rule = Literal["sign", "held-out"]

TARGETS: Final[dict[Rule, float]] = {"sign": 0.6, "held-out": 0.5}
"""The target of each measure of overfitting by default: what the paper's authors use."""

if TYPE_CHECKING:
    AnyAugment = Any
else:
    AnyAugment = nested_part("augment")


@runtime_checkable
class TakesProbability(Protocol):
    """An augment that tosses coins of its own, such as `transforms`, with a probability that is set from outside."""

    def set_probability(self, p: Tensor) -> None:
        """Take the probability, a scalar tensor in [0, 1]."""
        ...


@final
class AdaptiveAugment(Augment):
    """An augment, applied with a probability p that follows how much the critic overfits.

    r measures overfitting: 0 for none, 1 for a critic that knows its training images by heart. It is averaged over
    `interval` critic steps; then p rises if r is above the target, else it falls, always within [0, p_max]. Its speed
    is such that p goes from 0 to 1 while the critic sees `images` real images. With D the critic's score of an image:

    - "sign": r = E[sign D(training)]. It needs a loss by which scores separate real from generated at 0, as
      non-saturating, minimax and hinge. Beside a relativistic loss, whose critic may add any constant to all scores, it
      is E[sign(D(training) - D(generated))], pair by pair. Beside other losses, such as wasserstein and least-squares,
      the rule is refused: `Loss.positive_for_reals` says what each of them makes positive.
    - "held-out": r = (E D(training) - E D(held-out)) / (E D(training) - E D(generated)). Neither a constant added to
      the scores nor a positive factor changes it, so that it is valid for Wasserstein critics too. It needs
      `data.held_out`, and one more pass of the critic, without graph, per critic step.

    Numerator and denominator are averaged over the interval before they are divided. If the critic does not score
    training images above generated ones, it cannot overfit, and r is 0. Otherwise r is limited to [-1, 1]. `transforms`
    applies each of its transformations to a sample with probability p, as in the paper; another augment as a whole is
    applied to a sample with probability p, drawn from torch's global generator. `inner` is computed for every sample,
    so that nothing is read back from the device.

    Args:
        inner: the augment, as a name or a table; the paper's transformations by default.
        rule: "sign" or "held-out".
        target: the value at which r is kept. For "sign" 0.6, the paper's value; for "held-out" 0.5, that of the paper's
            code: the critic scores unseen images half-way between training images and generated ones.
        interval: critic steps between changes of p.
        images: real images that the critic sees while p goes from 0 to 1. The paper's 500 000 suits trainings on
            millions; for shorter ones use a tenth to a fiftieth of the images that the critic will see.
        start: p before the first change.
        p_max: the largest p. If p stays above about 0.8, the generator begins to make augmented images (the paper,
            section 2.2).

    Attributes:
        p: scalar buffer in [0, p_max].
        r: scalar buffer, the measure of the last whole interval; 0 before the first has ended.
    """

    class Settings(BaseModel):
        """Settings of the table `augment`."""

        inner: AnyAugment = Field(default="transforms", validate_default=True)
        rule: Rule = "sign"
        target: float | None = Field(default=None, gt=-1, lt=1)
        interval: int = Field(default=4, ge=1)
        images: int = Field(default=500_000, ge=1)
        start: float = Field(default=0.0, ge=0, le=1)
        p_max: float = Field(default=1.0, gt=0, le=1)

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
        p_max: float = 1.0,
    ) -> None:
        super().__init__()
        if isinstance(inner, TakesProbability) and getattr(inner, "probability", None) is not None:
            raise PartError(
                "augment adaptive chooses the probability of its inner augment: leave inner.probability out"
            )
        self.inner = inner
        self.rule, self.interval, self.images, self.p_max = rule, interval, images, p_max
        self.target = TARGETS[rule] if target is None else target
        self.needs_held_out = rule == "held-out" or inner.needs_held_out
        self._of_differences = False
        self.capturable = inner.capturable
        self.register_buffer("p", torch.tensor(float(start)))
        self.register_buffer("r", torch.zeros(()))
        self.register_buffer("_sums", torch.zeros(2))  # numerator and denominator of r
        self.register_buffer("_steps", torch.zeros((), dtype=torch.int64))  # critic steps in these sums
        self.register_buffer("_held_out", torch.zeros(()))  # E D(held-out) of the critic after its last step
        # Whether a fraction can be measured: for "held-out" once _held_out has been.
        self.register_buffer("_ready", torch.tensor(rule == "sign"))
        self._pass_on()

    def use_losses(self, losses: Mapping[str, Loss]) -> None:
        """Learn whether the sign rule reads scores or differences.

        Raises:
            PartError: the sign rule was chosen, and no loss says that a sign of scores tells real from generated.
        """
        self.inner.use_losses(losses)
        signs = {loss.positive_for_reals for loss in losses.values()}
        if self.rule == "sign" and signs == {None}:
            raise PartError(
                f"augment adaptive: rule sign counts reals with scores above 0, but beside {', '.join(losses)} a score "
                "of 0 does not separate reals from fakes; set augment.rule=held-out and data.held_out=0.2"
            )
        self._of_differences = "scores" not in signs

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) in [-1, 1] to the same shape and type, not clamped; each sample as it is, or through `inner`."""
        if isinstance(self.inner, TakesProbability):
            return self.inner(images)
        changed = self.inner(images)
        coins = torch.rand(len(images), 1, 1, 1, device=images.device)  # float32: half precision is too coarse
        return torch.where(coins < self.p, changed, images)

    def after_step(self, turn: Turn) -> None:
        """On the critic's turn, measure r and every `interval` steps change p; logs `augment/p` and `augment/r`.

        The scores of reals and fakes are those of the losses, from before the step. Held-out images are scored after
        the step and compared with the reals of the next turn. So all scores in a fraction come from the same weights,
        and neither a drift of the scores nor weight clipping changes r. The first turn has no held-out scores yet.
        """
        self.inner.after_step(turn)
        if turn.side != "critic":
            return
        with torch.no_grad():
            if self.rule == "sign":
                scores = _sample_scores(turn.real_scores)
                if self._of_differences:
                    scores = scores - _sample_scores(turn.fake_scores)
                sign = scores.sign().mean()
                fraction = torch.stack([sign, torch.ones_like(sign)])
            else:
                real, fake = _sample_scores(turn.real_scores).mean(), _sample_scores(turn.fake_scores).mean()
                fraction = torch.stack([real - self._held_out, real - fake])
            # Over all processes, so that each of them has the same p.
            self._add(turn.average(fraction).to(self._sums.dtype))
            self._adjust(turn.batch)
            if self.rule == "held-out":
                held_out = turn.critic(turn.held_out, turn.held_out_labels)
                self._held_out.copy_(turn.average(_sample_scores(held_out).mean()))
                self._ready.fill_(True)
            turn.log("augment/p", self.p.clone())
            turn.log("augment/r", self.r.clone())

    def _add(self, fraction: Tensor) -> None:
        """Add (2,) numerator and denominator to the sums of the interval, once a fraction can be measured."""
        self._sums += torch.where(self._ready, fraction, 0)
        self._steps += self._ready

    def _adjust(self, batch: int) -> None:
        """Change p if an interval is over; `torch.where` decides it, so that nothing is read back from the device."""
        is_over = self._steps >= self.interval  # more, where a training goes on with a shorter interval
        numerator, denominator = self._sums
        separates = denominator > 0
        r = torch.where(separates, numerator / torch.where(separates, denominator, 1), 0).clamp(-1, 1)
        change = (r - self.target).sign() * (batch * self.interval / self.images)
        self.r.copy_(torch.where(is_over, r, self.r))
        self.p.copy_(torch.where(is_over, self.p + change, self.p).clamp(0, self.p_max))
        self._sums.masked_fill_(is_over, 0)
        self._steps.masked_fill_(is_over, 0)
        self._pass_on()

    def _pass_on(self) -> None:
        """Give p to an inner augment that takes a probability."""
        if isinstance(self.inner, TakesProbability):
            self.inner.set_probability(self.p)

    def extra_repr(self) -> str:
        """Show the settings."""
        return (
            f"rule={self.rule}, target={self.target}, interval={self.interval}, images={self.images}, "
            f"p_max={self.p_max}"
        )


def _sample_scores(scores: Tensor) -> Tensor:
    """(n, ...) scores of any type to the (n,) mean score of each sample, at least float32."""
    means = scores.flatten(1).mean(1) if scores.dim() > 1 else scores
    return means.to(torch.promote_types(means.dtype, torch.float32))
