"""The report of a study of rater agreement: one self-contained page, and the tables as files."""

import itertools
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from gankit.images.pictures import grid_png, png_uri
from gankit.report.pages import draw_lines, draw_png, render
from gankit.runs.run import Run
from gankit.studies.agreement.arms import CONTROLS, Arm, heading, percent
from gankit.studies.agreement.conclusions import conclusions
from gankit.studies.agreement.findings import ROWS, Findings, Trial, Where
from gankit.studies.agreement.tables import EQUAL, block_title, blocks, rows, table1, write_tables
from gankit.studies.privacy import privacy_rows
from gankit.studies.study import Results, write_page
from gankit.studies.trainings import finished_run
from gankit.studies.worker import made_file
from gankit.training.progress import format_seconds

if TYPE_CHECKING:
    from gankit.studies.agreement.study import Agreement

SHOWN = 10  # images in a row of the picture of reals, which has two


def write_report(study: "Agreement", results: Results) -> None:
    """Write `report.html`, and `table1` and `table2` as .csv and .tex, into a study's folder."""
    findings: Findings = results.values
    arms, full = findings.arms(), findings.images.full
    write_tables(findings, results.folder)
    runs = [finished_run(trial.folder) for trial in findings.trials if not trial.outcome.failure]
    all_blocks = blocks(rows(findings))
    by_threshold, losses = _draw_by_threshold(findings), _draw_losses(runs)
    seed_counts = {arm: len(study.seeds_of(arm)) for arm in arms}
    places = np.linspace(0, len(full) - 1, min(2 * SHOWN, len(full))).astype(np.int64)
    write_page(
        study, results, "agreement/report.html.j2", warnings=warnings_of(findings), findings=findings,
        conclusions=conclusions(findings), table1=table1(findings), record=runs[0].experiment.run,
        table2=[block for block in all_blocks if block[0].images != EQUAL], tables=study.tables(),
        equal=[block for block in all_blocks if block[0].images == EQUAL],
        trained=list(filter(findings.trials_of, arms)),
        headings={threshold: heading(threshold) for threshold in findings.images.thresholds}, controls=CONTROLS,
        arms_by_seed_count={n: [arm for arm in arms if seed_counts[arm] == n] for n in seed_counts.values()},
        by_threshold=by_threshold and png_uri(by_threshold), losses=losses and png_uri(losses),
        real_grid=png_uri(grid_png(full.read(places), full.value_range, SHOWN)),
        grids={arm: read_pictures(trials[0]) if (trials := findings.trials_of(arm)) else {} for arm in arms},
        block_title=block_title, format_seconds=format_seconds, privacy=privacy_rows(findings.privacy),
    )  # fmt: skip


def warnings_of(findings: Findings) -> list[str]:
    """What a reader must know before the numbers."""
    study, settings, images = findings.study, findings.study.settings, findings.images
    fewer_than_dimensions = [
        n for n in sorted({settings.kept, settings.drawn, images.equal_n}) if n < findings.reals["dim"]
    ]
    same_images = [
        (percent(lower), percent(upper)) for lower, upper in itertools.pairwise(images.thresholds)
        if len(images.training_at(lower)) == len(images.training_at(upper))
    ]  # fmt: skip
    text = render(
        "gankit.studies", "agreement/warnings.txt.j2", findings=findings, few=fewer_than_dimensions, same=same_images,
        once=all(len(study.seeds_of(arm)) == 1 for arm in study.arms()),
    )  # fmt: skip
    return text.split("\n")[:-1]


def read_pictures(trial: Trial) -> dict[str, str]:
    """The pictures of a training's drawn images, by the keys of `ROWS`.

    Raises:
        RunError: one of them was changed or lost since.
    """
    return {row: png_uri(made_file(trial.folder, f"{row}.png").read_bytes()) for row in ROWS}


def _draw_by_threshold(findings: Findings) -> bytes | None:
    """The distance by selection rate: on the left as in the paper, on the right to held-out images with the controls.

    None where there is a single selection rate.
    """
    if len(findings.images.thresholds) < 2:
        return None
    left_lines = [(findings.row_words(row), findings.arms_of(), Where("drawn", row)) for row in ROWS]
    right_lines = [
        (findings.variant_words(*variant) or "by agreement", findings.arms_of(*variant), Where("equal", "held-out"))
        for variant in findings.variants()
    ]

    def draw(left: Any, right: Any) -> None:
        left.set(title="to own training images, as in the paper")
        _draw_lines(left, findings, left_lines, "reals in place of All")
        right.set(title=f"to held-out images, {findings.images.equal_n} a side")
        _draw_lines(right, findings, right_lines, "reals")

    return draw_png(draw, (9, 3.4), panels=2)


def _draw_lines(axes: Any, findings: Findings, lines: list[tuple[str, list[Arm], Where]], reals: str) -> None:
    """Draw a line for each (label, arms, where).

    A dashed line, labelled `reals`, shows the values of real images in the place of the first line's generated ones.
    """
    for number, (label, arms, where) in enumerate(lines):
        shift = 0.8 * (number - (len(lines) - 1) / 2)  # So that bars of different lines do not cover each other
        _draw_line(axes, findings, label, arms, where, shift, f"C{number}")
    _, arms, where = lines[0]
    between = [(100 * arm.threshold, entry["mean"]) for arm in arms if (entry := findings.between_reals(arm, where))]
    if between:
        axes.plot(*zip(*between, strict=True), "--", color="0.4", linewidth=1, label=reals)
    axes.set(xlabel="selection rate, %", ylabel=findings.metric_name("frechet"))
    axes.legend(frameon=False, fontsize=8)


def _draw_line(
    axes: Any, findings: Findings, label: str, arms: list[Arm], where: Where, shift: float, color: str
) -> None:
    """Draw the values of the first seed that all arms have as a line with errors, and those of others as crosses."""
    known = [arm for arm in arms if findings.by_seed(arm, where)]
    seeds = findings.common_seeds(known, where)[:1]
    points = [(100 * arm.threshold + shift, arm, findings.estimate(arm, where, seeds or None)) for arm in known]
    values = [(x, estimate.value, estimate.error or 0.0) for x, _, estimate in points if estimate]
    if values:
        axes.errorbar(*zip(*values, strict=True), label=label, color=color, marker="o", capsize=3, linewidth=1.2)
    for x, arm, _ in points:
        others = [value for seed, value in findings.by_seed(arm, where).items() if seed not in seeds]
        axes.plot([x] * len(others), others, "x", color=color, alpha=0.6)


def _draw_losses(runs: list[Run]) -> bytes | None:
    """The first of the losses by step, as the critic's turn has it: a line for each training, a colour for each arm.

    None where no run has logged it.
    """
    name = runs[0].experiment.losses[0].name
    lines = defaultdict[str, list[tuple[Any, ...]]](list)
    for run in runs:
        points = [(row["step"], row[f"critic/{name}"]) for row in run.log if f"critic/{name}" in row]
        if points:
            arm = run.path.parent.name.rpartition("-seed")[0]
            lines[arm].append(tuple(zip(*points, strict=True)))
    return draw_lines(lines, "step (generator updates)", name, (9, 3.4)) if lines else None
