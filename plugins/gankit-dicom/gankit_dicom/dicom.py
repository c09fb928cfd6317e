"""DICOM files in a folder (DICOM PS3.3 and PS3.10), with what a CSV file or the names of sub-folders say of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import pydicom
from gankit.cache import fingerprint, user_path
from gankit.errors import DataError
from gankit.images.labels_csv import find_table, read_table
from gankit.images.resizing import Fit
from gankit.interfaces import DecodedDataset, ImageSpec, Known
from numpy.typing import NDArray

from gankit_dicom._checks import check_alike, check_readable, check_sub_folders, refuse
from gankit_dicom._files import find, from_sub_folders
from gankit_dicom._guard import Problem, guarded
from gankit_dicom._header import Header, read_header, stamp
from gankit_dicom._patients import GroupBy, Redactor, dense, group_files
from gankit_dicom._pixels import FORMAT, Decoder
from gankit_dicom._tones import Function, Window, is_window

Frames = Literal["all", "first", "middle"]
_LOG = logging.getLogger("gankit_dicom")


@final
class Dicom(DecodedDataset):
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
            DataError: the window is invalid; all other errors are raised when the images are first needed.
        """
        super().__init__(in_memory=in_memory, mirror_keeps_label=mirror_keeps_label)
        self.path = user_path(path)
        self.table = None if table is None else user_path(table)
        self.unlisted = unlisted
        self.sub_folders = sub_folders
        self.window = _valid_window(window, function)
        self.function = function
        self.bits = bits
        self.frames = frames
        self.group_by = group_by
        self.burned_in = burned_in
        self.size = None if size is None else (size[0], size[1])
        self.fit = fit
        self.grey = grey

    @cached_property
    def _all_headers(self) -> dict[str, Header]:
        """Every DICOM file below the folder that holds an image, by its path in it; one line says what is left out."""
        names, others = find(self.path)
        headers = {name: read_header(self.path / name) for name in names}
        with_images = {name: header for name, header in headers.items() if header is not None}
        kinds = {**others, "DICOM without an image": len(headers) - len(with_images)}
        left_out = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
        if not with_images:
            raise DataError(f"{self.path} holds no DICOM images{f' ({left_out})' if left_out else ''}; check path")
        if left_out:
            text = f"{self.path}: {len(with_images)} DICOM files are read; left out: {left_out}"
            _LOG.warning("%s", Redactor(with_images.values())(text))
        return with_images

    @cached_property
    def _known_of_files(self) -> Known:
        """What the CSV file or the sub-folders say, one row per file; reads headers, no pixels."""
        names = list(self._all_headers)
        try:
            table = find_table(self.path, self.table)
            if table is not None:
                return read_table(table, names, skip_unlisted=self.unlisted == "skip")
            known, classes = from_sub_folders(names, self.sub_folders != "ignore")
            headers = list(self._all_headers.values())
            check_sub_folders(classes, headers, self._redacted, classes_by_setting=self.sub_folders is not None)
            return known
        except DataError as error:
            text = self._redacted(str(error))
        raise DataError(text)

    @cached_property
    def _redacted(self) -> Redactor:
        return Redactor(self._all_headers.values())

    def _show(self, name: str) -> str:
        """How errors name a file: its path in the folder, and its number where the path tells the patient."""
        shown = self._redacted(name)
        if shown == name:
            return shown
        return f"{shown} (number {list(self._all_headers).index(name) + 1} in order of path)"

    @cached_property
    def _headers(self) -> list[Header]:
        """Of each file that is used, in the order of `_known_of_files`; all can be read, and are alike."""
        names = self._known_of_files.files
        headers = [self._all_headers[name] for name in names]
        check_readable(names, headers, self._show, burned_in=self.burned_in == "allow")
        check_alike(
            names, headers, self._show, sizes=self.size is None, channels=self.grey is None, window=self.window,
            function=self.function,
        )  # fmt: skip
        return headers

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """(n, 2) file and frame of each image."""
        frames_of_files = [_frames_to_read(header.frames, self.frames) for header in self._headers]
        places = [(file, frame) for file, frames in enumerate(frames_of_files) for frame in frames]
        return np.array(places, dtype=np.int64)

    @cached_property
    def _decoder(self) -> Decoder:
        bits = self.bits or (16 if any(header.bits > 8 for header in self._headers) else 8)
        return Decoder(bits, self.size, self.fit, self.grey, self.window, self.function)

    @property
    def image(self) -> ImageSpec:
        """Channels, height and width by the first header (after resizing), and the number of classes."""
        first = self._headers[0]
        channels = first.channels if self.grey is None else 1 if self.grey else 3
        return ImageSpec(
            channels, *(self.size or (first.height, first.width)), classes=len(self._known_of_files.class_names)
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or uint16, by the setting or the headers."""
        return self._decoder.dtype

    @property
    def stored_sizes(self) -> set[tuple[int, int]]:
        """The heights and widths of the files' images; reads headers, no pixels."""
        return {(header.height, header.width) for header in self._headers}

    def decode(self) -> NDArray[Any]:
        """(n, channels, height, width) uint8 or uint16, from 0 (black) to the type's largest value (white).

        Raises:
            DataError: a file cannot be decoded.
        """
        return self._decode(self._places)

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """(k,) indices to (k, c, h, w) images; unless all are at hand, only these are decoded and none is kept."""
        if self.reads_without_decoding:
            return self.images[indices]
        return self._decode(self._places[indices])

    def cache_key(self) -> str:
        """By the files, their sizes and times of change, and how they are decoded."""
        files = [(self.path / name).resolve() for name in self._known_of_files.files]
        return fingerprint("dicom", files, (FORMAT, pydicom.__version__, self.frames, self._decoder))

    def _decode(self, places: NDArray[np.int64]) -> NDArray[Any]:
        result = np.empty((len(places), *self.image.shape), dtype=self.dtype)
        ends = [0, *(np.flatnonzero(np.diff(places[:, 0])) + 1), len(places)] if len(places) else []
        files = self._known_of_files.files
        problems: dict[int, str] = {}
        for start, end in pairwise(ends):  # neighbours from one file are read at once
            file = int(places[start, 0])
            try:
                result[start:end] = self._decode_file(file, places[start:end, 1].tolist())
            except Problem as problem:
                problems[file] = str(problem)
        refuse(problems, files, self._show)
        return result

    def _decode_file(self, file: int, frames: Sequence[int]) -> list[NDArray[Any]]:
        path = self.path / self._known_of_files.files[file]
        if guarded(lambda: stamp(path)) != self._headers[file].stamp:
            raise Problem("has changed since its header was read; make the data set anew")
        return self._decoder(path, frames)

    @cached_property
    def known(self) -> Known:
        """What the CSV file or the sub-folders say of each image's file; reads headers, no pixels.

        Classes are in the order of numbers if all their names are numbers, else of text. Groups are numbers from 0 in
        place of patients, or of the column `group` of the CSV file where there is one. A line says so where a group has
        images in more than one split.
        """
        of_files = self._known_of_files
        if of_files.groups is None:
            groups = group_files(self._headers, self.group_by)
        else:
            groups = dense(of_files.groups.tolist())
        places = self._places[:, 0]
        known = replace(of_files, files=(), groups=groups).take(places)
        splits = {name: np.flatnonzero(np.isin(places, files)) for name, files in of_files.splits.items()}
        _warn_of_divided_groups(groups[places], splits)
        return replace(known, splits=splits, left_out=[self._show(name) for name in of_files.left_out])

    @property
    def remarks(self) -> list[str]:
        """Also that pixels are not square."""
        names = self._known_of_files.files
        odd = [name for name, header in zip(names, self._headers, strict=True) if not header.square]
        if not odd:
            return super().remarks
        line = (
            f"the pixels of {len(odd)} of {len(names)} files ({self._show(odd[0])} first) are not square (PixelSpacing "
            "or PixelAspectRatio): shapes are drawn as they are stored; resample the files if shapes matter"
        )
        return [*super().remarks, line]

    def __len__(self) -> int:
        return len(self._places)


def _warn_of_divided_groups(groups: NDArray[np.int64], splits: Mapping[str, NDArray[np.int64]]) -> None:
    splits_of_group = Counter(group for places in splits.values() for group in set(groups[places].tolist()))
    if divided := sum(count > 1 for count in splits_of_group.values()):
        _LOG.warning("%d of %d groups (patients) have images in more than one split", divided, len(splits_of_group))


def _frames_to_read(count: int, frames: Frames) -> Sequence[int]:
    return range(count) if frames == "all" else [0 if frames == "first" else count // 2]


def _valid_window(window: Window, function: Function | None) -> Window:
    if isinstance(window, str):
        if window == "full" and function is not None:
            raise DataError('function shapes a window, and window = "full" has none; leave one of them out')
        return window
    centre, width = (float(value) for value in window)
    if not is_window(centre, width, function or "linear"):
        least = "at least 1" if (function or "linear") == "linear" else "above 0"
        raise DataError(f"window = [{centre:g}, {width:g}] must be a centre and a width {least}, both finite")
    return centre, width
