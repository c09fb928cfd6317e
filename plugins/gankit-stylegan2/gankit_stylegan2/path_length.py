"""Path length regularisation (Karras et al. 2020, arXiv 1912.04958, section 3.2, equation 4)."""

from __future__ import annotations

from typing import Annotated, Protocol, final, runtime_checkable

import torch
from annotated_types import Gt, Le
from gankit.interfaces import Loss, Turn
from gankit.nn.gradients import without_autocast
from torch import Tensor, nn


@runtime_checkable
class MapsLatents(Protocol):
    """A generator that maps latents to styles, and makes images from a style for each of its layers.

    Attributes:
        style_layers: the number of its layers.
    """

    style_layers: int

    def mapping(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, latent_dim) latents and labels to (n, style_dim) styles."""
        ...

    def synthesis(self, styles: Tensor) -> Tensor:
        """(n, style_layers, style_dim) to (n, channels, height, width) in [-1, 1]."""
        ...


@final
class PathLength(nn.Module, Loss):
    """A step of a style should change the image by the same amount wherever it starts and wherever it goes.

    Equation 4: E (|J^T y| - a)^2, where J are the derivatives of the image by the style, y is an image of normal
    noise, and a follows the mean of |J^T y|. The noise has variance 1 / (height * width), and the squared length is a
    mean over the layers that take the style. The default weight, 2, is that of published configurations, which take
    the loss on every fourth update: `every = 4`.

    Args:
        rate: how fast a follows the lengths of each batch.
    """

    capturable = True
    needs = (MapsLatents,)
    default_weight = 2.0
    mean_length: Tensor

    def __init__(self, *, rate: Annotated[float, Gt(0), Le(1)] = 0.01) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("mean_length", torch.zeros(()))

    def generator(self, turn: Turn) -> Tensor:
        """Mean squared difference of the lengths from their running mean before this update; a scalar."""
        assert isinstance(turn.generator, MapsLatents)
        with without_autocast(turn.latents.device):  # half precision is too coarse for gradients
            lengths = path_lengths(turn.generator, turn)
        penalty = (lengths - self.mean_length).square().mean()
        mean = turn.average(lengths.detach().mean())
        self.mean_length.lerp_(mean.to(self.mean_length), self.rate)
        turn.log("path_length", mean)
        return penalty


def path_lengths(generator: MapsLatents, turn: Turn) -> Tensor:
    """(n,) |J^T y| at the latents and labels of a turn, with a graph."""
    style = generator.mapping(turn.latents, turn.labels)
    styles = style[:, None].expand(-1, generator.style_layers, -1)
    if not styles.requires_grad:  # nothing in the mapping is trained
        styles.requires_grad_()
    images = generator.synthesis(styles)
    noise = turn.random.normal(*images.shape) * (images.shape[2] * images.shape[3]) ** -0.5
    (gradient,) = torch.autograd.grad((images * noise).sum(), styles, create_graph=True)
    lengths: Tensor = torch.linalg.vector_norm(gradient, dim=(1, 2)) * generator.style_layers**-0.5
    return lengths
