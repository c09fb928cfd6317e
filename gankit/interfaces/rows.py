"""What metrics read: rows of images or features, and pools of real and generated ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gankit.cache import row_blocks
from gankit.errors import GankitError, counted
from gankit.images.grey_levels import rescale

Indices = NDArray[np.int64]


@final
@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of features.

    Attributes:
        n: number of rows that they were computed from, or None where a statistics file does not say.
        mean: (d,) float64.
        covariance: (d, d) float64, unbiased.
    """

    n: int | None
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def of(cls, features: NDArray[Any]) -> Moments:
        """Moments of (n, d) features; memory-mapped ones are read block by block, never as a whole.

        Blocks are joined as by Chan, Golub and LeVeque 1983, American Statistician 37, so that a large mean costs no
        precision.

        Raises:
            GankitError: fewer than 2 rows.
        """
        if len(features) < 2:
            raise GankitError(f"{counted(len(features), 'row')} of features; a covariance needs at least 2")
        d = features.shape[1]
        count, mean, scatter = 0, np.zeros(d), np.zeros((d, d))
        for rows in row_blocks(features):
            block = rows.astype(np.float64)
            block_mean = block.mean(0)
            block -= block_mean
            shift, total = block_mean - mean, count + len(block)
            scatter += block.T @ block
            scatter += np.outer(shift, shift * (count * len(block) / total))
            mean += shift * (len(block) / total)
            count = total
        return cls(count, mean, scatter / (count - 1))


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """What is known of some images, one row per image in each array; None where it is unknown or not needed.

    Attributes:
        features: (n, d) floats; may be memory-mapped.
        logits: (n, k) floats, the features' class logits.
        images: (n, c, h, w) of any numeric type, within `value_range`; may be memory-mapped. `image_blocks` gives
            them scaled to [0, 255].
        labels: (n,) classes from 0, or (n, k) float conditions.
        groups: (n,) group (patient) of each image.
        ids: (n,) identity of each image within its set.
        class_names: one name per class, if labels are classes.
        value_range: the values of black and white in `images`.
        statistics: moments that are given in place of features, for example those of a statistics file. Only metrics
            with `takes_moments` get such rows.
        training: the generator's training images, for real rows only. None if the rows are the training images
            themselves, or if the metric's `needs` do not name "training".

    Raises:
        GankitError: the arrays have different numbers of rows.
    """

    features: NDArray[Any] | None = None
    logits: NDArray[Any] | None = None
    images: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    groups: NDArray[Any] | None = None
    ids: NDArray[Any] | None = None
    class_names: tuple[str, ...] | None = None
    value_range: tuple[float, float] = (0.0, 255.0)
    statistics: Moments | None = None
    training: Rows | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in self._arrays().items()}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{length} {name}" for name, length in lengths.items())
            raise GankitError(f"each array must have one row per image, but there are {counts}")

    def _arrays(self) -> dict[str, NDArray[Any]]:
        names = ("features", "logits", "images", "labels", "groups", "ids")
        return {name: values for name in names if (values := getattr(self, name)) is not None}

    @property
    def count(self) -> int:
        """Number of images; 0 where there are statistics alone."""
        return next((len(values) for values in self._arrays().values()), 0)

    @cached_property
    def moments(self) -> Moments:
        """The statistics, or the moments of the features.

        Raises:
            GankitError: neither is there, or there are fewer than 2 rows.
        """
        return self.statistics or Moments.of(self.required("features"))

    def required(self, name: str, whose: str = "the") -> NDArray[Any]:
        """An array that a metric cannot do without.

        Args:
            name: "features", "logits", "images", "labels", "groups" or "ids".
            whose: which images the error names: "the real" or "the generated"; "the" where there is one set.

        Raises:
            GankitError: it is None.
        """
        values: NDArray[Any] | None = getattr(self, name)
        if values is None:
            missing = "pixels" if name == "images" else name
            raise GankitError(f"{whose} images have no {missing}, which the metric needs")
        return values

    def image_blocks(self, whose: str = "the") -> Iterator[NDArray[np.float32]]:
        """The images as (k, c, h, w) float32 in [0, 255], at most 512 images or about 2**24 values at a time.

        Raises:
            GankitError: there are no images.
        """
        images = self.required("images", whose)
        values_per_image = max(1, int(np.prod(images.shape[1:])))
        for block in row_blocks(images, max(1, min(512, 2**24 // values_per_image))):
            yield rescale(block.astype(np.float32), self.value_range, (0.0, 255.0))

    def take(self, indices: Indices) -> Rows:
        """The rows with these indices, in their order; `training` stays as it is."""
        taken: dict[str, Any] = {name: values[indices] for name, values in self._arrays().items()}
        return dataclasses.replace(self, **taken)


@final
class Pool:
    """Real and generated images side by side, so that either side can be resampled.

    A place is an index of the pool: 0 to n_real - 1 are real images, n_real to n_real + n_fake - 1 generated ones.

    Attributes:
        real: the real images.
        fake: the generated images.
    """

    def __init__(self, real: Rows, fake: Rows) -> None:
        self.real, self.fake = real, fake

    @property
    def real_places(self) -> Indices:
        """(n_real,) places of the real images."""
        return np.arange(self.real.count)

    @property
    def fake_places(self) -> Indices:
        """(n_fake,) places of the generated images."""
        return np.arange(self.real.count, self.real.count + self.fake.count)

    def rows(self, places: Indices) -> Rows:
        """The images at these (k,) places as one set, with the real side's `training`.

        Real images come first, whatever the order of the places.

        Raises:
            GankitError: the rows of an array have different shapes on the two sides.
        """
        part = self.subset(places)
        return dataclasses.replace(_join(part.real, part.fake), training=self.real.training)

    def subset(self, places: Indices) -> Pool:
        """The pool of the images at these (k,) places; each side keeps their order."""
        is_real = places < self.real.count
        return Pool(self.real.take(places[is_real]), self.fake.take(places[~is_real] - self.real.count))


def _join(first: Rows, second: Rows) -> Rows:
    """Two sets as one; an array that either set lacks is None. Labels are renumbered if class names differ."""
    if not first.count or not second.count:
        return first if first.count else second
    names = first.class_names or second.class_names
    if first.class_names and second.class_names and first.class_names != second.class_names:
        names = tuple(dict.fromkeys((*first.class_names, *second.class_names)))
        if second.labels is not None and second.labels.ndim == 1:
            numbers = np.array([names.index(name) for name in second.class_names])
            second = dataclasses.replace(second, labels=numbers[second.labels])
    if first.value_range != second.value_range:
        first, second = _scale_to_255(first), _scale_to_255(second)
    joined: dict[str, Any] = {}
    for name, values in first._arrays().items():
        others = getattr(second, name)
        if others is not None and values.shape[1:] != others.shape[1:]:
            raise GankitError(
                f"{name} of the shapes {values.shape[1:]} and {others.shape[1:]} cannot be mixed: use one shape"
            )
        joined[name] = None if others is None else np.concatenate([values, others])
    return dataclasses.replace(first, class_names=names, **joined)


def _scale_to_255(rows: Rows) -> Rows:
    """The rows with images scaled from their value range to [0, 255], as float32."""
    images = None if rows.images is None else np.concatenate(list(rows.image_blocks()))
    return dataclasses.replace(rows, images=images, value_range=(0.0, 255.0))
