"""The commands `gankit study NAME`, one for each study that the registry finds."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gankit.errors import GankitError, SettingsError
from gankit.experiments.options import Out
from gankit.registry import registry
from gankit.registry.messages import suggestion
from gankit.registry.plugins import PlugIn
from gankit.terminal.help import Commands
from gankit.terminal.text import say

WORDS = (
    "A study file, the one that comes with the study by default; and settings as key.path=value, those of the study's "
    "own table also as --key value."
)
Words = Annotated[
    list[str] | None, typer.Argument(metavar="[FILE] [KEY.PATH=VALUE]...", help=WORDS, show_default=False)
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Trainings at a time: 1 by default, all workers of a cluster.", min=1, max=1024, show_default=False
    ),
]
Threads = Annotated[int | None, typer.Option(help="CPU threads of each training.", min=1, max=1024, show_default=False)]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:ADDRESS]", show_default=False,
        help="Run on dask or ray: as dask or ray on this machine, as dask:tcp://HOST:8786 or ray:auto on a cluster.",
    ),
]  # fmt: skip


def study_command(name: str) -> Callable[..., None]:
    """The function behind `gankit study NAME`, whose docstring is its help.

    Raises:
        GankitError: there is no such study; the command itself raises it where a job has failed.
    """

    def command(
        words: Words = None,
        out: Out = None,
        workers: Workers = None,
        threads: Threads = None,
        cluster: Cluster = None,
    ) -> None:
        from gankit.studies.reading import load_study

        arguments = words or []
        file = arguments.pop(0) if arguments and names_file(arguments[0]) else None
        study = load_study(name, file, *own_options(name, arguments))
        folder = out or Path(f"runs/study-{name.rpartition(':')[2]}")
        results = study.run(folder, workers=workers, threads=threads, cluster=cluster)
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


def names_file(word: str) -> bool:
    """Whether a word stands for a study file, rather than for a setting."""
    from gankit.experiments.document import settings_file

    return not word.startswith("--") and ("=" not in word or settings_file(word) is not None)


def own_options(study: str, words: list[str]) -> list[str]:
    """Words of a command, in which options are settings of the study's own table: `--seeds 3` is `TABLE.seeds=3`.

    Raises:
        SettingsError: there is no such option and no such setting, or it has no value.
    """
    kind: Any = registry("study").get(study)
    settings, rest, known = [], iter(words), registry("study").settings(study).model_fields
    for word in rest:
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            first, *inner = option[2:].split(".")
            first = first.replace("-", "_")
            key = ".".join([first, *inner])  # inside there may be names of the user's, with hyphens
            if first not in known:
                near = suggestion(key, [*known, "out", "workers", "threads", "cluster"])
                raise SettingsError(f"{option}: the command has no such option, nor [{kind.table}] such a key; {near}")
            if not equals and (value := next(rest, "")) == "":
                raise SettingsError(f"{option}: a value is needed, as in {option} VALUE; it sets {kind.table}.{key}")
            word = f"{kind.table}.{key}={value}"
        settings.append(word)
    return settings


class _Studies(Commands):
    """The studies that are installed now."""

    def list_commands(self, ctx: Any) -> list[str]:
        return registry("study").names()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        # Options that not all studies have are settings of this one
        single.command(cmd_name, context_settings={"ignore_unknown_options": True})(study_command(cmd_name))
        return self.explain(ctx, typer.main.get_command(single))


HELP = "Experiments over many trainings, which resume where they were stopped."
study = typer.Typer(cls=_Studies, help=HELP, no_args_is_help=True)
