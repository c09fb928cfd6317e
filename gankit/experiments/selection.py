"""The training images and the held-out images that the data table of an experiment selects."""

import dataclasses
import hashlib
import math
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from gankit import seeds
from gankit.errors import DataError, counted
from gankit.experiments.tables import DataTable
from gankit.images.room import too_many
from gankit.interfaces import Dataset, ImageSpec
from gankit.interfaces.dataset import View
from gankit.registry.messages import shown

MAX_VALUES_PER_BLOCK = 2**26
"""The most pixel values that `Resized.images` takes or makes at a time, 256 MB in float32."""


def is_agreed(agreement: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Whether at least `share` of each image's raters agree; `agreement` holds the (n,) shares that do."""
    return agreement >= share - 1e-9  # 7 of 10 votes may fall short of 0.7 by rounding


def select_images(table: DataTable, seed: int, data: Dataset | None = None) -> tuple[Dataset, Dataset | None]:
    """The training images that a data table selects, and the held-out images, or None where it holds none out.

    Images are held out before `min_agreement` and `subset` apply, so that these two settings do not change which images
    are held out.

    Args:
        table: the experiment's data table.
        seed: of the run. `split_seed`, which decides the held-out images, defaults to it; `subset_seed`, which decides
            the subset, defaults to `split_seed`.
        data: a data set of the calling program, in place of the one that the table names.

    Raises:
        DataError: what the table asks for is not in the data; one line that names the setting.
    """
    dataset = open_dataset(table, data)
    if table.size is None:
        _ = dataset.stored_sizes  # raises for pictures of several sizes, before a network is built for the first one's
    if table.flip:
        _refuse_flip(table, dataset)
    split_seed = seed if table.split_seed is None else table.split_seed
    indices, held_out = _hold_out(dataset, split_indices(dataset, table.split), table.held_out, split_seed)
    if table.min_agreement is not None:
        if dataset.agreement is None:
            raise DataError("data.min_agreement: the data set does not record how many raters agreed; remove it")
        indices = indices[is_agreed(dataset.agreement[indices], table.min_agreement)]
    if table.subset is not None:
        if table.subset > len(indices):
            raise DataError(f"data.subset: {table.subset} images are asked for, and there are {len(indices)}")
        subset_seed = split_seed if table.subset_seed is None else table.subset_seed
        indices = indices[random_subset(len(indices), table.subset, subset_seed)]
    if len(indices) < 2:
        raise DataError(f"data: {counted(len(indices), 'image')} left to train on; at least 2 are needed")
    training = dataset if len(indices) == len(dataset) else dataset.subset(indices)
    return training, dataset.subset(held_out) if len(held_out) else None


def _refuse_flip(table: DataTable, dataset: Dataset) -> None:
    """Refuse to flip images where the mirror image would have another label or condition."""
    blank = np.zeros((1, *dataset.image.shape), np.uint8)  # only to ask whether the data set can be mirrored
    if dataset.mirror(blank) is None:
        raise DataError("data.flip: mirroring changes the label of the images; set data.flip=false")
    conditions = table.conditional if isinstance(table.conditional, list) else []
    if changed := sorted(dataset.changed_by_mirror.intersection(conditions)):
        raise DataError(f"data.flip: mirroring changes {', '.join(changed)}; set data.flip=false")


def random_subset(count: int, size: int, seed: int, stream: str = "subset", *index: int) -> NDArray[np.int64]:
    """(size,) sorted indices of some of `count` images; with the same seed a larger subset contains a smaller one.

    Subsets of other names of `stream`, or other numbers `index`, are independent.
    """
    return np.sort(torch.randperm(count, generator=seeds.generator(seed, stream, *index)).numpy()[:size])


@final
class Resized(View):
    """A data set at another size: bicubic with antialiasing, clipped to the value range, in the data set's type."""

    def __init__(self, whole: Dataset, size: tuple[int, int]) -> None:
        super().__init__(whole)
        self.size = size

    @property
    def image(self) -> ImageSpec:
        """The data set's image specification, with the new height and width."""
        return dataclasses.replace(self.whole.image, height=self.size[0], width=self.size[1])

    @cached_property
    def images(self) -> NDArray[Any]:
        """(n, channels, height, width) in the data set's type; raises DataError if the memory is too small for them."""
        images = self.whole.images
        if reason := too_many(len(images), self.image.shape, images.dtype.itemsize):
            raise DataError(f"data.size: {reason}")
        result = np.empty((len(images), self.image.channels, *self.size), images.dtype)
        values = max(math.prod(self.whole.image.shape), math.prod(self.image.shape))
        block = max(min(256, MAX_VALUES_PER_BLOCK // values), 1)
        for start in range(0, len(images), block):
            result[start : start + block] = self._resize(images[start : start + block])
        return result

    def _resize(self, images: NDArray[Any]) -> NDArray[Any]:
        tensor = torch.from_numpy(images.astype(np.float32))
        tensor = F.interpolate(tensor, self.size, mode="bicubic", antialias=True).clamp(*self.value_range)
        return (tensor.round() if images.dtype.kind == "u" else tensor).numpy().astype(images.dtype)

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """(k,) indices to (k, c, h, w) images; memory-mapped ones are resized each time and not kept."""
        if isinstance(self.whole.images, np.memmap):
            return self._resize(self.whole.rows(indices))
        return self.images[indices]

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """(k,) indices to (k, c, h, w) images, resized now and not kept."""
        return self._resize(self.whole.read(indices))

    def digest(self, indices: NDArray[np.int64] | None = None) -> str:
        """A hash of the new size and the data set's digest of the images at (k,) indices; None means all images."""
        return hashlib.blake2b(f"{self.whole.digest(indices)} {self.size}".encode(), digest_size=16).hexdigest()


def open_dataset(table: DataTable, data: Dataset | None = None) -> Dataset:
    """The data set that a table names, or `data` in place of it, at the table's size, with all its images.

    Raises DataError if it is missing or broken, cannot be made at this size, or has labels that do not fit its images.
    """
    size = table.height_width
    dataset: Dataset = table.part.build(size) if data is None else data
    _check_known(dataset)
    return dataset if size in (None, (dataset.image.height, dataset.image.width)) else Resized(dataset, size)


def _check_known(dataset: Dataset) -> None:
    """Refuse labels, groups and agreement that do not fit the images; a program or a plug-in may give such ones."""
    n, classes, known = len(dataset), dataset.image.classes, dataset.known
    for name, values in (("labels", known.labels), ("groups", known.groups), ("agreement", known.agreement)):
        if values is not None and (not isinstance(values, np.ndarray) or len(values) != n):
            form = f"of shape {values.shape}" if isinstance(values, np.ndarray) else f"a {type(values).__name__}"
            raise DataError(f"data: {name} must be an array with one row for each of {n} images, and is {form}")
    labels = known.labels
    if labels is None or labels.ndim > 1 or not classes or not n:
        return
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"data: labels are {labels.dtype} from {labels.min()} to {labels.max()}; the data set must give whole "
            f"numbers from 0 to {classes - 1}, for its {classes} classes"
        )
    if len(known.class_names) < classes:
        raise DataError(f"data: there are {len(known.class_names)} class names for {classes} classes: name each class")


def split_indices(dataset: Dataset, name: str | None) -> NDArray[np.int64]:
    """(k,) indices of a split's images. "all" selects every image; None selects "train" if it exists, else every image.

    Raises DataError for a split that is not there, or does not hold indices.
    """
    splits = dataset.splits
    if name is None and "train" in splits:
        name = "train"
    if name is None or name == "all":
        return np.arange(len(dataset))
    if name not in (known := ["all", *splits]):
        raise DataError(f"data.split: there is no split {shown(name)} in this data set; known: {', '.join(known)}")
    indices = np.asarray(splits[name])
    if indices.size and indices.dtype.kind not in "iu":  # a mask of booleans would stand for the images 0 and 1
        raise DataError(f"data.split: the split {name} must be (k,) indices of images, not {indices.dtype}")
    return indices.astype(np.int64)


def _hold_out(
    dataset: Dataset, indices: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The indices to train on and those held out: whole groups where there are groups, else a share of each class."""
    if not share:
        return indices, np.empty(0, np.int64)
    if dataset.groups is not None and len(np.unique(dataset.groups[indices])) == 1:
        raise DataError(
            f"data.held_out: all {len(indices)} images are of one group (patient), which is never divided; correct the "
            "groups of the data, or set data.held_out=0"
        )
    # Imported here, since this takes a second.
    from sklearn.model_selection import GroupShuffleSplit, StratifiedShuffleSplit

    state = seeds.derive_seed(seed, "held-out") % 2**32
    try:
        if dataset.groups is not None:
            groups = dataset.groups[indices]
            splits = GroupShuffleSplit(1, test_size=share, random_state=state).split(indices, groups=groups)
        else:
            labels = np.zeros(len(indices)) if dataset.labels is None else dataset.labels[indices]
            splits = StratifiedShuffleSplit(1, test_size=share, random_state=state).split(indices, labels)
        training, held_out = next(splits)
    except ValueError as error:
        raise DataError(
            f"data.held_out: {counted(len(indices), 'image')} cannot be divided so that both parts have images of "
            "every class, or whole patients; set another share, or merge rare classes"
        ) from error
    return indices[np.sort(training)], indices[np.sort(held_out)]
