"""The report of a study of a classifier: one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gankit.files import write_atomically
from gankit.images.pictures import grid_png
from gankit.report.pages import draw_png, png_uri, render
from gankit.runs.run import open_run
from gankit.studies.classifier.data import Parts, labels_of, numbers
from gankit.studies.classifier.settings import BAR, ClassifierStudy
from gankit.studies.classifier.training import LOGITS, RUN

SHOWN = 16
ARMS = {
    "real": "real images as they come",
    "oversampling": "real images, classes drawn equally often",
    "classical": "real images with classical augmentation, classes weighted in the loss: the bar to beat",
    "synthetic": "real images and generated ones of the rare class",
    "classical-synthetic": "real and generated images with classical augmentation, no weights of classes",
    "copies": "a control: noised copies of training images in place of generated ones, which add no information",
}


def interval(entry: dict[str, Any], signed: bool = False) -> str:
    """A value with its interval."""
    sign = "+" if signed else ""
    return f"{entry['value']:{sign}.3f} [{entry['low']:{sign}.3f}, {entry['high']:{sign}.3f}]"


def write_report(study: ClassifierStudy, parts: Parts, metrics: dict[str, Any], folder: Path) -> Path:
    """Write `report.html` into a study's folder.

    Args:
        study: its settings.
        parts: its data.
        metrics: what `metrics.json` holds.
        folder: of the study, with its trainings.

    Raises:
        RunError: a run of a generator is gone.
    """
    jobs = folder / "jobs"
    page = render(
        "gankit.studies.classifier",
        "report.html.j2",
        protocol=metrics["protocol"],
        settings=study.classifier,
        bar=BAR,
        arms=metrics["arms"],
        words=ARMS,
        names=list(parts.test.class_names),
        scores=_scores(metrics),
        recalls=_recalls(metrics),
        groupings=_groupings(metrics),
        differences=_differences(metrics),
        failures=metrics["failures"],
        regression=_regression(metrics),
        interval=interval,
        pictures=[png_uri(picture) for picture in _pictures(study, parts, metrics, jobs)],
        grids=[(title, png_uri(picture)) for title, picture in _grids(study, parts, metrics, jobs)],
        methods=methods(study, parts, metrics),
        experiment=study.toml(),
    )
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def _scores(metrics: dict[str, Any]) -> list[list[str]]:
    names = ["balanced accuracy", "macro F1", "AUC"]
    calibrated = ["Brier score", "calibration error"]
    known = [name for name in calibrated if all(name in found for found in metrics["arms"].values())]
    rows = [["trained on", *names, *known]]
    for arm, found in metrics["arms"].items():
        rows.append([arm, *(interval(found[name]) for name in names), *(f"{found[name]:.3f}" for name in known)])
    return rows


def _recalls(metrics: dict[str, Any]) -> list[list[str]]:
    rows: list[list[str]] = []
    for arm, found in metrics["arms"].items():
        rows = rows or [["trained on", *(f"{name} (n = {entry['n']})" for name, entry in found["recall"].items())]]
        rows.append([arm, *(interval(entry) for entry in found["recall"].values())])
    return rows


def _groupings(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {}
    for arm, found in metrics["arms"].items():
        for name, entry in found["groupings"].items():
            n = [entry[key]["n"] for key in ("sensitivity", "specificity")]
            head = ["trained on", f"sensitivity (n = {n[0]})", f"specificity (n = {n[1]})", "AUC"]
            table = tables.setdefault(name, {"name": name, "positive": entry["positive"], "rows": [head]})
            table["rows"].append([arm, *(interval(entry[key]) for key in ("sensitivity", "specificity", "AUC"))])
    return list(tables.values())


def _differences(metrics: dict[str, Any]) -> list[list[str]]:
    rows: dict[tuple[str, str], list[str]] = {}
    scores = list(dict.fromkeys(row["score"] for row in metrics["differences"]))
    for row in metrics["differences"]:
        name = f"{row['arm']} less {row['against']}"
        rows.setdefault((row["arm"], row["against"]), [name]).append(interval(row, signed=True))
    return [["difference", *scores], *rows.values()] if rows else []


def _regression(metrics: dict[str, Any]) -> dict[str, Any] | None:
    found = metrics.get("regression")
    if found is None:
        return None
    rows = [[name, interval(entry)] for name, entry in found.items() if isinstance(entry, dict)]
    return {"number": found["number"], "rows": rows, "mean": found["mean absolute error of the training mean"]}


def _grids(study: ClassifierStudy, parts: Parts, metrics: dict[str, Any], jobs: Path) -> list[tuple[str, bytes]]:
    """Real images of the class that is filled up, and those of the first generator."""
    if not any("synthetic" in arm for arm in metrics["arms"]):
        return []
    names = study.classifier.synthetic_classes or [parts.train.class_names[parts.rarest]]
    run, found = open_run(jobs / f"generator-{study.training.seed}" / RUN), []
    for name in names:
        places = np.flatnonzero(labels_of(parts.train) == parts.train.class_names.index(name))[:SHOWN]
        found.append((f"Real images of {name}", grid_png(parts.train.read(places), parts.train.value_range, 8)))
        drawn = run.sample(SHOWN, name, seed=0)
        title = f"Generated images of {name}, not selected (seed {study.training.seed})"
        found.append((title, grid_png(drawn, run.value_range, 8)))
    return found


def _pictures(study: ClassifierStudy, parts: Parts, metrics: dict[str, Any], jobs: Path) -> list[bytes]:
    arms, found = metrics["arms"], []
    if metrics["differences"]:
        found.append(_plot(lambda axes: _draw_differences(axes, metrics)))
    if study.classifier.calibration and arms:
        found.append(_plot(lambda axes: _draw_reliability(axes, arms)))
    if "regression" in metrics:
        name = str(study.classifier.regression)
        predicted = np.load(jobs / f"regression-{study.training.seed}" / LOGITS)[:, 0]
        found.append(_plot(lambda axes: _draw_numbers(axes, name, numbers(parts.test)[name], predicted)))
    if arms:
        found.append(_plot(lambda axes: _draw_losses(axes, arms, study.classifier.steps)))
    return found


def _plot(draw: Callable[[Any], None]) -> bytes:
    """A picture of one pair of axes with a grid, which `draw` fills."""

    def fill(figure: Any) -> None:
        axes = figure.add_subplot()
        draw(axes)
        axes.grid(alpha=0.3)

    return draw_png(fill, (7, 3.2))


def _draw_differences(axes: Any, metrics: dict[str, Any]) -> None:
    rows = [row for row in metrics["differences"] if row["score"] == "balanced accuracy"][::-1]
    for place, row in enumerate(rows):
        axes.plot([row["low"], row["high"]], [place, place], color="tab:blue", linewidth=2)
        axes.plot(row["by_seed"], [place] * len(row["by_seed"]), "x", color="tab:gray", markersize=5)
        axes.plot(row["value"], place, "o", color="tab:blue")
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{row['arm']} less {row['against']}" for row in rows])
    axes.set(xlabel="difference of balanced accuracy; crosses are seeds", ylim=(-0.6, len(rows) - 0.4))


def _draw_reliability(axes: Any, arms: dict[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color="black", linewidth=1)
    for arm, found in arms.items():
        axes.plot(
            *zip(*[(confidence, right) for _, confidence, right in found["reliability"]], strict=True), "o-", label=arm
        )
    axes.set(xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, fontsize=8)


def _draw_numbers(axes: Any, name: str, true: Any, predicted: Any) -> None:
    axes.plot(true, true, color="black", linewidth=1)
    axes.plot(true, predicted, "o", markersize=3, alpha=0.6)
    axes.set(xlabel=f"true {name}", ylabel="as the network says")


def _draw_losses(axes: Any, arms: dict[str, Any], steps: int) -> None:
    for arm, found in arms.items():
        places = (np.arange(len(found["losses"])) + 0.5) * steps / len(found["losses"])
        axes.plot(places, found["losses"], label=arm, linewidth=1.2)
    axes.set(xlabel="optimiser step", ylabel="training loss, mean of seeds")
    axes.legend(frameon=False, fontsize=8)


def methods(study: ClassifierStudy, parts: Parts, metrics: dict[str, Any]) -> str:
    """A paragraph for a paper."""
    own, protocol = study.classifier, metrics["protocol"]
    cases = {side: sum(counts.values()) for side, counts in protocol["cases"].items()}
    groups = protocol["groups"]["test"]
    network = "a small convolutional network" if own.network == "small" else f"{own.network} (torchvision)"
    started = "from random weights" if own.weights is None else f"from the weights {Path(own.weights).name}"
    text = (
        f"We trained {network} {started} with AdamW (learning rate {own.lr:g} falling along a cosine, weight decay "
        f"{own.weight_decay:g}, batches of {own.batch}) for {own.steps} optimiser steps in every arm, {own.seeds} "
        f"seed{'s' if own.seeds > 1 else ''} each, on {cases['train']} images, and tested the last weights on "
        f"{cases['test']} images{'' if groups is None else f' of {groups} groups'}; {protocol['split']}. "
    )
    if own.generated:
        text += (
            f"Generated images come from a conditional generator ({study.generator.name}, {study.training.steps} "
            "updates) that was trained on the training part only. "
        )
    return text + (
        "Differences between arms are paired by test case and seed; their 95 % intervals are t intervals of a "
        "jackknife over groups of test cases and of the spread between seeds. Intervals of proportions are Wilson's; "
        f"those of other scores are percentiles of a bootstrap over groups and seeds (gankit "
        f"{protocol['versions']['gankit']})."
    )
