"""Samples of a run as files."""

import math
from pathlib import Path

from torch import Tensor

from gankit.errors import RunError
from gankit.files import refuse_taken, write_atomically, write_csv, write_folder
from gankit.images.known import GRID
from gankit.images.pictures import grid_png, save_image
from gankit.runs.labels import Labels
from gankit.runs.run import Run

GRID_IMAGES = 256


def write_samples(
    run: Run, folder: Path, count: int, label: str | None = None, seed: int = 0, truncation: float = 1.0
) -> Path:
    """Write `count` samples as numbered images at the data's depth, their labels, and a grid of the first 256.

    The labels are in labels.csv, the grid is grid.png; the folder must be new or empty. The label is a class by name or
    number, or float conditions separated by commas; None draws labels as they occur in the training images. Seed and
    truncation are those of `Run.sample`.

    Raises:
        RunError: the folder is taken, the label does not fit the run, or its generator cannot truncate.
    """
    refuse_taken(folder)  # before the work
    latents, labels = run.draw(count, parse_label(run, label), seed)
    images = run.decode(latents, labels, truncation)
    digits = max(5, len(str(count - 1)))

    def fill(unfinished: Path) -> None:
        files = [save_image(unfinished / f"{number:0{digits}d}", image) for number, image in enumerate(images)]
        write_atomically(unfinished / GRID, grid_png(images[:GRID_IMAGES], run.value_range))
        header, rows = ["file"], [[path.name] for path in files]
        if labels is not None:
            conditional = run.experiment.data.conditional
            condition_names = conditional if isinstance(conditional, list) else None
            header += condition_names or ["label"]
            for row, text in zip(rows, label_texts(run, labels) or [], strict=True):
                row += text.split(",") if condition_names else [text]
        write_csv(unfinished / "labels.csv", [header, *rows])

    return write_folder(folder, fill)


def parse_label(run: Run, label: str | None) -> Labels:
    """A label as the command line names it, for `Run.draw`: a class, or the numbers of "1.5,0.2" for conditions.

    Raises:
        RunError: the run has k float conditions, and `label` is not k finite numbers.
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
    """(n,) classes or (n, k) conditions as `parse_label` reads them, one text per sample; None for None."""
    if labels is None:
        return None
    if run.image.classes:
        return [run.class_names[k] for k in labels.tolist()]
    return [",".join(f"{value:.6g}" for value in row) for row in run.decode_conditions(labels)]
