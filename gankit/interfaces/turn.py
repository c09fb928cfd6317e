"""A turn, which is one update of a network, and the parts that take part in it: losses and augments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, final

import torch
from torch import Tensor, nn

from gankit.errors import PartError
from gankit.interfaces.networks import Critic, FeatureCritic, Generator
from gankit.nn.compilation import call

Side = Literal["critic", "generator"]
Scope = Literal["critic", "critic-turn", "real", "on-request"]
"""Which images the augment changes. "critic": reals and fakes on both turns. "critic-turn": reals and fakes on the
critic's turn only. "real": reals only. "on-request": only those that a loss passes to `Turn.augmented`."""
FeatureTensors = Tensor | tuple[Tensor, ...]
"""What `FeatureCritic.features` returns."""


class Augment(nn.Module, ABC):
    """A random change of images, drawn per sample and twice differentiable (arXiv 2006.10738).

    An augment that adapts keeps its state in buffers, which are checkpointed like those of any module.

    Attributes:
        needs_held_out: whether it reads `Turn.held_out`; an experiment without held-out images is then refused.
        capturable: whether CUDA graphs may replay its `forward`, as in `Generator`; `after_step` is never replayed.
    """

    needs_held_out: bool = False
    capturable: bool = False

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) in [-1, 1] to the same shape, not clamped."""

    if TYPE_CHECKING:
        __call__ = forward

    def use_losses(self, losses: Mapping[str, Loss]) -> None:
        """Called once when an experiment's parts are built, with its losses by name; does nothing by default.

        An augment that adapts to the critic's scores reads `Loss.positive_for_reals` here; one that holds another
        augment passes the losses on to it.

        Raises:
            PartError: the augment cannot work with these losses.
        """

    def before_step(self, step: int) -> Mapping[str, float] | None:
        """Called before each step; returns numbers for the log, or None, as `Generator.before_step`."""
        return None

    def after_step(self, turn: Turn) -> None:
        """Called after each optimiser step, with its turn (under `training.accumulate`, that of the last part)."""


class Random(Protocol):
    """Random numbers for one turn, one row per sample (else PartError), independent of the number of processes."""

    def uniform(self, *shape: int) -> Tensor:
        """Values in [0, 1) of the given shape, (n, ...)."""
        ...

    def normal(self, *shape: int) -> Tensor:
        """Standard normal values of the given shape, (n, ...)."""
        ...


@final
class Turn:
    """Everything that losses and augments may read in one update; images are as the critic sees them.

    On the critic's turn fakes carry no graph; on the generator's turn the critic is frozen. `real`, `fake` and
    `held_out`, their scores, and the features of the first two are each computed once, when first asked for. The
    augment is applied inside the turn, as its scope says, so that a loss or a penalty need not know about augmentation.

    Args:
        real: reads the (n, c, h, w) real images in [-1, 1].
        augment: changes images before the critic sees them, or None.
        scope: which images it changes.
        critic_mixes: whether the critic's score of a sample depends on the rest of its batch.
        held_out: reads held-out images and their labels; None where no images are held out.

    Attributes:
        side: whose update this is, "critic" or "generator".
        generator: the generator, (n, latent_dim) latents to images.
        critic: the critic, images to scores.
        labels: None, (n,) int64 classes, or (n, k) float conditions; the same for reals and fakes.
        latents: (n, latent_dim) standard normal.
        step: generator updates done before this turn.
        random: random numbers for losses, the same after a resume and for any number of processes.
        batch: batch size of this update, over all processes.
        average: returns the mean of a floating tensor over all processes, without graph, so that state computed from it
            is equal in all. Every process must call it, or the others wait.
        log: `log(name, value)` takes a scalar tensor; a line of the log holds the mean since the last line. Raises
            PartError for other shapes and for the log's own names, such as `step`.
    """

    def __init__(
        self,
        side: Side,
        generator: Generator,
        critic: Critic,
        *,
        real: Callable[[], Tensor],
        labels: Tensor | None,
        latents: Tensor,
        step: int,
        random: Random,
        augment: Augment | None = None,
        scope: Scope = "critic",
        critic_mixes: bool = False,
        held_out: Callable[[], tuple[Tensor, Tensor | None]] | None = None,
        batch: int | None = None,
        average: Callable[[Tensor], Tensor] = Tensor.detach,
        log: Callable[[str, Tensor], None] = lambda name, value: None,
    ) -> None:
        self.side, self.generator, self.critic = side, generator, critic
        self.labels, self.latents, self.step, self.random = labels, latents, step, random
        self.batch = len(latents) if batch is None else batch
        self.average, self.log = average, log
        self._read_real, self._read_held_out = real, held_out
        self._augment, self._critic_mixes = augment, critic_mixes
        augments_both = scope == "critic" or (scope == "critic-turn" and side == "critic")
        self._augments_fake = augment is not None and augments_both
        self._augments_real = augment is not None and (augments_both or scope == "real")

    @cached_property
    def raw_real(self) -> Tensor:
        """(n, c, h, w) real images in [-1, 1], never augmented."""
        return self._read_real()

    @cached_property
    def raw_fake(self) -> Tensor:
        """(n, c, h, w) generated images in [-1, 1], never augmented; without graph on the critic's turn."""
        with torch.set_grad_enabled(self.side == "generator" and torch.is_grad_enabled()):
            # `call` runs the compiled network where the training compiles.
            return call(self.generator, self.latents, self.labels).contiguous()

    def augmented(self, images: Tensor) -> Tensor:
        """(n, c, h, w) images in a fresh random view, not clamped, whatever the scope; unchanged without augment."""
        return images if self._augment is None else self._augment(images)

    @cached_property
    def real(self) -> Tensor:
        """(n, c, h, w) real images as the critic sees them."""
        return self.augmented(self.raw_real) if self._augments_real else self.raw_real

    @cached_property
    def fake(self) -> Tensor:
        """(n, c, h, w) generated images as the critic sees them."""
        return self.augmented(self.raw_fake) if self._augments_fake else self.raw_fake

    @cached_property
    def _held_out_batch(self) -> tuple[Tensor, Tensor | None]:
        if self._read_held_out is None:
            raise PartError("no images are held out: set data.held_out, for example data.held_out=0.1")
        return self._read_held_out()

    @cached_property
    def held_out(self) -> Tensor:
        """(n, c, h, w) images kept from training, as the critic would see them if they were among the reals.

        Raises:
            PartError: the experiment holds no images out.
        """
        images = self._held_out_batch[0]
        return self.augmented(images) if self._augments_real else images

    @property
    def held_out_labels(self) -> Tensor | None:
        """None, (n,) int64 classes, or (n, k) float conditions of `held_out`; raises PartError as that does."""
        return self._held_out_batch[1]

    @property
    def _scored_together(self) -> bool:
        """Whether the critic scores reals and fakes in one batch.

        One pass costs less than two, and gives the same scores unless these depend on the rest of the batch.
        """
        return self.side == "critic" and not self._critic_mixes

    @cached_property
    def _real_and_fake(self) -> Tensor:
        return torch.cat([self.real, self.fake])

    @cached_property
    def _real_and_fake_features(self) -> FeatureTensors:
        return self._features(self._real_and_fake)

    @cached_property
    def _real_and_fake_scores(self) -> tuple[Tensor, ...]:
        labels = None if self.labels is None else torch.cat([self.labels, self.labels])
        return self._score(self._real_and_fake, lambda: self._real_and_fake_features, labels).chunk(2)

    def _score(self, images: Tensor, features: Callable[[], FeatureTensors], labels: Tensor | None) -> Tensor:
        """The critic's scores of `images`, or, for a `FeatureCritic` only, of what the call `features()` returns."""
        if isinstance(self.critic, FeatureCritic):
            return at_least_float32(call(self.critic.score, features(), labels))
        return at_least_float32(call(self.critic, images, labels))

    def _features(self, images: Tensor) -> FeatureTensors:
        if not isinstance(self.critic, FeatureCritic):
            raise PartError(
                f"critic {type(self.critic).__name__} provides no inner features: it is not a FeatureCritic"
            )
        return call(self.critic.features, images)

    @cached_property
    def real_features(self) -> FeatureTensors:
        """The output of `FeatureCritic.features` for `real`, from the same pass as the scores.

        Raises:
            PartError: the critic is no `FeatureCritic`.
        """
        return _half(self._real_and_fake_features, 0) if self._scored_together else self._features(self.real)

    @cached_property
    def fake_features(self) -> FeatureTensors:
        """As `real_features`, for `fake`."""
        return _half(self._real_and_fake_features, 1) if self._scored_together else self._features(self.fake)

    @cached_property
    def real_scores(self) -> Tensor:
        """(n, ...) the critic's scores of `real`."""
        if self._scored_together:
            return self._real_and_fake_scores[0]
        return self._score(self.real, lambda: self.real_features, self.labels)

    @cached_property
    def fake_scores(self) -> Tensor:
        """(n, ...) the critic's scores of `fake`."""
        if self._scored_together:
            return self._real_and_fake_scores[1]
        return self._score(self.fake, lambda: self.fake_features, self.labels)

    @cached_property
    def held_out_scores(self) -> Tensor:
        """(n, ...) the critic's scores of `held_out`; raises PartError as that does."""
        # Not `_score`: no loss reads the features of held-out images.
        return at_least_float32(call(self.critic, self.held_out, self.held_out_labels))

    def copy_results(self, other: Turn) -> None:
        """Take over, without graph, what another turn has computed, so that it is not computed again."""
        detached: dict[int, Tensor] = {}  # by id(): `real` and `raw_real` may be one tensor, and must stay one
        for name, value in vars(other).items():  # a cached property that was read keeps its value there
            if isinstance(getattr(Turn, name, None), cached_property):
                vars(self)[name] = _detach(value, detached)


def _detach(value: Any, detached: dict[int, Tensor]) -> Any:
    """A tensor, or a tuple of tensors, without graph; `detached` keeps each result, by the id() of its tensor."""
    if isinstance(value, tuple):
        return tuple(_detach(item, detached) for item in value)
    return detached.setdefault(id(value), value.detach()) if isinstance(value, Tensor) else value


def _half(features: FeatureTensors, which: int) -> FeatureTensors:
    """The features of the first half of the images (`which` is 0), or of the second (1)."""
    if isinstance(features, Tensor):
        return features.chunk(2)[which]
    return tuple(part.chunk(2)[which] for part in features)


def at_least_float32(scores: Tensor) -> Tensor:
    """(n, ...) scores; half precision, which is too coarse for averages and differences, becomes float32."""
    return scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores


class Loss(ABC):  # noqa: B024 - a subclass need not define both methods
    """A term of the critic's objective, of the generator's, or of both; a method that returns None adds nothing.

    A loss that keeps state between steps defines `state_dict` and `load_state_dict`, so that checkpoints hold it.

    Attributes:
        needs: abilities (Protocols or interfaces) that one of the experiment's parts must have.
        per_sample: whether the loss differentiates each sample's score with respect to that sample. A critic whose
            scores depend on the rest of the batch, as with batch normalisation, is then refused, unless
            `training.mixed_penalties` allows it.
        default_weight: the factor of this loss where the experiment states none.
        needs_held_out: whether it reads `Turn.held_out`; an experiment without held-out images is then refused.
        positive_for_reals: what the critic learns to make positive, for augments that adapt to its sign. With "scores"
            it is a real's score, and a fake's becomes negative. With "differences" it is a real's score minus a fake's.
            None if the loss does neither.
        capturable: whether CUDA graphs may replay `critic` and `generator`, as in `Generator`; they must not depend on
            `Turn.step` either. `after_step` is never replayed.
    """

    needs: ClassVar[tuple[type, ...]] = ()
    per_sample: ClassVar[bool] = False
    default_weight: ClassVar[float] = 1.0
    needs_held_out: bool = False
    positive_for_reals: ClassVar[Literal["scores", "differences"] | None] = None
    capturable: ClassVar[bool] = False

    def critic(self, turn: Turn) -> Tensor | None:
        """The scalar that the critic's update minimises, or None."""
        return None

    def generator(self, turn: Turn) -> Tensor | None:
        """The scalar that the generator's update minimises, or None."""
        return None

    def before_step(self, step: int) -> Mapping[str, float] | None:
        """Called before each step; returns numbers for the log, or None, as `Generator.before_step`."""
        return None

    def after_step(self, turn: Turn) -> None:
        """Called once after each optimiser step of either side, as `Augment.after_step`."""
        return None
