"""The abstract parts of a GAN and what they exchange: all that a part must import."""

from __future__ import annotations

from gankit.images.spec import ImageSpec
from gankit.interfaces.dataset import Dataset, Images
from gankit.interfaces.features import Features
from gankit.interfaces.measurement import Measurement, MeasuresFacts
from gankit.interfaces.metric import Batch, Indices, Metric, Moments, Pool, Resampling, Rows
from gankit.interfaces.networks import ClassHead, Critic, FeatureCritic, Generator, LatentMapping
from gankit.interfaces.turn import Augment, Loss, Random, Scope, Side, Turn

__all__ = [
    "Augment", "Batch", "ClassHead", "Critic", "Dataset", "FeatureCritic", "Features", "Generator", "ImageSpec",
    "Images", "Indices", "LatentMapping", "Loss", "Measurement", "MeasuresFacts", "Metric", "Moments",
    "Pool", "Random", "Resampling", "Rows", "Scope", "Side", "Turn",
]  # fmt: skip
