"""Pictures in a folder, with what a CSV file or the names of sub-folders say of them."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from gankit.cache import fingerprint, user_path
from gankit.errors import DataError
from gankit.images import labels_csv
from gankit.images.decoding import (
    FORMAT,
    Decoder,
    Form,
    decode_all,
    decoding_threads,
    files_digest,
    open_picture,
    refuse_several_sizes,
)  # fmt: skip
from gankit.images.grey_levels import check_range
from gankit.images.known import Known
from gankit.images.resizing import Fit
from gankit.interfaces import DecodedDataset, ImageSpec

SHEETS = (".xlsx", ".xls", ".ods", ".numbers")
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


@final
class Folder(DecodedDataset):
    """Pictures below a folder, read at full depth: 8-bit grey and colour, and 16-bit grey.

    What is known of them comes from a CSV file. Where there is none, or it names patients and no classes, the names of
    the sub-folders are the classes; beside such a file not if each sub-folder is one patient's. Nothing is skipped
    silently and nothing is read with loss: files of unknown types, transparency, 16-bit colour and mixed depths
    are refused with the reason. Classes are in the order of numbers if all their names are numbers, else of text.
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
        super().__init__(in_memory=in_memory, mirror_keeps_label=mirror_keeps_label, value_range=value_range)
        self.path = user_path(path)
        self.table = None if table is None else user_path(table)
        self.unlisted = unlisted
        self.decoder = Decoder(None if size is None else (size[0], size[1]), fit, grey)

    @cached_property
    def known(self) -> Known:
        """What the CSV file or the sub-folders say; reads no picture.

        Raises:
            DataError: the folder is missing or empty, holds other files, or does not fit the CSV file.
        """
        files = _find_pictures(self.path)
        table = labels_csv.find_table(self.path, self.table)
        if table is None:
            not_read = [file.name for file in labels_csv.tables_in(self.path)]
            return replace(_from_sub_folders(self.path, files), not_read=not_read)
        known = labels_csv.read_table(table, files, skip_unlisted=self.unlisted == "skip")
        return known if known.labels is not None or known.groups is None else _with_folders(known, known.groups)

    @cached_property
    def files(self) -> list[Path]:
        """The pictures, in the order of the arrays."""
        return [self.path / name for name in self.known.files]

    @cached_property
    def _form(self) -> Form:
        try:
            with open_picture(self.files[0]) as picture:
                return self.decoder.form(picture, str(self.files[0]))
        except DataError:
            self._decode(self.files, None)  # raises, with all that have a problem
            raise

    @property
    def image(self) -> ImageSpec:
        """Channels, height and width of the first picture (header only, after resizing), and the number of classes."""
        return ImageSpec(*self._form.shape, classes=len(self.known.class_names))

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or uint16, by the header of the first picture."""
        return self._form.dtype

    @cached_property
    def stored_sizes(self) -> set[tuple[int, int]]:
        """The heights and widths of the pictures as they are stored, upright; reads every header.

        Raises DataError if there are several and no size to which they are resized.
        """
        if self.decoder.size is None and self.reads_without_decoding:
            return {(self._form.height, self._form.width)}  # else decoding would have raised

        def size(file: Path) -> tuple[int, int]:
            with open_picture(file) as picture:
                return replace(self.decoder, size=None).form(picture, str(file)).shape[1:]

        try:
            with ThreadPoolExecutor(decoding_threads()) as pool:
                sizes = dict(zip(map(str, self.files), pool.map(size, self.files), strict=True))
        except DataError:
            self._decode(self.files, self._form)  # raises, with all that have a problem
            raise
        if self.decoder.size is None:
            refuse_several_sizes(sizes)
        return set(sizes.values())

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """(k,) indices to (k, c, h, w) pictures; unless all are at hand, only these are decoded and none is kept."""
        if self.reads_without_decoding:
            return self.images[indices]
        return self._decode([self.files[index] for index in indices], self._form)

    def digest(self, indices: NDArray[np.int64] | None = None) -> str:
        """A hash of the bytes of files, (k,) indices or all, and of how they are decoded; none is decoded for it."""
        files = self.files if indices is None else [self.files[index] for index in indices]
        return files_digest(files, (self.decoder, self.value_range))

    def cache_key(self) -> str:
        """By the files, their sizes and times of change, and how they are decoded."""
        files = [file.resolve() for file in self.files]
        return fingerprint("folder", files, (FORMAT, self.decoder, self.declared_range))

    def decode(self) -> NDArray[Any]:
        """(n, channels, height, width) uint8 or uint16.

        Raises:
            DataError: a picture cannot be read without loss, or differs from the first in size, depth or colour.
        """
        return self._decode(self.files, self._form)

    def _decode(self, files: list[Path], form: Form | None) -> NDArray[Any]:
        names, threads = list(map(str, files)), decoding_threads()
        like = None if form is None else (form, str(self.files[0]))
        images = decode_all(names, lambda i: open_picture(files[i]), self.decoder, threads=threads, like=like)
        check_range(images, self.declared_range, str(self.path))
        return images

    def __len__(self) -> int:
        return len(self.known.files)


def _find_pictures(folder: Path) -> list[str]:
    """Every picture below a folder, as sorted paths relative to it with forward slashes."""
    labels_csv.check_folder(folder, "pictures")
    pictures, unknown = [], []
    for file in labels_csv.files_below(folder):
        if file.suffix.lower() in SUFFIXES:
            pictures.append(file.relative_to(folder).as_posix())
        elif not labels_csv.may_lie_beside(file):
            unknown.append(file)
    readable = ", ".join(suffix[1:] for suffix in SUFFIXES)
    if sheets := [file for file in unknown if file.suffix.lower() in SHEETS]:
        raise DataError(f"{sheets[0]} is a spreadsheet; save it as CSV UTF-8, {folder}/labels.csv, and take it out")
    if unknown:
        types = Counter(file.suffix.lower() or "no suffix" for file in unknown)
        counted = ", ".join(f"{count} {suffix}" for suffix, count in types.most_common())
        raise DataError(
            f"{folder} holds files that gankit does not read as pictures ({counted}; {unknown[0]} first); "
            f"convert them to {readable}, or take them out"
        )
    if not pictures:
        raise DataError(f"{folder} holds no pictures ({readable}); check path")
    return sorted(pictures)


def _from_sub_folders(folder: Path, files: list[str]) -> Known:
    """Classes by the first folder of each path, or by the second below folders named train, val and test."""
    splits, parts = labels_csv.folders_of(files)
    if not any(parts):
        return Known(files, splits=splits)
    for name, folders in zip(files, parts, strict=True):
        if not folders:
            raise DataError(
                f"{folder} has pictures in sub-folders, which are classes, and {name} in none; "
                "move it into one, or list all files and labels in labels.csv"
            )
    labels, class_names = labels_csv.number_classes([folders[0] for folders in parts])
    return Known(files, labels=labels, class_names=class_names, splits=splits)


def _with_folders(known: Known, patients: NDArray[Any]) -> Known:
    """What a table without classes says, with those of the sub-folders; not where these are the patients' own."""
    splits, parts = labels_csv.folders_of(known.files)
    if not all(parts):
        return known
    names = [folders[0] for folders in parts]
    one_patient_each = len(set(zip(names, patients.tolist(), strict=True))) == len(set(names))
    if one_patient_each or len(set(names)) == 1:
        return known
    labels, class_names = labels_csv.number_classes(names)
    return replace(known, labels=labels, class_names=class_names, splits=known.splits or splits)
