"""Evaluations of images that were generated for each fold of a cross-validation: one row per fold, and their mean."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from gankit.errors import DataError, counted, first_of
from gankit.evaluation.comparison import set_aside
from gankit.evaluation.design import cross_validated
from gankit.evaluation.evaluate import evaluate
from gankit.evaluation.latex import tabular
from gankit.evaluation.sources import Source
from gankit.evaluation.tables import Evaluated, aligned, heading, rows, warnings, with_error
from gankit.files import user_path, write_atomically, write_csv
from gankit.images.csv_table import read_csv

TRAIN, GENERATED, LIST = "train", "generated", "train.csv"
"""In the folder of a fold: the images to learn from, the generated ones, and the list of the images to learn from."""
FOLD = re.compile(r"fold-(\d+)")


@final
class EvaluatedFolds(dict[str, Any]):
    """Evaluations of all folds and their means: a dictionary that prints as a table."""

    def __repr__(self) -> str:
        folds = list(self["folds"].values())
        distinct_warnings = dict.fromkeys(warning for fold in folds for warning in warnings(fold))
        # Without the first line of the heading, which names the images of one fold.
        lines = [*heading(folds[0])[1:], *aligned(self.cells()), *self["notes"]]
        return "\n".join([*lines, *(f"warning: {text}" for text in distinct_warnings)])

    def cells(self) -> list[list[str]]:
        """Header and rows of a table of text."""
        folds: dict[str, Evaluated] = self["folds"]
        first = next(iter(folds.values()))
        titles = [row.title for name, row in zip(first["metrics"], rows(first), strict=True) if name in self["mean"]]
        table = [["fold", "n fake", "n real", *titles]]
        for name, fold in folds.items():
            entries = [fold["metrics"][metric] for metric in self["mean"]]
            counts = [str(fold["protocol"][f"n_{side}"]) for side in ("fake", "real")]
            table.append([name, *counts, *(with_error(entry["value"], entry["standard_error"]) for entry in entries)])
        means = self["mean"].values()
        table.append(["mean", "", "", *(f"{mean['value']:.4g}" for mean in means)])
        ends = ["-" if mean["low"] is None else f"{mean['low']:.4g} to {mean['high']:.4g}" for mean in means]
        table.append(["95 % interval", "", "", *ends])
        return table


def fold_folders(source: object) -> list[Path]:
    """The folders `fold-1`, `fold-2`, ... of a folder that `gankit study augmentation --export-folds` wrote, by number.

    Empty for anything else.
    """
    # Unlike Path.is_dir, this is False for what is too long for a name, such as a data set's table.
    if not isinstance(source, (str, Path)) or not os.path.isdir(folder := user_path(source)):
        return []
    folds = [path for path in folder.iterdir() if FOLD.fullmatch(path.name) and path.is_dir()]
    if not any((fold / LIST).is_file() for fold in folds):
        return []
    return sorted(folds, key=lambda path: int(path.name.partition("-")[2]))


def evaluate_folds(
    folder: str | Path, real: Source | None = None, metrics: Any = None, features: Any = None, **options: Any
) -> EvaluatedFolds:
    """Evaluate the images that another program generated for each fold, as `gankit evaluate FOLDER` does.

    A fold is a folder as `gankit study augmentation --export-folds` writes it: `fold-1/train` holds what the generator
    has learnt from, `fold-1/generated` its images.

    Args:
        folder: with `fold-1`, `fold-2`, ...
        real: the real images of all folds, as for `gankit.evaluate`; None compares each fold with its own `train`.
        metrics: as for `gankit.evaluate`.
        features: as for `gankit.evaluate`.
        options: further arguments of `gankit.evaluate`, but for `training`, which is each fold's own `train`, and
            `pictures`, to which every fold would write the same files.

    Returns:
        `{"folds": {name: evaluation}, "mean": {metric: {"value", "low", "high", "folds"}}, "notes": [...]}`, a
        dictionary that prints as a table. The interval is Student's over folds; their variance is multiplied by
        1 / folds + n_left_out / n_training, as the folds' training sets overlap (Nadeau and Bengio 2003). With `real`,
        which all folds share, it leaves out what other real images would change. "low" and "high" are None where all
        folds have one value, such as a precision of 1: their spread is unknown then.

    Raises:
        GankitError: as `gankit.evaluate`; or there are fewer than two folds, or folds without generated images or
            without a list of what was learnt from.
    """
    folds = fold_folders(folder)
    if len(folds) < 2:
        raise DataError(
            f"{folder} holds {counted(len(folds), 'fold')}; give the folder of two or more that --export-folds wrote"
        )
    if lacking := [fold.name for fold in folds if not any((fold / GENERATED).glob("**/*.*"))]:
        raise DataError(f"{folder}: no generated images for {first_of(lacking)}: put them into FOLD/{GENERATED}/CLASS/")
    left_out = _left_out(folds)
    evaluations = {}
    for fold in folds:
        train = fold / TRAIN
        reference = train if real is None else real
        evaluations[fold.name] = evaluate(fold / GENERATED, reference, metrics, features, training=train, **options)
    first, *others = evaluations.values()
    shared = [name for name in first["metrics"] if all(name in other["metrics"] for other in others)]
    notes = ["mean: of the folds; its interval is Student's over folds, wider for the training images that they share"]
    if real is None:
        notes.append("real: what each fold's generator has learnt from: one that only copies would score best")
    means = {
        name: _mean_with_interval([fold["metrics"][name]["value"] for fold in evaluations.values()], left_out)
        for name in shared
    }
    return EvaluatedFolds(folds=evaluations, mean=means, notes=notes)


def _left_out(folds: Sequence[Path]) -> float:
    """The mean over folds of the images that a fold leaves out, divided by those that it learns from."""
    learnt = [set(read_csv(fold / LIST, "digest", unify=str.casefold).columns["digest"]) for fold in folds]
    everything = len(set().union(*learnt))
    return float(np.mean([everything / len(images) - 1 for images in learnt]))


def _mean_with_interval(values: Sequence[float], left_out: float) -> dict[str, float | None]:
    """The mean of the folds' values and its interval, where they differ."""
    mean = cross_validated(np.array(values)[:, None, None], left_out)
    low, high = mean.interval() if mean.varies else (None, None)
    return {"value": mean.value, "low": low, "high": high, "folds": len(values)}


def write_folds(report: EvaluatedFolds, path: Path) -> str:
    """Write the table to a file that ends in .csv or .tex, else everything as JSON; says what was done.

    A JSON file that is there is renamed first, as by `write_metrics`.
    """
    done = f"written to {path}"
    if path.suffix == ".tex":
        header, *table = report.cells()
        write_atomically(path, tabular(header, [("", table)], "\n".join(report["notes"])))
    elif path.suffix == ".csv":
        lines: list[list[object]] = [["fold", "metric", "value", "standard_error", "n_fake", "n_real", "low", "high"]]
        for name, fold in report["folds"].items():
            for metric in report["mean"]:
                entry = fold["metrics"][metric]
                values = [entry[key] for key in ("value", "standard_error", "n_fake", "n_real")]
                lines.append([name, metric, *values, None, None])
        for metric, mean in report["mean"].items():
            lines.append(["mean", metric, mean["value"], None, None, None, mean["low"], mean["high"]])
        write_csv(path, lines)
    else:
        if path.is_file():
            done += f"; the file that was there is now {set_aside(path)}"
        write_atomically(path, json.dumps(report, indent=1) + "\n")
    return done
