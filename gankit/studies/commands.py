"""The commands `gankit study NAME`, one for each study that the registry finds."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gankit.errors import GankitError, SettingsError, suggestion
from gankit.experiments.options import Out
from gankit.registry import registry
from gankit.registry.plugins import PlugIn
from gankit.terminal.help import Commands
from gankit.terminal.text import say

FILE_AND_SETTINGS_HELP = (
    "A study file, the one that comes with the study by default; and settings as key.path=value, those of the study's "
    "own table also as --key value."
)
FileAndSettings = Annotated[
    list[str] | None,
    typer.Argument(metavar="[FILE] [KEY.PATH=VALUE]...", help=FILE_AND_SETTINGS_HELP, show_default=False),
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
    """The function behind `gankit study NAME`; its docstring is the command's help.

    Raises:
        GankitError: there is no such study. The command raises another where a job has failed.
    """

    def command(
        file_and_settings: FileAndSettings = None,
        out: Out = None,
        workers: Workers = None,
        threads: Threads = None,
        cluster: Cluster = None,
    ) -> None:
        from gankit.studies.reading import load_study

        settings = file_and_settings or []
        file = settings.pop(0) if settings and names_file(settings[0]) else None
        study = load_study(name, file, *own_options(name, settings))
        folder = out or Path(f"runs/study-{name.rpartition(':')[2]}")
        results = study.run(folder, workers=workers, threads=threads, cluster=cluster)
        say(*filter(None, (study.summary(results), f"report: {results.report}")))
        if results.failures:
            raise GankitError(results.failures)

    # The study's class is not imported: help must be quick, and must not fail for a broken plug-in
    found = registry("study").find(name)
    if isinstance(found, PlugIn):
        command.__doc__ = f"A study of the distribution {found.distribution}."
    else:
        command.__doc__ = importlib.import_module(f"gankit.studies.{found.replace('-', '_')}").__doc__
    return command


def names_file(word: str) -> bool:
    """Whether an argument of the command is a study file, rather than a setting."""
    from gankit.experiments.document import settings_file

    return not word.startswith("--") and ("=" not in word or settings_file(word) is not None)


def own_options(study: str, words: list[str]) -> list[str]:
    """Turn the options among a command's words into settings of the study's own table: `--seeds 3` to `TABLE.seeds=3`.

    Raises:
        SettingsError: neither the command nor the table has such an option, or it has no value.
    """
    study_class: Any = registry("study").get(study)
    table, known = study_class.table, registry("study").settings(study).model_fields
    settings, rest = [], iter(words)
    for word in rest:
        if not word.startswith("--"):
            settings.append(word)
            continue
        option, equals, value = word.partition("=")
        setting, *path = option[2:].split(".")
        setting = setting.replace("-", "_")
        key = ".".join([setting, *path])  # The path keeps its hyphens: it may hold names that the user chose
        if setting not in known:
            near = suggestion(key, [*known, "out", "workers", "threads", "cluster"])
            raise SettingsError(f"{option}: the command has no such option, and [{table}] has no such key; {near}")
        if not equals:
            value = next(rest, "")
            if not value:
                raise SettingsError(f"{option}: a value is needed, as in {option} VALUE; it sets {table}.{key}")
        settings.append(f"{table}.{key}={value}")
    return settings


class _Studies(Commands):
    """The group of these commands, which asks the registry anew at each call."""

    def list_commands(self, ctx: Any) -> list[str]:
        return registry("study").names()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        # Options that typer does not know may be settings of the study: `own_options` reads them
        single.command(cmd_name, context_settings={"ignore_unknown_options": True})(study_command(cmd_name))
        return self.explain(ctx, typer.main.get_command(single))


HELP = "Experiments over many trainings, which resume where they were stopped."
study = typer.Typer(cls=_Studies, help=HELP, no_args_is_help=True)
