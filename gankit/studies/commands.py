"""The commands `gankit study ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gankit.errors import GankitError

study = typer.Typer(help="Whole experiments over many trainings, which go on where they were stopped.",
                    no_args_is_help=True)  # fmt: skip

Out = Annotated[Path | None, typer.Option("--out", help="The folder to write.", show_default=False)]
StudyWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE] [KEY.PATH=VALUE]...",
        help="A study file, the packaged study of the eyes by default; and settings as key.path=value.",
        show_default=False,
    ),
]
Workers = Annotated[int, typer.Option(help="Trainings at a time.", min=1)]
Threads = Annotated[int | None, typer.Option(help="CPU threads of each training.", min=1, show_default=False)]


@study.command()
def agreement(words: StudyWords = None, out: Out = None, workers: Workers = 1, threads: Threads = None) -> None:
    """Train on images that ever more raters agree on, and judge the generators: tables, controls and a report."""
    from gankit.studies.agreement.report import cautions, write_agreement_report
    from gankit.studies.agreement.settings import load_study
    from gankit.studies.agreement.study import failures, run_agreement

    file, overrides = _study_words(words)
    found = run_agreement(
        load_study(file, *overrides), out or Path("runs/study-agreement"), workers=workers, threads=threads
    )
    print(f"report: {write_agreement_report(found)}")
    failed = failures(found)
    for caution in cautions(found):
        if caution != failed:
            print(f"caution: {caution}")
    if failed:
        raise GankitError(failed)


@study.command()
def classifier(words: StudyWords = None, out: Out = None, workers: Workers = 1, threads: Threads = None) -> None:
    """Train a classifier on real images, and with oversampling, classical augmentation or generated images."""
    import shlex

    from gankit.studies.classifier.study import load_classifier_study, lost, run_classifier_study, text_table

    file, overrides = _study_words(words)
    folder = out or Path("runs/study-classifier")
    command = shlex.join(["gankit", "study", "classifier", *(words or []), "--out", "NEW_FOLDER"])
    metrics = run_classifier_study(
        load_classifier_study(file, *overrides), folder, workers=workers, threads=threads, command=command
    )
    print(text_table(metrics))
    print(f"report: {folder / 'report.html'}")
    if failed := lost(metrics):
        raise GankitError(failed)


def _study_words(words: list[str] | None) -> tuple[str | None, list[str]]:
    """The file, where the first word is one, and the overrides."""
    given = words or []
    return (given[0], given[1:]) if given and "=" not in given[0] else (None, given)
