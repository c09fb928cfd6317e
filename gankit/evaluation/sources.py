"""Images to be evaluated, from whatever holds them: a run, a data set, a folder, a file or an array."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gankit.errors import DataError, PartError, RunError, counted
from gankit.evaluation.extraction import as_part
from gankit.evaluation.statistics import Statistics
from gankit.experiments.selection import Resized, random_subset, select_images, split_indices
from gankit.experiments.values import parse_table
from gankit.files import user_path
from gankit.images.grey_levels import check_range
from gankit.interfaces import Dataset, ImageSpec, Indices, Known
from gankit.registry import build, registry
from gankit.registry.arrays import as_array
from gankit.registry.wrapping import wrap
from gankit.runs.record import check_same_images
from gankit.runs.run import Run, open_run
from gankit.version import __version__ as gankit_version

TRAINING, HELD_OUT = "training images", "held-out images"
"""What the images of a run are called in tables."""

Window = tuple[float, float] | None
"""The values of black and white, which data sets call `value_range`."""
Place = str | Path | dict[str, Any]
Source = Run | Dataset | Statistics | NDArray[Any] | Tensor | Place


def open_source(place: Place, window: Window = None) -> Run | Dataset | Statistics:
    """A run folder, a folder of images, an npz file of images or of statistics, or a data set by name.

    A table, or its text in TOML such as `{name = "npz", path = "a.npz", split = "test"}`, is a data set with its
    settings; `size` resizes its images, and `split` chooses one of its splits. A window is the values of black and
    white, of files that are not 8-bit. Raises GankitError for what is none of these, or broken, or deeper than 8 bits
    without a window.
    """
    if (table := _table(place)) is not None:
        return _open_table(table, window)
    name = str(place)
    path = user_path(name)
    if (path / "experiment.toml").is_file():
        return open_run(path)
    if path.is_dir():
        # What labels.csv does not list is skipped: `gankit sample` writes its grid beside the images.
        return _open_table({"name": "folder", "path": str(path), "unlisted": "skip"}, window)
    if path.suffix.lower() == ".npz" and Statistics.is_file(path):
        return Statistics.read(path)
    if path.suffix.lower() in (".npz", ".npy"):
        return _open_table({"name": "npz", "path": str(path)}, window)
    if path.exists():
        raise DataError(
            f"{name}: it is neither a folder nor an npz or npy file; unpack a zip file, put a picture into a folder"
        )
    if len(path.parts) > 1:  # a path, not the name of a data set
        raise DataError(f"{name}: there is no such folder or file")
    try:
        dataset: Dataset = build("dataset", name)
    except PartError as error:
        raise PartError(f"{name}: there is no such folder or file here, and {error}") from None
    return dataset


def _table(place: object) -> dict[str, Any] | None:
    """The table of a data set, given as such or as TOML text; None for anything else."""
    if isinstance(place, str):
        return parse_table(place)
    return place if isinstance(place, dict) else None


def _open_table(table: dict[str, Any], window: Window) -> Dataset:
    """The data set of a table; raises if its images are deeper than 8 bits and nothing tells black and white."""
    settings = dict(table)
    size, split = _height_width(settings.pop("size", None)), settings.pop("split", None)
    part = as_part("dataset", settings)
    # A window is for images that are not 8-bit; whether they are is known once the data set is open.
    lacks_range = hasattr(part.settings, "value_range") and part.settings.value_range is None
    with_window = as_part("dataset", {**settings, "value_range": window}) if lacks_range else part
    dataset: Dataset = with_window.build(size)
    _ = dataset.image  # raises the clearest error if there is no image
    if lacks_range and dataset.dtype == np.uint8:
        dataset = part.build(size)
    elif lacks_range and window is None:
        raise _missing_window(_title(table), dataset.dtype)
    if size not in (None, (dataset.image.height, dataset.image.width)):
        dataset = Resized(dataset, size)
    return dataset if split is None else dataset.subset(split_indices(dataset, split))


def _height_width(size: Any) -> tuple[int, int] | None:
    """The setting `size` of a table: one number for squares, or height and width."""
    if size is None:
        return None
    sides = [size, size] if isinstance(size, int) else size
    if not (isinstance(sides, (list, tuple)) and len(sides) == 2 and all(type(s) is int and s > 0 for s in sides)):
        raise DataError(f"size = {size}: a number of pixels for squares, or [height, width], is needed")
    return sides[0], sides[1]


def _missing_window(name: str, dtype: Any) -> DataError:
    return DataError(
        f"{name}: images are {dtype}, and it is not known which values are black and white: give window=(black, "
        "white), on the command line --window black,white, or name them in a table with value_range = [black, white]"
    )


def open_images(
    source: Source, name: str, *, count: int | None = None, seed: int = 0, window: Window = None
) -> Dataset:
    """The images of a source.

    Args:
        source: a run, a data set, (n, c, h, w) images, or where these are stored.
        name: what to call the images in errors.
        count: how many images to draw from a run, or to choose at random from a set; None for all of a set.
        seed: of drawn latents and chosen images.
        window: the values of black and white, of arrays and files that are not 8-bit.

    Raises:
        GankitError: nothing is there, fewer images than `count`, statistics in place of images, or images deeper than
            8 bits without a window.
    """
    if isinstance(source, (str, Path, dict)):
        source = open_source(source, window)
    if isinstance(source, Statistics):
        raise DataError(f"{name}: a statistics file holds no images; it can be given only as the real images")
    if isinstance(source, Run):
        if count is None:
            raise DataError(f"{name}: give count, the number of images to draw from {source.path}")
        if count < 1:
            raise DataError(f"{name}: {count} images cannot be drawn; at least 1 is needed")
        return Drawn(source, count, seed)
    dataset = source if isinstance(source, Dataset) else from_array(source, name, window)
    if count is None or count == len(dataset):
        return dataset
    if not 0 < count < len(dataset):
        raise DataError(f"{name}: {count} images are asked for, and there are {len(dataset)}")
    return dataset.subset(random_subset(len(dataset), count, seed, "chosen images"))


def open_named(source: Source, role: str, window: Window = None) -> tuple[str, Source]:
    """What tables call a source; and the source, which is opened, as by `open_source`, if it is a path or a table.

    Data sets and arrays, which have no name of their own, are called by their role: "real", for example.
    """
    name = role
    if isinstance(source, (str, Path, dict)):
        table = _table(source)
        name = str(source) if table is None else _title(table)
        source = open_source(source, window)
    if isinstance(source, Run):
        name = f"run {source.path.name}{' (best)' if source.wants_best else ''}"
    elif isinstance(source, Statistics):
        name = source.name
    return name, source


def _title(table: dict[str, Any]) -> str:
    """What messages call the data set of a table: its path or name, and its split."""
    split = f" ({table['split']})" if "split" in table else ""
    return f"{table.get('path', table.get('name'))}{split}"


def notes(images: Dataset, name: str) -> list[str]:
    """What to know of these images, as they were opened, one line each: which are not used, which splits are joined."""
    remarks = [f"{name}: {remark}" for remark in images.remarks]
    splits = [split for split, indices in images.splits.items() if len(indices)]
    if len(splits) > 1:
        training = ", training images among them" if "train" in splits else ""
        remarks.append(
            f"{name}: the splits {', '.join(splits)} are all used{training}; a table "
            '{name = ..., path = ..., split = "test"} takes one'
        )
    return remarks


def from_array(images: NDArray[Any] | Tensor, name: str, window: Window = None) -> Dataset:
    """(n, c, h, w) images as a data set; numbers other than uint8, uint16 and float32 become float32.

    Raises:
        DataError: another shape, no image, no numbers, no window for images that are not 8-bit, or values outside it.
    """
    if isinstance(images, Tensor) and images.is_floating_point() and images.dtype.itemsize == 2:
        images = images.float()  # NumPy has no bfloat16; float16 is widened as well
    array = as_array(images, f"{name} images")
    if array.dtype == object:
        kind = type(images).__name__
        raise DataError(f"{name} images are of type {kind}; an array, a data set, or what gankit.wrap makes one of")
    if array.ndim != 4 or 0 in array.shape[1:]:
        raise DataError(
            f"{name} images have the shape {array.shape}; (n, channels, height, width) is needed, all above 0"
        )
    if not len(array):
        raise too_few(name, 0)
    if array.dtype == np.uint8:
        window = (0.0, 255.0)
    elif array.dtype.kind not in "uif":
        raise DataError(f"{name} images are {array.dtype}; numbers are needed, such as uint8")
    elif window is None:
        raise _missing_window(f"{name} images", array.dtype)
    else:
        try:
            check_range(array, window, f"{name} images")
        except DataError as error:
            raise DataError(f"window: {error}") from None
        if array.dtype not in (np.uint16, np.float32):
            array = array.astype(np.float32)
    return wrap("dataset", array, value_range=window)


def too_few(name: str, count: int) -> DataError:
    """The error for a set of too few images."""
    return DataError(f"{name}: {counted(count, 'image')}; at least 2 are needed")


def run_data(run: Run) -> tuple[Dataset, Dataset | None]:
    """The training images of a run, and the held-out ones where there are any.

    Raises:
        RunError: the run was trained on data that the calling program passed in, which were not saved, or its data have
            changed since.
        DataError: its data are gone or broken.
    """
    if in_process(run):
        raise RunError(
            f"{run.path} was trained on data that the calling program passed in, and they were not saved: give the "
            "real images"
        )
    training, held_out = select_images(run.experiment.data, run.experiment.training.seed)
    if run.experiment.run is not None:
        check_same_images(run.path, run.experiment.run, training, held_out)
    return training, held_out


def in_process(run: Run) -> bool:
    """Whether a run was trained on a data set that existed only in the program that trained it."""
    return run.experiment.run is not None and run.experiment.run.data_in_process


def run_reference(run: Run) -> tuple[str, Dataset]:
    """What a run is compared with, name and images: its held-out images, or its training images where it has none.

    Raises as `run_data`.
    """
    training, held_out = run_data(run)
    return (TRAINING, training) if held_out is None else (HELD_OUT, held_out)


@final
class Drawn(Dataset):
    """Images that a run's generator draws, made when first read; raises RunError if so many cannot be drawn.

    The seed is that of the latents and labels.
    """

    def __init__(self, run: Run, count: int, seed: int = 0) -> None:
        run.check_count(count)  # before anything else is read or computed
        self._run, self._count, self._seed = run, count, seed

    @property
    def image(self) -> ImageSpec:
        """As the run was trained."""
        return self._run.image

    @cached_property
    def images(self) -> NDArray[Any]:
        """(n, c, h, w) in the type of the run's data."""
        return self._run.decode(*self._run.draw(self._count, labels=None, seed=self._seed))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the run's data."""
        return np.dtype(self._run.dtype)

    @property
    def value_range(self) -> tuple[float, float]:
        """Black and white of the run's data."""
        return self._run.value_range

    @cached_property
    def known(self) -> Known:
        """The classes or (n, k) standardised conditions that the generator was given, and the names of classes."""
        labels = self._run.encode_labels(self._count, labels=None, seed=self._seed)
        return Known(labels=None if labels is None else labels.numpy(), class_names=tuple(self._run.class_names))

    def __len__(self) -> int:
        return self._count

    def digest(self, indices: Indices | None = None) -> str:
        """A hash of the images at (k,) indices, or of all images.

        For all images of a built-in generator none is drawn: weights, count, seed, type and versions determine them.
        """
        if indices is not None or self._run.experiment.generator.name not in registry("generator").built_in():
            # The code of other packages may change without a change of version.
            return super().digest(indices)
        run, state = self._run, hashlib.blake2b(self._run.export_bytes(), digest_size=16)
        facts = f"{self._count} {self._seed} {run.device.type} {run.dtype} {run.value_range} {gankit_version}"
        state.update(f"{facts} {torch.__version__}".encode())
        return state.hexdigest()
