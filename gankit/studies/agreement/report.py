"""The report of a study of rater agreement: one self-contained page, and the tables as files."""

import itertools
from typing import Any

import numpy as np

from gankit.evaluation.uncertainty import wilson
from gankit.images.pictures import grid_png, png_uri
from gankit.report.pages import draw_lines, draw_png, render
from gankit.runs.run import Run, open_run
from gankit.studies.agreement.arms import CONTROLS, Arm, heading, percent
from gankit.studies.agreement.conclusions import conclusions
from gankit.studies.agreement.findings import ROWS, Findings, Trial, Where
from gankit.studies.agreement.tables import EQUAL, block_title, blocks, rows, table1, write_tables
from gankit.studies.study import Results, format_seconds, write_page
from gankit.studies.trainings import RUN

SHOWN = 10  # Images in a row of the picture of reals, which has two


def write_report(results: Results) -> None:
    """Write `report.html`, and `table1` and `table2` as .csv and .tex, into a study's folder."""
    findings: Findings = results.values
    study, images = findings.study, findings.images
    write_tables(findings, results.folder)
    runs = [open_run(trial.folder / RUN) for trial in findings.trials if not trial.outcome.failure]
    record = runs[0].experiment.run
    assert record is not None
    parts, by_threshold, losses = blocks(rows(findings)), _by_threshold(findings), _losses(runs)
    counts = {arm: len(study.seeds_of(arm)) for arm in findings.arms()}
    arms_by_seeds = {n: [arm for arm in counts if counts[arm] == n] for n in counts.values()}
    places = np.linspace(0, len(images.full) - 1, min(2 * SHOWN, len(images.full))).astype(np.int64)
    write_page(
        study, results, "agreement/report.html.j2", warnings=warnings_of(findings), findings=findings, images=images,
        image=images.full.image, reals=findings.reals, trials=findings.trials, measurement=findings.measurement,
        trained=[arm for arm in findings.arms() if findings.trials_of(arm)], controls=CONTROLS,
        headings={threshold: heading(threshold) for threshold in images.thresholds}, conclusions=conclusions(findings),
        wilson=wilson, table1=table1(findings), block_title=block_title,
        table2=[part for part in parts if part[0].images != EQUAL], format_seconds=format_seconds,
        equal=[part for part in parts if part[0].images == EQUAL], record=record, tables=study.tables(),
        by_threshold=by_threshold and png_uri(by_threshold), losses=losses and png_uri(losses),
        real_grid=png_uri(grid_png(images.full.read(places), images.full.value_range, SHOWN)),
        grids=[_grid(arm, findings.trials_of(arm)) for arm in findings.arms()], arms_by_seeds=arms_by_seeds,
    )  # fmt: skip


def warnings_of(findings: Findings) -> list[str]:
    """What a reader must know before the numbers."""
    study, settings, images = findings.study, findings.settings, findings.images
    few = [n for n in sorted({settings.kept, settings.drawn, images.n}) if n < findings.reals["dim"]]
    alike = [
        (percent(lower), percent(upper)) for lower, upper in itertools.pairwise(images.thresholds)
        if len(images.training_at(lower)) == len(images.training_at(upper))
    ]  # fmt: skip
    once = all(len(study.seeds_of(arm)) == 1 for arm in study.arms())
    values = {"findings": findings, "few": few, "alike": alike, "once": once}
    return render("gankit.studies", "agreement/warnings.txt.j2", **values).split("\n")[:-1]


def _grid(arm: Arm, trials: list[Trial]) -> dict[str, Any]:
    """The pictures of the first training of an arm; none where all failed."""
    pictures = {row: png_uri((trials[0].folder / f"{row}.png").read_bytes()) for row in ROWS} if trials else {}
    return {"arm": arm, "trial": next(iter(trials), None), "pictures": pictures}


def _by_threshold(findings: Findings) -> bytes | None:
    """The distance by selection rate: as the paper has it, and beside held-out images with the controls."""
    images, settings = findings.images, findings.settings
    if len(images.thresholds) < 2:
        return None
    beside = Where("equal", "held-out")
    panels: list[tuple[str, list[tuple[str, list[Arm], Where]]]] = [
        ("to own training images, as in the paper", [
            (name if row == "all" else f"{name} {settings.kept}", findings.row(), Where("drawn", row))
            for row, name in ROWS.items()
        ]),
        (f"to held-out images, {images.n} a side", [
            (findings.variant_words(control, scope) or "by agreement", findings.row(control, scope), beside)
            for control, scope in findings.variants()
        ]),
    ]  # fmt: skip

    def draw(*both: Any) -> None:
        for axes, (label, lines) in zip(both, panels, strict=True):
            for place, (name, arms, where) in enumerate(lines):
                aside = 0.8 * (place - (len(lines) - 1) / 2)  # so that bars do not cover each other
                known = [arm for arm in arms if findings.by_seed(arm, where)]
                seeds = findings.common_seeds(known, where)[:1]
                points = [(arm, value) for arm in known if (value := findings.of(arm, where, seeds or None))]
                if points:
                    x, y = [100 * arm.threshold + aside for arm, _ in points], [value.value for _, value in points]
                    style = {"label": name, "color": f"C{place}", "marker": "o", "capsize": 3, "linewidth": 1.2}
                    axes.errorbar(x, y, [value.error or 0.0 for _, value in points], **style)
                for arm, _ in points:
                    others = [value for seed, value in findings.by_seed(arm, where).items() if seed not in seeds]
                    axes.plot([100 * arm.threshold + aside] * len(others), others, "x", color=f"C{place}", alpha=0.6)
            real = [(arm.threshold, findings.between_reals(arm, lines[0][2])) for arm in lines[0][1]]
            if line := [(100 * threshold, entry["mean"]) for threshold, entry in real if entry is not None]:
                name = "reals in place of All" if lines[0][2].row == "all" else "reals"
                axes.plot(*zip(*line, strict=True), "--", color="0.4", linewidth=1, label=name)
            axes.set(xlabel="selection rate, %", ylabel=findings.metric_name("frechet"), title=label)
            axes.legend(frameon=False, fontsize=8)

    return draw_png(draw, (9, 3.4), panels=2)


def _losses(runs: list[Run]) -> bytes | None:
    """The critic's first loss of every training; a colour for each arm."""
    name = runs[0].experiment.losses[0].name
    lines: dict[str, list[tuple[list[float], list[float]]]] = {}
    for run in runs:
        rows = [row for row in run.log if f"critic/{name}" in row]
        if rows:
            curve = [row["step"] for row in rows], [row[f"critic/{name}"] for row in rows]
            lines.setdefault(run.path.parent.name.rpartition("-seed")[0], []).append(curve)
    return draw_lines(lines, "step (generator updates)", name, (9, 3.4)) if lines else None
