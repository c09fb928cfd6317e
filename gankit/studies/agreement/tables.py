"""The two tables of the founding paper with errors and controls, and two more, as rows of text and as files."""

import itertools
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gankit.evaluation.latex import Table, tabular
from gankit.files import write_atomically, write_csv
from gankit.report.pages import render
from gankit.studies.agreement.arms import heading, percent
from gankit.studies.agreement.findings import ROWS, Estimate, Findings, Spread, Where
from gankit.studies.agreement.judging import DISTANCES, KEPT_VALUES, REFERENCES
from gankit.studies.formats import write_latex
from gankit.studies.privacy import privacy_rows

EQUAL = "Equal n"  # what rows call the generated images that are judged against as many real ones


@dataclass(frozen=True)
class Cell:
    """The value of one arm in one row."""

    estimate: Estimate | None
    real: dict[str, float] | None  # `Findings.between_reals`
    failed: int  # how many trainings failed
    by_seed: dict[int, float]  # the value of each training

    @property
    def text(self) -> str:
        """The value with its error, and a mark where trainings failed."""
        if self.estimate is None:
            return "failed" if self.failed else "-"
        text, seeds = f"{self.estimate.value:.4g}", self.estimate.seeds
        if self.estimate.error is not None:
            text += f" ± {self.estimate.error:.2g}"
        if self.failed:
            text += f" [{seeds} of {seeds + self.failed} trainings]"
        return text

    @property
    def real_text(self) -> str:
        """The value between reals, how much single draws vary, and their n where it is not that of the generated."""
        if self.real is None or self.estimate is None:
            return "-"
        text = f"{self.real['mean']:.4g}"
        if self.real["sd"] > 1e-12:  # Where a draw takes all held-out images, draws do not vary
            text += f" ± {self.real['sd']:.2g}"
        if self.real["n"] != self.estimate.n_fake:
            text += f" (n = {self.real['n']})"
        return text


@dataclass(frozen=True)
class Row:
    """A row of the second table."""

    variant: str  # "" for training by agreement, else the control or the scope of the arms
    images: str  # which generated images: "All", "Top 10", "Bot 10", "Equal n"
    metric: str  # the heading of the metric's values
    reference: str  # the real images, in words
    cells: list[Cell]  # one for each selection rate
    spread: Spread | None  # between trainings; None where no arm of the row has several

    @property
    def name(self) -> str:
        """What distinguishes the row from others of its block: the metric at equal n, else the images."""
        return self.metric if self.images == EQUAL else self.images

    @property
    def n_fake(self) -> str:
        """How many generated images each training has; several numbers where selection rates differ in it."""
        return "/".join(dict.fromkeys(str(cell.estimate.n_fake) for cell in self.cells if cell.estimate))

    @property
    def between(self) -> str:
        """The standard deviation between trainings and, in brackets, that of sampling alone where it is known."""
        if self.spread is None:
            return "-"
        sampling = "" if self.spread.sampling is None else f" ({self.spread.sampling:.2g})"
        return f"{self.spread.total:.2g}{sampling}"


def table1(findings: Findings) -> Table:
    """How many training images each class has at each selection rate, as the paper's Table I, and held-out images.

    Where patients are known, further columns count those of all training and of all held-out images.
    """
    images = findings.images
    groups = [(side.groups, name) for side, name in ((images.full, "patients"), (images.held_out, "held-out patients"))]
    known = [name for of_side, name in groups if of_side is not None]
    table = [["SR", *images.class_names, "all", "held out", *known]]
    for threshold in images.thresholds:
        sides = images.training_at(threshold), images.held_out_at(threshold)
        numbers = [*images.counts(threshold), *map(len, sides)]
        numbers += [
            len(np.unique(of_side[at])) for (of_side, _), at in zip(groups, sides, strict=True) if of_side is not None
        ]
        table.append([percent(threshold) if threshold else "None", *map(str, numbers)])
    return table


def rows(findings: Findings) -> list[Row]:
    """The rows of the second table.

    Distances of all, top and bottom as in the paper's Table II, then values at equal n; the same for each control and
    scope.
    """
    # (what rows call the generated images, the value, the key in `REFERENCES` of the real images)
    values = [(findings.row_words(row), Where("drawn", row, metric), "subset") for metric in DISTANCES for row in ROWS]
    values += [(EQUAL, Where("equal", row, metric), row) for row in REFERENCES for metric in KEPT_VALUES]
    table = []
    for variant, (images, where, reference) in itertools.product(findings.variants(), values):
        cells = []
        for arm in findings.arms_of(*variant):
            by_seed = findings.by_seed(arm, where)
            real = findings.between_reals(arm, where) if by_seed else None
            cells.append(Cell(findings.estimate(arm, where), real, findings.count_failed(arm), by_seed))
        has_several = any(len(cell.by_seed) > 1 for cell in cells)
        table.append(Row(
            variant=findings.variant_words(*variant), images=images, metric=findings.metric_name(where.metric),
            reference=REFERENCES[reference], cells=cells, spread=findings.spread(where) if has_several else None,
        ))  # fmt: skip
    return table


def table2(findings: Findings) -> Table:
    """Every row, a column for each number; an empty text where there is none.

    "error" is the standard error of one training as both sides are sampled, "real-real" the mean over draws of real
    images in the place of the generated ones, "real-real sd" how much single draws vary. Between trainings: their
    standard deviation, that of the sampling of generated images alone, and the degrees of freedom.
    """
    columns = ("", "error", "n real", "real-real", "real-real sd", "real-real n", "trainings", "failed")
    pairs = itertools.product(map(heading, findings.images.thresholds), columns)
    header = ["images", "variant", "metric", "beside", "n fake", *(" ".join(pair).strip() for pair in pairs)]
    table = [[*header, "sd between trainings", "sd of sampling", "degrees of freedom"]]
    for row in rows(findings):
        numbers = [number for cell in row.cells for number in _numbers(cell)]
        numbers += [row.spread.total, row.spread.sampling, row.spread.freedom] if row.spread else [None] * 3
        table.append([row.images, row.variant, row.metric, row.reference, row.n_fake, *map(_text, numbers)])
    return table


def _numbers(cell: Cell) -> list[float | None]:
    """A cell's numbers in the columns of `table2`."""
    if cell.estimate is None:
        trainings_and_failed = (0, cell.failed) if cell.failed else (None, None)
        return [*[None] * 6, *trainings_and_failed]
    real = cell.real or {}
    return [
        cell.estimate.value, cell.estimate.error, cell.estimate.n_real,
        real.get("mean"), real.get("sd"), real.get("n"), cell.estimate.seeds, cell.failed,
    ]  # fmt: skip


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def measured(findings: Findings) -> Table:
    """How many images measure as positive, a row for each arm and choice of images."""
    assert findings.measurement is not None
    table = [["trained on", "images", findings.measurement.positive, "measured", "n", "share", "low", "high"]]
    for arm in findings.arms():
        choices = [*ROWS, None] if findings.trials_of(arm) else [None]  # None is the real images
        for row in choices:
            count = findings.count_measured(arm, row)
            numbers: list[float | None] = [*count, None, None, None]
            if count.measured:
                numbers = [*count, count.positive / count.measured, *findings.share_interval(arm, row)]
            table.append([arm.words, row or "held-out reals", *map(_text, numbers)])
    return table


def blocks(table: list[Row]) -> list[list[Row]]:
    """Rows that belong under one heading: of one variant and the same real images; of one metric unless at equal n."""

    def block_of(row: Row) -> tuple[str, str, str]:
        return row.variant, row.reference, EQUAL if row.images == EQUAL else row.metric

    return [list(block) for _, block in itertools.groupby(table, block_of)]


def block_title(block: list[Row]) -> str:
    """The heading of a block of rows."""
    first = block[0]
    what = first.images + " against" if first.images == EQUAL else first.metric + " to"
    sizes = [str(cell.estimate.n_real) if cell.estimate else "-" for cell in first.cells]
    n_real = sizes[0] if len(set(sizes)) == 1 else "/".join(sizes)  # One for each selection rate where they differ
    return f"{what} {first.reference} ({n_real} reals)" + (f", {first.variant}" if first.variant else "")


def trainings(findings: Findings) -> Table:
    """Every value of every training, one in each row."""
    table = [["training", "seed", "images", "beside", "metric", "value", "standard error", "n fake", "n real"]]
    for trial in findings.trials:
        result = trial.outcome.result
        sets = [(row, "subset", values) for row, values in result.get("drawn", {}).items()]
        sets += [("equal n", row, values) for row, values in result.get("equal", {}).items()]
        for images, reference, values in sets:
            for metric, entry in values.items():
                numbers = (entry[key] for key in ("value", "standard_error", "n_fake", "n_real"))
                names = [trial.arm.words, str(trial.seed), images, REFERENCES[reference], metric]
                table.append([*names, *map(_text, numbers)])
    return table


def write_tables(findings: Findings, folder: Path) -> None:
    """Write table1 and table2 as .csv and .tex; in .tex, controls and equal n stand apart, in table2-controls.tex.

    Also trainings.csv with every value of every training and, where a fact is measured on the pixels, a table named
    after it: deviations.csv for the eyes.
    """
    tables = {"table1": table1(findings), "table2": table2(findings), "trainings": trainings(findings)}
    tables["privacy"] = privacy_rows(findings.privacy)
    if findings.measurement:
        tables[f"{findings.measurement.fact}s"] = measured(findings)
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
    write_latex(folder, {name: tables[name] for name in ("table1", "privacy")}, {})
    _write_table2_tex(findings, folder)


def _write_table2_tex(findings: Findings, folder: Path) -> None:
    """Write table2.tex as the paper's Table II with errors, and all other blocks as table2-controls.tex."""
    header = ["", "n", *(heading(threshold) for threshold in findings.images.thresholds), "Between trainings"]
    notes = render("gankit.studies", "agreement/notes.tex.j2")
    parts_by_file = defaultdict[str, list[tuple[str, Table]]](list)
    for block in blocks(rows(findings)):
        lines = []
        for row in block:
            lines.append([row.name, row.n_fake, *(cell.text for cell in row.cells), row.between])
            lines.append(["real against real", "", *(cell.real_text for cell in row.cells), ""])
        in_paper = not block[0].variant and block[0].images != EQUAL
        parts_by_file["table2" if in_paper else "table2-controls"].append((block_title(block), lines))
    for name, parts in parts_by_file.items():
        write_atomically(folder / f"{name}.tex", tabular(header, parts, notes))
