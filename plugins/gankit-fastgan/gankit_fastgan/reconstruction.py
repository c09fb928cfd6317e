"""Self-supervision of the critic (Liu et al. 2021, FastGAN, arXiv 2101.04775, section 3.2, equation 2)."""

from __future__ import annotations

from typing import Any, Protocol, final, runtime_checkable

from gankit.interfaces import FeatureCritic, Loss, Turn
from torch import Tensor


@runtime_checkable
class Reconstructs(FeatureCritic, Protocol):
    """A critic that can turn its inner features into images."""

    def reconstruct(self, features: Any, corners: Tensor) -> tuple[Tensor, ...]:
        """The result of `features`, and (n, 2) positions in [0, 1), to one or several images (n, c, h, w)."""
        ...

    def shown(self, images: Tensor, corners: Tensor) -> tuple[Tensor, ...]:
        """(n, c, height, width) images, and the same positions, to the images that `reconstruct` should give."""
        ...


@final
class Reconstruction(Loss):
    """The critic's features must suffice to reconstruct the reals that it sees: the whole image, and a crop of each.

    Fakes are not reconstructed, and the generator has no such term. Equation 2 does not say which norm it means; here
    it is the mean absolute difference of pixels. Published trainings use a perceptual distance (LPIPS, arXiv
    1801.03924), whose weights are a separate download.
    """

    capturable = True
    needs = (Reconstructs,)

    def critic(self, turn: Turn) -> Tensor:
        """Mean absolute difference, summed over the critic's reconstructions; a scalar."""
        assert isinstance(turn.critic, Reconstructs)
        corners = turn.random.uniform(len(turn.real), 2)
        outputs = turn.critic.reconstruct(turn.real_features, corners)
        targets = turn.critic.shown(turn.real, corners)
        differences = [(a - b).abs().mean() for a, b in zip(outputs, targets, strict=True)]
        return sum(differences[1:], differences[0])
