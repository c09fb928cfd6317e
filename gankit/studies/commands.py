"""The commands `gankit study NAME`, one for each study that the registry finds."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gankit.errors import GankitError

Out = Annotated[Path | None, typer.Option("--out", help="The folder to write.", show_default=False)]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE] [KEY.PATH=VALUE]...",
        help="A study file, the one that comes with the study by default; and settings as key.path=value.",
        show_default=False,
    ),
]
Workers = Annotated[int, typer.Option(help="Trainings at a time.", min=1)]
Threads = Annotated[int | None, typer.Option(help="CPU threads of each training.", min=1, show_default=False)]


def study_command(name: str) -> Callable[..., None]:
    """The function behind `gankit study NAME`, whose docstring is its help.

    Raises:
        GankitError: there is no such study; the command itself raises it where a job has failed.
    """

    def command(words: Words = None, out: Out = None, workers: Workers = 1, threads: Threads = None) -> None:
        from gankit.studies.reading import load_study

        given = words or []
        file = given.pop(0) if given and "=" not in given[0] else None
        study = load_study(name, file, *given)
        results = study.run(out or Path(f"runs/study-{name.rpartition(':')[2]}"), workers=workers, threads=threads)
        for text in filter(None, (study.summary(results), f"report: {results.report}")):
            print(text)
        if results.failures:
            raise GankitError(results.failures)

    command.__doc__ = _about(name)
    return command


def _about(name: str) -> str:
    """What a study is, without importing it: help must be quick, and must not fail for a broken plug-in."""
    from gankit.registry import registry
    from gankit.registry.plugins import PlugIn

    study = registry("study").find(name)
    if isinstance(study, PlugIn):
        return f"A study of the distribution {study.distribution}."
    return importlib.import_module(f"gankit.studies.{study.replace('-', '_')}").__doc__ or ""


class _Studies(TyperGroup):
    """The studies that are installed now."""

    def list_commands(self, ctx: Any) -> list[str]:
        from gankit.registry import registry

        return registry("study").names()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        single.command(cmd_name)(study_command(cmd_name))
        return typer.main.get_command(single)


study = typer.Typer(
    cls=_Studies, help="Whole experiments over many trainings, which go on where they were stopped.",
    no_args_is_help=True,
)  # fmt: skip
