"""Pictures in a folder, with what a CSV file or the names of sub-folders say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from gankit.cache import fingerprint, stored
from gankit.errors import DataError
from gankit.images.decoding import (
    FORMAT,
    Decoder,
    Form,
    check_range,
    checked_range,
    declared_range,
    decode_all,
    decoding_threads,
    files_digest,
    open_picture,
)
from gankit.images.labels_csv import Knowledge, files_below, folders_of, read_table, sorted_names
from gankit.images.resizing import Fit
from gankit.interfaces import Dataset, Images, ImageSpec

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_BESIDE = (".csv", ".txt", ".json", ".md")  # files that may lie beside the pictures
_SYSTEM = ("Thumbs.db", "desktop.ini")  # files that a file manager leaves behind


@final
class Folder(Dataset):
    """Pictures below a folder, read at full depth: 8-bit grey and colour, and 16-bit grey.

    What is known of them comes from a CSV file; without one the names of the sub-folders are the classes. Nothing is
    skipped silently and nothing is read with loss: files of unknown types, transparency, 16-bit colour and mixed depths
    are refused with the reason.
    """

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        *,
        path: str | Path,
        table: str | Path | None = None,
        unlisted: Literal["error", "skip"] = "error",
        fit: Fit = "crop",
        grey: bool | None = None,
        value_range: tuple[float, float] | None = None,
        in_memory: bool = True,
        mirror_keeps_label: bool = True,
    ) -> None:
        """
        Args:
            size: (height, width) to resize to, or None where all pictures have one size.
            path: the folder; a relative path starts at the current folder, and ~ is the home folder.
            table: the CSV file, in the folder or anywhere; by default `labels.csv` in the folder where there is one.
            unlisted: whether pictures without a row of the CSV file are an error or skipped.
            fit: how to resize: "crop" fills the size, "pad" adds black bars, "stretch" distorts.
            grey: True reads all as grey, False all as colour, None as they are (all must be alike).
            value_range: the values of black and white; by default 0 and the largest of the depth. A 12-bit picture
                in a 16-bit file needs (0, 4095).
            in_memory: False keeps the decoded pictures memory-mapped in the cache on disk.
            mirror_keeps_label: False where left and right matter to the label.

        Raises:
            DataError: here for a value_range that is none; all else is raised when first needed.
        """
        self.path = Path(path).expanduser()
        self.table = None if table is None else Path(table).expanduser()
        self.unlisted = unlisted
        self.decoder = Decoder(None if size is None else (size[0], size[1]), fit, grey)
        self.declared_range = checked_range(value_range)
        self.in_memory = in_memory
        self.mirror_keeps_label = mirror_keeps_label

    @cached_property
    def known(self) -> Knowledge:
        """What the CSV file or the sub-folders say; reads no picture.

        Raises:
            DataError: the folder is missing or empty, holds other files, or does not fit the CSV file.
        """
        files = _pictures(self.path)
        table = self._table()
        if table is None:
            return _from_sub_folders(self.path, files)
        return read_table(table, files, skip_unlisted=self.unlisted == "skip")

    def _table(self) -> Path | None:
        if self.table is None:
            default = self.path / "labels.csv"
            return default if default.exists() else None
        for place in (self.path / self.table, self.table):
            if place.is_file():
                return place
        raise DataError(f"there is no CSV file {self.table}, neither in {self.path} nor in the current folder")

    @property
    def files(self) -> list[Path]:
        """The pictures, in the order of the arrays."""
        return self._files

    @cached_property
    def _files(self) -> list[Path]:
        return [self.path / name for name in self.known.files]

    @cached_property
    def _form(self) -> Form:
        first = self.files[0]
        with open_picture(first) as picture:
            return self.decoder.form(picture, str(first))

    @property
    def image(self) -> ImageSpec:
        """Channels, height and width of the first picture (header only, after resizing), and the number of classes."""
        return ImageSpec(*self._form.shape, classes=len(self.known.class_names))

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or uint16, by the header of the first picture."""
        return self._form.dtype

    @cached_property
    def images(self) -> NDArray[Any]:
        """(n, channels, height, width) uint8 or uint16.

        Raises:
            DataError: a picture cannot be read without loss, or differs from the first in size, depth or colour.
        """
        return self._decoded() if self.in_memory else stored(self._key(), self._decoded)

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """(k,) indices to (k, c, h, w) pictures; unless all are at hand, only these are decoded and none is kept."""
        if "images" in self.__dict__ or not self.in_memory:
            return self.images[indices]
        return self._decode([self.files[index] for index in indices])

    def digest(self, indices: NDArray[np.int64] | None = None) -> str:
        """A hash of the bytes of files, (k,) indices or all, and of how they are decoded; none is decoded for it."""
        files = self.files if indices is None else [self.files[index] for index in indices]
        return files_digest(files, (self.decoder, self.value_range))

    def _key(self) -> str:
        return fingerprint(
            "folder", [file.resolve() for file in self.files], (FORMAT, self.decoder, self.declared_range)
        )

    def _decoded(self) -> NDArray[Any]:
        return self._decode(self.files)

    def _decode(self, files: list[Path]) -> NDArray[Any]:
        names = [str(file) for file in files]
        like = self._form, str(self.files[0])
        images = decode_all(
            names, lambda i: open_picture(files[i]), self.decoder, threads=decoding_threads(), like=like
        )
        check_range(images, self.declared_range, str(self.path))
        return images

    @property
    def value_range(self) -> tuple[float, float]:
        """The values of black and white: the setting, or 0 and the largest of the integer type."""
        return declared_range(self.declared_range, self._form.dtype)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(n,) classes in the order of `class_names`, or None."""
        return self.known.labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names in the CSV file or of the sub-folders: in the order of numbers if all are, else of text."""
        return self.known.class_names

    @property
    def groups(self) -> NDArray[Any] | None:
        """(n,) `group` of the CSV file, or None."""
        return self.known.groups

    @property
    def agreement(self) -> NDArray[np.float64] | None:
        """(n,) share of raters in [0, 1] whose call equals the label, or None."""
        return self.known.agreement

    @property
    def facts(self) -> Mapping[str, NDArray[Any]]:
        """(n,) arrays, one for every further column of the CSV file: float64 (NaN where empty) or text."""
        return self.known.facts

    @property
    def splits(self) -> Mapping[str, NDArray[np.int64]]:
        """(k,) indices of the images of each split: by the CSV file, or by folders named train, val and test."""
        return self.known.splits

    def mirror(self, images: Images) -> Images | None:
        """Left and right exchanged, or None where `mirror_keeps_label` is False."""
        return super().mirror(images) if self.mirror_keeps_label else None

    def __len__(self) -> int:
        return len(self.known.files)


def _pictures(folder: Path) -> list[str]:
    """Every picture below a folder, as sorted paths relative to it with forward slashes."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"the folder {folder} {what}; set path to the folder of the pictures ({Path.cwd()} is current)")
    pictures, unknown = [], []
    for file in files_below(folder):
        suffix = file.suffix.lower()
        if suffix in SUFFIXES:
            pictures.append(file.relative_to(folder).as_posix())
        elif suffix not in _BESIDE and file.name not in _SYSTEM:
            unknown.append(file)
    readable = ", ".join(suffix[1:] for suffix in SUFFIXES)
    if unknown:
        types = Counter(file.suffix.lower() or "no suffix" for file in unknown)
        counted = ", ".join(f"{count} {suffix}" for suffix, count in types.most_common())
        raise DataError(
            f"{folder} holds files that are no pictures to gankit ({counted}; {unknown[0]} first); "
            f"convert them to {readable}, or take them out"
        )
    if not pictures:
        raise DataError(f"{folder} holds no pictures ({readable}); check path")
    return sorted(pictures)


def _from_sub_folders(folder: Path, files: list[str]) -> Knowledge:
    """Classes by the first folder of each path, or by the second below folders named train, val and test."""
    splits, parts = folders_of(files)
    if not any(parts):
        return Knowledge(files, splits=splits)
    for name, folders in zip(files, parts, strict=True):
        if not folders:
            raise DataError(
                f"{folder} has pictures in sub-folders, which are classes, and {name} in none; "
                "move it into one, or list all files and labels in labels.csv"
            )
    classes = sorted_names([folders[0] for folders in parts])
    labels = np.array([classes.index(folders[0]) for folders in parts], dtype=np.int64)
    return Knowledge(files, labels=labels, class_names=tuple(classes), splits=splits)
