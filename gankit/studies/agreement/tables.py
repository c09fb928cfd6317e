"""The two tables of the founding paper, with errors and controls, as rows of text, CSV and LaTeX."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from gankit.evaluation.uncertainty import wilson
from gankit.files import write_atomically, write_csv
from gankit.studies.agreement.arms import Arm, heading, percent
from gankit.studies.agreement.conclusions import REALS, counts
from gankit.studies.agreement.estimates import ROWS, Estimate, Estimates, Spread, Where
from gankit.studies.agreement.judging import KEPT_VALUES, REFERENCES

Table = list[list[str]]
EQUAL = "Equal n"
"""How rows of equal numbers on either side begin."""
REFERENCE_WORDS = {
    "subset": "own training images", "full": "all training images", "held-out": "held-out images",
    "held-out-same": "held-out images of this SR",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """What one arm has in one row.

    Attributes:
        estimate: the value, or None.
        real: {"mean", "sd", "n"} of draws of real images in the place of generated ones, or None.
        failed: trainings without values.
        by_seed: the value of each training.
    """

    estimate: Estimate | None
    real: dict[str, float] | None
    failed: int
    by_seed: dict[int, float]

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
    """A row of the second table.

    Attributes:
        variant: "" for training by agreement, else the control or the scope of the arms.
        images: which generated images: "All", "Top 10", "Bot 10", "Equal n".
        metric: the name of the value.
        beside: which real images.
        cells: one a selection rate.
        spread: between trainings; None where no arm of the row has several.
    """

    variant: str
    images: str
    metric: str
    beside: str
    cells: list[Cell]
    spread: Spread | None

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
        found = self.spread
        return "-" if found is None else f"{found.total:.2g} ({found.sampling:.2g})"


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
    images, study = estimates.findings.images, estimates.findings.study.study
    found = []
    variants = [("", ""), *([("random-subset", "")] if study.controls else []), *(("", s) for s in study.scopes[1:])]
    for control, scope in variants:
        arms = [Arm(threshold, control, scope) for threshold in images.thresholds]
        if not set(arms) & set(estimates.arms()):
            continue
        variant = control.replace("-", " ") or (f"scope {scope}" if scope else "")
        for metric in ("frechet", "kid"):
            for row, word in ROWS.items():
                name = word if row == "all" else f"{word} {study.kept}"
                where = Where("drawn", row, metric)
                found.append(_row(estimates, variant, name, arms, where, REFERENCE_WORDS["subset"]))
        for reference in REFERENCES:
            for metric in KEPT_VALUES:
                where = Where("equal", reference, metric)
                found.append(_row(estimates, variant, EQUAL, arms, where, REFERENCE_WORDS[reference]))
    return found


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
    found, real = cell.estimate, cell.real or {}
    if found is None:
        return ["", "", "", "", "", "", "0" if cell.failed else "", str(cell.failed) if cell.failed else ""]
    return [
        _number(found.value), _number(found.error), str(found.n_real), _number(real.get("mean")),
        _number(real.get("sd")), str(real.get("n", "")), str(found.seeds), str(cell.failed),
    ]  # fmt: skip


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def deviations(estimates: Estimates) -> Table:
    """How many images measure as strabismic, a row for each arm and choice of images; a header alone for other data."""
    table = [["trained on", "images", "strabismic", "measured", "n", "share", "low", "high"]]
    for arm in estimates.arms() if estimates.findings.reals["estimator"] is not None else []:
        for row in (*(ROWS if estimates.trainings(arm) else ()), REALS):
            hits, measured, n = counts(estimates, arm, row)
            low, high = wilson(hits, measured)
            shares = map(_number, (hits / measured, low, high)) if measured else ("", "", "")
            table.append([arm.title, row, str(hits), str(measured), str(n), *shares])
    return table


def blocks(found: list[Row]) -> list[list[Row]]:
    """Rows that belong under one heading: of one variant and metric, or of one variant beside the same real images."""
    return [
        list(block)
        for _, block in itertools.groupby(
            found, lambda row: (row.variant, row.images == EQUAL, row.beside if row.images == EQUAL else row.metric)
        )
    ]


def _row(estimates: Estimates, variant: str, images: str, arms: list[Arm], where: Where, beside: str) -> Row:
    several = any(len(estimates.trainings(arm)) > 1 for arm in arms)
    cells = [
        Cell(
            found, estimates.between_reals(arm, where) if found else None, estimates.failed(arm),
            estimates.by_seed(arm, where),
        )
        for arm in arms
        for found in [estimates.of(arm, where)]
    ]  # fmt: skip
    name = estimates.metric_name(where.metric)
    return Row(variant, images, name, beside, cells, estimates.spread(where) if several else None)


def trainings(estimates: Estimates) -> Table:
    """Every value of every training, one a row."""
    table = [["training", "seed", "images", "beside", "metric", "value", "standard error", "n fake", "n real"]]
    for training in estimates.findings.trainings:
        result = training.outcome.result  # empty where it failed
        sets = [(row, "subset", values) for row, values in result.get("drawn", {}).items()]
        sets += [("equal n", row, values) for row, values in result.get("equal", {}).items()]
        for which, beside, values in sets:
            for metric, each in values.items():
                names = [training.arm.title, str(training.seed), which, REFERENCE_WORDS[beside], metric]
                numbers = [_number(each["value"]), _number(each["standard_error"])]
                table.append([*names, *numbers, str(each["n_fake"]), str(each["n_real"])])
    return table


def write_tables(estimates: Estimates, folder: Path) -> None:
    """Write table1 and table2 as .csv and .tex, what controls and equal numbers gave as table2-controls.tex.

    And trainings.csv with every value, and deviations.csv, where deviations can be measured.
    """
    tables = {
        "table1": table1(estimates), "table2": table2(estimates), "trainings": trainings(estimates),
        "deviations": deviations(estimates),
    }  # fmt: skip
    for name, table in tables.items():
        if len(table) > 1:
            write_csv(folder / f"{name}.csv", table)
    header, *lines = tables["table1"]
    write_atomically(folder / "table1.tex", tex(header, [("", lines)]).encode())
    header = ["", "n", *(heading(threshold) for threshold in estimates.findings.images.thresholds), "Between trainings"]
    parts = blocks(rows(estimates))
    paper = [block for block in parts if not block[0].variant and block[0].images != EQUAL]
    for name, chosen in (("table2", paper), ("table2-controls", [block for block in parts if block not in paper])):
        found = [(block_title(block), _lines(block)) for block in chosen]
        write_atomically(folder / f"{name}.tex", tex(header, found, TEX_NOTES).encode())


TEX_NOTES = """Value and standard error of one training as both sides are sampled; the mean where there are several.
Real against real: held-out real images in the place of generated ones, mean and standard deviation of single draws.
Between trainings: standard deviation between seeds (what sampling alone makes of it), pooled over selection rates."""


def _lines(block: list[Row]) -> Table:
    lines = []
    for row in block:
        lines.append([row.name, row.n_fake, *(cell.text for cell in row.cells), row.between])
        lines.append(["real against real", "", *(cell.real_text for cell in row.cells), ""])
    return lines


def block_title(block: list[Row]) -> str:
    """What heads a block of rows."""
    first = block[0]
    what = f"{first.images} beside {first.beside}" if first.images == EQUAL else f"{first.metric} to {first.beside}"
    return f"{what} ({first.n_real} reals)" + (f", {first.variant}" if first.variant else "")


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def tex(header: list[str], parts: list[tuple[str, Table]], notes: str = "") -> str:
    """A LaTeX tabular of a header and rows under headings, every character of them as it stands; notes are comments."""

    def escaped(cell: str) -> str:
        return re.sub(r"(?<![\w.}])-(?=\d)", "$-$", "".join(_TEX.get(mark, mark) for mark in cell))

    def line(cells: list[str]) -> str:
        return " & ".join(escaped(cell) for cell in cells) + r" \\"

    lines = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\hline", line(header), r"\hline"]
    for words, table in parts:
        if words:
            lines.append(rf"\multicolumn{{{len(header)}}}{{l}}{{\emph{{{escaped(words)}}}}} \\")
        lines += [*map(line, table), r"\hline"]
    return "\n".join([*(f"% {note}" for note in notes.splitlines()), *lines, r"\end{tabular}", ""])
