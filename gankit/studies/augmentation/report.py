"""What a study of augmentation writes: tables as CSV and LaTeX and as text, and one self-contained page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from gankit.files import write_csv
from gankit.images.pictures import grid_png
from gankit.report.pages import draw_intervals
from gankit.studies.augmentation.arms import CONTROLS
from gankit.studies.augmentation.judging import Cells, is_leak
from gankit.studies.augmentation.learning import MADE
from gankit.studies.augmentation.sources import FAR
from gankit.studies.formats import NONE, interval, number, write_latex
from gankit.studies.labelled import class_labels, groups_of
from gankit.studies.privacy import privacy_rows
from gankit.studies.study import JOBS, Results, write_page
from gankit.studies.worker import made_file

if TYPE_CHECKING:
    from gankit.studies.augmentation.study import AugmentationStudy

SHOWN = 8  # images of a class in a picture


def verdict_line(metrics: Mapping[str, Any]) -> str:
    """The verdict with the contrast that it rests on."""
    verdict, protocol = metrics["verdict"], metrics["protocol"]
    return (
        f"{verdict['word']}: best synthetic arm less best baseline {interval(metrics['primary'], True)} of "
        f"{protocol['endpoint']}, margin {protocol['margin']:g} ({verdict['why']})"
    )


def arm_rows(metrics: Mapping[str, Any], joined: bool = True) -> list[list[str]]:
    """The arms as text, a header first; a difference and its interval `joined`, or each number by itself."""
    bounds = [] if joined else ["low", "high"]
    rows = [["arm", "role", "gain", "less best baseline", *bounds, "p", "p after Holm", "folds lacking", "chosen"]]
    for name, entry in metrics["arms"].items():
        chosen = [row["variant"] for row in entry["chosen"]]
        choices = ", ".join(f"{variant} {chosen.count(variant)}x" for variant in dict.fromkeys(chosen))
        difference = [interval(entry, signed=True)] if joined else [number(entry[key]) for key in ("value", *bounds)]
        ps = [number(entry["p"]), number(entry["p_holm"])]
        rows.append([name, entry["role"], number(entry["gain"]), *difference, *ps, str(entry["missing"]), choices])
    return rows


def _score_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    names = next((list(entry["scores"]) for entry in metrics["arms"].values() if entry["scores"]), [])
    of_arms = ([arm, *(number(entry["scores"].get(name)) for name in names)] for arm, entry in metrics["arms"].items())
    return [["arm", *names], *of_arms]


def _choice_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    rows = [["fold", "best synthetic arm", "gain", "best baseline", "gain", "difference"]]
    for row in metrics["primary"]["chosen"]:
        sides = [row["variant"], number(row["gain"]), row["baseline"], number(row["baseline_gain"])]
        rows.append([str(row["fold"]), *sides, f"{row['difference']:+.3f}"])
    return rows


def _source_rows(metrics: Mapping[str, Any], names: tuple[str, ...]) -> list[list[str]]:
    rows = [["fold", "source", "images", "by class", "of the judging parts", "leak alarm", "near copies unnoticed"]]
    for row in metrics["sources"]:
        counts = ", ".join(f"{name} {count}" for name, count in zip(names, row["by_class"], strict=False))
        alarm = "failed" if row["failure"] else "yes" if is_leak(row) else "no"
        found = [str(row["leaked"]), alarm, str(row.get("unnoticed", NONE))]
        rows.append([str(row["fold"]), row["source"], str(row["images"]), counts, *found])
    return rows


def _tables(study: AugmentationStudy, metrics: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """The tables of the page and of files, as text, a header first."""
    return {
        "arms": arm_rows(metrics),
        "scores": _score_rows(metrics),
        "choices": _choice_rows(metrics),  # on the validation part of each fold
        "sources": _source_rows(metrics, study.division.dataset.class_names),
        "flow": metrics["flow"],
        "privacy": privacy_rows(metrics["privacy"]),
    }


def write_tables(study: AugmentationStudy, metrics: Mapping[str, Any], cells: Cells, folder: Path) -> None:
    """Write the tables as CSV and LaTeX, the gains of every training, and the outputs for every test case."""
    tables = _tables(study, metrics)
    write_latex(folder, tables, dict.fromkeys(("arms", "scores", "choices"), verdict_line(metrics)))
    for name, rows in {**tables, "arms": arm_rows(metrics, joined=False)}.items():
        write_csv(folder / f"{name}.csv", rows)
    gains: list[list[object]] = [["fold", "variant", "generator", "seed", "validation", "test"]]
    for (fold, variant), cell in cells.items():
        for (g, s), test in np.ndenumerate(cell.test):
            gains.append([fold, variant, g, s, cell.validation[g, s], test])
    write_csv(folder / "gains.csv", gains)
    write_csv(folder / "predictions.csv", _predictions(study, cells, metrics["arms"]))


def _predictions(study: AugmentationStudy, cells: Cells, arms: Mapping[str, Any]) -> Iterator[list[object]]:
    """Rows of the outputs of the chosen variants for every test case, a header first."""
    numeric, classes = study.outputs == 1, study.division.dataset.class_names
    names = [str(study.settings.number)] if numeric else [f"p_{name}" for name in classes]
    yield ["fold", "case", "group", "label", "arm", "variant", "generator", "seed", *names]
    for arm, entry in arms.items():
        for row in entry["chosen"]:
            fold, cell = study.fold(row["fold"]), cells[row["fold"], row["variant"]]
            cases, labels = fold.places["test"], class_labels(fold.test)
            groups = groups_of(study.division.dataset, cases)
            shown = cell.outputs if numeric else softmax(cell.outputs, axis=-1)
            for (g, s), _ in np.ndenumerate(cell.test):
                for case, group, label, values in zip(cases, groups, labels, shown[g, s], strict=True):
                    texts = [f"{value:.5f}" for value in values]
                    yield [fold.number, case, group, classes[label], arm, row["variant"], g, s, *texts]


def write_report(study: AugmentationStudy, results: Results) -> None:
    """Write `report.html` into the study's folder."""
    metrics = results.values
    variances = metrics["primary"]["variances"] or {}
    deviations = [[name, f"{value**0.5:.3f}"] for name, value in variances.items() if value is not None]
    words = {arm.kind.name: arm.kind.words for arm in study.arms()}
    words |= {f"-{name}": CONTROLS[name] for name in study.settings.controls}  # as names of arms end
    write_page(
        study, results, "augmentation/report.html.j2", warnings=metrics["notes"], metrics=metrics,
        verdict=verdict_line(metrics), tables=_tables(study, metrics), interval=interval, words=words,
        variances=variances and [["varies with", "standard deviation"], *deviations],
        pictures=_pictures(study, results), far=FAR,
    )  # fmt: skip


def _pictures(study: AugmentationStudy, results: Results) -> dict[str, bytes]:
    """Figures by their captions: the differences of all arms, and some images of each source."""
    metrics, figures = results.values, {}
    differences = [
        (name, entry, [row["difference"] for row in entry["chosen"]])
        for name, entry in {"best synthetic arm": metrics["primary"], **metrics["arms"]}.items()
        if entry["value"] is not None
    ]
    if differences:
        figure = draw_intervals(differences, 0, "difference of the endpoint")
        figures["Differences from the best baseline; crosses are folds"] = figure
    fold = study.fold(1)
    for source in study.settings.sources:
        path = results.folder / JOBS / study.image_jobs(fold, source)[0] / MADE
        if path.is_file():
            with np.load(made_file(path.parent, MADE)) as file:
                labels, images = file["labels"], file["images"]
            places = [np.flatnonzero(labels == label)[:SHOWN] for label in np.unique(labels)]
            if sum(map(len, places)):
                picture = grid_png(images[np.concatenate(places)], fold.learn.value_range, SHOWN)
                figures[f"Images of {source} for fold 1, the first of each class"] = picture
    return figures
