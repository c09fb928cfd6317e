"""What a study of a classifier shows: tables as text and as files, and one self-contained page."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from gankit.errors import counted, unbroken
from gankit.evaluation.classification import SCORES
from gankit.evaluation.design import Floats
from gankit.files import write_csv
from gankit.images.pictures import grid_png, png_uri
from gankit.report.pages import draw_intervals, draw_lines, draw_png, render
from gankit.studies.classifier.training import REGRESSION, added_labels, load_outputs
from gankit.studies.formats import NONE, interval, number, write_latex
from gankit.studies.kinds import GENERATOR, Arm
from gankit.studies.labelled import class_labels, groups_of, groups_of_classes, image_digests, numeric_facts
from gankit.studies.privacy import privacy_rows
from gankit.studies.study import JOBS, Results, write_page
from gankit.studies.trainings import finished_run

if TYPE_CHECKING:
    from gankit.studies.classifier.study import ClassifierStudy

SHOWN = 16  # images of a class in a picture
FEW_TEST_GROUPS = 10  # with fewer test groups of a class, intervals of its recall are very wide
HEADLINES = (*SCORES, "AUC")
PRESENCE = ("sensitivity", "specificity", "AUC")  # scores of a grouping


def score_rows(metrics: Mapping[str, Any], names: Collection[str]) -> list[list[str]]:
    """Scores of the arms by their names, those that are mere numbers too; as text, a header first."""

    def cell(entry: Any) -> str:
        return interval(entry) if isinstance(entry, dict) else number(entry)

    return _by_arm(metrics, names, lambda values: [cell(values[name]) for name in names])


def difference_rows(metrics: Mapping[str, Any], names: Collection[str]) -> list[list[str]]:
    """Differences of these scores between arms, as text, a header first."""
    pairs = itertools.groupby(metrics["differences"], lambda row: (row["arm"], row["against"]))
    rows = [
        [arm, f"less {against}", *(interval(row, signed=True) for row in of_pair if row["score"] in names)]
        for (arm, against), of_pair in pairs
    ]
    return [["difference", "", *names], *rows]


def _by_arm(
    metrics: Mapping[str, Any], titles: Iterable[str], cells: Callable[[dict[str, Any]], Iterable[str]]
) -> list[list[str]]:
    """A row for each arm, a header first; `cells` makes those of a row from what `metrics` holds of the arm."""
    return [["trained on", *titles], *([arm, *cells(values)] for arm, values in metrics["arms"].items())]


def _page_tables(study: ClassifierStudy, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of the page, as text, a header first: by name, or several by class, arm or grouping."""
    arms, cases = metrics["arms"], metrics["protocol"]["cases"]
    first: dict[str, Any] = next(iter(arms.values()), {"recall": {}, "groupings": {}})
    classes, groups = list(cases["test"]), metrics["protocol"]["groups"]
    more = ["Brier score", "calibration error"] if study.settings.calibration else []
    compared = list(dict.fromkeys(row["score"] for row in metrics["differences"]))

    def confusion(arm: str) -> list[list[str]]:
        rows = zip(classes, arms[arm]["confusion"], strict=True)
        return [["true", *classes], *([name, *(number(count, 1) for count in row)] for name, row in rows)]

    def presence(grouping: str) -> list[list[str]]:
        sensitivity, specificity = (first["groupings"][grouping][name] for name in PRESENCE[:2])
        titles = [f"sensitivity (n = {sensitivity['n']})", f"specificity (n = {specificity['n']})", "AUC"]
        return _by_arm(metrics, titles, lambda arm: [interval(arm["groupings"][grouping][name]) for name in PRESENCE])

    return {
        "scores": score_rows(metrics, [*HEADLINES, *more]),
        "differences": difference_rows(metrics, compared),
        "recalls": _by_arm(
            metrics,
            [f"{name} (n = {entry['n']})" for name, entry in first["recall"].items()],
            lambda values: map(interval, values["recall"].values()),
        ),
        "confusions": {arm: confusion(arm) for arm in arms},
        "presence": {grouping: presence(grouping) for grouping in first["groupings"]},
        "regression": [
            ["trained on real images", "value"],
            *([name, interval(entry)] for name, entry in metrics.get("regression", {}).items()
              if isinstance(entry, dict)),
        ],
        "flow": [
            ["part", *classes, "groups (patients)"],
            *([side, *map(str, counts.values()), NONE if groups[side] is None else str(groups[side])]
              for side, counts in cases.items()),
        ],
        "effort": _by_arm(
            metrics,
            ["images", "added", "steps of each seed", "seconds of each seed"],
            lambda values: [
                str(values["real"]), str(values["added"]), ", ".join(map(str, dict.fromkeys(values["steps"]))),
                ", ".join(map(str, values["seconds"])),
            ],
        ),
        "privacy": privacy_rows(metrics["privacy"]),
    }  # fmt: skip


def write_tables(study: ClassifierStudy, metrics: dict[str, Any], logits: dict[Arm, Floats], folder: Path) -> None:
    """Write results, differences, predictions, flow, privacy and confusion matrices as CSV, the page's tables as LaTeX.

    `logits` are (seeds, n, classes) of the n test cases.
    """
    names, seeds = list(study.split.test.class_names), metrics["protocol"]["seeds"]
    for arm, values in metrics["arms"].items():
        matrix = [["true", *names], *([name, *row] for name, row in zip(names, values["confusion"], strict=True))]
        write_csv(folder / f"confusion-{arm}.csv", matrix)
    results = [
        [arm, seed, score, value] for arm, score, entry in _scores(metrics)
        for seed, value in zip(seeds, entry["by_seed"], strict=True)
    ]  # fmt: skip
    write_csv(folder / "results.csv", [["arm", "seed", "score", "value"], *results])
    head = ["arm", "against", "score", "value", "low", "high", "cases_error", "seeds_error"]
    write_csv(folder / "differences.csv", [head, *([row[key] for key in head] for row in metrics["differences"])])
    head = ["case", "group", "label", "arm", "seed", "predicted", *(f"p_{name}" for name in names)]
    write_csv(folder / "predictions.csv", [head, *_predictions(study, logits, seeds)])
    tables = _page_tables(study, metrics)
    for name in ("flow", "privacy"):
        write_csv(folder / f"{name}.csv", tables[name])
    several = {f"confusion-{arm}": rows for arm, rows in tables.pop("confusions").items()}
    several |= {f"presence-{place}": rows for place, rows in enumerate(tables.pop("presence").values(), 1)}
    write_latex(folder, {**tables, **several}, {})


def _scores(metrics: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Every score that has a value for each seed: (arm, score's name, its entry in `metrics`)."""
    scores: list[tuple[str, str, dict[str, Any]]] = []
    for arm, values in metrics["arms"].items():
        scores += [(arm, name, values[name]) for name in HEADLINES]
        scores += [(arm, f"recall of {name}", entry) for name, entry in values["recall"].items()]
        for grouping, entry in values["groupings"].items():
            scores += [(arm, f"{name} of {grouping}", entry[name]) for name in PRESENCE]
    regression = metrics.get("regression", {})
    scores += [("regression", name, entry) for name, entry in regression.items() if isinstance(entry, dict)]
    return scores


def _predictions(study: ClassifierStudy, logits: dict[Arm, Floats], seeds: list[int]) -> list[list[Any]]:
    """One row for each arm, seed and test case, with the probability of every class."""
    test, cases = study.split.test, study.split.test_indices
    names, labels = test.class_names, class_labels(test)
    groups = cases if test.groups is None else test.groups
    return [
        [case, group, names[label], arm.name, seed, names[chances.argmax()], *(f"{chance:.5f}" for chance in chances)]
        for arm, outputs in logits.items()
        for seed, of_seed in zip(seeds, softmax(outputs, axis=-1), strict=True)
        for case, group, label, chances in zip(cases, groups, labels, of_seed, strict=True)
    ]


def notes(study: ClassifierStudy) -> list[str]:
    """What a reader of the numbers should know, such as identical images in both parts, and classes of few cases."""
    train, test = study.split.train, study.split.test
    train_labels = defaultdict[bytes, set[int]](set)  # by image, which may be in the training part more than once
    for image, label in zip(image_digests(train), class_labels(train), strict=True):
        train_labels[image].add(label)
    tested = zip(image_digests(test), class_labels(test), strict=True)
    counts = groups_of_classes(class_labels(test), groups_of(test), test.image.classes)
    text = render(
        "gankit.studies", "classifier/notes.txt.j2", settings=study.settings, has_groups=test.groups is not None,
        # For each test image that is a training image, too: whether its label is the same there
        twins=[train_labels[image] == {label} for image, label in tested if image in train_labels],
        few={unbroken(name): n for name, n in zip(test.class_names, counts, strict=True) if n < FEW_TEST_GROUPS},
        nothing_added=any(arm.source for arm in study.arms()) and not len(added_labels(study)),
        needs_generators=study.needs_generators, counted=counted,
    )  # fmt: skip
    return text.split("\n")[:-1]


def write_report(study: ClassifierStudy, results: Results) -> None:
    """Write `report.html` into the study's folder."""
    metrics = results.values
    write_page(
        study, results, "classifier/report.html.j2", warnings=metrics["protocol"]["notes"], metrics=metrics,
        tables=_page_tables(study, metrics), arms=[arm for arm in study.arms() if arm.name in metrics["arms"]],
        pictures=_pictures(study, results), grids=_grids(study, results),
        generator=study.experiment.generator.name if study.needs_generators else None,
        weights=study.settings.weights and Path(study.settings.weights).name,
    )  # fmt: skip


def _grids(study: ClassifierStudy, results: Results) -> dict[str, str]:
    """Pictures of real and of generated images of the classes that are filled up, by their captions.

    The generated ones are of the first seed; none where no finished arm has a generator.
    """
    if not any(arm.source == GENERATOR for arm in study.arms() if arm.name in results.values["arms"]):
        return {}
    train, seed, grids = study.split.train, study.experiment.training.seed, {}
    run = finished_run(results.folder / JOBS / f"{GENERATOR}-{seed}")
    for name in study.classes_to_fill:
        real = train.read(np.flatnonzero(class_labels(train) == train.class_names.index(name))[:SHOWN])
        grids[f"Real images of {name}"] = real
        grids[f"Generated images of {name}, not selected (seed {seed})"] = run.sample(SHOWN, name, seed=0)
    return {caption: png_uri(grid_png(images, train.value_range, 8)) for caption, images in grids.items()}


def _pictures(study: ClassifierStudy, results: Results) -> dict[str, bytes]:
    """Figures as PNG files, by their captions."""
    metrics, settings = results.values, study.settings
    arms, figures = metrics["arms"], {}
    if differences := [row for row in metrics["differences"] if row["score"] == "balanced accuracy"]:
        rows = [(f"{row['arm']} less {row['against']}", row, row["by_seed"]) for row in differences]
        figures["Differences of balanced accuracy; crosses are seeds"] = draw_intervals(rows, 0)
    if settings.calibration and arms:
        diagonal = {"right as often as confident": [((0, 1), (0, 1))]}
        # Of each bin, the confidence and the share that is right
        curves = {arm: [tuple(zip(*values["reliability"], strict=True))[1:]] for arm, values in arms.items()}
        figures["Calibration"] = draw_lines({**diagonal, **curves}, "confidence", "share right")
    if "regression" in metrics:
        figures[f"{settings.regression}, by the first seed"] = _draw_regression(study, results.folder)
    if arms:
        losses: dict[str, Any] = {}
        for arm, values in arms.items():  # means over equal spans of a training, each at the middle of its span
            middles = (np.arange(len(values["losses"])) + 0.5) * settings.steps / len(values["losses"])
            losses[arm] = [(middles, values["losses"])]
        figures["Losses"] = draw_lines(losses, "optimiser step", "training loss, mean of seeds")
    return figures


def _draw_regression(study: ClassifierStudy, folder: Path) -> bytes:
    name = str(study.settings.regression)
    true = numeric_facts(study.split.test)[name]
    predicted = load_outputs(folder, REGRESSION, [study.experiment.training.seed])[0, :, 0]

    def draw(axes: Any) -> None:
        axes.plot(true, true, color="black", linewidth=1)
        axes.plot(true, predicted, "o", markersize=3, alpha=0.6)
        axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}")

    return draw_png(draw)
