"""DICOM files in a folder (DICOM PS3.3 and PS3.10), with what a CSV file or the names of sub-folders say of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import pydicom
from gankit.cache import fingerprint, stored
from gankit.errors import DataError
from gankit.images.labels_csv import Knowledge, read_table
from gankit.images.resizing import Fit
from gankit.interfaces import Dataset, Images, ImageSpec
from numpy.typing import NDArray

from gankit_dicom._checks import check_alike, check_readable, check_sub_folders
from gankit_dicom._files import find, from_sub_folders
from gankit_dicom._guard import Problem
from gankit_dicom._header import Header, read_header
from gankit_dicom._patients import GroupBy, dense, groups, redacted
from gankit_dicom._pixels import FORMAT, Decoder
from gankit_dicom._tones import Function, Window, is_window

Frames = Literal["all", "first", "middle"]
_LOG = logging.getLogger("gankit_dicom")


@final
class Dicom(Dataset):
    """DICOM files below a folder, with and without suffix, read at full depth: grey through a window, and colour.

    What is known of them comes from a CSV file; without one the names of the sub-folders are the classes. Files of one
    patient are one group. Nothing that a file says of its patient is shown, logged or kept.
    """

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        *,
        path: str | Path,
        table: str | Path | None = None,
        unlisted: Literal["error", "skip"] = "error",
        sub_folders: Literal["classes", "ignore"] | None = None,
        window: Window = "file",
        function: Function | None = None,
        bits: Literal[8, 16] | None = None,
        frames: Frames = "all",
        group_by: GroupBy = "patient",
        burned_in: Literal["error", "allow"] = "error",
        fit: Fit = "crop",
        grey: bool | None = None,
        in_memory: bool = True,
        mirror_keeps_label: bool = True,
    ) -> None:
        """
        Args:
            size: (height, width) to resize to, or None where all files have one size.
            path: the folder; a relative path starts at the current folder, and ~ is the home folder.
            table: the CSV file, in the folder or anywhere; by default `labels.csv` in the folder where there is one.
            unlisted: whether files without a row of the CSV file are an error or skipped.
            sub_folders: without a CSV file, whether sub-folders are classes; None refuses folders that are patients.
            window: the values of grey files that go from black to white: "file" is each file's own first window (or
                table), or the full range where no file has one; [centre, width] in modality values such as Hounsfield
                units; "full" is all that the files can hold.
            function: the shape of the window; None is the file's own, and "linear" for a given window.
            bits: 8 or 16 of each channel; None is 16 where any file has more than 8.
            frames: which images of a multi-frame file are read; each has the label and the group of its file.
            group_by: what makes a group: a patient (files that share a patient id or a study), a study or a file.
            burned_in: whether files that say that their pixels show who the patient is are an error.
            fit: how to resize: "crop" fills the size, "pad" adds black bars, "stretch" distorts.
            grey: True reads all as grey, False all as colour, None as they are (all must be alike).
            in_memory: False keeps the decoded images memory-mapped in the cache on disk.
            mirror_keeps_label: False where left and right matter to the label.

        Raises:
            DataError: here for a window that is none; all else is raised when first needed.
        """
        self.path = Path(path).expanduser()
        self.table = None if table is None else Path(table).expanduser()
        self.unlisted = unlisted
        self.sub_folders = sub_folders
        self.window = _checked_window(window, function)
        self.function = function
        self.bits = bits
        self.frames = frames
        self.group_by = group_by
        self.burned_in = burned_in
        self.size = None if size is None else (size[0], size[1])
        self.fit = fit
        self.grey = grey
        self.in_memory = in_memory
        self.mirror_keeps_label = mirror_keeps_label

    @cached_property
    def _found(self) -> dict[str, Header]:
        """Every DICOM file below the folder that holds an image, by its path in it; one line says what is left out."""
        names, others = find(self.path)
        headers = {name: read_header(self.path / name) for name in names}
        found = {name: header for name, header in headers.items() if header is not None}
        kinds = {**others, "DICOM without an image": len(headers) - len(found)}
        left_out = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
        if not found:
            raise DataError(f"{self.path} holds no DICOM images{f' ({left_out})' if left_out else ''}; check path")
        if left_out:
            _LOG.warning(
                "%s", redacted(f"{self.path}: {len(found)} DICOM files are read; left out: {left_out}", found.values())
            )
        return found

    @cached_property
    def _knowledge(self) -> Knowledge:
        """What the CSV file or the sub-folders say of each file; reads headers, no pixels."""
        names = list(self._found)
        try:
            table = self._table()
            if table is not None:
                return read_table(table, names, skip_unlisted=self.unlisted == "skip")
            knowledge, called = from_sub_folders(names, self.sub_folders != "ignore")
            check_sub_folders(called, list(self._found.values()), asked_for=self.sub_folders is not None)
            return knowledge
        except DataError as error:
            text = self._redacted(str(error))
        raise DataError(text)

    def _table(self) -> Path | None:
        if self.table is None:
            default = self.path / "labels.csv"
            return default if default.exists() else None
        for place in (self.path / self.table, self.table):
            if place.is_file():
                return place
        raise DataError(f"there is no CSV file {self.table}, neither in {self.path} nor in the current folder")

    def _redacted(self, text: str) -> str:
        return redacted(text, self._found.values())

    def _called(self, name: str) -> str:
        """How errors name a file: its path in the folder, and its number where the path tells the patient."""
        shown = self._redacted(name)
        return shown if shown == name else f"{shown} (number {list(self._found).index(name) + 1} in order of path)"

    @cached_property
    def _headers(self) -> list[Header]:
        """Of each file that is used, in the order of the knowledge; all can be read, and are alike."""
        names = self._knowledge.files
        headers = [self._found[name] for name in names]
        check_readable(names, headers, self._called, burned_in=self.burned_in == "allow")
        check_alike(
            names, headers, self._called, sizes=self.size is None, channels=self.grey is None, window=self.window
        )
        return headers

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """(n, 2) file and frame of each image."""
        chosen = [_chosen(header.frames, self.frames) for header in self._headers]
        return np.array([(file, frame) for file, frames in enumerate(chosen) for frame in frames], dtype=np.int64)

    @cached_property
    def _decoder(self) -> Decoder:
        bits = self.bits or (16 if any(header.bits > 8 for header in self._headers) else 8)
        return Decoder(bits, self.size, self.fit, self.grey, self.window, self.function)

    @property
    def image(self) -> ImageSpec:
        """Channels, height and width by the first header (after resizing), and the number of classes."""
        first = self._headers[0]
        channels = first.channels if self.grey is None else 1 if self.grey else 3
        return ImageSpec(channels, *(self.size or (first.height, first.width)), classes=len(self.class_names))

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or uint16, by the setting or the headers."""
        return self._decoder.dtype

    @cached_property
    def images(self) -> NDArray[Any]:
        """(n, channels, height, width) uint8 or uint16, from 0 (black) to the type's largest value (white).

        Raises:
            DataError: a file cannot be decoded.
        """
        return self._decode(self._places) if self.in_memory else stored(self._key(), lambda: self._decode(self._places))

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The images with these indices; unless all are at hand already, only these are decoded and none is kept."""
        if "images" in self.__dict__ or not self.in_memory:
            return self.images[indices]
        return self._decode(self._places[indices])

    def _key(self) -> str:
        files = [(self.path / name).resolve() for name in self._knowledge.files]
        return fingerprint("dicom", files, (FORMAT, pydicom.__version__, self.frames, self._decoder))

    def _decode(self, places: NDArray[np.int64]) -> NDArray[Any]:
        result = np.empty((len(places), *self.image.shape), dtype=self.dtype)
        ends = [0, *(np.flatnonzero(np.diff(places[:, 0])) + 1), len(places)] if len(places) else []
        for start, end in pairwise(ends):  # neighbours from one file are read at once
            name = self._knowledge.files[places[start, 0]]
            result[start:end] = self._frames(name, places[start:end, 1].tolist())
        return result

    def _frames(self, name: str, frames: Sequence[int]) -> list[NDArray[Any]]:
        try:
            return self._decoder(self.path / name, frames)
        except Problem as problem:
            text = f"{self._called(name)} {problem}"
        raise DataError(text)

    def _by_image(self, values: NDArray[Any] | None) -> NDArray[Any] | None:
        """What is known of each file, for each image."""
        return None if values is None else values[self._places[:, 0]]

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(n,) classes in the order of `class_names`, or None."""
        return self._by_image(self._knowledge.labels)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names in the CSV file or of the sub-folders: in the order of numbers if all are, else of text."""
        return self._knowledge.class_names

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """(n,) numbers from 0 in place of patients, or of the column `group` of the CSV file where there is one."""
        told = self._knowledge.groups
        files = groups(self._headers, self.group_by) if told is None else dense(told.tolist())
        return files[self._places[:, 0]]

    @property
    def agreement(self) -> NDArray[np.float64] | None:
        """(n,) share of raters in [0, 1] whose call equals the label, or None."""
        return self._by_image(self._knowledge.agreement)

    @property
    def facts(self) -> Mapping[str, NDArray[Any]]:
        """(n,) arrays, one for every further column of the CSV file: float64 (NaN where empty) or text."""
        return {name: values[self._places[:, 0]] for name, values in self._knowledge.facts.items()}

    @cached_property
    def splits(self) -> Mapping[str, NDArray[np.int64]]:
        """Indices of the images of each split: by the CSV file, or by folders named train, val and test.

        A line says so where a group has images in more than one of them.
        """
        file = self._places[:, 0]
        splits = {name: np.flatnonzero(np.isin(file, files)) for name, files in self._knowledge.splits.items()}
        seen = Counter(group for places in splits.values() for group in set(self.groups[places].tolist()))
        if divided := sum(count > 1 for count in seen.values()):
            _LOG.warning("%d of %d groups (patients) have images in more than one split", divided, len(seen))
        return splits

    def mirror(self, images: Images) -> Images | None:
        """Left and right exchanged, or None where `mirror_keeps_label` is False."""
        return super().mirror(images) if self.mirror_keeps_label else None

    def __len__(self) -> int:
        return len(self._places)


def _chosen(count: int, frames: Frames) -> Sequence[int]:
    return range(count) if frames == "all" else [0 if frames == "first" else count // 2]


def _checked_window(window: Window, function: Function | None) -> Window:
    if isinstance(window, str):
        if window == "full" and function is not None:
            raise DataError('function shapes a window, and window = "full" is none; leave one of them out')
        return window
    centre, width = (float(value) for value in window)
    if not is_window(centre, width, function or "linear"):
        least = "at least 1" if (function or "linear") == "linear" else "above 0"
        raise DataError(f"window = [{centre:g}, {width:g}] must be a centre and a width {least}, both finite")
    return centre, width
