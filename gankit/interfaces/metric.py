"""What metrics read and give."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray

from gankit.errors import GankitError

Indices = NDArray[np.int64]


@final
@dataclass(frozen=True)
class Moments:
    """Mean and covariance of features whose rows are not at hand, for example of a statistics file.

    Attributes:
        n: number of rows that they were computed from, or None where a file does not say.
        mean: (d,) float64.
        covariance: (d, d) float64, unbiased.
    """

    n: int | None
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


@final
@dataclass(frozen=True)
class Batch:
    """What a metric may read of some images; only what its `needs` name is computed, the rest is None.

    Attributes:
        real: whether the images are real.
        training: whether they are those that the generator was trained on, given beside the real ones to metrics whose
            `needs` name "training".
        features: (n, dim) float array.
        logits: (n, k) float array.
        images: (n, c, h, w) float32 array in [0, 255].
        labels: (n,) int64 classes or (n, k) float conditions.
        groups: (n,) group (patient) of each image.
        ids: (n,) identity of each image within its set.
        class_names: one a class, where the labels are classes.
        moments: of the features, in place of rows, to metrics that take them.
    """

    real: bool
    training: bool = False
    features: NDArray[Any] | None = None
    logits: NDArray[Any] | None = None
    images: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    groups: NDArray[Any] | None = None
    ids: NDArray[Any] | None = None
    class_names: tuple[str, ...] | None = None
    moments: Moments | None = None


@final
@dataclass(frozen=True)
class Rows:
    """Some images, one row each.

    Attributes:
        fields: arrays by the names of the fields of `Batch`; "images" may be of any type, memory-mapped too.
        count: number of images.
        value_range: black and white of the images.
        class_names: one a class, or None.
    """

    fields: Mapping[str, NDArray[Any]]
    count: int
    value_range: tuple[float, float] = (0.0, 255.0)
    class_names: tuple[str, ...] | None = None

    def take(self, indices: Indices) -> Rows:
        """Some of the rows."""
        fields = {name: values[indices] for name, values in self.fields.items()}
        return Rows(fields, len(indices), self.value_range, self.class_names)

    @property
    def step(self) -> int:
        """How many rows a batch may have: as many as `Pool.BATCH`, fewer of large images."""
        images = self.fields.get("images")
        return Pool.BATCH if images is None else max(1, min(Pool.BATCH, 2**24 // int(np.prod(images.shape[1:]))))

    def batch(self, indices: Indices, real: bool, training: bool = False) -> Batch:
        """Some of the rows as a metric reads them."""
        fields: dict[str, Any] = {name: values[indices] for name, values in self.fields.items()}
        if "images" in fields:
            low, high = self.value_range
            fields["images"] = (fields["images"].astype(np.float32) - low) * np.float32(255 / (high - low))
        return Batch(real=real, training=training, class_names=self.class_names, **fields)


@final
class Pool:
    """Real and generated images side by side, so that either can be resampled: real ones first, then generated ones.

    Attributes:
        real: the real images.
        fake: the generated images.
        training: the images that the generator was trained on, where they are another set than the real ones and a
            metric needs them, else None.
    """

    BATCH = 512

    def __init__(self, real: Rows, fake: Rows, training: Rows | None = None) -> None:
        self.real, self.fake, self.training = real, fake, training

    @property
    def reals(self) -> Indices:
        """Places of the real images: 0 to n_real - 1."""
        return np.arange(self.real.count)

    @property
    def fakes(self) -> Indices:
        """Places of the generated images: n_real to n_real + n_fake - 1."""
        return np.arange(self.real.count, self.real.count + self.fake.count)

    def column(self, name: str) -> NDArray[Any] | None:
        """One field (not "images") of all images; None where either side lacks it."""
        real, fake = self.real.fields.get(name), self.fake.fields.get(name)
        return None if real is None or fake is None else np.concatenate([real, fake])

    def subset(self, indices: Indices) -> Pool:
        """The images at these places, which keep their side and their order."""
        is_real = indices < self.real.count
        fake = indices[~is_real] - self.real.count
        return Pool(self.real.take(indices[is_real]), self.fake.take(fake), self.training)

    def batches(self, indices: Indices, real: bool) -> Iterator[Batch]:
        """The images at these places, some at a time, shown to a metric as real or as generated ones."""
        is_real = indices < self.real.count
        for rows, places in ((self.real, indices[is_real]), (self.fake, indices[~is_real] - self.real.count)):
            for start in range(0, len(places), rows.step):
                yield rows.batch(places[start : start + rows.step], real)

    def training_batches(self) -> Iterator[Batch]:
        """The training images, some at a time; nothing where there are none beside the real ones."""
        if (rows := self.training) is not None:
            for start in range(0, rows.count, rows.step):
                yield rows.batch(np.arange(start, min(start + rows.step, rows.count)), True, training=True)


class Resampling:
    """A metric's values on parts of a pool: for standard errors, real-against-real values and permutations.

    This one computes each value from scratch. A metric that can share work between them (a matrix of distances, an
    eigendecomposition) gives a subclass of its own.

    Attributes:
        metric: without any batch; copied for every value.
        pool: the images.
    """

    def __init__(self, metric: Metric, pool: Pool) -> None:
        self.metric, self.pool = metric, pool

    def values(self, real: Indices, fake: Indices) -> dict[str, float]:
        """What `compute` gives when these images of the pool are the real and the generated ones.

        Args:
            real: (n,) places in the pool, without repetition; images of either side.
            fake: (m,) places, none of them in `real`.
        """
        metric = copy.deepcopy(self.metric)
        for indices, is_real in ((real, True), (fake, False)):
            for batch in self.pool.batches(indices, is_real):
                metric.update(batch)
        if "training" in metric.needs:
            for batch in self.pool.training_batches():
                metric.update(batch)
        return metric.compute()

    def left_out(self, parts: Sequence[Indices]) -> list[dict[str, float]]:
        """The values on the whole pool without each of some parts.

        Args:
            parts: places of images of one side, one array a part; at least two images of either side remain.
        """
        reals, fakes = self.pool.reals, self.pool.fakes
        return [self.values(np.setdiff1d(reals, part), np.setdiff1d(fakes, part)) for part in parts]

    def standard_errors(self) -> dict[str, float] | None:
        """Standard errors in closed form, valid for independent images; None asks for the jackknife's."""
        return None


class Metric(ABC):
    """A number about generated images beside real ones, gathered batch by batch.

    State is declared with `add_state` and a function that merges two states, so that several processes give the same
    number as one pass.

    Attributes:
        needs: the fields of `Batch` that `update` reads.
        better: whether a lower or a higher value is better: decides the tail of a permutation test, and the best
            checkpoint of a training; None where neither is.
        takes_moments: whether `update` also takes a batch of `Moments` in place of features.
        jackknife_groups: groups of images that the jackknife leaves out in turn, where there are many images.
    """

    needs: tuple[str, ...] = ("features",)
    better: Literal["lower", "higher"] | None = None
    takes_moments: ClassVar[bool] = False
    jackknife_groups: ClassVar[int] = 50

    def add_state(self, name: str, default: Callable[[], Any], merge: Callable[[Any, Any], Any]) -> None:
        """Declare the attribute `name`: `default()` makes an empty one, `merge(a, b)` joins those of two metrics."""
        self.__dict__.setdefault("_states", {})[name] = (default, merge)
        setattr(self, name, default())

    def reset(self) -> None:
        """Forget every batch."""
        for name, (default, _) in self.__dict__.get("_states", {}).items():
            setattr(self, name, default())

    def merge(self, other: Metric) -> None:
        """Take in what another metric of the same class has gathered."""
        for name, (_, merge) in self.__dict__.get("_states", {}).items():
            setattr(self, name, merge(getattr(self, name), getattr(other, name)))

    def wanted(self, batch: Batch, field: str) -> NDArray[Any]:
        """A field of a batch that this metric cannot do without.

        Raises:
            GankitError: the batch lacks it.
        """
        value: NDArray[Any] | None = getattr(batch, field)
        if value is None:
            side = "training" if batch.training else "real" if batch.real else "generated"
            raise GankitError(f"{type(self).__name__} needs {field}, and the {side} images have none")
        return value

    @abstractmethod
    def update(self, batch: Batch) -> None:
        """Take in some images, real or generated."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The values by name, unique among metrics; the first decides the best checkpoint."""

    def counts(self) -> Mapping[str, tuple[int, int]]:
        """After `compute`: numbers of real and of generated images behind the values that do not use all of them."""
        return {}

    def details(self) -> Mapping[str, Any]:
        """After `compute`: what else belongs to the values in a metrics file, as JSON holds it.

        Pairs of images to look at are a list "pairs" of {"fake": id, "real": id, "distance": number}.
        """
        return {}

    def cautions(self, real_vs_real: Mapping[str, float]) -> list[str]:
        """After `compute`: what a reader must know of these values, one sentence each.

        Args:
            real_vs_real: the values between disjoint sets of real images; empty where there are too few.
        """
        return []

    def resampling(self, pool: Pool) -> Resampling:
        """Values on parts of a pool; called on a metric that has seen no batch.

        Args:
            pool: real and generated images with the fields that this metric needs.
        """
        return Resampling(self, pool)
