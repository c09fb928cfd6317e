"""Which files below a folder are DICOM files, and what the folders' names say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from gankit.errors import DataError
from gankit.images.labels_csv import Knowledge, files_below, folders_of, sorted_names
from numpy.typing import NDArray

DIRECTORY = "DICOMDIR"
_SUFFIXES = (".dcm", ".dicom", ".ima")
_BESIDE = (".csv", ".txt", ".json", ".md")  # files that may lie beside the images, as in gankit's `folder`
_SYSTEM = ("Thumbs.db", "desktop.ini")


def find(folder: Path) -> tuple[list[str], dict[str, int]]:
    """DICOM files below a folder, and how many others there are of which kind.

    Returns:
        Sorted paths relative to the folder with forward slashes, and counts by kind of the files left out.

    Raises:
        DataError: there is no such folder, or it cannot be read.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"the folder {folder} {what}; set path to the folder of the DICOM files")
    found, others = [], {DIRECTORY: 0, "not DICOM": 0}
    reason = None
    try:
        for file in files_below(folder):
            if file.name.upper() == DIRECTORY:
                others[DIRECTORY] += 1
            elif _is_dicom(file) or file.suffix.lower() in _SUFFIXES:
                found.append(file.relative_to(folder).as_posix())
            elif file.suffix.lower() not in _BESIDE and file.name not in _SYSTEM:
                others["not DICOM"] += 1
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise DataError(f"{folder} holds files or folders that cannot be opened ({reason}); check their permissions")
    return sorted(found), others


def _is_dicom(file: Path) -> bool:
    """Whether the mark of the file format (DICOM PS3.10, 7.1) is there."""
    with file.open("rb") as content:
        return content.read(132)[128:] == b"DICM"


def from_sub_folders(files: list[str], classes: bool) -> tuple[Knowledge, list[str]]:
    """Splits by top folders named train, val and test, and classes by the first folder of each path below them.

    Returns:
        What the folders say, and the name of the class of each file; empty where folders are no classes.

    Raises:
        DataError: some files are in sub-folders and others in none.
    """
    splits, parts = folders_of(files)
    if not classes or not any(parts):
        return Knowledge(files, splits=splits), []
    lost = sum(not folders for folders in parts)
    if lost:
        raise DataError(
            f"{lost} of {len(files)} DICOM files are in no sub-folder, and sub-folders are classes; move them into "
            'one, list all files and labels in labels.csv, or set sub_folders = "ignore"'
        )
    called = [folders[0] for folders in parts]
    return _labelled(files, called, splits), called


def _labelled(files: list[str], called: Sequence[str], splits: Mapping[str, NDArray[np.int64]]) -> Knowledge:
    names = sorted_names(called)
    labels = np.array([names.index(name) for name in called], dtype=np.int64)
    return Knowledge(files, labels=labels, class_names=tuple(names), splits=splits)
