"""Arrays in an npz file: plain ones, or the layout of MedMNIST (Yang et al. 2023, Scientific Data 10:41)."""

import math
import re
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from gankit.cache import fingerprint, user_path
from gankit.errors import DataError, first_of
from gankit.images.archive import Archive, Header
from gankit.images.columns import complete, find, shares, whole
from gankit.images.grey_levels import check_range
from gankit.images.known import Columns, Known
from gankit.images.labels_csv import number_classes
from gankit.images.names import two_spellings
from gankit.interfaces import DecodedDataset, ImageSpec

_SPLITS = ("train", "val", "test")
_COLOURS = (1, 3)  # numbers of channels by which the channel axis is told


@final
class Npz(DecodedDataset):
    """Images and labels from one npz file, or images from an npy file.

    Plain layout: `images` (or `arr_0`, as NumPy calls an array without a name) and, where known, `labels`, `groups`,
    `agreement`, `class_names`. MedMNIST's layout has each of them with the prefixes `train_`, `val_` and `test_`; they
    are joined in this order and `splits` says which is which. Any further array with one entry per image is a fact,
    `labels` with several values per image too. Where `labels` or `groups` is missing, the one array with a usual word
    for it, such as `label` or `patient_id`, is read in its place. Images are (n, h, w), (n, h, w, c) or (n, c, h, w).
    """

    def __init__(
        self,
        *,
        path: str | Path,
        images: str = "images",
        labels: str = "labels",
        channels: Literal["first", "last"] | None = None,
        value_range: tuple[float, float] | None = None,
        in_memory: bool = True,
        mirror_keeps_label: bool = True,
    ) -> None:
        """
        Args:
            path: the file; a relative path starts at the current folder, and ~ is the home folder.
            images: name of the images' array.
            labels: name of the labels' array; the default may be absent, then there are no classes. "none" leaves the
                labels out.
            channels: whether channels come first or last; needed only where the shape does not tell.
            value_range: the values of black and white; by default 0 and the largest of uint8 or uint16. Any other
                type needs it, and becomes float32.
            in_memory: False keeps the images memory-mapped in the cache on disk.
            mirror_keeps_label: False where left and right matter to the label.

        Raises:
            DataError: here for a value_range that is none; all else is raised when first needed.
        """
        super().__init__(in_memory=in_memory, mirror_keeps_label=mirror_keeps_label, value_range=value_range)
        self.archive = Archive(user_path(path))
        self._images, self._labels = images, labels
        self.channels = channels

    @cached_property
    def names(self) -> dict[str, str]:
        """The arrays' names in the file, without prefixes: of the images, of the labels, and of the groups."""
        headers, where = self.archive.headers, str(self.archive.path)
        shapes = {re.sub(f"^({'|'.join(_SPLITS)})_", "", key): header.shape for key, header in headers.items()}
        unnamed = self._images == "images" and "images" not in shapes and "arr_0" in headers
        single = [name for name, shape in shapes.items() if len(shape) and math.prod(shape) == shape[0]]
        usual = find(single, "label", where, "labels") if self._labels == "labels" else None
        return {
            "images": "arr_0" if unnamed else self._images,
            "labels": usual or self._labels,
            "groups": find(single, "group", where, "groups") or "groups",
        }

    @cached_property
    def _prefixes(self) -> tuple[str, ...]:
        """What stands before every name: one empty prefix, or one prefix per split."""
        name = self.names["images"]
        if name in self.archive.headers:
            return ("",)
        prefixes = tuple(f"{split}_" for split in _SPLITS if f"{split}_{name}" in self.archive.headers)
        if not prefixes:
            self.archive.header(name)  # raises, naming what there is
        return prefixes

    @property
    def _header(self) -> Header:
        """Shape and type of the images, of the first split."""
        return self.archive.header(self._prefixes[0] + self.names["images"])

    @cached_property
    def _counts(self) -> tuple[int, ...]:
        """Number of images under each prefix."""
        headers = [self.archive.header(prefix + self.names["images"]) for prefix in self._prefixes]
        path, shapes = self.archive.path, ", ".join(f"{header.shape} {header.dtype}" for header in headers)
        if any(len(header.shape) not in (3, 4) for header in headers):
            raise DataError(f"{path}: images must be (n, h, w), (n, h, w, c) or (n, c, h, w): {shapes}")
        if any(len(header.shape) == 3 and header.shape[2] == 3 < header.shape[1] for header in headers):
            raise DataError(
                f"{path}: this may be one colour picture, or grey ones of 3 pixels width: {shapes}; save one as "
                "images[None], or the others as images[..., None]"
            )
        if len({(header.shape[1:], header.dtype) for header in headers}) > 1:
            raise DataError(f"{path}: images of the splits differ in shape or type: {shapes}")
        if sum(math.prod(header.shape) for header in headers) == 0:
            raise DataError(f"{path} has an array of images with no image in it")
        return tuple(header.shape[0] for header in headers)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The type of `images`, by the header.

        Raises:
            DataError: images of this type need a value_range, or cannot be read.
        """
        stored_type = self._header.dtype
        if stored_type.kind == "u" and stored_type.itemsize <= 2:
            return stored_type.newbyteorder("=")
        if stored_type.kind not in "iuf":
            raise DataError(f"{self.archive.path}: images are {stored_type}; save them as uint8, uint16 or float32")
        if self.declared_range is None:
            raise DataError(
                f"{self.archive.path}: images are {stored_type}, which does not define black and white; "
                "set value_range = [black, white] (when evaluating --window black,white), or save them as uint8 or "
                "uint16"
            )
        return np.dtype(np.float32)

    @cached_property
    def _channel_axis(self) -> int | None:
        """The axis of the stored array, or None for grey images without one."""
        shape = self._header.shape
        if len(shape) == 3:
            return None
        if self.channels is not None:
            return 1 if self.channels == "first" else 3
        first, last = shape[1] in _COLOURS, shape[3] in _COLOURS
        if first == last:
            raise DataError(
                f"{self.archive.path}: images of shape {shape} do not show which axis holds the channels; "
                'set channels = "first" or channels = "last"; save volumes as slices (n, h, w)'
            )
        return 1 if first else 3

    def _column(self, name: str) -> NDArray[Any] | None:
        """The array of a name, joined over the splits; None where the file has none."""
        keys = [prefix + name for prefix in self._prefixes]
        present = [key for key in keys if key in self.archive.headers]
        if not present:
            return None
        for key, count in zip(keys, self._counts, strict=True):
            shape = self.archive.header(key).shape
            if shape[:1] != (count,):
                raise DataError(f"{self.archive.path}: {key!r} has shape {shape}, and there are {count} images")
        parts = [self.archive.read(key) for key in keys]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]  # a copy of all images may not fit into memory

    def _flat(self, name: str) -> NDArray[Any] | None:
        """A column with one value per image, stored as (n,) or (n, 1)."""
        if (column := self._column(name)) is None:
            return None
        if column.size != len(column):
            hint = '; save classes, by .argmax(1) if they are one-hot, or set labels = "none"'
            hint = hint if name == self.names["labels"] else ""
            raise DataError(f"{self.archive.path}: {name!r} must be (n,) or (n, 1), its shape is {column.shape}{hint}")
        groups = name == self.names["groups"]
        return complete(column.reshape(-1), f"{self.archive.path}: {name!r}", groups=groups)

    @property
    def image(self) -> ImageSpec:
        """From the header of the images, and the labels; reads no pixels."""
        shape = self._header.shape
        _ = self._counts, self.dtype  # what cannot be read is refused now
        axis = self._channel_axis
        height, width = (size for i, size in enumerate(shape) if i not in (0, axis))
        return ImageSpec(1 if axis is None else shape[axis], height, width, classes=len(self.class_names))

    def cache_key(self) -> str:
        """By the file, its size and time of change, and the settings."""
        _ = self.dtype  # a missing file is an error that says so
        options = (self.names["images"], self.channels, self.declared_range)
        return fingerprint("npz", [self.archive.path.resolve()], options)

    def decode(self) -> NDArray[Any]:
        """(n, channels, height, width) uint8, uint16, or float32 with a value_range.

        Raises:
            DataError: the file, its shapes, types or values are not as the class says.
        """
        images = self._column(self.names["images"])
        assert images is not None
        if self._channel_axis == 3:
            images = images.transpose(0, 3, 1, 2)
        elif self._channel_axis is None:
            images = images[:, None]
        check_range(images, self.declared_range, str(self.archive.path))
        return np.ascontiguousarray(images, dtype=self.dtype)

    def _read_classes(self) -> tuple[NDArray[np.int64], tuple[str, ...]] | None:
        """(n,) classes and their names; classes without an image are left out, so that numbers have no gaps."""
        name, path = self.names["labels"], self.archive.path
        headers, keys = self.archive.headers, [prefix + name for prefix in self._prefixes]
        present = [(headers[key].shape, n) for key, n in zip(keys, self._counts, strict=True) if key in headers]
        if not present and self._labels not in ("labels", "none"):
            self.archive.header(keys[0])  # raises, naming what there is
        fitting = len(present) == len(keys) and all(shape[:1] == (n,) for shape, n in present)  # else told below
        several = fitting and any(math.prod(shape[1:]) > 1 for shape, _ in present)
        if not present or (self._labels == "labels" and several):
            return None  # several labels per image are a fact
        labels = self._flat(name)
        assert labels is not None
        labels = whole(labels)
        if labels.dtype.kind == "U" and "class_names" not in self.archive.headers:
            return number_classes(labels.tolist(), f"{path}: ")
        if labels.dtype.kind not in "iub":
            raise DataError(
                f"{path}: {name!r} are {labels.dtype}, and labels are classes 0, 1, ... with class_names, or names; "
                "a severity goes in an array of its own"
            )
        values, numbers = np.unique(labels.astype(np.int64), return_inverse=True)
        if values[0] < 0:
            raise DataError(f"{path}: {name!r} has the value {values[0]}, and classes are numbered from 0")
        names = tuple(map(str, values))
        if "class_names" in self.archive.headers:
            known = self.archive.read("class_names").reshape(-1)
            if values[-1] >= len(known):
                raise DataError(f"{path}: the labels have {values[-1] + 1} classes, and class_names has {len(known)}")
            names = tuple(str(known[value]) for value in values)
        if alike := two_spellings(names):
            raise DataError(f"{path}: class_names has {alike}; use one spelling and one number")
        return numbers.reshape(-1).astype(np.int64), names

    @cached_property
    def known(self) -> Known:
        """Classes, groups, agreement, the splits of MedMNIST's layout, and every further array as a fact.

        Facts hold numbers or text, one entry per image, and are read at first use. Classes are named by `class_names`
        in the file, else by the numbers or names that stand there.

        Raises:
            DataError: labels that are no classes, not one name per class, two spellings of one, agreement outside
                [0, 1], or an image without a label, group or agreement.
        """
        labels, class_names = self._read_classes() or (None, ())
        agreement = self._flat("agreement")
        ends = np.cumsum((0, *self._counts))
        splits = {prefix[:-1]: np.arange(ends[i], ends[i + 1]) for i, prefix in enumerate(self._prefixes) if prefix}
        no_facts = {self.names["images"], self.names["groups"], "agreement", "class_names"}
        no_facts |= set() if labels is None else {self.names["labels"]}
        first = self._prefixes[0]
        names = [key.removeprefix(first) for key in self.archive.headers if key.startswith(first)]
        facts = [name for name in names if name not in no_facts and self._is_fact(name)]
        return Known(
            labels=labels, class_names=class_names, groups=self._flat(self.names["groups"]), splits=splits,
            agreement=None if agreement is None else shares(agreement, f"{self.archive.path}: 'agreement'"),
            facts=Columns(facts, self._read_fact),
        )  # fmt: skip

    @property
    def remarks(self) -> list[str]:
        """Arrays that are nothing of the above, other than the moments of statistics files."""
        read = [self.names["images"], self.names["groups"], *([] if self.labels is None else [self.names["labels"]])]
        of_images = [*read, "agreement", *self.facts]
        used = {"class_names", "mu", "sigma", *(prefix + name for prefix in self._prefixes for name in of_images)}
        odd = [f"{name} {header.shape}" for name, header in self.archive.headers.items() if name not in used]
        reason = f"no facts, which have numbers or a text for each of the {len(self)} images"
        return [f"{first_of(odd)}: {reason}"] if odd else []

    def _is_fact(self, name: str) -> bool:
        headers = [self.archive.headers.get(prefix + name) for prefix in self._prefixes]
        return all(
            header is not None and header.shape[:1] == (count,) and header.dtype.kind in "iufbUS"
            for header, count in zip(headers, self._counts, strict=True)
        )

    def _read_fact(self, name: str) -> NDArray[Any]:
        column = self._column(name)
        assert column is not None
        return column.reshape(-1) if column.size == len(column) else column

    def __len__(self) -> int:
        return sum(self._counts)
