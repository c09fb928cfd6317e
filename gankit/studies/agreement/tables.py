"""The two tables of the founding paper, with errors and controls, as rows of text and as files."""

import itertools
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from gankit.evaluation.draws import KEPT_VALUES
from gankit.evaluation.latex import Table, tabular
from gankit.files import write_atomically, write_csv
from gankit.report.pages import render
from gankit.studies.agreement.arms import heading, percent
from gankit.studies.agreement.findings import METRICS, ROWS, Estimate, Findings, Spread, Where
from gankit.studies.agreement.judging import REFERENCES

EQUAL = "Equal n"  # How rows of equal numbers on either side begin


@dataclass(frozen=True)
class Cell:
    """The value of one arm in one row."""

    estimate: Estimate | None
    real: dict[str, float] | None  # {"mean", "sd", "n"} of draws of real images in the place of generated ones, or None
    failed: int  # trainings without values
    by_seed: dict[int, float]  # the value of each training

    @property
    def text(self) -> str:
        """The value with its error, and a mark where trainings failed."""
        if self.estimate is None:
            return "failed" if self.failed else "-"
        seeds, error = self.estimate.seeds, self.estimate.error
        of = f" [{seeds} of {seeds + self.failed} trainings]" if self.failed else ""
        return f"{self.estimate.value:.4g}" + ("" if error is None else f" ± {error:.2g}") + of

    @property
    def real_text(self) -> str:
        """The value between reals and how much single draws vary, with their number where it is another."""
        if self.real is None or self.estimate is None:
            return "-"
        n = f" (n = {self.real['n']})" if self.real["n"] != self.estimate.n_fake else ""
        # All held-out images at once are one draw.
        return f"{self.real['mean']:.4g}" + (f" ± {self.real['sd']:.2g}" if self.real["sd"] > 1e-12 else "") + n


@dataclass(frozen=True)
class Row:
    """A row of the second table."""

    variant: str  # "" for training by agreement, else the control or the scope of the arms
    images: str  # which generated images: "All", "Top 10", "Bot 10", "Equal n"
    metric: str  # the name of the value
    beside: str  # which real images
    cells: list[Cell]  # one for each selection rate
    spread: Spread | None  # between trainings; None where no arm of the row has several

    @property
    def name(self) -> str:
        """Among the rows of its block."""
        return self.metric if self.images == EQUAL else self.images

    @property
    def n_fake(self) -> str:
        """Generated images of each training."""
        return "/".join(dict.fromkeys(str(cell.estimate.n_fake) for cell in self.cells if cell.estimate))

    @property
    def between(self) -> str:
        """How much trainings differ, and how much of that sampling makes."""
        return "-" if self.spread is None else f"{self.spread.total:.2g} ({self.spread.sampling:.2g})"


def table1(findings: Findings) -> Table:
    """Training images of each class and selection rate, as the paper's Table I, and held-out ones: header and rows."""
    images = findings.images
    rows = [["SR", *images.class_names, "all", "held out"]]
    for threshold in images.thresholds:
        counts, name = images.counts(threshold), percent(threshold) if threshold else "None"
        rows.append([name, *map(str, [*counts, sum(counts), len(images.held_out_at(threshold))])])
    return rows


def rows(findings: Findings) -> list[Row]:
    """Distances of all, top and bottom as in the paper's Table II, then of equal numbers; then so for each control."""
    # The words for the generated images, the value, and which real images are beside them
    values = [(findings.row_words(row), Where("drawn", row, metric), "subset") for metric in METRICS for row in ROWS]
    values += [(EQUAL, Where("equal", row, metric), row) for row in REFERENCES for metric in KEPT_VALUES]
    table = []
    for variant, (images, where, reference) in itertools.product(findings.variants(), values):
        cells = []
        for arm in findings.arms_of(*variant):
            by_seed = findings.by_seed(arm, where)
            real = findings.between_reals(arm, where) if by_seed else None
            cells.append(Cell(findings.estimate(arm, where), real, findings.failed(arm), by_seed))
        spread = findings.spread(where) if any(len(cell.by_seed) > 1 for cell in cells) else None
        words = findings.variant_words(*variant), images, findings.metric_name(where.metric), REFERENCES[reference]
        table.append(Row(*words, cells, spread))
    return table


def table2(findings: Findings) -> Table:
    """Every row, a column for each number; nothing where there is none.

    "error" is the standard error of one training as both sides are sampled, "real-real" the mean over draws of real
    images in the place of the generated ones, "real-real sd" how much single draws vary. Between trainings: their
    standard deviation, what of it the sampling of generated images makes, and the degrees of freedom.
    """
    columns = ("", "error", "n real", "real-real", "real-real sd", "real-real n", "trainings", "failed")
    header = ["images", "variant", "metric", "beside", "n fake"]
    header += [f"{heading(threshold)} {what}".strip() for threshold in findings.images.thresholds for what in columns]
    table = [[*header, "sd between trainings", "sd of sampling", "degrees of freedom"]]
    for row in rows(findings):
        numbers: list[float | None] = []
        for cell in row.cells:
            if value := cell.estimate:
                between = map((cell.real or {}).get, ("mean", "sd", "n"))
                numbers += [value.value, value.error, value.n_real, *between, value.seeds, cell.failed]
            else:
                numbers += [None] * 6 + ([0, cell.failed] if cell.failed else [None] * 2)
        numbers += [row.spread.total, row.spread.sampling, row.spread.freedom] if row.spread else [None] * 3
        table.append([row.images, row.variant, row.metric, row.beside, row.n_fake, *map(_text, numbers)])
    return table


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def measured(findings: Findings) -> Table:
    """How many images measure as positive, a row for each arm and choice of images."""
    assert findings.measurement is not None
    table = [["trained on", "images", findings.measurement.positive, "measured", "n", "share", "low", "high"]]
    for arm in findings.arms():
        for row in [*(ROWS if findings.trials_of(arm) else ()), None]:
            hits, known, n = findings.count_measured(arm, row)
            shares = (hits / known, *findings.share_interval(arm, row)) if known else (None, None, None)
            table.append([arm.words, row or "held-out reals", *map(_text, (hits, known, n, *shares))])
    return table


def blocks(table: list[Row]) -> list[list[Row]]:
    """Rows that belong under one heading: of one variant and metric, or of one variant beside the same real images."""
    by_heading = itertools.groupby(table, lambda row: (row.variant, row.beside, row.images == EQUAL or row.metric))
    return [list(block) for _, block in by_heading]


def block_title(block: list[Row]) -> str:
    """The heading of a block of rows."""
    first = block[0]
    sizes = [str(cell.estimate.n_real) if cell.estimate else "-" for cell in first.cells]
    n_real = sizes[0] if len(set(sizes)) == 1 else "/".join(sizes)  # of each selection rate where they differ
    what = f"{first.images} beside {first.beside}" if first.images == EQUAL else f"{first.metric} to {first.beside}"
    return f"{what} ({n_real} reals)" + (f", {first.variant}" if first.variant else "")


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
    """Write table1 and table2 as .csv and .tex, and table2's controls and equal numbers as table2-controls.tex.

    Also trainings.csv with every value, and a table of what can be measured on the pixels: deviations.csv for the eyes.
    """
    tables = {"table1": table1(findings), "table2": table2(findings), "trainings": trainings(findings)}
    if findings.measurement:
        tables[f"{findings.measurement.fact}s"] = measured(findings)
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
    header, *lines = tables["table1"]
    write_atomically(folder / "table1.tex", tabular(header, [("", lines)]))
    header = ["", "n", *(heading(threshold) for threshold in findings.images.thresholds), "Between trainings"]
    notes, content = render("gankit.studies", "agreement/notes.tex.j2"), defaultdict[str, list[tuple[str, Table]]](list)
    for block in blocks(rows(findings)):
        lines = []
        for row in block:
            lines.append([row.name, row.n_fake, *(cell.text for cell in row.cells), row.between])
            lines.append(["real against real", "", *(cell.real_text for cell in row.cells), ""])
        controls = block[0].variant or block[0].images == EQUAL
        content["table2-controls" if controls else "table2"].append((block_title(block), lines))
    for name, parts in content.items():
        write_atomically(folder / f"{name}.tex", tabular(header, parts, notes))
