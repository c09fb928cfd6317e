"""Noise inputs of a generator (Karras et al. 2019, StyleGAN, arXiv 1812.04948, section 2)."""

import torch
from torch import Tensor, nn


class Noise(nn.Module):
    """Adds one map of normal noise to all channels, times a learned factor that starts at 0.

    In training every sample gets a fresh map from torch's global generator. In evaluation all samples get the same
    one, drawn at construction and kept with the weights: an image then depends on its latent alone.

    Args:
        height: of the maps.
        width: of the maps.
    """

    fixed: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(()))
        self.register_buffer("fixed", torch.randn(1, 1, height, width))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, height, width) to the same."""
        noise = torch.randn_like(x[:, :1]) if self.training else self.fixed
        return x + self.factor * noise
