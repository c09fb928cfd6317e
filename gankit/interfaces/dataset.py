"""Images and what is known of them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gankit.images.spec import ImageSpec

Images = TypeVar("Images", NDArray[Any], Tensor)


def content_digest(
    read: Callable[[NDArray[np.int64]], NDArray[Any]],
    indices: NDArray[np.int64],
    dtype: np.dtype[Any],
    value_range: tuple[float, float],
) -> str:
    """A hash of images (n, c, h, w) that `read` gives, some at a time."""
    digest = hashlib.blake2b(repr((len(indices), str(dtype), tuple(map(float, value_range)))).encode(), digest_size=16)
    for start in range(0, len(indices), 256):
        images = np.ascontiguousarray(read(indices[start : start + 256]))
        digest.update(repr(images.shape[1:]).encode())
        digest.update(images.data)
    return digest.hexdigest()


def left_right(images: Images) -> Images:
    """(..., width) array or tensor with left and right exchanged, on its own device; a copy."""
    return images.flip(-1) if isinstance(images, Tensor) else images[..., ::-1].copy()


class Dataset(ABC):
    """Images with what is known of them, as NumPy arrays that are loaded or rendered at first use.

    Arrays have one row an image; images are channels first. `image` is known without loading pixels.
    """

    @property
    @abstractmethod
    def image(self) -> ImageSpec:
        """Channels, height, width and number of classes; `conditions` is 0."""

    @property
    @abstractmethod
    def images(self) -> NDArray[Any]:
        """(n, channels, height, width) uint8, uint16 or float32 within `value_range`; may be memory-mapped."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of `images`."""
        return self.images.dtype

    @property
    def value_range(self) -> tuple[float, float]:
        """The values that stand for black and white; by default the whole range of the integer type."""
        if self.dtype.kind != "u":
            raise NotImplementedError(f"{type(self).__name__} has {self.dtype} images and no value_range")
        return 0.0, float(np.iinfo(self.dtype).max)

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The images with these indices, copied; of memory-mapped images nothing else is read."""
        rows: NDArray[Any] = np.asarray(self.images[indices])
        return rows

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The images with these indices, for a single pass over them: what need not be kept is not."""
        return self.rows(indices)

    def digest(self, indices: NDArray[np.int64] | None = None) -> str:
        """A hash of the content of these images, or of all, with their type and range: equal for equal images."""
        places = np.arange(len(self)) if indices is None else indices
        return content_digest(self.read, places, self.dtype, self.value_range)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(n,) classes from 0 to `image.classes` - 1, or None."""
        return None

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name a class."""
        return tuple(str(label) for label in range(self.image.classes))

    @property
    def groups(self) -> NDArray[Any] | None:
        """(n,) group of each image (patient, photograph): a group is never split between training and held-out."""
        return None

    @property
    def agreement(self) -> NDArray[np.float64] | None:
        """(n,) share of raters, in [0, 1], whose call equals the label."""
        return None

    @property
    def facts(self) -> Mapping[str, NDArray[Any]]:
        """Whatever else is known of each image, one array a name; numeric ones can serve as float conditions."""
        return {}

    @property
    def splits(self) -> Mapping[str, NDArray[np.int64]]:
        """Indices of the images of each named split ("train", "val", "test"); empty where there are none."""
        return {}

    def mirror(self, images: Images) -> Images | None:
        """The mirror image that keeps the label, or None where mirroring changes it.

        Args:
            images: (n, channels, height, width) array or tensor of this data set's layout, any dtype.
        """
        return left_right(images)

    @property
    def changed_by_mirror(self) -> frozenset[str]:
        """The names in `facts` whose values the mirror image does not share."""
        return frozenset()

    def __len__(self) -> int:
        labels = self.labels
        return len(self.images if labels is None else labels)

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> Dataset:
        """The images with the given indices, in that order, with all that is known of them."""
        return _Subset(self, np.asarray(indices, dtype=np.int64))


class View(Dataset):
    """Another data set seen in part or changed: whatever a view does not say otherwise is the whole's.

    Attributes:
        whole: the data set that is seen.
    """

    def __init__(self, whole: Dataset) -> None:
        self.whole = whole

    @abstractmethod
    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The view's images with these indices; of memory-mapped images nothing else is read."""

    @abstractmethod
    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The view's images with these indices, for a single pass over them."""

    @abstractmethod
    def digest(self, indices: NDArray[np.int64] | None = None) -> str:
        """A hash of the view's images with these indices, or of all."""

    @property
    def image(self) -> ImageSpec:
        """The whole's."""
        return self.whole.image

    @property
    def dtype(self) -> np.dtype[Any]:
        """The whole's."""
        return self.whole.dtype

    @property
    def value_range(self) -> tuple[float, float]:
        """The whole's."""
        return self.whole.value_range

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The whole's."""
        return self.whole.labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """The whole's."""
        return self.whole.class_names

    @property
    def groups(self) -> NDArray[Any] | None:
        """The whole's."""
        return self.whole.groups

    @property
    def agreement(self) -> NDArray[np.float64] | None:
        """The whole's."""
        return self.whole.agreement

    @property
    def facts(self) -> Mapping[str, NDArray[Any]]:
        """The whole's."""
        return self.whole.facts

    @property
    def splits(self) -> Mapping[str, NDArray[np.int64]]:
        """The whole's."""
        return self.whole.splits

    def mirror(self, images: Images) -> Images | None:
        """The whole's."""
        return self.whole.mirror(images)

    @property
    def changed_by_mirror(self) -> frozenset[str]:
        """The whole's."""
        return self.whole.changed_by_mirror

    def __len__(self) -> int:
        return len(self.whole)


@final
class _Subset(View):
    def __init__(self, whole: Dataset, indices: NDArray[np.int64]) -> None:
        super().__init__(whole)
        self.indices = indices

    def _chosen(self, array: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if array is None else array[self.indices]

    @cached_property
    def images(self) -> NDArray[Any]:
        return self.whole.rows(self.indices)

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        return self.whole.rows(self.indices[indices])

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        return self.whole.read(self.indices[indices])

    def digest(self, indices: NDArray[np.int64] | None = None) -> str:
        return self.whole.digest(self.indices if indices is None else self.indices[indices])

    @property
    def labels(self) -> NDArray[np.int64] | None:
        return self._chosen(self.whole.labels)

    @property
    def groups(self) -> NDArray[Any] | None:
        return self._chosen(self.whole.groups)

    @property
    def agreement(self) -> NDArray[np.float64] | None:
        return self._chosen(self.whole.agreement)

    @property
    def facts(self) -> Mapping[str, NDArray[Any]]:
        return {name: values[self.indices] for name, values in self.whole.facts.items()}

    @property
    def splits(self) -> Mapping[str, NDArray[np.int64]]:
        return {}  # the whole's indices mean other images here

    def __len__(self) -> int:
        return len(self.indices)
