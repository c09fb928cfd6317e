"""The networks of a GAN, and protocols for their optional abilities."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

from torch import Tensor, nn


class Generator(nn.Module, ABC):
    """Maps latents to images (Goodfellow et al. 2014, arXiv 1406.2661).

    Attributes:
        latent_dim: the length of a latent vector.
        channels_last: whether its weights may be laid out channels_last, which is faster. False if something in it
            depends on the layout, such as a `view` after a convolution. `training.channels_last` overrides it.
        capturable: whether CUDA graphs may replay what it computes (`training.graphs`). It must not copy between host
            and device or branch on a tensor's values, and must keep all that changes between steps in buffers.
    """

    latent_dim: int
    channels_last: ClassVar[bool] = False
    capturable: ClassVar[bool] = False

    @abstractmethod
    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Draw images.

        Args:
            z: (n, latent_dim) standard normal latents.
            labels: None, (n,) int64 classes, or (n, k) float conditions.

        Returns:
            (n, channels, height, width) in [-1, 1].
        """

    if TYPE_CHECKING:
        __call__ = forward

    def before_step(self, step: int) -> Mapping[str, float] | None:
        """Called before each step, and once after the last; again for the same step where a run is resumed.

        Submodules of the network may define it too, and theirs is called as well. Keep whatever changes between steps
        in a buffer: checkpoints and exports hold buffers, and compiled code reads them.

        Args:
            step: generator updates done.

        Returns:
            Numbers by name, to add to the log line of this step, or None.
        """
        return None


@runtime_checkable
class Truncates(Protocol):
    """A generator that can trade variety for typical images (truncation, arXiv 1812.04948, appendix B)."""

    def truncated(self, truncation: float) -> Self:
        """Another generator, with latents moved towards their mean: from 0, the mean alone, to 1, no change."""
        ...


class Critic(nn.Module, ABC):
    """Maps images to scores; a larger score means more real (Arjovsky et al. 2017, arXiv 1701.07875).

    Attributes:
        channels_last: as in `Generator`.
        capturable: as in `Generator`.
    """

    channels_last: ClassVar[bool] = False
    capturable: ClassVar[bool] = False

    @abstractmethod
    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Score images.

        Args:
            images: (n, channels, height, width), [-1, 1] before augmentation.
            labels: None, (n,) int64 classes, or (n, k) float conditions.

        Returns:
            (n, ...) unbounded scores; larger means more real.
        """

    if TYPE_CHECKING:
        __call__ = forward

    def before_step(self, step: int) -> Mapping[str, float] | None:
        """Called before each step, and once after the last, as `Generator.before_step`."""
        return None


@runtime_checkable
class FeatureCritic(Protocol):
    """A critic whose scores are a function of inner features, which losses read without a second pass.

    `forward(images, labels)` equals `score(features(images), labels)`. Training calls the latter, so that scores and
    whatever else reads the features (a decoder, a class head) share one pass.
    """

    def features(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(n, channels, height, width) to one tensor (n, ...), or several."""
        ...

    def score(self, features: Any, labels: Tensor | None = None) -> Tensor:
        """Map the output of `features`, and labels, to (n, ...) scores."""
        ...


@runtime_checkable
class ClassHead(FeatureCritic, Protocol):
    """A critic that also names classes (AC-GAN, arXiv 1610.09585)."""

    def class_logits(self, features: Any) -> Tensor:
        """Map the output of `features` to (n, classes) logits."""
        ...
