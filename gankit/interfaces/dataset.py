"""Images, what is known of them, and what can be measured from their pixels, real or generated."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gankit.errors import DataError, GankitError
from gankit.images.grey_levels import Images
from gankit.images.known import Known
from gankit.images.pictures import SHOWN, grid_html
from gankit.images.spec import ImageSpec


@dataclass(frozen=True)
class Measurement:
    """A fact about an image that can be measured from its pixels, and how to name it."""

    fact: str  # key of the true values in `Dataset.facts`, to compare the measured values with
    unit: str  # of the values, in words
    symbol: str  # of the unit
    limit: float  # threshold: images whose |value| is at least this are positive; a study may set another
    positive: str  # what a positive image is called: "strabismic"
    condition: str  # the medical condition that a positive image shows: "strabismus"
    negative_classes: tuple[str, ...]  # names of the classes whose images are not positive
    # (n, channels, height, width) images in the data set's range to (n,) values; NaN where one cannot be measured
    measure: Callable[[NDArray[Any]], NDArray[Any]]


@runtime_checkable
class MeasuresFacts(Protocol):
    """A data set that can measure a fact about images like its own."""

    measurement: Measurement  # a class attribute


def flip_left_right(images: Images) -> Images:
    """(..., width) array or tensor with left and right exchanged, copied."""
    return images.flip(-1) if isinstance(images, Tensor) else images[..., ::-1].copy()


class Dataset(ABC):
    """Images and what is known of them, as NumPy arrays that are loaded or rendered at first use.

    Arrays have one row per image; images are channels first. A subclass defines `image`, `images`, and either

    - `known`, one record of all that is known of the images; the properties `labels`, `class_names`, `groups`,
      `agreement`, `splits`, `facts` and `changed_by_mirror` then read it; or
    - the properties that apply; `known` then gathers them.
    """

    def __repr__(self) -> str:
        kind = type(self).__name__.strip("_")
        try:
            spec, labels = self.image, self.labels
            text = f"{kind}: {len(self)} images of {' x '.join(map(str, spec.shape))}"
        except GankitError as error:
            return f"{kind}: {error}"
        if labels is None or labels.ndim > 1:  # the latter are refused where they are used
            return text
        # Not strict: a data set of the user's own may have too few names.
        counts = zip(np.bincount(labels, minlength=spec.classes), self.class_names, strict=False)
        return f"{text}, {', '.join(f'{count} {name}' for count, name in counts)}"

    def _repr_html_(self) -> str:
        try:
            shown = grid_html(self.read(np.arange(min(SHOWN, len(self)))), self.value_range)
        except GankitError as error:
            shown = f"<p>{escape(str(error))}</p>"
        return f"<p>{escape(repr(self))}</p>{shown}"

    @property
    @abstractmethod
    def image(self) -> ImageSpec:
        """Channels, height, width and number of classes, known without loading pixels.

        `conditions` stays 0: the experiment, not the data set, chooses the facts that condition the networks.
        """

    @property
    @abstractmethod
    def images(self) -> NDArray[Any]:
        """(n, channels, height, width) uint8, uint16 or float32 within `value_range`; may be memory-mapped."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of `images`."""
        return self.images.dtype

    @property
    def stored_sizes(self) -> Collection[tuple[int, int]]:
        """The (height, width) pairs of images before they are resized, without repeats; by default that of `image`."""
        return [(self.image.height, self.image.width)]

    @property
    def value_range(self) -> tuple[float, float]:
        """The values of black and white; by default the whole range of the integer type.

        Raises:
            NotImplementedError: the images are not unsigned integers, and the class does not define `value_range`.
        """
        if self.dtype.kind != "u":
            raise NotImplementedError(f"{type(self).__name__} has {self.dtype} images and no value_range")
        return 0.0, float(np.iinfo(self.dtype).max)

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """A (k, c, h, w) copy of the images with these (k,) indices; no other memory-mapped images are read."""
        return np.asarray(self.images[indices])

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Like `rows`, for images that are used only once: a data set may read them without keeping them in memory."""
        return self.rows(indices)

    def digest(self, indices: NDArray[np.int64] | None = None) -> str:
        """A hash of the pixels, type and value range of the images with these (k,) indices, or of all images."""
        indices = np.arange(len(self)) if indices is None else indices
        header = len(indices), str(self.dtype), tuple(map(float, self.value_range))
        digest = hashlib.blake2b(repr(header).encode(), digest_size=16)
        for start in range(0, len(indices), 256):
            images = np.ascontiguousarray(self.read(indices[start : start + 256]))
            digest.update(repr(images.shape[1:]).encode())
            digest.update(images.data)
        return digest.hexdigest()

    @property
    def known(self) -> Known:
        """What is known of the images besides their pixels, as one record; by default gathered from the properties.

        `remarks` are not gathered: `Known` derives them from its own `left_out`.
        """
        names = ("labels", "class_names", "groups", "agreement", "splits", "facts", "changed_by_mirror")
        return Known(**{name: getattr(self, name) for name in names})

    @property
    def _known_if_overridden(self) -> Known:
        """`known` of a class that defines it; else an empty record, since the default `known` reads the properties."""
        return Known() if type(self).known is Dataset.known else self.known

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(n,) classes from 0 to `image.classes` - 1, or None."""
        return self._known_if_overridden.labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class; by default their numbers."""
        if type(self).known is not Dataset.known:
            return self.known.class_names
        return tuple(str(label) for label in range(self.image.classes))

    @property
    def groups(self) -> NDArray[Any] | None:
        """(n,) group of each image (patient, photograph): a group is never split between training and held-out."""
        return self._known_if_overridden.groups

    @property
    def agreement(self) -> NDArray[np.float64] | None:
        """(n,) share of raters, in [0, 1], who chose the image's label."""
        return self._known_if_overridden.agreement

    @property
    def facts(self) -> Mapping[str, NDArray[Any]]:
        """(n, ...) array of each further fact, by name; networks can be conditioned on facts that are (n,) numbers."""
        return self._known_if_overridden.facts

    @property
    def splits(self) -> Mapping[str, NDArray[np.int64]]:
        """(k,) indices of the images of each named split ("train", "val", "test"); empty where there are none."""
        return self._known_if_overridden.splits

    @property
    def changed_by_mirror(self) -> frozenset[str]:
        """Names of the facts whose values change when the image is mirrored."""
        return self._known_if_overridden.changed_by_mirror

    @property
    def remarks(self) -> list[str]:
        """Notes for whoever uses the images, one line each: for example which columns of a table are not used."""
        return self._known_if_overridden.remarks

    def mirror(self, images: Images) -> Images | None:
        """The images mirrored such that their labels stay true, or None where mirroring would change a label.

        Args:
            images: (n, channels, height, width) array or tensor of this data set's layout, any dtype.
        """
        return flip_left_right(images)

    def __len__(self) -> int:
        labels = self.labels  # known without loading pixels
        return len(self.images if labels is None else labels)

    def subset(self, indices: Sequence[int] | NDArray[np.int64] | NDArray[np.bool_]) -> Dataset:
        """The images with the given (k,) indices, in that order, with all that is known of them.

        Negative ones count from the end. A (n,) mask of booleans serves too: `data.subset(data.labels == 1)`.

        Raises:
            DataError: `indices` are neither whole numbers nor such a mask, or one is outside the data set.
        """
        try:
            chosen, n = np.asarray(indices), len(self)
        except ValueError:
            raise DataError("a subset is chosen by indices (k,); these are lists of several lengths") from None
        if chosen.dtype == bool and chosen.shape == (n,):
            chosen = np.flatnonzero(chosen)
        if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
            raise DataError(
                f"a subset is chosen by indices (k,), or by a mask of {n} booleans; these are {chosen.dtype} "
                f"of shape {chosen.shape}"
            )
        if wrong := chosen[(chosen < -n) | (chosen >= n)].tolist():
            raise DataError(f"there is no image {wrong[0]}: the data set has {n} images, counted from 0")
        return _Subset(self, chosen.astype(np.int64))


def _of_whole(name: str) -> Any:
    """A property of a `View` that is the same as that of its `whole`."""
    return property(lambda self: getattr(self.whole, name), doc="That of `whole`.")


class View(Dataset):
    """A subset or changed version of another data set.

    A subclass defines `images` and all else that differs from the other data set.

    Attributes:
        whole: the other data set, whole and unchanged.
    """

    def __init__(self, whole: Dataset) -> None:
        self.whole = whole

    image = _of_whole("image")
    dtype = _of_whole("dtype")
    stored_sizes = _of_whole("stored_sizes")
    value_range = _of_whole("value_range")
    remarks = _of_whole("remarks")

    @cached_property
    def known(self) -> Known:
        """That of `whole`."""
        return self.whole.known

    def mirror(self, images: Images) -> Images | None:
        """(n, c, h, w) images mirrored by `whole`."""
        return self.whole.mirror(images)

    def __len__(self) -> int:
        return len(self.whole)


@final
class _Subset(View):
    def __init__(self, whole: Dataset, indices: NDArray[np.int64]) -> None:
        super().__init__(whole)
        self.indices = indices

    @cached_property
    def known(self) -> Known:
        return self.whole.known.take(self.indices)

    @cached_property
    def images(self) -> NDArray[Any]:
        return self.whole.rows(self.indices)

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        return self.whole.rows(self.indices[indices])

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        return self.whole.read(self.indices[indices])

    def digest(self, indices: NDArray[np.int64] | None = None) -> str:
        return self.whole.digest(self.indices if indices is None else self.indices[indices])

    def __len__(self) -> int:
        return len(self.indices)
