"""The folder of a fold, for other programs: training images, a list of them, and how many images are wanted."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gankit.errors import RunError
from gankit.evaluation.folds import LIST, TRAIN
from gankit.files import refuse_nonempty, sole_writer, write_csv, write_folder
from gankit.images.pictures import save_image
from gankit.studies.augmentation.folds import Fold
from gankit.studies.augmentation.learning import most_added
from gankit.studies.labelled import class_labels, groups_of, image_digests

if TYPE_CHECKING:
    from gankit.studies.augmentation.study import AugmentationStudy

WANTED = "wanted.csv"
COLUMNS = ("file", "name", "digest", "class", "group")
"""Of `train.csv`, which may have one more: the number that is learned, by its own name."""


def class_folders(names: Sequence[str]) -> list[str]:
    """The name of each class's folder: the class's own, with all but letters, digits, `-`, `.` and `_` replaced.

    No two differ in capital letters alone, which some file systems ignore.
    """
    folders: dict[str, str] = {}
    for number, name in enumerate(names):
        folder = re.sub(r"[^\w.-]", "_", name).strip(".") or f"class-{number}"
        while folder.casefold() in folders:
            folder += f"-{number}"
        folders[folder.casefold()] = folder
    return list(folders.values())


def write_fold(study: "AugmentationStudy", fold: Fold, folder: Path) -> None:
    """Write what a generator of this fold may see: `train/CLASS/*`, `train.csv` and `wanted.csv`.

    `train.csv` lists each file with its name in the data set, a digest of its pixels, its class and group (patient),
    and the number that the endpoint "severity" learns. Nothing else of the data set is written: whoever sees only this
    folder cannot have seen an image that judges. The images must be of a type that `fits_png`.

    Raises:
        BusyError: another process writes there.
        RunError: the folder holds the fold of other data or settings, or images that are listed nowhere.
    """
    learn, names = fold.learn, class_folders(fold.learn.class_names)
    labels = class_labels(learn)
    files = [f"{TRAIN}/{names[label]}/{place:06d}.png" for place, label in enumerate(labels)]
    digests, classes = [digest.hex() for digest in image_digests(learn)], [learn.class_names[label] for label in labels]
    stored = (files, learn.known.files or [""] * len(learn), digests, classes, groups_of(learn))
    columns: dict[str, Iterable[object]] = dict(zip(COLUMNS, stored, strict=True))
    if study.settings.endpoint == "severity":
        columns[str(study.settings.number)] = study.endpoint.values(learn)

    def fill(train: Path) -> None:
        for place, file in enumerate(files):
            path = train / Path(file).relative_to(TRAIN)
            path.parent.mkdir(exist_ok=True)
            save_image(path, learn.read(np.array([place]))[0])
        new_list.replace(train / moved.name)

    old_list, new_list, moved = folder / LIST, folder / f".{LIST}.{os.getpid()}.tmp", folder / TRAIN / f".{LIST}"
    with sole_writer(folder):
        if moved.is_file():  # a call was stopped when it had written all images
            moved.replace(old_list)
        complete = old_list.is_file()
        if not complete:  # images of another division may be among these, and judge in this one
            refuse_nonempty(folder / TRAIN, f"and there is no {LIST} of what it holds: delete it")
        try:
            write_csv(new_list, [columns, *zip(*columns.values(), strict=True)])
            if complete and new_list.read_bytes() != old_list.read_bytes():
                raise RunError(f"{folder} holds the fold of other data or settings; choose another folder")
            wanted = zip(names, most_added(fold, study), strict=True)  # written anew: another study may need more
            write_csv(folder / WANTED, [["class", "images"], *([name, int(count)] for name, count in wanted)])
            if not complete:
                write_folder(folder / TRAIN, fill)
                moved.replace(old_list)  # last, so that a fold with a list is complete
        finally:
            new_list.unlink(missing_ok=True)
