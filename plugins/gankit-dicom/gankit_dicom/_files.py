"""Which files below a folder are DICOM files, and what the folders' names say of them."""

from __future__ import annotations

from pathlib import Path

from gankit.errors import DataError
from gankit.images.labels_csv import check_folder, files_below, folders_of, may_lie_beside, number_classes
from gankit.interfaces import Known

DIRECTORY = "DICOMDIR"
_SUFFIXES = (".dcm", ".dicom", ".ima")


def find(folder: Path) -> tuple[list[str], dict[str, int]]:
    """DICOM files below a folder, and how many others there are of which kind.

    Returns:
        Sorted paths relative to the folder with forward slashes, and counts by kind of the files left out.

    Raises:
        DataError: there is no such folder, or it cannot be read.
    """
    check_folder(folder, "DICOM files")
    names, others = [], {DIRECTORY: 0, "not DICOM": 0}
    reason = None
    try:
        for file in files_below(folder):
            if file.name.upper() == DIRECTORY:
                others[DIRECTORY] += 1
            elif _is_dicom(file) or file.suffix.lower() in _SUFFIXES:
                names.append(file.relative_to(folder).as_posix())
            elif not may_lie_beside(file):
                others["not DICOM"] += 1
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise DataError(f"{folder} holds files or folders that cannot be opened ({reason}); check their permissions")
    return sorted(names), others


def _is_dicom(file: Path) -> bool:
    """Whether the mark of the file format (DICOM PS3.10, 7.1) is there."""
    with file.open("rb") as content:
        return content.read(132)[128:] == b"DICM"


def from_sub_folders(files: list[str], classes: bool) -> tuple[Known, list[str]]:
    """Splits by top folders named train, val and test, and classes by the first folder of each path below them.

    Returns:
        What the folders say, and the name of the class of each file; empty where folders are no classes.

    Raises:
        DataError: some files are in sub-folders and others in none.
    """
    splits, parts = folders_of(files)
    if not classes or not any(parts):
        return Known(files, splits=splits), []
    lost = sum(not folders for folders in parts)
    if lost:
        raise DataError(
            f"{lost} of {len(files)} DICOM files are in no sub-folder, and sub-folders are classes; move them into "
            'one, list all files and labels in labels.csv, or set sub_folders = "ignore"'
        )
    names = [folders[0] for folders in parts]
    labels, class_names = number_classes(names)
    return Known(files, labels=labels, class_names=class_names, splits=splits), names
