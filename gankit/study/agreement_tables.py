"""The two tables of the founding paper, with errors and controls, as rows of text, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import itertools
from dataclasses import dataclass
from pathlib import Path

from gankit.checkpoint import write_atomically
from gankit.study.arms import Arm, heading, percent
from gankit.study.estimates import ROWS, Estimate, Estimates, Where
from gankit.study.judging import KEPT_VALUES, REFERENCES
from gankit.tables import title

Table = list[list[str]]
EQUAL = "Equal n"
"""How rows of equal numbers on either side begin."""
REFERENCE_WORDS = {
    "subset": "own training images", "full": "all training images", "held-out": "held-out images",
    "held-out-same": "held-out images of this SR",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """What one arm has in one row, as text; "-" where there is nothing.

    Attributes:
        value: the mean over trainings, or "failed".
        error: its standard error.
        real: the value between real images, with their number where it is another.
        trainings: how many, of how many where some failed.
    """

    value: str
    error: str
    real: str
    trainings: str

    @property
    def text(self) -> str:
        """The value with its error, and a mark where trainings failed."""
        marked = f" [{self.trainings} trainings]" if " of " in self.trainings else ""
        return self.value + ("" if self.error == "-" else f" ± {self.error}") + marked


@dataclass(frozen=True)
class Row:
    """A row of the second table.

    Attributes:
        variant: "" for training by agreement, else the control or the scope of the arms.
        images: which generated images: "All", "Top 10", "Bot 10", "Equal n".
        metric: the name of the value.
        beside: which real images.
        n_fake: generated images of each training.
        n_real: real images, of each selection rate where they differ.
        cells: one a selection rate.
        between: standard deviation between trainings beyond what the sampling of images explains.
    """

    variant: str
    images: str
    metric: str
    beside: str
    n_fake: str
    n_real: str
    cells: list[Cell]
    between: str


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
    """Every row with a column for each selection rate's value, error, value between reals, and trainings."""
    columns = [
        f"{heading(threshold)} {what}".strip()
        for threshold in estimates.findings.images.thresholds
        for what in ("", "error", "real-real", "trainings")
    ]
    table = [["images", "metric", "beside", "n fake", "n real", *columns, "between trainings"]]
    for row in rows(estimates):
        cells = [text for cell in row.cells for text in (cell.value, cell.error, cell.real, cell.trainings)]
        name = f"{row.images}, {row.variant}" if row.variant else row.images
        table.append([name, row.metric, row.beside, row.n_fake, row.n_real, *cells, row.between])
    return table


def blocks(found: list[Row]) -> list[list[Row]]:
    """Rows that belong under one heading: of one variant and metric, or of one variant beside the same real images."""
    return [
        list(block)
        for _, block in itertools.groupby(
            found, lambda row: (row.variant, row.images == EQUAL, row.beside if row.images == EQUAL else row.metric)
        )
    ]


def metric_name(estimates: Estimates, metric: str) -> str:
    """As it heads values."""
    return "KID" if metric == "kid" else title(metric, str(estimates.findings.reals["features"]))


def _row(estimates: Estimates, variant: str, images: str, arms: list[Arm], where: Where, beside: str) -> Row:
    found = [estimates.of(arm, where) for arm in arms]
    known = [estimate for estimate in found if estimate is not None]
    n_fake = dict.fromkeys(str(estimate.n_fake) for estimate in known)
    n_real = [str(estimate.n_real) for estimate in known]
    spread = estimates.spread(where)
    return Row(
        variant, images, metric_name(estimates, where.metric), beside, "/".join(n_fake),
        "/".join(n_real if len(set(n_real)) > 1 else n_real[:1]),
        [_cell(estimates, arm, estimate, where) for arm, estimate in zip(arms, found, strict=True)],
        "-" if spread is None else f"{spread.beyond:.3g}",
    )  # fmt: skip


def _cell(estimates: Estimates, arm: Arm, estimate: Estimate | None, where: Where) -> Cell:
    failed = estimates.failed(arm)
    if estimate is None:
        return Cell("failed" if failed else "-", "-", "-", f"0 of {failed}" if failed else "-")
    real = estimates.between_reals(arm, where)
    between = "-" if real is None else f"{real['mean']:.4g}"
    if real is not None and real["n"] != estimate.n_fake:
        between += f" (n = {real['n']})"
    return Cell(
        f"{estimate.value:.4g}",
        "-" if estimate.error is None else f"{estimate.error:.2g}",
        between,
        f"{estimate.seeds} of {estimate.seeds + failed}" if failed else str(estimate.seeds),
    )


def write_tables(estimates: Estimates, folder: Path) -> None:
    """Write table1 and table2 as .csv and .tex."""
    for name, table in (("table1", table1(estimates)), ("table2", table2(estimates))):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(table)
        write_atomically(folder / f"{name}.csv", text.getvalue().encode())
    header, *counts = table1(estimates)
    write_atomically(folder / "table1.tex", tex(header, [("", counts)]).encode())
    header = ["", "n", *(heading(threshold) for threshold in estimates.findings.images.thresholds), "between trainings"]
    parts = []
    for block in blocks(rows(estimates)):
        lines = []
        for row in block:
            name = row.metric if row.images == EQUAL else row.images
            lines.append([name, row.n_fake, *(cell.text for cell in row.cells), row.between])
            lines.append(["real against real", "", *(cell.real for cell in row.cells), ""])
        parts.append((block_title(block), lines))
    write_atomically(folder / "table2.tex", tex(header, parts).encode())


def block_title(block: list[Row]) -> str:
    """What heads a block of rows."""
    first = block[0]
    what = f"{first.images} beside {first.beside}" if first.images == EQUAL else f"{first.metric} to {first.beside}"
    return f"{what} (n = {first.n_real})" + (f", {first.variant}" if first.variant else "")


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def tex(header: list[str], parts: list[tuple[str, Table]]) -> str:
    """A LaTeX tabular of a header and rows under headings, every character of them as it stands."""

    def line(cells: list[str]) -> str:
        return " & ".join(escaped(cell) for cell in cells) + r" \\"

    def escaped(cell: str) -> str:
        return "".join(_TEX.get(mark, mark) for mark in cell)

    lines = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\hline", line(header), r"\hline"]
    for words, table in parts:
        if words:
            lines.append(rf"\multicolumn{{{len(header)}}}{{l}}{{\emph{{{escaped(words)}}}}} \\")
        lines += [*map(line, table), r"\hline"]
    return "\n".join([*lines, r"\end{tabular}", ""])
