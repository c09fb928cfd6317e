"""StyleGAN2 for gankit: the networks and the path length regularisation of Karras et al. 2020 (arXiv 1912.04958)."""

from gankit_stylegan2.critic import StyleGAN2Critic
from gankit_stylegan2.generator import StyleGAN2Generator
from gankit_stylegan2.path_length import MapsLatents, PathLength

__all__ = ["MapsLatents", "PathLength", "StyleGAN2Critic", "StyleGAN2Generator"]
