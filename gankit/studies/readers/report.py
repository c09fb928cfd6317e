"""What a study of readers writes: tables as CSV and LaTeX and as text, and one self-contained page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gankit.files import write_csv
from gankit.images.decoding import Decoder, decode_all, open_picture
from gankit.images.pictures import grid_png
from gankit.ranking.rating_files import REAL, Rater
from gankit.report.pages import draw_intervals
from gankit.studies.formats import NONE, interval, number, write_latex
from gankit.studies.readers.answers import RATINGS, Answers, call_of, right_of_pair
from gankit.studies.readers.blinding import IMAGES, KEY, PAGE, SET, Shown
from gankit.studies.study import Results, Study, write_page

SHOWN = 8  # images in a picture


def finding_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """What was found over all readers, a header first."""
    rows = [["images of", "measure", "value", "guessing", "readers", "images or pairs"]]
    for entry in metrics["findings"]:
        chance = NONE if entry["chance"] is None else f"{entry['chance']:g}"
        counts = [str(entry["readers"]), str(entry["cases"])]
        rows.append([entry["source"], entry["what"], interval(entry, digits=2), chance, *counts])
    return rows


def reader_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Every reader's values, one row for each source, a header first."""
    names = list(dict.fromkeys(entry["what"] for entry in metrics["findings"]))
    sources = list(dict.fromkeys(entry["source"] for entry in metrics["findings"]))
    found = {(entry["source"], entry["what"]): entry["by_reader"] for entry in metrics["findings"]}
    rows = [["reader", "answered", "images of", *names]]
    for reader, entry in metrics["readers"].items():
        answered = f"{entry['answered']} of {metrics['protocol']['shown']}"
        for source in sources:
            values = [number(found.get((source, name), {}).get(reader), 2) for name in names]
            rows.append([reader, answered, source, *values])
    return rows


def agreement_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """How far readers agree, a header first."""
    rows = [[entry["who"], entry["what"], interval(entry, digits=2), str(entry["n"])] for entry in metrics["agreement"]]
    return [["reader", "measure", "value", "images or pairs"], *rows]


def diagnosis_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """How often images of each class were diagnosed as that class, a header first."""
    return [
        ["images of", "class", "images", "diagnosed so"],
        *([entry["source"], entry["class"], str(entry["images"]), f"{entry['right']} of {entry['diagnoses']}"]
          for entry in metrics["diagnoses"]),
    ]  # fmt: skip


def answer_rows(answers: Answers) -> list[list[object]]:
    """Every answer with what the image is, a header first."""
    header: list[object] = [
        "reader", "image", "source", "number", "label", "patient", "beside", "repeats", "score", "diagnosis", "call",
        "right",
    ]  # fmt: skip
    return [header, *(
        _answer_row(rater, image)
        for rater in answers.raters for image in answers.key.images if image.id in rater.calls
    )]  # fmt: skip


def _answer_row(rater: Rater, image: Shown) -> list[object]:
    """What a reader said of an image or pair; of a pair the picture is the generated one, and `beside` the real one."""
    call = rater.calls[image.id]
    picture = next(picture for picture in image.pictures if picture.source == image.source)
    others = [f"{other.source} {other.number}" for other in image.pictures if other != picture]
    right: object = ""  # without a call
    if call:
        called_generated = call_of(rater, image) == 1
        right = int(right_of_pair(rater, image) if image.is_pair else called_generated == (image.source != REAL))
    return [
        rater.name, image.id, picture.source, picture.number, picture.label, picture.patient, "".join(others),
        image.repeats or "", rater.scores.get(image.id, ""), rater.diagnoses[image.id], call, right,
    ]  # fmt: skip


def write_tables(metrics: Mapping[str, Any], answers: Answers, folder: Path) -> None:
    """Write the tables as LaTeX, their numbers as CSV, and every answer with what the image is."""
    columns_of = {
        "findings": ["source", "what", "value", "low", "high", "chance", "readers", "cases", "independent"],
        "agreement": ["who", "what", "value", "low", "high", "n"],
        "diagnoses": ["source", "class", "images", "right", "diagnoses"],
    }  # fmt: skip
    for name, columns in columns_of.items():
        rows = [[entry[column] for column in columns] for entry in metrics[name]]
        write_csv(folder / f"{name}.csv", [columns, *rows])
    values = [
        [reader, entry["source"], entry["what"], value]
        for entry in metrics["findings"] for reader, value in entry["by_reader"].items()
    ]  # fmt: skip
    write_csv(folder / "readers.csv", [["reader", "source", "what", "value"], *values])
    write_csv(folder / "flow.csv", metrics["flow"])
    write_csv(folder / "answers.csv", answer_rows(answers))
    tables = {
        "findings": finding_rows(metrics), "readers": reader_rows(metrics), "agreement": agreement_rows(metrics),
        "diagnoses": diagnosis_rows(metrics), "flow": metrics["flow"],
    }  # fmt: skip
    notes = {
        "findings": f"Brackets hold 95 % intervals over {'readers and ' if over_readers(metrics) else ''}images",
        "agreement": "Brackets hold 95 % intervals over images, for these readers",
    }
    write_latex(folder, tables, notes)


def over_readers(metrics: Mapping[str, Any]) -> bool:
    """Whether any interval is over several readers: one who answered little has no value and does not count."""
    return any(entry["readers"] > 1 for entry in metrics["findings"])


def next_step(folder: Path) -> str:
    """What to do before there is anything to analyse."""
    return (
        f"give readers {folder / SET / PAGE}, one file that needs no network, and keep {folder / KEY}; put the files "
        f"that they save into {folder / RATINGS}, and give the same command again"
    )


def write_report(study: Study, results: Results) -> None:
    """Write `report.html` into the study's folder."""
    metrics = results.values
    tables = {
        "What was found": finding_rows(metrics), "Readers": reader_rows(metrics), "Agreement": agreement_rows(metrics),
        "Diagnoses": diagnosis_rows(metrics),
    }  # fmt: skip
    write_page(
        study, results, "readers/report.html.j2", warnings=metrics["notes"], metrics=metrics,
        tables={heading: rows for heading, rows in tables.items() if len(rows) > 1},
        several=over_readers(metrics), next_step="" if metrics["readers"] else next_step(results.folder),
        pictures=_pictures(metrics, results.folder),
    )  # fmt: skip


def _pictures(metrics: Mapping[str, Any], folder: Path) -> dict[str, bytes]:
    """Figures by their captions."""
    figures = {}
    shares = [entry for entry in metrics["findings"] if entry["low"] is not None and entry["chance"] != 0]
    if shares:
        rows = [(f"{entry['source']}: {entry['what']}", entry, [*entry["by_reader"].values()]) for entry in shares]
        figure = draw_intervals(rows, 0.5)
        figures["Shares and areas with 95 % intervals; crosses are readers, the line is guessing"] = figure
    answers = metrics["answers"]
    for source in metrics["verdicts"]:
        files = [folder / SET / IMAGES / image.files[0] for image in by_calls(answers, source)]
        if files and all(file.is_file() for file in files):
            figures[f"Images of {source} that were called real most often"] = _grid(files[:SHOWN])
            figures[f"Images of {source} that were called generated most often"] = _grid(files[::-1][:SHOWN])
    return figures


def by_calls(answers: Answers, source: str) -> list[Shown]:
    """The single images of a source that any reader called; first those that the largest share called real."""
    singles = [image for image in answers.shown_first(pairs=False) if image.source == source]
    images = [image for image in singles if any(rater.calls.get(image.id) for rater in answers.raters)]
    shares = np.array([np.nanmean(calls) for calls in answers.table(images, call_of).T])
    return [images[place] for place in np.argsort(shares, kind="stable")]


def _grid(files: Sequence[Path]) -> bytes:
    images = decode_all([str(file) for file in files], lambda place: open_picture(files[place]), Decoder(), threads=1)
    return grid_png(images, (0.0, 255.0), SHOWN)
