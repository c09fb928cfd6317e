"""Images to be judged, from whatever holds them: a run, a data set, a folder, a file or an array."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gankit import seeds
from gankit.errors import DataError, PartError, RunError
from gankit.evaluation.statistics import Statistics
from gankit.experiments.selection import select_images
from gankit.interfaces import Dataset, Indices
from gankit.interfaces.dataset import content_digest
from gankit.registry import build, registry
from gankit.runs.run import Run, open_run
from gankit.version import __version__ as gankit_version

Window = tuple[float, float] | None
Source = Run | Dataset | Statistics | NDArray[Any] | Tensor | str | Path


@final
@dataclass(frozen=True)
class ImageSet:
    """Images to be judged, with what they are called and what is known of them; read when first needed.

    Attributes:
        name: in tables.
        count: number of images.
        shape: (channels, height, width).
        value_range: black and white.
        read: (k,) places to (k, c, h, w) images of any type.
        digest: a hash that is equal for equal images.
        labels: (n,) classes, (n, k) conditions, or None.
        groups: (n,) group (patient) of each image, or None.
        class_names: one a class, or None.
    """

    name: str
    count: int
    shape: tuple[int, int, int]
    value_range: tuple[float, float]
    read: Callable[[Indices], NDArray[Any]]
    digest: Callable[[], str]
    labels: NDArray[Any] | None = None
    groups: NDArray[Any] | None = None
    class_names: tuple[str, ...] | None = None

    def subset(self, indices: Indices) -> ImageSet:
        """The images at these places."""

        def digest() -> str:
            return hashlib.blake2b(f"{self.digest()} {indices.tolist()}".encode(), digest_size=16).hexdigest()

        return dataclasses.replace(
            self,
            count=len(indices),
            read=lambda places: self.read(indices[places]),
            digest=digest,
            labels=None if self.labels is None else self.labels[indices],
            groups=None if self.groups is None else self.groups[indices],
        )


def open_source(name: str | Path, window: Window = None) -> Run | Dataset | Statistics:
    """A run folder, a folder of images, an npz file of images or of statistics, or a data set by name.

    Args:
        name: what to open.
        window: the values of black and white, of files that are not 8-bit.

    Raises:
        GankitError: it is none of these, or broken, or deeper than 8 bits without a window.
    """
    path = Path(name).expanduser()
    if (path / "experiment.toml").is_file():
        return open_run(path)
    if path.is_dir():
        # A folder that `gankit sample` wrote holds its grid beside the images that labels.csv lists.
        return _windowed("folder", window, path=str(path), unlisted="skip")
    if path.suffix == ".npz":
        return Statistics.read(path) if Statistics.is_file(path) else _windowed("npz", window, path=str(path))
    if len(path.parts) > 1:
        raise DataError(f"{name}: there is no such folder or file")
    try:
        dataset: Dataset = build("dataset", str(name))
    except PartError as error:
        raise PartError(f"{name}: there is no such folder or file here, and {error}") from None
    return dataset


def _windowed(kind: str, window: Window, *, path: str, **settings: Any) -> Dataset:
    dataset: Dataset = build("dataset", kind, path=path, value_range=window, **settings)
    if dataset.image and dataset.dtype == np.uint8:
        dataset = build("dataset", kind, path=path, **settings)
    elif window is None:
        raise _without_window(path, dataset.dtype)
    return dataset


def _without_window(name: str, dtype: Any) -> DataError:
    return DataError(
        f"{name}: images are {dtype}, and which values are black and white is not known: say so by window=(black, "
        "white), on the command line --window black,white"
    )


def image_set(source: Source, role: str, count: int | None = None, seed: int = 0, window: Window = None) -> ImageSet:
    """Images from whatever holds them: all of them, or `count` drawn from a run, or chosen at random from a set.

    Raises:
        GankitError: nothing is there, or images deeper than 8 bits come without a window.
    """
    if isinstance(source, (str, Path)):
        role, source = str(source), open_source(source, window)
    if isinstance(source, Run):
        return _drawn(source, count or 1, seed)
    return _chosen(_all_of(source, role, window), count, seed)


def _chosen(images: ImageSet, count: int | None, seed: int) -> ImageSet:
    if count is None or count == images.count:
        return images
    if not 0 < count < images.count:
        raise DataError(f"{images.name}: {count} images are asked for, and there are {images.count}")
    order = torch.randperm(images.count, generator=seeds.generator(seed, "chosen images")).numpy()
    return images.subset(np.sort(order[:count]))


def _all_of(source: Source, role: str, window: Window) -> ImageSet:
    if isinstance(source, Dataset):
        return dataset_set(source, role)
    if isinstance(source, Statistics):
        raise DataError(f"{role}: a statistics file stands for the real images only, and holds none")
    if isinstance(source, Tensor):
        source = source.detach().cpu().float() if source.dtype.itemsize == 2 and source.is_floating_point() else source
        source = source.detach().cpu().numpy()
    try:
        images = np.asarray(source)
    except ValueError as error:
        raise DataError(f"{role} images cannot be read as one array ({error}); use one size") from None
    if images.ndim != 4:
        raise DataError(f"{role} images have the shape {images.shape}; (n, channels, height, width) is needed")
    if images.dtype == np.uint8:
        window = (0.0, 255.0)
    elif window is None or images.dtype.kind not in "uif":
        raise _without_window(f"{role} images", images.dtype)
    elif not (math.isfinite(window[0]) and math.isfinite(window[1]) and window[0] < window[1]):
        raise DataError(f"window {window}: two finite numbers are needed, black below white")
    elif images.size and not (window[0] <= images.min() and images.max() <= window[1]):
        raise DataError(f"{role} images go from {images.min():g} to {images.max():g}, outside the window {window}")
    everything = np.arange(len(images))
    return ImageSet(
        role, len(images), images.shape[1:], window, images.__getitem__,
        functools.cache(lambda: content_digest(images.__getitem__, everything, images.dtype, window)),
    )  # fmt: skip


def dataset_set(dataset: Dataset, name: str) -> ImageSet:
    """The images of a data set, under this name."""
    return ImageSet(
        name, len(dataset), dataset.image.shape, dataset.value_range, dataset.read,
        functools.cache(lambda: dataset.digest()), dataset.labels,
        dataset.groups, dataset.class_names or None,
    )  # fmt: skip


def run_data(run: Run) -> tuple[ImageSet, ImageSet | None]:
    """The training images of a run, and the held-out ones where there are any.

    Raises:
        RunError: the run was trained on data of the program that started it.
        DataError: its data are gone or broken.
    """
    if run.experiment.run is not None and run.experiment.run.data_in_process:
        raise RunError(f"{run.path} was trained on data of the program that started it: give the real images")
    training, held_out = select_images(run.experiment.data, run.experiment.training.seed)
    return dataset_set(training, "training images"), None if held_out is None else dataset_set(
        held_out, "held-out images"
    )


def _drawn(run: Run, count: int, seed: int) -> ImageSet:
    labels = run.encode_labels(count, None, seed)
    kept: list[NDArray[Any]] = []

    def read(places: Indices) -> NDArray[Any]:
        if not kept:
            kept.append(run.decode(*run.draw(count, None, seed)))
        return kept[0][places]

    @functools.cache
    def digest() -> str:
        if run.experiment.generator.name not in registry("generator").built_in():
            # The code of others may change without a sign of it: the images themselves tell.
            return content_digest(read, np.arange(count), np.dtype(run.dtype), run.value_range)
        state = hashlib.blake2b(run.export_bytes(), digest_size=16)
        made = f"{count} {seed} {run.device.type} {run.dtype} {run.value_range} {gankit_version} {torch.__version__}"
        state.update(made.encode())
        return state.hexdigest()

    name = f"run {run.path.name}{' (best)' if run.wants_best else ''}"
    return ImageSet(
        name, count, run.image.shape, run.value_range, read, digest,
        None if labels is None else labels.numpy(), None, tuple(run.class_names) or None,
    )  # fmt: skip
