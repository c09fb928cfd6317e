"""The abstract parts of a GAN and what they exchange: all that a part must import."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn

from gankit._dataset import Dataset, Images, ImageSpec
from gankit._metric import Batch, Indices, Metric, Moments, Pool, Resampling, Rows
from gankit.errors import PartError

__all__ = [
    "Augment", "Batch", "ClassHead", "Critic", "Dataset", "Features", "Generator", "ImageSpec", "Images", "Indices",
    "LatentMapping", "Loss", "Metric", "Moments", "Pool", "Random", "Resampling", "Rows", "Scope", "Side", "Turn",
]  # fmt: skip

Side = Literal["critic", "generator"]
Scope = Literal["critic", "critic-turn", "real", "on-request"]


class Generator(nn.Module, ABC):
    """Latents to images (Goodfellow et al. 2014, arXiv 1406.2661)."""

    latent_dim: int

    if TYPE_CHECKING:

        def __call__(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
            """`forward`."""
            ...

    @abstractmethod
    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Draw images.

        Args:
            z: (n, latent_dim) standard normal latents.
            labels: None, (n,) int64 classes, or (n, k) float conditions.

        Returns:
            (n, channels, height, width) in [-1, 1].
        """


class Critic(nn.Module, ABC):
    """Images to scores, larger is more real (Arjovsky et al. 2017, arXiv 1701.07875)."""

    if TYPE_CHECKING:

        def __call__(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
            """`forward`."""
            ...

    @abstractmethod
    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Score images.

        Args:
            images: (n, channels, height, width), [-1, 1] before augmentation.
            labels: None, (n,) int64 classes, or (n, k) float conditions.

        Returns:
            (n, ...) unbounded scores, larger is more real.
        """


class Augment(nn.Module, ABC):
    """A random change of images, drawn per sample and twice differentiable (arXiv 2006.10738)."""

    if TYPE_CHECKING:

        def __call__(self, images: Tensor) -> Tensor:
            """`forward`."""
            ...

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) in [-1, 1] to the same shape, not clamped."""


@runtime_checkable
class ClassHead(Protocol):
    """A critic that also names classes (AC-GAN, arXiv 1610.09585)."""

    def class_logits(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) to (n, classes) logits."""
        ...


@runtime_checkable
class LatentMapping(Protocol):
    """A generator whose latents pass a mapping network first (StyleGAN, arXiv 1812.04948)."""

    def mapping(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, latent_dim) to (n, k) inner latents."""
        ...

    def synthesis(self, inner: Tensor) -> Tensor:
        """(n, k) inner latents to images in [-1, 1]."""
        ...


class Random(Protocol):
    """Draws of one turn, one row a sample; the same whatever the number of processes."""

    def uniform(self, *shape: int) -> Tensor:
        """Values in [0, 1) of the given shape, whose first size is the number of samples."""
        ...

    def normal(self, *shape: int) -> Tensor:
        """Standard normal values of the given shape, whose first size is the number of samples."""
        ...


@final
class Turn:
    """Everything that one update may read; images are as the critic sees them.

    On the critic's turn fakes carry no graph; on the generator's turn the critic is frozen by the trainer. Each of
    `real`, `fake`, `real_scores`, `fake_scores` is computed once, when first asked for. The augment is applied inside
    the turn, as its scope says, so that a loss or a penalty never knows about augmentation.

    Attributes:
        side: whose update this is, "critic" or "generator".
        generator: the generator, (n, latent_dim) latents to images.
        critic: the critic, images to scores.
        labels: None, (n,) int64 classes, or (n, k) float conditions; the same for reals and fakes.
        latents: (n, latent_dim) standard normal.
        step: generator updates done before this turn.
        random: per-sample draws for losses, equal on resume and for any number of processes.
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
    ) -> None:
        self.side = side
        self.generator = generator
        self.critic = critic
        self.labels = labels
        self.latents = latents
        self.step = step
        self.random = random
        self._read_real = real
        self._augment = augment
        self._critic_mixes = critic_mixes
        both = scope == "critic" or (scope == "critic-turn" and side == "critic")
        self._augments_fake = augment is not None and both
        self._augments_real = augment is not None and (both or scope == "real")

    @cached_property
    def raw_real(self) -> Tensor:
        """(n, c, h, w) real images in [-1, 1], never augmented."""
        return self._read_real()

    @cached_property
    def raw_fake(self) -> Tensor:
        """(n, c, h, w) generated images in [-1, 1], never augmented; without graph on the critic's turn."""
        with torch.set_grad_enabled(self.side == "generator" and torch.is_grad_enabled()):
            return self.generator(self.latents, self.labels)

    def augmented(self, images: Tensor) -> Tensor:
        """A fresh random view of images, whatever the scope; the images themselves where there is no augment."""
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
    def _both_scores(self) -> tuple[Tensor, Tensor]:
        # One pass costs less than two, and equals them exactly unless the critic mixes samples.
        labels = None if self.labels is None else torch.cat([self.labels, self.labels])
        real, fake = self._scores(torch.cat([self.real, self.fake]), labels).chunk(2)
        return real, fake

    @cached_property
    def real_scores(self) -> Tensor:
        """(n, ...) the critic's scores of `real`."""
        if self.side == "critic" and not self._critic_mixes:
            return self._both_scores[0]
        return self._scores(self.real, self.labels)

    @cached_property
    def fake_scores(self) -> Tensor:
        """(n, ...) the critic's scores of `fake`."""
        if self.side == "critic" and not self._critic_mixes:
            return self._both_scores[1]
        return self._scores(self.fake, self.labels)

    def _scores(self, images: Tensor, labels: Tensor | None) -> Tensor:
        scores = self.critic(images, labels)
        # Losses average and subtract scores, which half precision is too coarse for.
        return scores.float() if scores.dtype in (torch.bfloat16, torch.float16) else scores


class Loss(ABC):  # noqa: B024 - either side may stay silent
    """A term of the critic's and of the generator's objective; either side may stay silent.

    A loss that keeps state between steps gives it `state_dict` and `load_state_dict`; it is then checkpointed.

    Attributes:
        needs: abilities (Protocols or interfaces) that one of the experiment's parts must have.
        per_sample: whether the loss differentiates each sample's score by that sample, so that a critic that mixes
            samples would make it wrong.
        default_weight: the factor of this loss where the experiment states none.
    """

    needs: ClassVar[tuple[type, ...]] = ()
    per_sample: ClassVar[bool] = False
    default_weight: ClassVar[float] = 1.0

    def critic(self, turn: Turn) -> Tensor | None:
        """The scalar that the critic's update makes smaller, or None."""
        return None

    def generator(self, turn: Turn) -> Tensor | None:
        """The scalar that the generator's update makes smaller, or None."""
        return None

    def after_step(self, turn: Turn) -> None:
        """Called once after each optimiser step of either side, with that side's turn; nothing by default."""
        return None


class Features(nn.Module, ABC):
    """Images to feature vectors, in which distances between sets of images are measured.

    Attributes:
        dim: length of a feature vector.
    """

    dim: int

    if TYPE_CHECKING:

        def __call__(self, images: Tensor) -> Tensor:
            """`forward`."""
            ...

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) float32 in [0, 255] to (n, dim) features."""

    def logits(self, features: Tensor) -> Tensor:
        """(n, dim) features to (n, k) class logits, where the network has a class head on top of them.

        Raises:
            PartError: it has none.
        """
        raise PartError(f"features {type(self).__name__} have no class logits; choose features of a classifier")

    @property
    def protocol(self) -> dict[str, str | int]:
        """What decides the numbers, for the metrics file: resize, weights and their hash, versions of packages.

        Values are compared only where all is equal but the text under the key `versions`.
        Features are cached on disk only where it names a `weights_sha256`: then nothing outside it may decide them.
        """
        return {}
