"""The two tables of the founding paper, with errors and controls, as rows of text, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
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


def table1(estimates: Estimates) -> Table:
    """Training images of each class and selection rate, as the paper's Table I; shares of none for each below.

    A header and rows; the last row counts the held-out images.
    """
    images = estimates.findings.images
    rows = [["SR", *images.class_names, "all", "held out"]]
    for threshold in images.thresholds:
        counts = images.counts(threshold)
        name = percent(threshold) if threshold else "None"
        rows.append([name, *map(str, counts), str(sum(counts)), str(len(images.held_out_at(threshold)))])
    return rows


def table2(estimates: Estimates) -> Table:
    """Distances of all, top and bottom, one column a selection rate as in the paper's Table II, then the controls.

    A header and rows: what, images of either side, and for each selection rate the value, its standard error, the value
    between reals, the number of trainings, and the spread between them that sampling does not explain.
    """
    images, study = estimates.findings.images, estimates.findings.study.study
    columns = [
        f"{heading(threshold)} {what}".strip()
        for threshold in images.thresholds
        for what in ("", "error", "real-real", "trainings")
    ]
    rows = [["images", "metric", "beside", "n fake", "n real", *columns, "between trainings"]]
    variants = [("", ""), *([("random-subset", "")] if study.controls else []), *(("", s) for s in study.scopes[1:])]
    for control, scope in variants:
        arms = [Arm(threshold, control, scope) for threshold in images.thresholds]
        if not set(arms) & set(estimates.arms()):
            continue
        suffix = "".join(f", {word.replace('-', ' ')}" for word in (control, scope) if word)
        for metric in ("frechet", "kid"):
            for row, word in ROWS.items():
                name = (word if row == "all" else f"{word} {study.kept}") + suffix
                rows.append(_row(estimates, name, arms, Where("drawn", row, metric), "own training images"))
        for reference in REFERENCES:
            for metric in KEPT_VALUES:
                where = Where("equal", reference, metric)
                rows.append(_row(estimates, f"{EQUAL}{suffix}", arms, where, REFERENCE_WORDS[reference]))
    return rows


def metric_name(estimates: Estimates, metric: str) -> str:
    """As it heads values."""
    return "KID" if metric == "kid" else title(metric, str(estimates.findings.reals["features"]))


def _row(estimates: Estimates, name: str, arms: list[Arm], where: Where, beside: str) -> list[str]:
    found = [estimates.of(arm, where) for arm in arms]
    known = [estimate for estimate in found if estimate is not None]
    n_fake = {str(estimate.n_fake) for estimate in known}
    n_real = [str(estimate.n_real) for estimate in known]
    spread = estimates.spread(where)
    cells = [
        text for arm, estimate in zip(arms, found, strict=True) for text in _cells(estimates, arm, estimate, where)
    ]
    return [
        name, metric_name(estimates, where.metric), beside, "/".join(n_fake),
        "/".join(n_real if len(set(n_real)) > 1 else n_real[:1]), *cells,
        "-" if spread is None else f"{spread.beyond:.3g}",
    ]  # fmt: skip


def _cells(estimates: Estimates, arm: Arm, estimate: Estimate | None, where: Where) -> list[str]:
    """Value, error, real against real, trainings; failed trainings are marked."""
    failed = estimates.failed(arm)
    if estimate is None:
        return ["failed" if failed else "-", "-", "-", f"0 of {failed}" if failed else "-"]
    real = estimates.between_reals(arm, where)
    return [
        f"{estimate.value:.4g}",
        "-" if estimate.error is None else f"{estimate.error:.2g}",
        "-"
        if real is None
        else f"{real['mean']:.4g}" + ("" if real["n"] == estimate.n_fake else f" (n = {real['n']})"),
        f"{estimate.seeds} of {estimate.seeds + failed}" if failed else str(estimate.seeds),
    ]


def write_tables(estimates: Estimates, folder: Path) -> None:
    """Write table1 and table2 as .csv and .tex."""
    for name, table in (("table1", table1(estimates)), ("table2", table2(estimates))):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(table)
        write_atomically(folder / f"{name}.csv", text.getvalue().encode())
    write_atomically(folder / "table1.tex", tex(table1(estimates)).encode())
    write_atomically(folder / "table2.tex", tex(short(table2(estimates))).encode())


def short(table: Table) -> Table:
    """The second table for reading: value and error in one cell, real against real in the next row."""
    header, *rows = table
    places = range(5, len(header) - 1, 4)
    made = [[*header[:5], *(header[place] for place in places), header[-1]]]
    for row in rows:
        cells = []
        for place in places:
            value, error, _, trainings = row[place : place + 4]
            marked = f" [{trainings} trainings]" if " of " in trainings else ""
            cells.append(value + ("" if error == "-" else f" ± {error}") + marked)
        made.append([*row[:5], *cells, row[-1]])
        if any(row[place + 2] != "-" for place in places):
            made.append(["real against real", "", "", "", "", *(row[place + 2] for place in places), ""])
    return made


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def tex(table: Table) -> str:
    """A LaTeX tabular of a header and rows, every character of them as it stands."""
    lines = [" & ".join("".join(_TEX.get(mark, mark) for mark in cell) for cell in row) + r" \\" for row in table]
    return "\n".join([
        rf"\begin{{tabular}}{{l{'r' * (len(table[0]) - 1)}}}", r"\hline", lines[0], r"\hline", *lines[1:], r"\hline",
        r"\end{tabular}", "",
    ])  # fmt: skip
