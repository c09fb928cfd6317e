"""Evaluations as tables: for a terminal, a notebook or page, a paper, and a spreadsheet."""

import io
import math
import re
from html import escape
from pathlib import Path
from typing import Any, NamedTuple, final

from gankit.errors import GankitError
from gankit.evaluation.entries import unnumbered
from gankit.evaluation.latex import tabular
from gankit.experiments.experiment import default_features
from gankit.files import open_ordinary, write_atomically, write_csv
from gankit.interfaces import Meaning, Metric
from gankit.registry import registry, valid_part
from gankit.terminal.text import as_columns

SUFFIXES = (".csv", ".tex")
"""Suffixes of files that hold an evaluation as a table."""
PAIRS_PRINTED = 8  # of each metric
REAL_REAL = "real images against other real ones, about what a perfect generator would reach"
FAKE_REAL = "as many generated images against real ones"


@final
class Evaluated(dict[str, Any]):
    """An evaluation: a dictionary as `metrics.json` holds it, which is shown as its table."""

    def __repr__(self) -> str:
        return text_table(self) if {"protocol", "metrics"} <= set(self) else super().__repr__()

    def _repr_html_(self) -> str:
        return html(self)


class Row(NamedTuple):
    """One value: what tables call it, its features ("" if none), how to read it, and its entry in the metrics file."""

    title: str
    features: str
    meaning: Meaning
    entry: dict[str, Any]


def title(metric: str, features: str) -> str:
    """The name of a value with its features: FID for inception-v3 (with clean-fid's resize), "KID (pixels)".

    `metric` is its name in a metrics file, and `features` is empty for values that use none.
    """
    name = re.sub(r"^(kid|mind)\b", lambda word: word[0].upper(), metric)
    if re.match(r"frechet\b", metric):
        is_fid = features == "inception-v3"
        name = metric.replace("frechet", "FID" if is_fid else "FD", 1).replace("-infinity", " at infinity")
        features = "" if is_fid else features
    return f"{name} ({features})" if features else name


def name_of_features(protocol: dict[str, Any]) -> str:
    """The name of a protocol's features, with their network's where it is one of many: "timm resnet18.a1_in1k"."""
    return " ".join([protocol["features"], *filter(None, [protocol["features_protocol"].get("network")])])


def rows(report: dict[str, Any]) -> list[Row]:
    """The values of an evaluation, in its order; those of a metric that is not installed have no meaning."""
    values = []
    for name, entry in report["metrics"].items():
        features, meaning = name_of_features(report["protocol"]), Meaning()
        if metric := metric_of(entry["metric"]):
            base = unnumbered(name, report["metrics"])
            meaning = metric.meaning(base)
            if base != name and meaning.words:
                settings = ", ".join(f"{key} {value}" for key, value in entry["metric"].items() if key != "name")
                meaning = meaning._replace(words=f"{meaning.words} ({settings})")
            if not {"features", "logits"} & set(metric.needs):
                features = ""
        values.append(Row(title(name, features), features, meaning, entry))
    return values


def metric_of(table: dict[str, Any]) -> Metric | None:
    """The metric of an entry of a metrics file; None where it is not installed."""
    settings = dict(table)
    try:
        metric: Metric = valid_part("metric", str(settings.pop("name", "")), settings).build()
    except GankitError:
        return None
    return metric


def reads_training(entry: dict[str, Any]) -> bool:
    """Whether a value depends on the training images; True also where its metric is not installed."""
    metric = metric_of(entry["metric"])
    return metric is None or "training" in metric.needs


def with_error(value: float, error: float | None) -> str:
    """A value with its error: two significant digits of the error, and as many decimals of the value.

    Without an error the value has four significant digits.
    """
    if not error or not math.isfinite(value + error):
        return f"{value:.4g}"
    decimals = 1 - _exponent(error)  # this many show two digits of the error
    return f"{_round(value, decimals)} ± {_round(error, decimals)}"


def _exponent(number: float) -> int:
    """The exponent of a number in scientific notation; 0 for 0."""
    return int(f"{number:.1e}".partition("e")[2])


def _round(value: float, decimals: int) -> str:
    """The value with this number of decimals; a negative number rounds to tens, hundreds, and so on."""
    if decimals > 8:  # too small for plain decimals: with an exponent, and digits down to the same decimal
        return f"{value:.{max(1, decimals + _exponent(value))}e}"
    return f"{round(value, decimals) + 0.0:.{max(decimals, 0)}f}"  # + 0.0: no minus before a zero


def cells(report: dict[str, Any]) -> list[list[str]]:
    """Header and rows of a table of text.

    Its columns are the name, which values are better, the value with its standard error, the baselines "real-real" and
    "fake-real", their number of images ("at n"), those of the value ("n fake", "n real"), and the p-value. A number of
    images has no column where `heading` (for "at n": `notes`) gives it for all rows.
    """
    values, protocol = rows(report), report["protocol"]
    columns: dict[str, list[str]] = {
        "metric": [row.title for row in values],
        "better": [row.meaning.better or "-" for row in values],
        "value": [with_error(row.entry["value"], row.entry["standard_error"]) for row in values],
    }
    if any(baselines := [row.entry["real_vs_real"] for row in values]):
        columns["real-real"] = [_baseline_cell(row, "value") for row in values]
        columns["fake-real"] = [_baseline_cell(row, "fake_value_at_n") for row in values]
        if _common_n(report) is None:
            columns["at n"] = [str(baseline["n"]) if baseline else "-" for baseline in baselines]
    for side in ("fake", "real"):
        counts = [row.entry[f"n_{side}"] for row in values]
        if set(counts) != {protocol[f"n_{side}"]}:
            columns[f"n {side}"] = ["?" if count is None else str(count) for count in counts]
    p_values = [row.entry.get("p_value") for row in values]
    if any(p_values):
        columns["p"] = [f"{p['value']:.3g}" if p else "-" for p in p_values]
    return [list(columns), *map(list, zip(*columns.values(), strict=True))]


def _baseline_cell(row: Row, key: str) -> str:
    """A value of the baseline, with the decimals of the row's own value."""
    baseline, error = row.entry["real_vs_real"], row.entry["standard_error"]
    return with_error(baseline[key], error).partition(" ± ")[0] if baseline else "-"


def _common_n(report: dict[str, Any]) -> int | None:
    """The number of images of each set of the baselines, where all have the same."""
    numbers = {entry["real_vs_real"]["n"] for entry in report["metrics"].values() if entry["real_vs_real"]}
    return numbers.pop() if len(numbers) == 1 else None


def heading(report: dict[str, Any]) -> list[str]:
    """Two lines: which images are compared, and on which features.

    Three spaces separate the generated from the real images, for `html` to break the line at.
    """
    protocol = report["protocol"]
    settings = protocol["features_protocol"]
    weights = settings.get("weights_sha256")
    counts = {side: "?" if protocol[f"n_{side}"] is None else protocol[f"n_{side}"] for side in ("fake", "real")}
    return [
        f"fake: {protocol['fake']}, {counts['fake']} images   real: {protocol['real']}, {counts['real']} images",
        f"features: {name_of_features(protocol)}, {protocol['features_dim']} dimensions, "
        f"resize {settings.get('resize', 'unknown')}" + (f", weights {weights[:12]}" if weights else ""),
    ]


def notes(report: dict[str, Any]) -> list[str]:
    """What each row is, in a few words, and what the baseline is."""
    lines = [f"{row.title.removesuffix(f' ({row.features})')}: {row.meaning.words}" for row in rows(report)
             if row.meaning.words]  # fmt: skip
    if any(entry["real_vs_real"] for entry in report["metrics"].values()):
        each = between = f", {n} images each" if (n := _common_n(report)) else ""
        if {"n_real_groups", "n_fake_groups"} & set(report["protocol"]):  # the other side may then have more images
            one_of_each = ", one of each group" if "n_real_groups" in report["protocol"] else ""
            images = f"{n} images" if n else 'the images of the column "at n"'
            each, between = "", f"; the side that stands for a generator has {images}{one_of_each}"
        lines += [f"real-real: {REAL_REAL}{between}", f"fake-real: {FAKE_REAL}{each}"]
    for attack in report["protocol"].get("membership", {}).values():
        lines.append(
            f"membership attack by {attack['by']}: area {attack['area']:.2f} ({attack['low']:.2f} to "
            f"{attack['high']:.2f}), 0.5 is chance; 95 % of attacks among training images alone stay below "
            f"{attack['control']:.2f}"
        )
    return lines


def warnings(report: dict[str, Any]) -> list[str]:
    """What to be careful about: what the features cannot see, and the warnings of the metrics."""
    features, default = report["protocol"]["features"], default_features()
    try:
        limits = registry("features").get(features).limits  # type: ignore[attr-defined]
    except GankitError:
        limits = ""
    if limits:
        advice = f"{default} captures more" if default != features else "install gankit[offline] and judge again"
        limits = f"{limits}; {advice}"
    return [*([limits] if limits else []), *report["protocol"]["warnings"]]


def pairs(report: dict[str, Any]) -> list[str]:
    """The closest pairs of images that metrics have found, where their files have names."""
    lines = []
    for name, entry in report["metrics"].items():
        named = [pair for pair in entry.get("details", {}).get("pairs", []) if {"fake_file", "real_file"} & set(pair)]
        for pair in named[:PAIRS_PRINTED]:
            fake, real = (pair.get(f"{side}_file", f"image {pair[side]}") for side in ("fake", "real"))
            lines.append(f"{name}: among the closest pairs: {fake} and {real}, distance {pair['distance']:.3g}")
        if len(named) > PAIRS_PRINTED:
            lines.append(f"{name}: {len(named) - PAIRS_PRINTED} more pairs")
    return lines


def text_table(report: dict[str, Any]) -> str:
    """An evaluation as lines for a terminal."""
    lines = [*heading(report), *aligned(cells(report))]
    return "\n".join([*lines, *notes(report), *pairs(report), *(f"warning: {text}" for text in warnings(report))])


def aligned(table: list[list[str]]) -> list[str]:
    """A table as lines for a terminal, with numbers below each other."""
    names, *columns = zip(*([cell.replace("±", "+-") for cell in row] for row in table), strict=True)
    right = [[cell.rjust(max(map(len, column))) for cell in column] for column in columns]
    return as_columns(list(zip(names, *right, strict=True)))


def html(report: dict[str, Any]) -> str:
    """An evaluation as HTML, for notebooks and pages: the meaning of each row is below its name."""
    header, *lines = cells(report)

    def table_row(row: list[str], words: str) -> str:
        small = f"<br><small>{escape(words)}</small>" if words else ""
        # On a phone, where the head is not shown, each cell names its column.
        others = (
            f'<td data-column="{name}">{escape(cell)}</td>' for name, cell in zip(header[2:], row[2:], strict=True)
        )
        return f"<tr><td>{escape(row[0])}{small}</td>{''.join(others)}</tr>"

    explanations = [
        ": ".join(filter(None, [_which_is_better(row.meaning.better), row.meaning.words])) for row in rows(report)
    ]
    head = "".join(f"<th>{name}</th>" for name in [header[0], *header[2:]])
    body = "\n".join(table_row(line, words) for line, words in zip(lines, explanations, strict=True))
    baselines = "; ".join(note for note in notes(report) if note.startswith(("real-real", "fake-real")))
    parts = [
        f"<p>{'<br>'.join(map(escape, heading(report))).replace('   ', '<br>')}</p>",
        f'<div class="wide"><table class="values">\n<thead><tr>{head}</tr></thead>',
        f"<tbody>\n{body}\n</tbody></table></div>",
    ]
    if baselines:
        parts.append(f"<p>{escape(baselines)}.</p>")
    parts += [f'<p class="warning">Warning: {escape(text)}.</p>' for text in warnings(report)]
    return "\n".join(parts)


def _which_is_better(better: str) -> str:
    return f"{better} is {'better' if better in ('lower', 'higher') else 'best'}" if better else ""


def is_table(path: Path) -> bool:
    """Whether a file is empty or holds a table that gankit wrote, of one evaluation or of folds."""
    with io.TextIOWrapper(open_ordinary(path), encoding="utf-8", errors="replace") as file:
        first_line = file.readline()
    return not first_line or first_line.startswith(("metric,features,", "fold,metric,", "% fake: ", "% mean: "))


def write_table(report: dict[str, Any], path: Path) -> None:
    """Write an evaluation as a table: `.tex` as printed, with arrows to the better values; `.csv` with every digit."""
    if path.suffix == ".tex":
        (metric, _, *columns), *table = cells(report)
        lines_with_arrows = []
        for name, better, *others in table:
            arrow = {"lower": " ↓", "higher": " ↑", "-": ""}.get(better, f" (best: {better})")
            lines_with_arrows.append([name + arrow, *others])
        comments = [*heading(report), *notes(report), *(f"warning: {text}" for text in warnings(report))]
        text = tabular([metric, *columns], [("", lines_with_arrows)], "\n".join(comments))
        write_atomically(path, text.encode())
        return
    header = ["metric", "features", "better", "value", "standard_error", "n_fake", "n_real", "at_n", "fake_real",
              "real_real", "p_value", "meaning"]  # fmt: skip
    lines: list[list[object]] = []
    for name, (_, features, meaning, entry) in zip(report["metrics"], rows(report), strict=True):
        values = [entry[key] for key in ("value", "standard_error", "n_fake", "n_real")]
        baseline = entry["real_vs_real"] or {}
        values += [baseline.get(key) for key in ("n", "fake_value_at_n", "value")]
        p_value = entry.get("p_value", {}).get("value")
        lines.append([name, features, meaning.better, *values, p_value, meaning.words])
    write_csv(path, [header, *lines])
