"""The self-supervision of the critic of Liu et al. 2021 (FastGAN, arXiv 2101.04775, section 3.2, equation 2)."""

from __future__ import annotations

from typing import Any, Protocol, final, runtime_checkable

from gankit.interfaces import FeatureCritic, Loss, Turn
from torch import Tensor


@runtime_checkable
class Reconstructs(FeatureCritic, Protocol):
    """A critic that makes images of its inner features."""

    def reconstruct(self, features: Any, corners: Tensor) -> tuple[Tensor, ...]:
        """What `features` gave, and (n, 2) places in [0, 1), to images (n, c, h, w), one or several."""
        ...

    def shown(self, images: Tensor, corners: Tensor) -> tuple[Tensor, ...]:
        """(n, c, height, width) images, and the same places, to what `reconstruct` should give."""
        ...


@final
class Reconstruction(Loss):
    """The critic's features must suffice to draw the reals that it sees: the whole image, and a part of each.

    Fakes are not drawn, and the generator is not concerned. Equation 2 has a norm without saying which. Here it is the
    mean absolute difference of pixels. Published trainings take a perceptual distance (LPIPS, arXiv 1801.03924), whose
    weights are a download of their own.
    """

    needs = (Reconstructs,)

    def critic(self, turn: Turn) -> Tensor:
        """Mean absolute difference, summed over the critic's reconstructions; a scalar."""
        assert isinstance(turn.critic, Reconstructs)
        corners = turn.random.uniform(len(turn.real), 2)
        made = turn.critic.reconstruct(turn.real_features, corners)
        wanted = turn.critic.shown(turn.real, corners)
        differences = [(a - b).abs().mean() for a, b in zip(made, wanted, strict=True)]
        return sum(differences[1:], differences[0])
