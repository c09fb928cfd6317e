"""Adaptive discriminator augmentation for gankit (Karras et al. 2020, arXiv 2006.06676)."""

from gankit_adaptive_augment.adaptive import AdaptiveAugment, TakesProbability
from gankit_adaptive_augment.recipe import adaptive_table
from gankit_adaptive_augment.transforms import Transforms

__all__ = ["AdaptiveAugment", "TakesProbability", "Transforms", "adaptive_table"]
