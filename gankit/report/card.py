"""The card of a run: what its generated images are, what they were made from, and how private and how fit they are."""

import re
from typing import Any

import numpy as np

from gankit.errors import GankitError
from gankit.evaluation.sources import run_data
from gankit.files import write_atomically
from gankit.report.pages import render
from gankit.runs.run import Run

CARD = "card.md"


def card(run: Run, metrics: dict[str, Any] | None) -> str:
    """The card as Markdown.

    Args:
        run: the run that the card describes.
        metrics: what `gankit evaluate` wrote, or None.
    """
    record, patients, held_out, unopened = run.experiment.run, None, 0, ""
    try:
        training, others = run_data(run)
        held_out = 0 if others is None else len(others)
        patients = None if training.groups is None else len(np.unique(training.groups))
    except GankitError as error:
        unopened = str(error)
    counts = record.label_counts if record else []
    steps, unread = run.known_steps()
    text = render(
        "gankit.report", "card.md.j2", name=run.path.name, record=record, steps=steps, unread=unread,
        metrics=metrics,
        generator=run.experiment.generator.name, critic=run.experiment.critic.name, data=run.experiment.data.name,
        losses=[loss.name for loss in run.experiment.losses], patients=patients, held_out=held_out, unopened=unopened,
        classes=dict(zip(run.class_names, counts, strict=False)),
    )  # fmt: skip
    # Conditions of the template leave empty lines: none stays between items of a list, and at most one elsewhere.
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"(\n- [^\n]*)\n+(?=- )", r"\1\n", text)).rstrip() + "\n"


def write_card(run: Run, metrics: dict[str, Any] | None) -> None:
    """Write `card.md` beside a run's generator."""
    write_atomically(run.path / CARD, card(run, metrics))
