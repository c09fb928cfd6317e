"""The folder of a fold, for other programs: training images, a list of them, and how many images are wanted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gankit.errors import RunError
from gankit.evaluation.folds import LIST, TRAIN
from gankit.files import write_csv
from gankit.images.pictures import save_image
from gankit.interfaces import Dataset
from gankit.studies.augmentation.folds import Fold, values_of
from gankit.studies.augmentation.learning import most_added
from gankit.studies.labelled import class_labels, groups_of, image_digests

if TYPE_CHECKING:
    from gankit.studies.augmentation.study import AugmentationStudy

WANTED = "wanted.csv"


def class_folders(names: Sequence[str]) -> list[str]:
    """The name of each class's folder: the class's own, with all but letters, digits, `-`, `.` and `_` replaced.

    No two are equal but for capital letters, which some file systems ignore.
    """
    folders: dict[str, str] = {}
    for number, name in enumerate(names):
        folder = re.sub(r"[^\w.-]", "_", name).strip(".") or f"class-{number}"
        while folder.casefold() in folders:
            folder += f"-{number}"
        folders[folder.casefold()] = folder
    return list(folders.values())


def write_fold(study: AugmentationStudy, fold: Fold, folder: Path) -> None:
    """Write what a generator of this fold may see: `train/CLASS/*`, `train.csv` and `wanted.csv`.

    `train.csv` lists each file with its name in the data set, a digest of its pixels, its class and group (patient),
    and the number that the endpoint "severity" learns. Nothing else of the data set is written: whoever sees only this
    folder cannot have seen an image that judges. The images must be of a type that `can_be_png`.

    Raises:
        RunError: the folder holds the fold of other data or settings.
    """
    learn, names = fold.learn, class_folders(fold.learn.class_names)
    labels = class_labels(learn)
    files = [f"{TRAIN}/{names[label]}/{place:06d}.png" for place, label in enumerate(labels)]
    columns: dict[str, Sequence[object]] = {
        "file": files,
        "name": learn.known.files or [""] * len(learn),
        "digest": [digest.hex() for digest in image_digests(learn)],
        "class": [learn.class_names[label] for label in labels],
        "group": list(groups_of(learn, np.arange(len(learn)))),
    }
    if study.settings.endpoint == "severity":
        columns[str(study.settings.number)] = list(values_of(learn, study.settings))
    table = [list(columns), *zip(*columns.values(), strict=True)]
    old_list, new_list = folder / LIST, folder / f".{LIST}"
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(new_list, table)
    complete = old_list.is_file()
    if complete and new_list.read_bytes() != old_list.read_bytes():
        new_list.unlink()
        raise RunError(f"{folder} holds the fold of other data or settings; choose another folder")
    if not complete:
        for place, file in enumerate(files):
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(path, learn.read(np.array([place]))[0])
    wanted = zip(names, most_added(fold, study), strict=True)  # written anew: another study may need more
    write_csv(folder / WANTED, [["class", "images"], *([name, int(count)] for name, count in wanted)])
    new_list.replace(old_list)  # last, so that a fold with a list is complete


def can_be_png(images: Dataset) -> bool:
    """Whether `save_image` writes images of this type as PNG files, which is what other programs hand over."""
    grey = images.image.channels == 1
    return (images.dtype == np.uint8 and images.image.channels in (1, 3)) or (images.dtype == np.uint16 and grey)
