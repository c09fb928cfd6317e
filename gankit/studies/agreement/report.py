"""The report of a study of rater agreement: one self-contained page, and the tables as files."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from gankit.evaluation.uncertainty import wilson
from gankit.images.pictures import grid_png
from gankit.report.pages import draw_png, png_uri
from gankit.runs.run import Run, open_run
from gankit.studies.agreement.arms import CONTROLS, Arm, heading, percent
from gankit.studies.agreement.conclusions import conclusions, count_measured
from gankit.studies.agreement.estimates import ROWS, Estimates, Where
from gankit.studies.agreement.tables import EQUAL, block_title, blocks, rows, table1, write_tables
from gankit.studies.agreement.trials import Findings
from gankit.studies.pages import write_page
from gankit.studies.study import Results, format_seconds
from gankit.studies.trainings import RUN

SHOWN = 10


def write_report(results: Results) -> None:
    """Write `report.html`, and `table1` and `table2` as .csv and .tex, into a study's folder."""
    findings: Findings = results.values
    study, images, estimates = findings.study, findings.images, Estimates(findings)
    write_tables(estimates, results.folder)
    runs = [open_run(trial.folder / RUN) for trial in findings.trials if not trial.outcome.failure]
    record = runs[0].experiment.run
    assert record is not None
    parts, by_threshold, losses = blocks(rows(estimates)), _by_threshold(estimates), _losses(runs)
    arms_by_seeds: dict[int, list[Arm]] = {}
    for arm in estimates.arms():
        arms_by_seeds.setdefault(len(study.seeds_of(arm)), []).append(arm)
    places = np.linspace(0, len(images.full) - 1, min(2 * SHOWN, len(images.full))).astype(np.int64)
    write_page(
        study,
        results,
        "agreement/report.html.j2",
        warnings=warnings_of(findings),
        estimates=estimates,
        images=images,
        image=images.full.image,
        reals=findings.reals,
        trials=findings.trials,
        trained=[arm for arm in estimates.arms() if estimates.trials(arm)],
        measurement=findings.measurement,
        controls=CONTROLS,
        headings={threshold: heading(threshold) for threshold in images.thresholds},
        conclusions=conclusions(estimates),
        count_measured=count_measured,
        wilson=wilson,
        table1=table1(estimates),
        table2=[block for block in parts if block[0].images != EQUAL],
        equal=[block for block in parts if block[0].images == EQUAL],
        block_title=block_title,
        by_threshold=by_threshold and png_uri(by_threshold),
        losses=losses and png_uri(losses),
        real_grid=png_uri(grid_png(images.full.read(places), images.full.value_range, SHOWN)),
        grids=_grids(estimates),
        record=record,
        tables=study.tables(),
        arms_by_seeds=arms_by_seeds,
        format_seconds=format_seconds,
    )


def warnings_of(findings: Findings) -> list[str]:
    """What a reader must know before the numbers."""
    study, settings, images, dim = findings.study, findings.settings, findings.images, findings.reals["dim"]
    warnings = []
    if few := [n for n in sorted({settings.kept, settings.drawn, images.n}) if n < dim]:
        warnings.append(
            f"the features have {dim} dimensions, and sets of {', '.join(map(str, few))} images cannot fill them: a "
            "Frechet distance of so few images is mostly bias, and at equal n a generator of more alike images has "
            "less of it; read it beside real against real, or read KID, which has no such bias"
        )
    if settings.warm_start:
        warnings.append(
            f"trainings of a seed share their first {settings.warm_start} steps, on all training images, so that "
            "selection rates differ less than they would from scratch"
        )
    for lower, upper in itertools.pairwise(images.thresholds):
        if len(images.training_at(lower)) == len(images.training_at(upper)):
            text = f"SR {percent(upper)} leaves out no more images than {percent(lower)}: the same training twice"
            warnings.append(text)
    if all(len(study.seeds_of(arm)) == 1 for arm in study.arms()):
        warnings.append(
            "every arm was trained once, so that nobody knows how much trainings differ, and no conclusion is drawn: "
            "set study.seeds_at_ends=3, say"
        )
    if study.measurement and not findings.measurement:
        fact = study.measurement.fact
        warnings.append(f"the {fact} cannot be measured well enough on images of this size, and is left out")
    return warnings


def _grids(estimates: Estimates) -> list[dict[str, Any]]:
    """The pictures of the first training of each arm."""
    grids: list[dict[str, Any]] = []
    for arm in estimates.arms():
        trial = next(iter(estimates.trials(arm)), None)
        pictures = {row: png_uri((trial.folder / f"{row}.png").read_bytes()) for row in ROWS} if trial else {}
        grids.append({"arm": arm, "trial": trial, "pictures": pictures})
    return grids


def _by_threshold(estimates: Estimates) -> bytes | None:
    """The distance by selection rate: as the paper has it, and beside held-out images with the controls."""
    images, settings = estimates.findings.images, estimates.findings.settings
    if len(images.thresholds) < 2:
        return None
    panels: list[tuple[str, list[tuple[str, list[Arm], Where]]]] = [
        ("to own training images, as in the paper", [
            (name if row == "all" else f"{name} {settings.kept}", estimates.row(), Where("drawn", row))
            for row, name in ROWS.items()
        ]),
        (f"to held-out images, {images.n} a side", [
            (CONTROLS[control].words if control else f"scope {scope}" if scope else "by agreement",
             estimates.row(control, scope), Where("equal", "held-out"))
            for control, scope in estimates.variants()
        ]),
    ]  # fmt: skip

    def draw(figure: Any) -> None:
        for axes, (label, lines) in zip(figure.subplots(1, 2), panels, strict=True):
            for place, (name, arms, where) in enumerate(lines):
                aside = 0.8 * (place - (len(lines) - 1) / 2)  # so that bars do not cover each other
                known = [arm for arm in arms if estimates.by_seed(arm, where)]
                seeds = estimates.common_seeds(known, where)[:1]
                points = [(arm, value) for arm in known if (value := estimates.of(arm, where, seeds or None))]
                if points:
                    axes.errorbar(
                        [100 * arm.threshold + aside for arm, _ in points], [value.value for _, value in points],
                        [value.error or 0.0 for _, value in points], label=name, color=f"C{place}", marker="o",
                        capsize=3, linewidth=1.2,
                    )  # fmt: skip
                for arm, _ in points:
                    others = [value for seed, value in estimates.by_seed(arm, where).items() if seed not in seeds]
                    axes.plot([100 * arm.threshold + aside] * len(others), others, "x", color=f"C{place}", alpha=0.6)
            real = [(arm.threshold, estimates.between_reals(arm, lines[0][2])) for arm in lines[0][1]]
            line = [(100 * threshold, entry["mean"]) for threshold, entry in real if entry is not None]
            if line:
                axes.plot(*zip(*line, strict=True), "--", color="0.4", linewidth=1, label="reals in place of All"
                          if lines[0][2].row == "all" else "reals")  # fmt: skip
            axes.set(xlabel="selection rate, %", ylabel=estimates.metric_name("frechet"), title=label)
            axes.grid(alpha=0.3)
            axes.legend(frameon=False, fontsize=8)

    return draw_png(draw, (9, 3.4))


def _losses(runs: list[Run]) -> bytes | None:
    """The critic's first loss of every training; a colour for each arm."""
    name = runs[0].experiment.losses[0].name
    curves = [[(row["step"], row[f"critic/{name}"]) for row in run.log if f"critic/{name}" in row] for run in runs]
    if not any(curves):
        return None
    arms = [run.path.parent.name.rpartition("-seed")[0] for run in runs]

    def draw(figure: Any) -> None:
        axes, seen = figure.add_subplot(), list(dict.fromkeys(arms))
        for arm, points in zip(arms, curves, strict=True):
            if not points:
                continue
            label = f"_{arm}" if arm in {line.get_label() for line in axes.lines} else arm
            axes.plot(*zip(*points, strict=True), label=label, color=f"C{seen.index(arm) % 10}",
                      linestyle="-" if seen.index(arm) < 10 else ":", linewidth=0.9)  # fmt: skip
        axes.set(xlabel="step (generator updates)", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=7, ncols=2)

    return draw_png(draw, (9, 3.4))
