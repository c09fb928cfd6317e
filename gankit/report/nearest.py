"""A picture of samples, with the nearest training image below each."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import from_numpy
from torch.nn.functional import adaptive_avg_pool2d

from gankit.images.pictures import pairs_png, to_8bit
from gankit.interfaces import Dataset

SIDE = 16
"""Pixels of a side at which images are compared, so that fine noise does not decide."""
MOST = 20_000
"""The most training images that are looked at, evenly spread over a larger set."""
BATCH = 512
"""Training images that are read at a time."""


def nearest_png(samples: NDArray[Any], value_range: tuple[float, float], training: Dataset) -> tuple[bytes, int]:
    """A picture of two rows, and how many training images were looked at.

    Args:
        samples: (n, c, h, w), the upper row.
        value_range: black and white of the samples.
        training: of which the lower row shows the image nearest to each sample, by the mean squared difference of both
            at 16 x 16 pixels.
    """
    places = np.linspace(0, len(training) - 1, min(len(training), MOST)).astype(int)
    batches = (places[start : start + BATCH] for start in range(0, len(places), BATCH))
    small = np.concatenate([_small(training.read(batch), training.value_range) for batch in batches])
    nearest = places[cdist(_small(samples, value_range), small, "sqeuclidean").argmin(1)]
    return pairs_png(samples, value_range, training.read(nearest), training.value_range), len(places)


def _small(images: NDArray[Any], value_range: tuple[float, float]) -> NDArray[np.float32]:
    """(n, c, h, w) images of any type as (n, c * 256) values from 0 to 255."""
    pixels = from_numpy(to_8bit(images, value_range).astype(np.float32))
    small: NDArray[np.float32] = adaptive_avg_pool2d(pixels, SIDE).flatten(1).numpy()
    return small
