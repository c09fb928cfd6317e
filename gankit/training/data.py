"""From the data table of an experiment to the images and labels that a training sees."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gankit.errors import DataError
from gankit.experiments.selection import select_images
from gankit.experiments.tables import DataTable
from gankit.interfaces import Dataset, ImageSpec
from gankit.seeds import Order


@dataclass(frozen=True)
class TrainingData:
    """What a training draws from.

    Attributes:
        dataset: the training images.
        held_out: the images kept from training, or None; their labels are those of training.
        image: what networks must make, with classes or conditions where they are conditional.
        labels: None, (n,) int64 classes, or (n, k) float32 standardised conditions.
        probabilities: (n,) chance of each image to be drawn, or None for plain epochs.
        condition_mean: mean of each float condition.
        condition_scale: standard deviation of each float condition.
    """

    dataset: Dataset
    held_out: TrainingData | None
    image: ImageSpec
    labels: Tensor | None
    probabilities: NDArray[np.float64] | None
    condition_mean: list[float]
    condition_scale: list[float]

    @property
    def value_range(self) -> tuple[float, float]:
        """Black and white of the images."""
        return self.dataset.value_range

    def order(self, seed: int, stream: str) -> Order:
        """Which images each batch of a stream holds."""
        return Order(seed, stream, len(self.dataset), self.probabilities)

    def batch(self, indices: NDArray[np.int64], like: Tensor, mirrored: Tensor | None = None) -> Tensor:
        """(len(indices), c, h, w) images in [-1, 1] on the device and in the type of `like`.

        Args:
            indices: which images.
            like: any tensor of the device and type.
            mirrored: (len(indices),) bool, which of them to show mirrored; None for none.
        """
        rows = self.dataset.rows(indices)
        raw = torch.from_numpy(rows.astype(np.int32) if rows.dtype == np.uint16 else rows).to(like.device)
        if mirrored is not None:
            mirror = self.dataset.mirror(raw)
            if mirror is not None:
                raw = torch.where(mirrored.to(like.device)[:, None, None, None], mirror, raw)
        low, high = self.value_range
        images = raw.to(like.dtype).sub_(low).mul_(2 / (high - low)).sub_(1)
        return images.contiguous(memory_format=torch.channels_last)


def prepare(table: DataTable, seed: int, data: Dataset | None = None) -> TrainingData:
    """The images that a data table selects, with the labels and the chances with which a training draws them.

    Args:
        table: the experiment's data table.
        seed: of the run, as for `select_images`.
        data: a data set of the calling program, in place of the one that the table names.

    Raises:
        DataError: what the table asks for is not in the data; one line with the setting at fault.
    """
    training, held_out = select_images(table, seed, data)
    own = _drawn(training, table, None)
    return own if held_out is None else dataclasses.replace(own, held_out=_drawn(held_out, table, own))


def _drawn(dataset: Dataset, table: DataTable, training: TrainingData | None) -> TrainingData:
    """Some images as a training draws them; float conditions are on the scale of the training images."""
    image, labels, mean, scale = _labels(dataset, table, training)
    return TrainingData(dataset, None, image, labels, _probabilities(dataset, table), mean, scale)


def _labels(
    dataset: Dataset, table: DataTable, training: TrainingData | None
) -> tuple[ImageSpec, Tensor | None, list[float], list[float]]:
    image = dataclasses.replace(dataset.image, classes=0, conditions=0)
    if table.conditional is False or table.conditional == []:
        return image, None, [], []
    if table.conditional is True:
        if dataset.labels is None or not dataset.image.classes:
            raise DataError(f"data.conditional: {table.name} has no labels; set data.conditional=false, or add labels")
        labels = torch.from_numpy(np.array(dataset.labels, dtype=np.int64))
        return dataclasses.replace(image, classes=dataset.image.classes), labels, [], []
    columns = np.stack([_numbers(dataset, table, "conditional", name) for name in table.conditional], 1)
    if not np.isfinite(columns).all():
        raise DataError(f"data.conditional: {', '.join(table.conditional)} has missing values")
    mean, scale = columns.mean(0), columns.std(0)
    scale[scale == 0] = 1.0
    if training is not None:
        mean, scale = np.array(training.condition_mean), np.array(training.condition_scale)
    conditions = torch.from_numpy(((columns - mean) / scale).astype(np.float32))
    return dataclasses.replace(image, conditions=columns.shape[1]), conditions, mean.tolist(), scale.tolist()


def _numbers(dataset: Dataset, table: DataTable, key: str, name: str) -> NDArray[np.float64]:
    """(n,) a fact of the images, or the raters' agreement, that a key of the table names."""
    known = dict(dataset.facts)
    if dataset.agreement is not None:
        known["agreement"] = dataset.agreement
    numeric = [fact for fact, values in known.items() if values.ndim == 1 and values.dtype.kind in "biuf"]
    if name not in numeric:
        found = ", ".join(numeric) or "none"
        raise DataError(f"data.{key}: {table.name} has no number {name!r} an image; known: {found}")
    return known[name].astype(np.float64)


def _probabilities(dataset: Dataset, table: DataTable) -> NDArray[np.float64] | None:
    if not table.balance and table.weights is None:
        return None
    weights = np.ones(len(dataset)) if table.weights is None else _weights(dataset, table, table.weights)
    if table.balance:
        if dataset.labels is None:
            raise DataError(f"data.balance: {table.name} has no labels to balance; set data.balance=0")
        sums = np.bincount(dataset.labels, weights)
        for label in np.unique(dataset.labels):
            if not sums[label]:
                raise DataError(
                    f"data.weights: every image of class {dataset.class_names[label]} has {table.weights} 0, so that "
                    "data.balance cannot draw it; set data.balance=0, or choose other weights"
                )
        # Of the classes' sums, so that balance=1 draws them equally often whatever their weights.
        weights = weights * sums[dataset.labels] ** -table.balance
    return np.asarray(weights / weights.sum())


def _weights(dataset: Dataset, table: DataTable, name: str) -> NDArray[np.float64]:
    weights = _numbers(dataset, table, "weights", name)
    unusable = ~(np.isfinite(weights) & (weights >= 0))
    if unusable.any():
        raise DataError(
            f"data.weights: {name} is missing, infinite or below 0 in {unusable.sum()} of {len(weights)} images of "
            f"{table.name}; weights are numbers from 0 up"
        )
    if not weights.any():
        raise DataError(f"data.weights: {name} is 0 in all {len(weights)} images of {table.name}")
    return weights
