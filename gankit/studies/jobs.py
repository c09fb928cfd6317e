"""Resumable jobs: each writes everything into its own folder, and is not repeated once its result is there."""

import _thread
import contextlib
import json
import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import torch

from gankit.errors import BusyError, GankitError, RunError
from gankit.files import locked, remove_unfinished, sole_writer, write_atomically
from gankit.nn.threads import torch_threads
from gankit.registry import Registry, registry
from gankit.registry.plugins import KINDS
from gankit.terminal.text import ErrorStream, harmless, progress_bar, say
from gankit.training.log import StopRequest

RESULT, CLOCK, STOP, OUTPUT = "result.json", "seconds.txt", ".stop", "output.txt"
POLL = 0.3  # Seconds between looks at the folder: for results, and for the wish to stop
CLOCK_EVERY = 10.0  # Seconds between notes of the time that a job has taken, of which a killed one loses no more
SHOW_EVERY = 2.0  # Seconds between looks at the time left
PARENT = os.getppid()
RESTARTS = 2  # How often jobs start again after a worker died without any job finished in between


@dataclass(frozen=True)
class Job:
    """Work that ends in a result."""

    name: str  # of its folder; letters, digits, dots, hyphens and underscores
    # does the work in its folder, or what is left of it there, and returns what JSON can hold; cloudpickle takes it to
    # other processes
    run: Callable[[Path], dict[str, Any]]
    cost: float = 1.0  # seconds that it is expected to take


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    name: str  # the job's
    result: dict[str, Any]  # what it gave; empty where it failed
    failure: str | None  # what the error said, or None
    seconds: float  # that it took, over all its starts
    threads: int  # CPU threads that it had


def run_jobs(
    jobs: Sequence[Job], folder: Path, *, workers: int = 1, threads: int | None = None, quiet: bool = False
) -> dict[str, Outcome]:
    """Do every job whose result is not there yet, and give all results in the order of the jobs.

    Jobs run through joblib: in this process where `workers` is 1, else in processes of its embedded backend, or of the
    one that `joblib.parallel_config` names. A worker that dies takes no other job with it: unfinished ones start again
    and go on with what their folders hold. A job that raises a `GankitError` has failed, and is not tried again.

    Each job has a sub-folder of its name in the folder, and so many CPU threads: by default torch's own choice for one
    worker, an equal share for several. `quiet` shows no progress bar.

    Raises:
        RunError: workers die again and again, or another process is at these jobs.
        KeyboardInterrupt: it was interrupted; running jobs were asked to stop in good order first.
        ValueError: two jobs of one name, or a name that no folder can have.
    """
    names = [job.name for job in jobs]
    if wrong := [name for name in names if not re.fullmatch(r"[\w.-]*\w", name) or names.count(name) > 1]:
        raise ValueError(f"job {wrong[0]!r}: names are different, of letters, digits, dots, hyphens and underscores")
    with sole_writer(folder):
        return _run_jobs(jobs, folder, workers, threads, quiet)


def _run_jobs(jobs: Sequence[Job], folder: Path, workers: int, threads: int | None, quiet: bool) -> dict[str, Outcome]:
    (folder / STOP).unlink(missing_ok=True)
    share = threads or (torch.get_num_threads() if workers == 1 else max(1, joblib.cpu_count() // workers))
    parts, directory = [], None
    if workers > 1:  # other processes do not know the parts that the calling program registered
        directory = Path.cwd()
        parts = [
            (kind, row.name, registry(kind).get(row.name))
            for kind in KINDS for row in registry(kind).list() if row.distribution == Registry.IN_PROCESS
        ]  # fmt: skip
    restarts = 0
    with _progress(jobs, folder, workers, quiet):
        while todo := unfinished(jobs, folder):
            calls = [joblib.delayed(_run_job)(job, folder, share, directory, parts) for job in todo]
            try:
                joblib.Parallel(n_jobs=min(workers, max(2, len(todo))), batch_size=1)(calls)
            except BrokenProcessPool as error:
                left = [job.name for job in unfinished(todo, folder)]
                restarts = restarts + 1 if len(left) == len(todo) else 0
                if restarts > RESTARTS and not (folder / STOP).exists():
                    raise RunError(
                        f"{folder}: a worker died {restarts} times before any job ended ({', '.join(left[:workers])} "
                        "or a neighbour): out of memory? Start again with fewer workers, or smaller batches"
                    ) from error
            if (folder / STOP).exists():
                break
    if todo := unfinished(jobs, folder):
        (folder / STOP).unlink(missing_ok=True)
        say(f"stopped with {len(todo)} of {len(jobs)} jobs to do; the same command goes on", error=True)
        raise KeyboardInterrupt
    return {job.name: _outcome(folder / job.name) for job in jobs}


def unfinished(jobs: Iterable[Job], folder: Path) -> list[Job]:
    """Those of the jobs that have no result in this folder."""
    return [job for job in jobs if not (folder / job.name / RESULT).is_file()]


def _run_job(job: Job, jobs: Path, threads: int, directory: Path | None, parts: list[tuple[str, str, Any]]) -> None:
    """Run one job here, or in a worker: in a directory for relative paths, printing into a file."""
    if directory is not None:
        os.chdir(directory)  # the worker may have run jobs of a program in another one
    for kind, name, part in parts:
        registry(kind).register(name)(part)
    folder, stop = jobs / job.name, jobs / STOP
    orphaned = _orphaned if directory is not None else lambda: False

    def is_over() -> bool:
        return stop.exists() or (folder / RESULT).is_file() or orphaned()

    try:
        # A worker whose parent was killed may still be at this job, until it notices.
        with locked(folder, jobs / f".{job.name}.lock", is_over):
            if not is_over():
                _do(job, folder, threads, (lambda: stop.exists() or orphaned()) if directory is not None else None)
    except KeyboardInterrupt:
        if not orphaned():  # the next parent may have begun already
            stop.touch()
    except BusyError:
        if not is_over():
            raise


def _do(job: Job, folder: Path, threads: int, is_stopped: Callable[[], bool] | None) -> None:
    folder.mkdir(exist_ok=True)
    remove_unfinished(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch_threads(threads))
        seconds = stack.enter_context(_clock(folder, is_stopped))
        if is_stopped is not None:
            stack.enter_context(_output(folder / OUTPUT))
        try:
            content: dict[str, Any] = {"result": job.run(folder)}
        except BusyError:
            raise
        except GankitError as error:
            content = {"failure": str(error)}
        content |= {"seconds": round(seconds(), 2), "threads": threads}
        write_atomically(folder / RESULT, json.dumps(content, indent=1) + "\n")


@contextlib.contextmanager
def _output(path: Path) -> Iterator[None]:
    """Print into a file; what a full disk cannot take is lost."""
    file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closing it may fail
    try:
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield
    finally:
        with contextlib.suppress(OSError):
            file.close()


def _orphaned() -> bool:
    """Whether the process that started this one has ended; never known on Windows."""
    return os.getppid() != PARENT


def _outcome(folder: Path) -> Outcome:
    try:
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        result, failure = content.get("result", {}), content.get("failure")
        return Outcome(folder.name, result, failure, content["seconds"], content["threads"])
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise RunError(f"{folder / RESULT} cannot be read ({error!r}): delete it to do this job again") from error


@contextlib.contextmanager
def _repeat(look: Callable[[], object]) -> Iterator[None]:
    """Call `look` every `POLL` seconds meanwhile."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def _clock(folder: Path, is_stopped: Callable[[], bool] | None) -> Iterator[Callable[[], float]]:
    """Seconds of a job with those of earlier starts; meanwhile this process is interrupted if it `is_stopped`."""
    before, interrupted, start = 0.0, False, time.monotonic()
    noted = start
    with contextlib.suppress(OSError, ValueError):
        before = float((folder / CLOCK).read_text(encoding="utf-8"))

    def seconds() -> float:
        return before + time.monotonic() - start

    def write() -> None:
        with contextlib.suppress(OSError):  # the job itself says what is wrong with the disk
            write_atomically(folder / CLOCK, f"{seconds():.2f}")

    def look() -> None:
        nonlocal noted, interrupted
        if time.monotonic() - noted > CLOCK_EVERY:
            noted = time.monotonic()
            write()
        if is_stopped is not None and is_stopped() and not interrupted:
            interrupted = True
            if hasattr(signal, "pthread_kill"):  # as the keyboard would; it ends a wait too
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            else:
                _thread.interrupt_main()

    try:
        with _repeat(look):
            yield seconds
    finally:
        write()


@contextlib.contextmanager
def _progress(jobs: Sequence[Job], folder: Path, workers: int, quiet: bool) -> Iterator[None]:
    """A bar over all jobs with the time left; workers learn of an interrupt by a file that they look for."""
    cost = {job.name: job.cost for job in jobs}
    undone = {job.name: job.cost for job in unfinished(jobs, folder)}
    taken = {name: _outcome(folder / name).seconds for name in cost if name not in undone}
    latest, shown = time.monotonic(), -math.inf  # when a job ended last (or now), and when the bar was shown

    stream = ErrorStream()
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest()) if workers > 1 else None
        bar = stack.enter_context(progress_bar(
            total=sum(cost.values()), initial=sum(cost[name] for name in taken), disable=quiet or not undone,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}",
        ))  # fmt: skip

        def look() -> None:
            nonlocal latest, shown
            ended, now = [name for name in undone if (folder / name / RESULT).is_file()], time.monotonic()
            for name in ended:
                outcome = _outcome(folder / name)
                if outcome.failure:
                    bar.write(harmless(f"{name} failed: {outcome.failure}"), file=stream)
                bar.n += undone.pop(name)
                taken[name], latest = outcome.seconds, now
            if ended or now - shown > SHOW_EVERY:
                shown, expected = now, sum(cost[name] for name in taken)
                # Unfinished jobs are expected to exceed their cost as much as the finished ones did
                slower = sum(taken.values()) / expected if expected else 1.0
                seconds = slower * sum(undone.values()) / min(workers, max(len(undone), 1))
                left = bar.format_interval(max(seconds - (time.monotonic() - latest), 0.0))
                bar.set_postfix_str(f"{left} left", refresh=False)
                bar.set_description_str(f"{len(jobs) - len(undone)} of {len(jobs)} jobs", refresh=False)
                bar.refresh()
            if stop is not None and stop.requested:
                (folder / STOP).touch()

        look()
        try:
            with _repeat(look):
                yield
        finally:
            look()
