"""The images and labels that a training sees, and how often it draws each image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gankit.errors import DataError
from gankit.experiments.selection import select_images
from gankit.experiments.tables import DataTable
from gankit.images.grey_levels import rescale
from gankit.interfaces import Dataset, ImageSpec
from gankit.registry.messages import shown
from gankit.seeds import Order
from gankit.training.pixels import Pixels, place

DTYPES = ("uint8", "uint16", "float32")
LARGEST = 1e100
"""Column values above this, and weights below 1 / this, must be mistakes: powers of larger ones overflow float64."""
ROUNDING = 1e-13
"""Values that differ by less, relative to their mean, are equal but for rounding."""


@dataclass(frozen=True)
class TrainingData:
    """The images of a training, their labels, and the probability with which each is drawn.

    Attributes:
        dataset: the images.
        held_out: the images kept from training, or None; their conditions are standardised like the training images'.
        image: specification of the images that networks make or see, with the classes or conditions of the training.
        labels: (n,) int64 classes, (n, k) float32 standardised conditions, or None.
        probabilities: (n,) probability of each image to be drawn, or None where each epoch shows every image once.
        condition_mean: mean of each of the k conditions in the training images.
        condition_scale: standard deviation of each of the k conditions in the training images.
    """

    dataset: Dataset
    held_out: TrainingData | None
    image: ImageSpec
    labels: Tensor | None
    probabilities: NDArray[np.float64] | None
    condition_mean: list[float]
    condition_scale: list[float]
    _placed: dict[torch.device, Pixels] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    def order(self, seed: int, stream: str) -> Order:
        """A random order of the images, from the stream of random numbers of this name."""
        return Order(seed, stream, len(self.dataset), self.probabilities)

    def pixels(self, device: torch.device) -> Pixels:
        """The images as a training on this device reads them."""
        if device not in self._placed:
            self._placed[device] = place(self.dataset, device)
        return self._placed[device]

    def batch(
        self,
        indices: NDArray[np.int64],
        like: Tensor,
        mirrored: Tensor | None = None,
        next_indices: Callable[[], NDArray[np.int64]] | None = None,
    ) -> Tensor:
        """(k, c, h, w) images in [-1, 1] on the device and in the type of `like`.

        Args:
            indices: (k,) which images.
            like: a tensor of any shape.
            mirrored: (k,) bool, which of them to show mirrored; None for none.
            next_indices: returns the indices of the next call, to read ahead; None if they are not known.
        """
        # Where the next indices are unknown, the same ones are given again, so that no others are read ahead.
        pixels = self.pixels(like.device).rows(indices, next_indices or (lambda: indices))
        # `mirror` gives None where mirroring would change a label.
        if mirrored is not None and (flipped := self.dataset.mirror(pixels)) is not None:
            pixels = torch.where(mirrored.to(like.device)[:, None, None, None], flipped, pixels)
        return rescale(pixels.to(like.dtype), self.dataset.value_range, (-1.0, 1.0)).contiguous()


def prepare(table: DataTable, seed: int, data: Dataset | None = None) -> TrainingData:
    """Select the images of a data table, encode their labels and compute the probability of each to be drawn.

    Args:
        table: the experiment's data table.
        seed: of the run, as for `select_images`.
        data: a data set of the calling program, in place of the one that the table names.

    Raises:
        DataError: what the table asks for is not in the data; one line that names the setting.
    """
    training_images, held_out_images = select_images(table, seed, data)
    if str(dtype := training_images.dtype) not in DTYPES:
        raise DataError(f"data: images are {dtype}; the data set must give {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")
    training = _training_data(training_images, table, None)
    if held_out_images is None:
        return training
    return dataclasses.replace(training, held_out=_training_data(held_out_images, table, training))


def _training_data(dataset: Dataset, table: DataTable, training: TrainingData | None) -> TrainingData:
    """Images with encoded labels and probabilities; held-out images take mean and scale from `training`."""
    image = dataclasses.replace(dataset.image, classes=0, conditions=0)
    labels, mean, scale = None, np.empty(0), np.empty(0)
    if table.conditional is True:
        if dataset.labels is None or not dataset.image.classes:
            raise DataError("data.conditional: the data have no labels; set data.conditional=false, or add labels")
        labels = torch.from_numpy(np.array(dataset.labels, dtype=np.int64))
        image = dataclasses.replace(image, classes=dataset.image.classes)
    elif table.conditional:
        columns = np.stack([_numeric_column(dataset, "conditional", name) for name in table.conditional], 1)
        if not np.isfinite(columns).all():
            raise DataError(f"data.conditional: {', '.join(table.conditional)} has missing values")
        if training is None:
            mean, scale = columns.mean(0), columns.std(0)
            # A constant column: its deviation is mere rounding, and dividing by it would blow that up.
            scale[scale <= ROUNDING * np.abs(mean)] = 1.0
        else:
            mean, scale = np.array(training.condition_mean), np.array(training.condition_scale)
        labels = torch.from_numpy(((columns - mean) / scale).astype(np.float32))
        image = dataclasses.replace(image, conditions=columns.shape[1])
    return TrainingData(dataset, None, image, labels, _probabilities(dataset, table), mean.tolist(), scale.tolist())


def _numeric_column(dataset: Dataset, key: str, name: str) -> NDArray[np.float64]:
    """The numeric column `name`, a fact or "agreement", as (n,) numbers; errors name the setting `key` of [data]."""
    columns = dict(dataset.facts)
    if dataset.agreement is not None:
        columns["agreement"] = dataset.agreement
    numeric = [column for column, values in columns.items() if values.ndim == 1 and values.dtype.kind in "biuf"]
    if name not in numeric:
        raise DataError(
            f"data.{key}: the data have no numeric column {shown(name)}; they have: {', '.join(numeric) or 'none'}"
        )
    values = columns[name].astype(np.float64)
    if len(values) != len(dataset):
        raise DataError(f"data.{key}: {name} has {len(values)} values for {len(dataset)} images")
    if (np.abs(values[np.isfinite(values)]) > LARGEST).any():
        raise DataError(f"data.{key}: {name} has values beyond {LARGEST:g}, too large to compute with")
    return values


def _probabilities(dataset: Dataset, table: DataTable) -> NDArray[np.float64] | None:
    """(n,) probability of each image to be drawn, by `balance` and `weights`; None where neither is set."""
    if not table.balance and table.weights is None:
        return None
    weights = np.ones(len(dataset)) if table.weights is None else _weights(dataset, table.weights)
    if table.balance:
        if dataset.labels is None:
            raise DataError("data.balance: the data have no labels to balance; set data.balance=0")
        sums = np.bincount(dataset.labels, weights)
        for label in np.unique(dataset.labels):
            if not sums[label]:
                raise DataError(
                    f"data.weights: every image of class {dataset.class_names[label]} has {table.weights} = 0, so that "
                    "data.balance cannot draw it; set data.balance=0, or choose other weights"
                )
        # `balance` is an exponent: 1 draws all classes equally often, whatever the weights; 0 leaves weights alone.
        weights = weights * sums[dataset.labels] ** -table.balance
    return np.asarray(weights / weights.sum())


def _weights(dataset: Dataset, name: str) -> NDArray[np.float64]:
    """(n,) sampling weights: the column of this name; refuses values that cannot be weights."""
    weights = _numeric_column(dataset, "weights", name)
    unusable = ~(np.isfinite(weights) & ((weights == 0) | (weights > 1 / LARGEST)))
    if unusable.any():
        raise DataError(
            f"data.weights: {name} is missing, infinite or below 0 in {unusable.sum()} of {len(weights)} images; "
            f"weights are 0, or numbers above {1 / LARGEST:g}"
        )
    if not weights.any():
        raise DataError(f"data.weights: {name} is 0 in all {len(weights)} images")
    return weights
