"""Samples of a run as files."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from torch import Tensor

from gankit.runs.checkpoint import write_atomically
from gankit.errors import RunError
from gankit.images.pictures import grid_png, save_image
from gankit.runs.run import Labels, Run

GRID_IMAGES = 256


def write_samples(run: Run, folder: Path, count: int, label: str | None = None, seed: int = 0) -> Path:
    """Write `count` samples as numbered images at the data's depth, the first of them as grid.png, and labels.csv.

    Args:
        run: where they are drawn from.
        folder: to write; it must not exist, or be empty.
        count: how many.
        label: a class by name or number, or float conditions separated by commas; None draws labels as they occur in
            the training images.
        seed: of the latents.

    Raises:
        RunError: the folder is taken, or the label does not fit the run.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is not empty; choose another --out")
    latents, labels = run.draw(count, asked(run, label), seed)
    images = run.decode(latents, labels)
    folder.mkdir(parents=True, exist_ok=True)
    digits = max(5, len(str(count - 1)))
    files = [save_image(folder / f"{number:0{digits}d}", image) for number, image in enumerate(images)]
    write_atomically(folder / "grid.png", grid_png(images[:GRID_IMAGES], run.value_range))
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if labels is None:
            writer.writerow(["file"])
            writer.writerows([path.name] for path in files)
        elif run.image.classes:
            writer.writerow(["file", "label"])
            writer.writerows([path.name, run.class_names[k]] for path, k in zip(files, labels.tolist(), strict=True))
        else:
            names = run.experiment.data.conditional
            assert isinstance(names, list)
            writer.writerow(["file", *names])
            for path, row in zip(files, run.decode_conditions(labels), strict=True):
                writer.writerow([path.name, *(f"{value:.6g}" for value in row)])
    return folder


def asked(run: Run, label: str | None) -> Labels:
    """A label as the command line names it, for `Run.draw`: a class, or the numbers of "1.5,0.2" for conditions.

    Raises:
        RunError: the run has conditions, and these are not their numbers.
    """
    count = run.image.conditions
    if label is None or not count:
        return label
    try:
        values = [float(part) for part in label.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(map(math.isfinite, values)):
        raise RunError(f"--label: {label!r} is not {count} number(s), separated by commas")
    return values


def label_texts(run: Run, labels: Tensor | None) -> list[str] | None:
    """(n,) classes or (n, k) standardised conditions as `asked` reads them, one text a sample; None for None."""
    if labels is None:
        return None
    if run.image.classes:
        return [run.class_names[k] for k in labels.tolist()]
    return [",".join(f"{value:.6g}" for value in row) for row in run.decode_conditions(labels)]
