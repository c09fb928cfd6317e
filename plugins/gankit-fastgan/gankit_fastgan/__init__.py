"""FastGAN for gankit: the light generator and critic of Liu et al. 2021 (arXiv 2101.04775), for few images."""

from gankit_fastgan.critic import FastGANCritic
from gankit_fastgan.generator import FastGANGenerator
from gankit_fastgan.hinge import FastGANHinge
from gankit_fastgan.reconstruction import Reconstruction, Reconstructs

__all__ = ["FastGANCritic", "FastGANGenerator", "FastGANHinge", "Reconstruction", "Reconstructs"]
