"""The interface of a study: settings, arms, jobs that resume, judgement and report; and how any study is run."""

import contextlib
import functools
import json
import shlex
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import tomlkit
from pydantic import BaseModel, ValidationError

from gankit.errors import GankitError, RunError, SettingsError
from gankit.experiments.document import SettingsDocument
from gankit.experiments.experiment import Experiment
from gankit.experiments.tables import Settings as NoSettings
from gankit.files import refuse_nonempty, sole_writer, user_path, write_atomically
from gankit.images.pictures import png_uri
from gankit.registry.messages import read_none, shown
from gankit.registry.settings import as_table
from gankit.report.pages import render
from gankit.runs.run import choose_device
from gankit.seeds import plain_torch
from gankit.studies.clusters import open_cluster
from gankit.studies.estimate import estimate
from gankit.studies.jobs import Job, Outcome, failures, run_jobs, unfinished
from gankit.studies.worker import INPUTS, check_inputs
from gankit.training.progress import format_seconds

JOBS, FILE = "jobs", "study.toml"

Refuse = Callable[[str, str, str], SettingsError]
"""Makes the error for a setting, given its table, its key and a reason; the error names the line of the study file."""


@dataclass(frozen=True)
class Arm:
    """One of the things that a study compares. Studies derive from it to add fields that say what the arm does."""

    name: str  # in the names of folders and files
    words: str  # in reports


@dataclass(frozen=True)
class Work:
    """Jobs of one kind."""

    name: str  # what the estimate of the cost calls one of them; "" leaves them out of the estimate
    jobs: Sequence[Job]  # with costs in whole trainings: 1 is as much as one training of `steps` steps
    steps: int
    # measures the seconds that a step takes with a number of CPU threads; None is torch's choice
    time_step: Callable[[int | None], float]
    first: bool = False  # whether these must be done before all others begin


@dataclass(frozen=True)
class Results:
    """What a study found."""

    values: Any  # what `Study.judge` returned
    outcomes: Mapping[str, Outcome]  # of every job, by name
    folder: Path  # the study's

    @property
    def failures(self) -> str:
        """One line that says which jobs failed, why, and what to do; "" where none did."""
        failed = failures(self.outcomes)
        reasons = "; ".join(f"{name}: {failure}" for name, failure in failed.items())
        if not failed:
            return ""
        return (
            f"{len(failed)} of {len(self.outcomes)} jobs failed and are marked in the report ({reasons}); delete their "
            f"folders in {self.folder / JOBS} to do them again"
        )

    @property
    def report(self) -> Path:
        """The path of the page that `Study.report` writes."""
        return self.folder / "report.html"


class Study(ABC):
    """An experiment over many trainings.

    A study file is an experiment with one more table, the study's own. `Settings` describes that table; `experiment`
    holds the others. `gankit study NAME` reads the file, runs the jobs, and gives the results to `judge` and `report`.

    Attributes:
        Settings: a pydantic model of the study's own table; its docstring describes every setting.
        table: the name of that table.
        file: a TOML file in the class's folder, read where the command names no file; "" for the default recipe.
        defaults: by table, settings whose defaults are not those of an experiment.
        of_data: those keys of its own table that only fit the data set of `file`, such as names of classes: they are
            dropped where a command names another data set.
        decided: by (table, key), settings that a study file must leave out since the study decides them, and why.
        name: the study's, as in `gankit list study`; set when it is read.
    """

    Settings: ClassVar[type[BaseModel]] = NoSettings
    table: ClassVar[str] = "study"
    file: ClassVar[str] = ""
    defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    of_data: ClassVar[Collection[str]] = ()
    decided: ClassVar[Mapping[tuple[str, str], str]] = {}
    name: str = ""

    def __init__(self, experiment: Experiment, **settings: Any) -> None:
        self.experiment = experiment.with_run(None)
        self.settings: Any = self.Settings(**read_none(self.Settings, settings))

    def check_settings(self, refuse: Refuse) -> None:  # noqa: B027 - most studies have nothing to refuse
        """Refuse settings that do not fit each other; called when a study file was read.

        Raises:
            SettingsError: made by `refuse`.
        """

    @abstractmethod
    def arms(self) -> Sequence[Arm]:
        """What is compared."""

    @abstractmethod
    def work(self, jobs: Path) -> Sequence[Work]:
        """All jobs of the study, done or not; each has a sub-folder of its name in the folder `jobs`.

        Open and check the data here: nothing is written into the study's folder before this returns. A job must look
        for files of an earlier one in `folder.parent` of its own folder, not in `jobs`, which may have another path on
        another machine.

        Raises:
            GankitError: the data are unsuitable, or something cannot be trained.
        """

    def inputs(self) -> Mapping[str, str]:
        """Digests of what jobs read besides the settings, by what it is, such as "the data"; asked for after `work`.

        A study does not go on where one has changed, since the results of jobs that are done would not fit. Nothing is
        written into the study's folder before this returns either.
        """
        return {}

    @abstractmethod
    def judge(self, outcomes: Mapping[str, Outcome], folder: Path) -> Any:
        """The study's values, from the outcomes of all jobs, failed ones included; may write tables into the folder.

        Raises:
            GankitError: nothing can be judged.
        """

    @abstractmethod
    def report(self, results: Results) -> None:
        """Write `results.report`, and whatever else a reader needs, into the study's folder."""

    def summary(self, results: Results) -> str:
        """What the command prints."""
        return ""

    @final
    @plain_torch()
    def run(
        self,
        out: str | Path,
        *,
        workers: int | None = None,
        threads: int | None = None,
        cluster: str | None = None,
        quiet: bool = False,
    ) -> Results:
        """Do the jobs that are still missing in the study's folder, judge the outcomes, and write the report.

        Only the number of threads can change the results; `workers` and `cluster` do so through its default alone.

        Args:
            out: the study's folder. It is made, or holds a study of the same settings.
            workers: jobs at a time; by default one, or as many as the cluster has workers.
            threads: CPU threads of each job; by default `training.threads`. Where that is "auto", a single worker times
                a few steps and takes the fastest number, several share the cores, and those of a cluster have one each.
            cluster: "dask" or "ray", or either with ":ADDRESS", as for `open_cluster`.
            quiet: shows no progress bar and no estimate of the time.

        Raises:
            GankitError: the data or the networks are unsuitable (nothing is written then), the folder holds something
                else or the data have changed, the cluster does not answer, or there is nothing to judge.
            SettingsError: `workers` or `threads` is below 1.
            KeyboardInterrupt: it was interrupted; the same call continues.
        """
        for name, number in (("workers", workers), ("threads", threads)):
            if number is not None and number < 1:
                raise SettingsError(f"{name}: {number} is too few; give 1 or more, or leave it out")
        folder = user_path(out)
        self._holds_this_study(folder)  # Refuses another one before anything is written there
        if threads is None and self.experiment.training.threads != "auto":
            threads = self.experiment.training.threads
        if threads is None and cluster:
            threads = 1  # Nothing is known of the workers' cores
        with sole_writer(folder), contextlib.ExitStack() as stack:
            opened = stack.enter_context(open_cluster(cluster, workers)) if cluster else None
            workers = opened.workers if opened else workers or 1
            jobs, is_begun = folder / JOBS, self._holds_this_study(folder)
            work = self.work(jobs)
            inputs = check_inputs(folder, self.inputs())
            if unfinished([job for kind in work for job in kind.jobs], jobs):
                on_cpu = choose_device(self.experiment.training.device).type == "cpu"
                may_choose = threads is None and workers == 1 and on_cpu
                work, threads = estimate(work, jobs, workers, threads, choose_threads=may_choose, quiet=quiet)
            if not is_begun:
                write_atomically(folder / FILE, self.toml())
            if inputs:
                write_atomically(folder / INPUTS, inputs)
            how: dict[str, Any] = {"workers": workers, "threads": threads, "quiet": quiet, "cluster": opened}
            if first := [job for kind in work if kind.first for job in kind.jobs]:
                run_jobs(first, jobs, **how)
            # The first, too, so that the bar covers all
            outcomes = run_jobs([job for kind in work for job in kind.jobs], jobs, **how)
            results = Results(self.judge(outcomes, folder), outcomes, folder)
            self.report(results)
            return results

    @final
    def tables(self) -> dict[str, Any]:
        """The study as the tables of a study file."""
        return {self.table: as_table(self.settings), **self.experiment.tables()}

    @final
    def toml(self) -> str:
        """The study as the text of a TOML file."""
        return tomlkit.dumps(self.tables())

    @final
    def command(self, folder: Path) -> str:
        """The command that repeats the study of a folder in a new one."""
        return f"gankit study {self.name} {shlex.quote(str(folder / FILE))} --out NEW_FOLDER"

    @final
    def seeds(self, count: int) -> list[int]:
        """`count` seeds for trainings: `training.seed` and those that follow.

        Raises:
            SettingsError: the last would exceed 2^63 - 1, the largest seed.
        """
        first = self.experiment.training.seed
        if first + count > 2**63:
            raise SettingsError(f"training.seed: {count} seeds from {first} on exceed 2^63 - 1; take a lower one")
        return list(range(first, first + count))

    @final
    def experiment_with(self, **changes: Mapping[str, Any] | None) -> Experiment:
        """The experiment with settings changed, by table and key; None removes a setting, or a whole table."""
        tables = self.experiment.tables()
        for name, settings in changes.items():
            if settings is None:
                tables.pop(name, None)
                continue
            changed = {**tables.get(name, {}), **settings}
            tables[name] = {key: value for key, value in changed.items() if value is not None}
        return Experiment.model_validate(tables)

    @final
    def _holds_this_study(self, folder: Path) -> bool:
        """Whether the folder holds a study of these settings already; False where it is empty or missing."""
        if not (folder / FILE).is_file():
            refuse_nonempty(folder, "it holds no study; choose another --out")
            return False
        text = SettingsDocument.read(folder / FILE).text
        # A file of another study cannot be restored as this one: the comparison below then shows the differences
        with contextlib.suppress(GankitError, KeyError, TypeError, ValidationError):
            text = _restore(type(self), self.name, text).toml()  # An older gankit may have named keys differently
        before, now = _leaves(tomllib.loads(text)), _leaves(tomllib.loads(self.toml()))
        if different := sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)):
            changes = "; ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in different[:3])
            raise RunError(f"{folder} holds a study of other settings ({changes}); choose another --out")
        return True

    def __reduce__(self) -> tuple[Any, ...]:  # Pickled as its settings, without the data that it has opened
        return _restore, (type(self), self.name, self.toml())


@functools.lru_cache(maxsize=1)
def _restore(study_class: type[Study], name: str, text: str) -> Study:
    """The study of a file's text; the last one is cached, so that the jobs of a worker share the data it has opened."""
    tables = tomllib.loads(text)
    settings = tables.pop(study_class.table)
    study = study_class(Experiment.model_validate(tables), **settings)
    study.name = name
    return study


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Every single value of nested tables and lists, by its dotted path."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {path: value}
    leaves: dict[str, Any] = {}
    for key, inner in value.items():
        leaves |= _leaves(inner, f"{path}.{key}" if path else str(key))
    return leaves


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write `metrics.json`, what a study found, into its folder."""
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")


def write_page(
    study: Study, results: Results, template: str = "tables.html.j2", *, warnings: Sequence[str] = (),
    pictures: Mapping[str, bytes] | None = None, **values: Any,
) -> None:  # fmt: skip
    """Write the report of a study: one self-contained page with settings, warnings, failed jobs and the command.

    Args:
        study: whose settings and command are shown.
        results: say which jobs failed, and where the page is written.
        template: one of the folder `gankit/studies`. "tables.html.j2" needs the values `title`, and `tables`: by
            heading, rows of text, of which the first is the header.
        warnings: sentences without a full stop, shown at the top.
        pictures: PNG files by their captions.
        values: what else the template shows.
    """
    page = render(
        "gankit.studies", template, experiment=study.toml(), command=study.command(results.folder),
        failures=results.failures, warnings=warnings, settings=study.settings, training=study.experiment.training,
        data=study.experiment.data, **values,
        pictures={caption: png_uri(picture) for caption, picture in (pictures or {}).items()},
        seconds=format_seconds(sum(outcome.seconds for outcome in results.outcomes.values())),
    )  # fmt: skip
    write_atomically(results.report, page)


def distinct(values: list[Any]) -> list[Any]:
    """The values; a validator for pydantic.

    Raises:
        ValueError: one of them is there twice.
    """
    if len(set(values)) < len(values):
        raise ValueError(f"name each only once; these are {shown(values)}")
    return values
