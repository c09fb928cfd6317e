"""The card of a run: what its generated images are, what they were made from, and how private and how fit they are."""

import re
from html import escape
from typing import Any

import numpy as np

from gankit.errors import GankitError
from gankit.evaluation.comparison import read_metrics
from gankit.evaluation.sources import in_process, run_data
from gankit.evaluation.tables import rows
from gankit.files import write_atomically
from gankit.report.pages import render
from gankit.runs.run import Run

CARD = "card.md"
FROM_STUDY = "privacy.json"  # in the run of a study's generator: a metrics file beside the images that the study kept


def card(run: Run, metrics: dict[str, Any] | None) -> str:
    """The card of a run as Markdown, with the metrics that `gankit evaluate` wrote, if it did.

    Where a study trained the run, the card says what that study found, since the run's own settings do not know which
    images the study kept from the training.

    Raises:
        RunError: the folder holds an experiment that was never trained.
        GankitError: what the study wrote cannot be read.
    """
    image, record, data = run.image, run.experiment.run, run.experiment.data
    assert record is not None  # else the run has no image
    told = "the class" if image.classes else ", ".join(data.conditional) if isinstance(data.conditional, list) else ""
    patients, kept, unopened = None, None if data.held_out else 0, ""
    try:
        training, others = run_data(run)
        kept = 0 if others is None else len(others)
        patients = None if training.groups is None else len(np.unique(training.groups))
    except GankitError as error:
        unopened = str(error)
    if (run.path / FROM_STUDY).is_file():
        metrics = read_metrics(run.path / FROM_STUDY)
        kept = kept or metrics["protocol"]["n_real"]  # that study may judge beside some of the images kept
    steps, unread = run.known_steps()
    text = render(
        "gankit.report", "card.md.j2", name=run.path.name, record=record, steps=steps, unread=unread,
        metrics=metrics, told=told, data=data_name(run), patients=patients, unopened=unopened, held_out=kept,
        meanings=dict(zip(metrics["metrics"], (row.meaning for row in rows(metrics)), strict=True)) if metrics else {},
        generator=run.experiment.generator.name, critic=run.experiment.critic.name,
        losses=[loss.name for loss in run.experiment.losses],
        classes=dict(zip(run.class_names, run.label_counts, strict=False)),
    )  # fmt: skip
    # Conditions of the template leave empty lines: none stays between items of a list, and at most one elsewhere.
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"(?m)^(- .*)\n+(?=- )", r"\1\n", text)).rstrip() + "\n"


def card_html(text: str) -> str:
    """A card as HTML for a page: paragraphs, lists and headings, without the title, which the page has."""
    html = []
    for block in escape(text).strip().split("\n\n")[1:]:
        if block.startswith("## "):
            html.append(f"<h3>{block[3:]}</h3>")
        elif block.startswith("- "):
            html.append("<ul>" + "".join(f"<li>{item}</li>" for item in block[2:].split("\n- ")) + "</ul>")
        else:
            html.append(f"<p>{block}</p>")
    bold = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", "\n".join(html))
    return re.sub(r"\\([\W_])", r"\1", bold)  # the backslashes of `markdown`


def data_name(run: Run) -> str:
    """What reports call the data of a run."""
    return "a program's own" if in_process(run) else run.experiment.data.title


def write_card(run: Run, metrics: dict[str, Any] | None) -> None:
    """Write `card.md` beside a run's generator; the arguments are those of `card`."""
    write_atomically(run.path / CARD, card(run, metrics))
