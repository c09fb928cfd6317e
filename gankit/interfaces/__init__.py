"""The abstract parts of a GAN and what they exchange: everything that the author of a part needs to import."""

from typing import Any

from gankit.errors import PartError
from gankit.images.grey_levels import Images
from gankit.images.known import Known
from gankit.images.spec import ImageSpec
from gankit.interfaces.dataset import Dataset, Measurement, MeasuresFacts
from gankit.interfaces.decoded import DecodedDataset
from gankit.interfaces.features import Features
from gankit.interfaces.metric import OLD_STYLE_MESSAGE, Meaning, Metric, Resampling, Result
from gankit.interfaces.networks import ClassHead, Critic, FeatureCritic, Generator, Truncates
from gankit.interfaces.rows import Indices, Moments, Pool, Rows
from gankit.interfaces.turn import Augment, Loss, Random, Scope, Side, Turn

__all__ = [
    "Augment", "ClassHead", "Critic", "Dataset", "DecodedDataset", "FeatureCritic", "Features", "Generator",
    "ImageSpec", "Images", "Indices", "Known", "Loss", "Meaning",
    "Measurement", "MeasuresFacts", "Metric", "Moments", "Pool", "Random", "Resampling", "Result",
    "Rows", "Scope", "Side", "Truncates", "Turn",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "Batch":  # metrics of the older interface import it
        raise PartError(OLD_STYLE_MESSAGE)
    raise AttributeError(f"module 'gankit.interfaces' has no attribute {name!r}")
