"""From the data table of an experiment to the images and labels that a training sees."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit, StratifiedShuffleSplit
from torch import Tensor
from torch.nn import functional as F

from gankit.errors import DataError
from gankit.experiments.tables import DataTable
from gankit.interfaces import Dataset, ImageSpec
from gankit.interfaces.dataset import View
from gankit.seeds import Order, number, source


@final
class Resized(View):
    """A data set at another size: antialiased bicubic, rounded and clipped to the range at the same depth."""

    def __init__(self, whole: Dataset, size: tuple[int, int]) -> None:
        super().__init__(whole)
        self.size = size

    @property
    def image(self) -> ImageSpec:
        """The data set's, at the new size."""
        return dataclasses.replace(self.whole.image, height=self.size[0], width=self.size[1])

    @cached_property
    def images(self) -> NDArray[Any]:
        """(n, channels, height, width) in the data set's type."""
        images = self.whole.images
        made = np.empty((len(images), self.image.channels, *self.size), images.dtype)
        for start in range(0, len(images), 256):
            made[start : start + 256] = self._resized(images[start : start + 256])
        return made

    def _resized(self, images: NDArray[Any]) -> NDArray[Any]:
        tensor = torch.from_numpy(images.astype(np.float32))
        tensor = F.interpolate(tensor, self.size, mode="bicubic", antialias=True).clamp(*self.value_range)
        return (tensor.round() if images.dtype.kind == "u" else tensor).numpy().astype(images.dtype)

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """(k,) indices to (k, c, h, w) images; memory-mapped ones are resized anew each time rather than kept."""
        if isinstance(self.whole.images, np.memmap):
            return self._resized(self.whole.rows(indices))
        return self.images[indices]

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """(k,) indices to (k, c, h, w) images, resized now and not kept."""
        return self._resized(self.whole.read(indices))

    def digest(self, indices: NDArray[np.int64] | None = None) -> str:
        """The whole's, of the rows with these indices or of all, with the size."""
        return hashlib.blake2b(f"{self.whole.digest(indices)} {self.size}".encode(), digest_size=16).hexdigest()


def open_dataset(table: DataTable) -> Dataset:
    """The data set that a table names, at the table's size, with everything in it.

    Raises:
        DataError: it is missing, broken, or cannot be made at this size.
    """
    dataset: Dataset = table.part.build(table.height_width)
    return at_size(dataset, table.height_width)


def at_size(dataset: Dataset, size: tuple[int, int] | None) -> Dataset:
    """The data set, resized where it has another size."""
    if size is None or (dataset.image.height, dataset.image.width) == size:
        return dataset
    return Resized(dataset, size)


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
    """Choose and check the training images: split, held-out, agreement, subset, labels.

    The held-out images are drawn before the filters of the training part, so that they stay the same whatever
    agreement or subset is asked for.

    Args:
        table: the experiment's data table.
        seed: of the run; decides the held-out images and the subset where the table has no seeds for them.
        data: a data set of the calling program, in place of the one that the table names.

    Raises:
        DataError: what the table asks for is not in the data; one line with the setting at fault.
    """
    dataset = open_dataset(table) if data is None else at_size(data, table.height_width)
    seed = seed if table.split_seed is None else table.split_seed
    chosen = _split(dataset, table.split)
    chosen, held_out = _hold_out(dataset, chosen, table.held_out, seed)
    if table.min_agreement is not None:
        if dataset.agreement is None:
            raise DataError(f"data.min_agreement: {table.name} has no agreement of raters; leave it out")
        chosen = chosen[dataset.agreement[chosen] >= table.min_agreement - 1e-9]
    if table.subset is not None:
        if table.subset > len(chosen):
            raise DataError(f"data.subset: {table.subset} images asked for, {len(chosen)} are there")
        own_seed = seed if table.subset_seed is None else table.subset_seed
        chosen = chosen[random_subset(len(chosen), table.subset, own_seed)]
    if len(chosen) < 2:
        raise DataError(f"data: {len(chosen)} images of {table.name} are left to train on; at least 2 are needed")
    training = dataset if len(chosen) == len(dataset) else dataset.subset(chosen)
    if table.flip and training.mirror(np.zeros((1, *training.image.shape), np.uint8)) is None:
        raise DataError(f"data.flip: mirroring changes the label of {table.name}'s images; set data.flip=false")
    names = table.conditional if isinstance(table.conditional, list) else []
    if table.flip and (changed := sorted(training.changed_by_mirror.intersection(names))):
        raise DataError(f"data.flip: mirroring changes {', '.join(changed)} of {table.name}; set data.flip=false")
    own = _drawn(training, table, None)
    held = _drawn(dataset.subset(held_out), table, own) if len(held_out) else None
    return dataclasses.replace(own, held_out=held)


def random_subset(count: int, size: int, seed: int) -> NDArray[np.int64]:
    """(size,) rising places among `count` images, as `data.subset` draws them; a smaller draw is part of a larger."""
    return np.sort(torch.randperm(count, generator=source(seed, "subset")).numpy()[:size])


def _drawn(dataset: Dataset, table: DataTable, training: TrainingData | None) -> TrainingData:
    """Some images as a training draws them; float conditions are on the scale of the training images."""
    image, labels, mean, scale = _labels(dataset, table, training)
    return TrainingData(dataset, None, image, labels, _probabilities(dataset, table), mean, scale)


def _split(dataset: Dataset, name: str | None) -> NDArray[np.int64]:
    splits = dataset.splits
    if name is None and "train" in splits:
        return np.asarray(splits["train"])
    if name is None or name == "all":
        return np.arange(len(dataset))
    if name not in splits:
        known = ", ".join(["all", *splits])
        raise DataError(f"data.split: there is no split {name!r} in this data set; known: {known}")
    return np.asarray(splits[name])


def _hold_out(
    dataset: Dataset, chosen: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if not share:
        return chosen, np.empty(0, np.int64)
    state = number(seed, "held-out") % 2**32
    if dataset.groups is not None and len(np.unique(dataset.groups[chosen])) == 1:
        raise DataError(
            f"data.held_out: all {len(chosen)} images are of one group (patient), which is never divided; correct the "
            "groups of the data, or set data.held_out=0"
        )
    try:
        if dataset.groups is not None:
            splitter = GroupShuffleSplit(1, test_size=share, random_state=state)
            kept, held = next(splitter.split(chosen, groups=dataset.groups[chosen]))
        else:
            labels = np.zeros(len(chosen)) if dataset.labels is None else dataset.labels[chosen]
            kept, held = next(StratifiedShuffleSplit(1, test_size=share, random_state=state).split(chosen, labels))
    except ValueError as error:
        raise DataError(f"data.held_out: {len(chosen)} images cannot be divided so: {error}") from error
    return chosen[np.sort(kept)], chosen[np.sort(held)]


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
