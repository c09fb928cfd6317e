"""The two tables of the founding paper, with errors and controls, as rows of text and as files."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from gankit.evaluation.uncertainty import wilson
from gankit.files import write_atomically, write_csv
from gankit.report.latex import Table, tabular
from gankit.studies.agreement.arms import CONTROLS, Arm, heading, percent
from gankit.studies.agreement.conclusions import count_measured
from gankit.studies.agreement.estimates import ROWS, Estimate, Estimates, Spread, Where
from gankit.studies.agreement.judging import KEPT_VALUES, REFERENCES

EQUAL = "Equal n"
"""How rows of equal numbers on either side begin."""
REFERENCE_WORDS = {
    "subset": "own training images", "full": "all training images", "held-out": "held-out images",
    "held-out-same": "held-out images of this SR",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """What one arm has in one row."""

    estimate: Estimate | None  # the value, or None
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

    @property
    def seeds_text(self) -> str:
        """The values of several trainings, seed by seed."""
        values = [f"{value:.4g}" for _, value in sorted(self.by_seed.items())]
        return ", ".join(values) if len(values) > 1 else ""


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
    def n_real(self) -> str:
        """Real images, of each selection rate where they differ."""
        known = [str(cell.estimate.n_real) if cell.estimate else "-" for cell in self.cells]
        return known[0] if len(set(known)) == 1 else "/".join(known)

    @property
    def between(self) -> str:
        """How much trainings differ, and how much of that sampling makes."""
        return "-" if self.spread is None else f"{self.spread.total:.2g} ({self.spread.sampling:.2g})"


def table1(estimates: Estimates) -> Table:
    """Training images of each class and selection rate, as the paper's Table I, and held-out ones: header and rows."""
    images = estimates.findings.images
    rows = [["SR", *images.class_names, "all", "held out"]]
    for threshold in images.thresholds:
        counts = images.counts(threshold)
        name = percent(threshold) if threshold else "None"
        rows.append([name, *map(str, counts), str(sum(counts)), str(len(images.held_out_at(threshold)))])
    return rows


def rows(estimates: Estimates) -> list[Row]:
    """Distances of all, top and bottom as in the paper's Table II, then of equal numbers; then so for each control."""
    table = []
    for control, scope in estimates.variants():
        arms = estimates.row(control, scope)
        variant = CONTROLS[control].words if control else f"scope {scope}" if scope else ""
        for metric in ("frechet", "kid"):
            for row, word in ROWS.items():
                name = word if row == "all" else f"{word} {estimates.findings.settings.kept}"
                table.append(_row(estimates, variant, name, arms, Where("drawn", row, metric), "subset"))
        for reference in REFERENCES:
            for metric in KEPT_VALUES:
                table.append(_row(estimates, variant, EQUAL, arms, Where("equal", reference, metric), reference))
    return table


def _row(estimates: Estimates, variant: str, images: str, arms: list[Arm], where: Where, reference: str) -> Row:
    several = any(len(estimates.trials(arm)) > 1 for arm in arms)
    cells = [
        Cell(value, estimates.between_reals(arm, where) if value else None, estimates.failed(arm),
             estimates.by_seed(arm, where))
        for arm in arms
        for value in [estimates.of(arm, where)]
    ]  # fmt: skip
    spread = estimates.spread(where) if several else None
    return Row(variant, images, estimates.metric_name(where.metric), REFERENCE_WORDS[reference], cells, spread)


def table2(estimates: Estimates) -> Table:
    """Every row, a column for each number; nothing where there is none.

    "error" is the standard error of one training as both sides are sampled, "real-real" the mean over draws of real
    images in the place of the generated ones, "real-real sd" how much single draws vary. Between trainings: their
    standard deviation, what of it the sampling of generated images makes, and the degrees of freedom.
    """
    columns = ("", "error", "n real", "real-real", "real-real sd", "real-real n", "trainings", "failed")
    header = ["images", "variant", "metric", "beside", "n fake"]
    header += [
        f"{heading(threshold)} {what}".strip() for threshold in estimates.findings.images.thresholds for what in columns
    ]
    table = [[*header, "sd between trainings", "sd of sampling", "degrees of freedom"]]
    for row in rows(estimates):
        cells = [text for cell in row.cells for text in _numbers(cell)]
        ends = ["", "", ""]
        if row.spread is not None:
            ends = [_number(row.spread.total), _number(row.spread.sampling), str(row.spread.freedom)]
        table.append([row.images, row.variant, row.metric, row.beside, row.n_fake, *cells, *ends])
    return table


def _numbers(cell: Cell) -> list[str]:
    value, real = cell.estimate, cell.real or {}
    if value is None:
        return ["", "", "", "", "", "", "0" if cell.failed else "", str(cell.failed) if cell.failed else ""]
    return [
        _number(value.value), _number(value.error), str(value.n_real), _number(real.get("mean")),
        _number(real.get("sd")), str(real.get("n", "")), str(value.seeds), str(cell.failed),
    ]  # fmt: skip


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def measured(estimates: Estimates) -> Table:
    """How many images measure as positive, a row for each arm and choice of images."""
    measurement = estimates.findings.measurement
    if measurement is None:
        return []
    table = [["trained on", "images", measurement.positive, "measured", "n", "share", "low", "high"]]
    for arm in estimates.arms():
        sets = {row: row for row in ROWS} if estimates.trials(arm) else {}
        for words, row in {**sets, "held-out reals": None}.items():
            hits, known, n = count_measured(estimates, arm, row)
            low, high = wilson(hits, known)
            shares = map(_number, (hits / known, low, high)) if known else ("", "", "")
            table.append([arm.words, words, str(hits), str(known), str(n), *shares])
    return table


def blocks(table: list[Row]) -> list[list[Row]]:
    """Rows that belong under one heading: of one variant and metric, or of one variant beside the same real images."""
    return [
        list(block)
        for _, block in itertools.groupby(
            table, lambda row: (row.variant, row.images == EQUAL, row.beside if row.images == EQUAL else row.metric)
        )
    ]


def block_title(block: list[Row]) -> str:
    """The heading of a block of rows."""
    first = block[0]
    what = f"{first.images} beside {first.beside}" if first.images == EQUAL else f"{first.metric} to {first.beside}"
    return f"{what} ({first.n_real} reals)" + (f", {first.variant}" if first.variant else "")


def trainings(estimates: Estimates) -> Table:
    """Every value of every training, one in each row."""
    table = [["training", "seed", "images", "beside", "metric", "value", "standard error", "n fake", "n real"]]
    for trial in estimates.findings.trials:
        sets = [(row, "subset", values) for row, values in trial.result.get("drawn", {}).items()]
        sets += [("equal n", row, values) for row, values in trial.result.get("equal", {}).items()]
        for images, reference, values in sets:
            for metric, entry in values.items():
                names = [trial.arm.words, str(trial.seed), images, REFERENCE_WORDS[reference], metric]
                numbers = [_number(entry["value"]), _number(entry["standard_error"])]
                table.append([*names, *numbers, str(entry["n_fake"]), str(entry["n_real"])])
    return table


def write_tables(estimates: Estimates, folder: Path) -> None:
    """Write table1 and table2 as .csv and .tex, what controls and equal numbers gave as table2-controls.tex.

    And trainings.csv with every value, and a table of what can be measured on the pixels: deviations.csv for the eyes.
    """
    tables = {"table1": table1(estimates), "table2": table2(estimates), "trainings": trainings(estimates)}
    if measurement := estimates.findings.measurement:
        tables[f"{measurement.fact}s"] = measured(estimates)
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
    header, *lines = tables["table1"]
    write_atomically(folder / "table1.tex", tabular(header, [("", lines)]).encode())
    header = ["", "n", *(heading(threshold) for threshold in estimates.findings.images.thresholds), "Between trainings"]
    parts = blocks(rows(estimates))
    paper = [block for block in parts if not block[0].variant and block[0].images != EQUAL]
    for name, chosen in (("table2", paper), ("table2-controls", [block for block in parts if block not in paper])):
        content = [(block_title(block), _lines(block)) for block in chosen]
        write_atomically(folder / f"{name}.tex", tabular(header, content, TEX_NOTES).encode())


TEX_NOTES = """Value and standard error of one training as both sides are sampled; the mean where there are several.
Real against real: held-out real images in the place of generated ones, mean and standard deviation of single draws.
Between trainings: standard deviation between seeds (what sampling alone makes of it), pooled over selection rates."""


def _lines(block: list[Row]) -> Table:
    lines = []
    for row in block:
        lines.append([row.name, row.n_fake, *(cell.text for cell in row.cells), row.between])
        lines.append(["real against real", "", *(cell.real_text for cell in row.cells), ""])
    return lines
