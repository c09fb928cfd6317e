"""What a study of a classifier writes: tables as files and as text, and one self-contained page."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from gankit.evaluation.classification import SCORES
from gankit.evaluation.design import Floats
from gankit.files import write_csv
from gankit.images.pictures import grid_png, png_uri
from gankit.report.pages import draw_intervals, draw_lines, draw_png
from gankit.runs.run import open_run
from gankit.studies.classifier.arms import Arm
from gankit.studies.classifier.training import load_outputs
from gankit.studies.formats import interval
from gankit.studies.labelled import class_labels, numeric_facts
from gankit.studies.study import JOBS, Results, write_page
from gankit.studies.trainings import RUN
from gankit.terminal.text import as_columns

if TYPE_CHECKING:
    from gankit.studies.classifier.study import ClassifierStudy

SHOWN = 16  # Images of a class in a picture
HEADLINES = (*SCORES, "AUC")


def text_table(metrics: Mapping[str, Any]) -> str:
    """Scores of the arms, and differences with intervals, as lines for a terminal."""
    scores = [[arm, *(interval(values[name]) for name in HEADLINES)] for arm, values in metrics["arms"].items()]
    differences = [
        [pair[0], f"less {pair[1]}", *(interval(row, signed=True) for row in rows if row["score"] in SCORES)]
        for pair, rows in _by_pair(metrics).items()
    ]
    lines = as_columns([["arm", *HEADLINES], *scores])
    if differences:
        lines += as_columns([["difference", "", *SCORES], *differences])
    return "\n".join([*lines, *(f"note: {note}" for note in metrics["protocol"]["notes"])])


def _by_pair(metrics: Mapping[str, Any]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The differences of every score, by the arms that are compared."""
    pairs = itertools.groupby(metrics["differences"], lambda row: (row["arm"], row["against"]))
    return {pair: list(rows) for pair, rows in pairs}


def write_tables(study: ClassifierStudy, metrics: dict[str, Any], logits: dict[Arm, Floats], folder: Path) -> None:
    """Write results.csv, differences.csv, predictions.csv, and a confusion matrix for each arm."""
    test, seeds = study.split.test, metrics["protocol"]["seeds"]
    names, labels = list(test.class_names), class_labels(test)
    scored: list[tuple[str, str, dict[str, Any]]] = []
    for arm, values in metrics["arms"].items():
        scored += [(arm, name, values[name]) for name in HEADLINES]
        scored += [(arm, f"recall of {name}", entry) for name, entry in values["recall"].items()]
        for grouping, entry in values["groupings"].items():
            scored += [(arm, f"{name} of {grouping}", entry[name]) for name in ("sensitivity", "specificity", "AUC")]
        matrix = [["true", *names], *([name, *row] for name, row in zip(names, values["confusion"], strict=True))]
        write_csv(folder / f"confusion-{arm}.csv", matrix)
    errors = metrics.get("regression", {}).items()
    scored += [("regression", name, entry) for name, entry in errors if isinstance(entry, dict)]
    results = [
        [arm, seed, name, value] for arm, name, entry in scored
        for seed, value in zip(seeds, entry["by_seed"], strict=True)
    ]  # fmt: skip
    write_csv(folder / "results.csv", [["arm", "seed", "score", "value"], *results])
    head = ["arm", "against", "score", "value", "low", "high", "cases_error", "seeds_error"]
    write_csv(folder / "differences.csv", [head, *([row[key] for key in head] for row in metrics["differences"])])
    cases = study.split.test_indices
    groups = cases if test.groups is None else test.groups
    predictions = [
        [case, group, names[label], arm.name, seed, names[row.argmax()], *(f"{value:.5f}" for value in row)]
        for arm, outputs in logits.items()
        for seed, of_seed in zip(seeds, softmax(outputs, axis=-1), strict=True)
        for case, group, label, row in zip(cases, groups, labels, of_seed, strict=True)
    ]
    head = ["case", "group", "label", "arm", "seed", "predicted", *(f"p_{name}" for name in names)]
    write_csv(folder / "predictions.csv", [head, *predictions])


def write_report(study: ClassifierStudy, results: Results) -> None:
    """Write `report.html` into the study's folder."""
    metrics = results.values
    write_page(
        study, results, "classifier/report.html.j2", warnings=metrics["protocol"]["notes"], metrics=metrics,
        differences=_by_pair(metrics), headlines=HEADLINES,
        arms=[arm for arm in study.arms() if arm.name in metrics["arms"]], interval=interval,
        pictures=_pictures(study, results), grids=_grids(study, results),
        generator=study.experiment.generator.name if study.needs_generators else None,
        weights=study.settings.weights and Path(study.settings.weights).name,
    )  # fmt: skip


def _grids(study: ClassifierStudy, results: Results) -> dict[str, str]:
    """Real images of the classes that are filled up, and those of the first generator, by their captions."""
    if not any(arm.generator for arm in study.arms() if arm.name in results.values["arms"]):
        return {}
    train, seed, grids = study.split.train, study.experiment.training.seed, {}
    run = open_run(results.folder / JOBS / f"generator-{seed}" / RUN)
    for name in study.classes_to_fill:
        real = train.read(np.flatnonzero(class_labels(train) == train.class_names.index(name))[:SHOWN])
        grids[f"Real images of {name}"] = real
        grids[f"Generated images of {name}, not selected (seed {seed})"] = run.sample(SHOWN, name, seed=0)
    return {caption: png_uri(grid_png(images, train.value_range, 8)) for caption, images in grids.items()}


def _pictures(study: ClassifierStudy, results: Results) -> dict[str, bytes]:
    """Figures by their captions."""
    metrics, settings = results.values, study.settings
    arms, figures = metrics["arms"], {}
    if differences := [row for row in metrics["differences"] if row["score"] == "balanced accuracy"]:
        rows = [(f"{row['arm']} less {row['against']}", row, row["by_seed"]) for row in differences]
        figures["Differences of balanced accuracy; crosses are seeds"] = draw_intervals(rows, 0)
    if settings.calibration and arms:
        lines: dict[str, Any] = {"right as often as confident": [((0, 1), (0, 1))]}
        lines |= {arm: [tuple(zip(*values["reliability"], strict=True))[1:]] for arm, values in arms.items()}
        figures["Calibration"] = draw_lines(lines, "confidence", "share right")
    if "regression" in metrics:
        name = str(settings.regression)
        predicted = load_outputs(results.folder, "regression", [study.experiment.training.seed])[0, :, 0]

        def draw(axes: Any) -> None:
            true = numeric_facts(study.split.test)[name]
            axes.plot(true, true, color="black", linewidth=1)
            axes.plot(true, predicted, "o", markersize=3, alpha=0.6)
            axes.set(xlabel=f"true {name}", ylabel="as the network says")

        figures[f"{name}, by the first seed"] = draw_png(draw)
    if losses := {arm: values["losses"] for arm, values in arms.items()}:
        lines = {arm: [((np.arange(len(y)) + 0.5) * settings.steps / len(y), y)] for arm, y in losses.items()}
        figures["Losses"] = draw_lines(lines, "optimiser step", "training loss, mean of seeds")
    return figures
