"""The reports of studies, from templates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gankit.files import write_atomically
from gankit.report.pages import render
from gankit.studies.study import Results, Study, format_seconds


def write_page(
    study: Study, results: Results, template: str = "tables.html.j2", *, warnings: Sequence[str] = (), **values: Any
) -> None:
    """Write the report of a study: one self-contained page with its settings and the command that repeats it.

    Args:
        study: the study.
        results: what it found; failed jobs are named on the page.
        template: of this folder. "tables.html.j2" shows `title`, and `tables`: rows of text by their heading, each
            table's header first.
        warnings: what a reader must know before the numbers.
        values: what the template shows.
    """
    page = render(
        "gankit.studies", template, experiment=study.toml(), command=study.command(results.folder),
        failures=results.failures, warnings=warnings, settings=study.settings, training=study.experiment.training,
        data=study.experiment.data, **values,
        seconds=format_seconds(sum(outcome.seconds for outcome in results.outcomes.values())),
    )  # fmt: skip
    write_atomically(results.report, page.encode())
