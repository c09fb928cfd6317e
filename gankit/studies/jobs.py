"""Resumable jobs: each writes everything into its own folder, and is not repeated once its result is there."""

import contextlib
import itertools
import json
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
from joblib._parallel_backends import LokyBackend  # not among joblib.parallel.BACKENDS where processes cannot share

from gankit.errors import RunError, typed_line
from gankit.files import sole_writer, write_atomically
from gankit.nn.threads import own_threads
from gankit.registry import Registry, registry
from gankit.registry.plugins import KINDS
from gankit.studies.clusters import Cluster
from gankit.studies.worker import ALIVE, POLL, RESULT, STOP, MainProcess, end_with, repeat, run_job, seal
from gankit.terminal.text import progress_bar, say
from gankit.training.stopping import StopRequest

SHOW_EVERY = 2.0  # seconds between updates of the progress bar
BEAT_EVERY = 5.0  # seconds between signs of life for the workers
NOTICE = "finishing the updates of all jobs, then saving; interrupt again to lose what they have not saved"
LOST = (
    "stopped at once: what running jobs did since their last checkpoints is lost; run the same command again to "
    "continue"
)
RESTARTS = 2  # how often in a row jobs are started again where workers die before any job has ended


@dataclass(frozen=True)
class Job:
    """Work that ends in a result.

    Attributes:
        name: the job's and its folder's; letters, digits, dots, hyphens and underscores.
        run: does the work, or what is left of it, in the folder that it is given, and returns what JSON can hold.
            cloudpickle takes it to other processes and machines, where folders may have other paths: what the job
            called NAME wrote is in `folder.parent / NAME`.
        cost: seconds that it is expected to take.
    """

    name: str
    run: Callable[[Path], dict[str, Any]]
    cost: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    name: str  # the job's
    result: dict[str, Any]  # what `Job.run` returned; empty where it failed
    failure: str | None  # the message of the error; None where it did not fail
    seconds: float  # how long it ran, over all its starts
    threads: int  # CPU threads that it had


def failures(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """Why jobs failed, by the names of those that did."""
    return {name: outcome.failure for name, outcome in outcomes.items() if outcome.failure is not None}


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    *,
    workers: int = 1,
    threads: int | None = None,
    quiet: bool = False,
    cluster: Cluster | None = None,
) -> dict[str, Outcome]:
    """Run every job that has no result yet; return the outcomes of all, by name, in the order of the jobs.

    Jobs run through joblib: in this process where `workers` is 1, else in several processes on this machine, or on an
    open `cluster`, whose number of workers then counts. Where a worker dies, unfinished jobs are started again and go
    on with what their folders hold. A job that raises a `GankitError` has failed, and is not tried again.

    Each job has a sub-folder of its name in the folder, and so many CPU threads: by default torch's own choice for one
    worker, an equal share for several. `quiet` shows no progress bar.

    Raises:
        RunError: workers die again and again, do not see the folder, or have another version of gankit; or another
            process is running these jobs.
        KeyboardInterrupt: it was interrupted; running jobs were asked to stop in good order first.
        ValueError: two jobs have the same name, or a name cannot be a folder's.
    """
    names = [job.name for job in jobs]
    if wrong := [name for name in names if not re.fullmatch(r"[\w.-]*\w", name) or names.count(name) > 1]:
        raise ValueError(f"job {wrong[0]!r}: names are different, of letters, digits, dots, hyphens and underscores")
    workers = cluster.workers if cluster else workers
    threads = threads or (own_threads() if workers == 1 else max(1, joblib.cpu_count() // workers))
    main = _main_process() if workers > 1 else None
    with sole_writer(folder):
        (folder / STOP).unlink(missing_ok=True)
        signs_of_life = _signs_of_life(folder, main) if main else contextlib.nullcontext()
        try:
            with _progress(jobs, folder, workers, quiet), signs_of_life:
                _start_all(jobs, folder, workers, threads, main, cluster)
        except KeyboardInterrupt:
            say(LOST, error=True)
            raise KeyboardInterrupt(LOST) from None
        if todo := unfinished(jobs, folder):
            (folder / STOP).unlink(missing_ok=True)
            text = f"stopped with {len(todo)} of {len(jobs)} jobs to do; the same command goes on, in trainings too"
            say(text, error=True)
            raise KeyboardInterrupt(text)
        return {job.name: _outcome(folder / job.name) for job in jobs}


class _Processes(LokyBackend):  # type: ignore[misc]  # joblib has no types
    """Processes on this machine that end with this one."""

    def configure(self, *given: Any, **settings: Any) -> int:
        workers: int = super().configure(*given, initializer=end_with, initargs=(os.getpid(),), **settings)
        return workers


def _start_all(
    jobs: Sequence[Job], folder: Path, workers: int, threads: int, main: MainProcess | None, cluster: Cluster | None
) -> None:
    """Start jobs, and start them again where workers were lost, until all have ended or the study is to stop."""
    # Relative where possible, since other machines may have the folder elsewhere
    shared = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    # A cluster starts every job that joblib gives it, whatever `n_jobs` says: give it no more than `workers` at a time
    settings = {"pre_dispatch": workers} if cluster else {"backend": _Processes()}
    lost_worker: tuple[type[Exception], ...] = (BrokenProcessPool, *(cluster.lost_worker if cluster else ()))
    starts_in_vain = 0  # in a row
    while (todo := unfinished(jobs, folder)) and not (folder / STOP).exists():
        calls = [joblib.delayed(run_job)(job, shared, threads, main) for job in todo]
        reason = None
        try:
            # Several workers are at least 2 even for one job: with 1 joblib would run it in this process
            joblib.Parallel(n_jobs=min(workers, max(2, len(todo))), batch_size=1, **settings)(calls)
        except lost_worker as error:
            reason = error
        left = [job.name for job in unfinished(todo, folder)]
        starts_in_vain = starts_in_vain + 1 if len(left) == len(todo) else 0
        if starts_in_vain > RESTARTS and not (folder / STOP).exists():
            raise RunError(
                f"{folder}: workers were lost {starts_in_vain} times before any job ended "
                f"({', '.join(left[:workers])} or a neighbour): out of memory? Start again with fewer workers, or "
                "smaller batches"
            ) from reason


def unfinished(jobs: Iterable[Job], folder: Path) -> list[Job]:
    """Those of the jobs that have no result in this folder."""
    return [job for job in jobs if not (folder / job.name / RESULT).is_file()]


def _main_process() -> MainProcess:
    """What workers must know of this process, with the parts that the calling program has registered."""
    parts = [
        (kind, row.name, registry(kind).get(row.name))
        for kind in KINDS for row in registry(kind).list() if row.distribution == Registry.IN_PROCESS
    ]  # fmt: skip
    return MainProcess(Path.cwd(), secrets.token_hex(8), parts)


@contextlib.contextmanager
def _signs_of_life(folder: Path, main: MainProcess) -> Iterator[None]:
    """Show workers, on any machine, that this process is running."""
    beats = itertools.count()

    def show() -> None:
        with contextlib.suppress(OSError):  # The jobs themselves report what is wrong with the disk
            write_atomically(folder / ALIVE, f"{main.token} {next(beats)}")

    show()
    try:
        with repeat(show, BEAT_EVERY):
            yield
    finally:
        (folder / ALIVE).unlink(missing_ok=True)


def _outcome(folder: Path) -> Outcome:
    """The outcome of a finished job, from its folder."""
    try:
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        written = content.pop("seal", None)  # those of an older gankit have none
        if written is not None and written != seal(content):
            raise ValueError("it was changed since it was written")
        result, failure = content.get("result", {}), content.get("failure")
        return Outcome(folder.name, result, failure, content["seconds"], content["threads"])
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise RunError(
            f"{folder / RESULT} cannot be read ({typed_line(error)}): delete it to do this job again"
        ) from error


@contextlib.contextmanager
def _progress(jobs: Sequence[Job], folder: Path, workers: int, quiet: bool) -> Iterator[None]:
    """A bar over all jobs with the time left, and the failures as they occur; an interrupt asks workers to stop."""
    progress = _Progress(jobs, folder, workers, quiet)
    with progress.bar, StopRequest(NOTICE) if workers > 1 else contextlib.nullcontext() as stop:

        def look() -> None:
            progress.update()
            if stop is not None and stop.requested:
                (folder / STOP).touch()

        look()
        try:
            with repeat(look, POLL):
                yield
        finally:
            look()


class _Progress:
    """How far jobs are, shown on a bar."""

    def __init__(self, jobs: Sequence[Job], folder: Path, workers: int, quiet: bool) -> None:
        self._folder, self._workers = folder, workers
        self._cost = {job.name: job.cost for job in jobs}
        self._undone = {job.name: job.cost for job in unfinished(jobs, folder)}
        done = [name for name in self._cost if name not in self._undone]
        self._seconds = {name: _outcome(folder / name).seconds for name in done}  # that each finished job took
        self._last_end = time.monotonic()  # when a job ended last; until one has, when all began
        self._last_shown = -math.inf
        self.bar = progress_bar(
            total=sum(self._cost.values()), initial=sum(self._cost[name] for name in done), mininterval=SHOW_EVERY,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}", disable=quiet or not self._undone,
        )  # fmt: skip

    def _seconds_left(self) -> float:
        # Unfinished jobs are expected to exceed their cost as much as the finished ones did, and one of average cost
        # that took just as long as expected: a first job that is short says little about the others
        usual = sum(self._cost.values()) / max(len(self._cost), 1)
        expected = usual + sum(self._cost[name] for name in self._seconds)
        slower = (usual + sum(self._seconds.values())) / expected if expected else 1.0
        seconds = slower * sum(self._undone.values()) / min(self._workers, max(len(self._undone), 1))
        return max(seconds - (time.monotonic() - self._last_end), 0.0)

    def update(self) -> None:
        """Take note of the jobs that have ended, tell failures, and show the bar anew where it is time."""
        now, bar = time.monotonic(), self.bar
        ended = [name for name in self._undone if (self._folder / name / RESULT).is_file()]
        for name in ended:
            outcome = _outcome(self._folder / name)
            if outcome.failure:
                say(f"{name} failed: {outcome.failure}", error=True)
            bar.n += self._undone.pop(name)
            self._seconds[name], self._last_end = outcome.seconds, now
        if ended or (not bar.disable and now - self._last_shown > bar.mininterval):
            self._last_shown = now
            bar.set_postfix_str(f"{bar.format_interval(self._seconds_left())} left", refresh=False)
            bar.set_description_str(f"{len(self._cost) - len(self._undone)} of {len(self._cost)} jobs", refresh=False)
            bar.refresh()
