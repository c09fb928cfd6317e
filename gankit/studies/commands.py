"""The commands `gankit study NAME`, one for each study that the registry finds."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gankit.errors import GankitError
from gankit.help import Commands
from gankit.options import Out
from gankit.registry import registry
from gankit.registry.plugins import PlugIn
from gankit.text import say

WORDS = "A study file, the one that comes with the study by default; and settings as key.path=value."
Words = Annotated[
    list[str] | None, typer.Argument(metavar="[FILE] [KEY.PATH=VALUE]...", help=WORDS, show_default=False)
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

        arguments = words or []
        file = arguments.pop(0) if arguments and "=" not in arguments[0] else None
        study = load_study(name, file, *arguments)
        results = study.run(out or Path(f"runs/study-{name.rpartition(':')[2]}"), workers=workers, threads=threads)
        say(*filter(None, (study.summary(results), f"report: {results.report}")))
        if results.failures:
            raise GankitError(results.failures)

    # Without importing the study: help must be quick, and must not fail for a broken plug-in.
    study = registry("study").find(name)
    if isinstance(study, PlugIn):
        command.__doc__ = f"A study of the distribution {study.distribution}."
    else:
        command.__doc__ = importlib.import_module(f"gankit.studies.{study.replace('-', '_')}").__doc__
    return command


class _Studies(Commands):
    """The studies that are installed now."""

    def list_commands(self, ctx: Any) -> list[str]:
        return registry("study").names()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        single.command(cmd_name)(study_command(cmd_name))
        return self.explained(ctx, typer.main.get_command(single))


HELP = "Whole experiments over many trainings, which go on where they were stopped."
study = typer.Typer(cls=_Studies, help=HELP, no_args_is_help=True)
