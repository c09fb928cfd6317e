"""What a worker does of a study, in another process or on another machine: one job in its folder."""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import functools
import hashlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib

from gankit.errors import BusyError, GankitError, RunError
from gankit.files import locked, remove_unfinished, write_atomically
from gankit.nn.threads import torch_threads
from gankit.registry import registry
from gankit.version import __version__

if TYPE_CHECKING:
    from gankit.studies.jobs import Job

RESULT, CLOCK, STOP, OUTPUT = "result.json", "seconds.txt", ".stop", "output.txt"
ALIVE = ".alive"  # Holds the mark of the process that runs the jobs, and a number that it raises while it lives
POLL = 0.3  # Seconds between looks at the folder: for results, and for the wish to stop
CLOCK_EVERY = 10.0  # Seconds between notes of the time that a job has taken, of which a killed one loses no more
SILENCE = 180.0  # Seconds without a sign of life after which a worker gives up; a shared disk shows one a minute late
LATE = 60.0  # Seconds by which a shared disk may show a file late
PARENT = os.getppid()


@dataclass(frozen=True)
class Start:
    """What a worker must know of the process that runs the jobs."""

    directory: Path  # where relative paths begin
    mark: str  # stands in `ALIVE`
    parts: list[tuple[str, str, Any]]  # kind, name and class of those that its program has registered
    version: str = __version__


def run_job(job: Job, jobs: Path, threads: int, start: Start | None) -> None:
    """Run one job here, or in a worker: in a directory for relative paths, printing into a file."""
    is_left: Callable[[], bool] = bool  # never
    if start is not None:
        _enter(jobs, start)
        is_left = _Watch(jobs / ALIVE, start.mark).is_left
        for kind, name, part in start.parts:
            registry(kind).register(name)(part)
    folder, stop = jobs / job.name, jobs / STOP

    def is_over() -> bool:
        return stop.exists() or (folder / RESULT).is_file() or is_left()

    try:
        # A worker whose parent was killed may still be at this job, until it notices.
        with locked(folder, jobs / f".{job.name}.lock", is_over):
            if not is_over():
                _do(job, folder, threads, (lambda: stop.exists() or is_left()) if start is not None else None)
    except KeyboardInterrupt:
        if not is_left():  # the next parent may have begun already
            stop.touch()
    except BusyError:
        if not is_over():
            raise


@functools.cache
def _home() -> Path:
    """The directory in which this process, a worker, was started."""
    return Path.cwd()


def _enter(jobs: Path, start: Start) -> None:
    """Go where the folder of the jobs is the one of the process that runs them: its directory, else the worker's own.

    Raises:
        RunError: there is no such folder, or gankit is another version than there.
    """
    host, until = socket.gethostname(), time.monotonic() + LATE
    if start.version != __version__:
        raise RunError(
            f"the worker on {host} has gankit {__version__}, and {start.version} runs the study: install the same"
        )
    places = list(dict.fromkeys((_home(), start.directory)))
    while True:
        for place in places:
            if _read(place / jobs / ALIVE).startswith(start.mark):
                os.chdir(place)  # the worker may have run jobs of a program in another one
                return
        if time.monotonic() > until or not any((place / jobs).is_dir() for place in places):
            raise RunError(
                f"the worker on {host} does not see the study: {jobs} is in none of {', '.join(map(str, places))}; use "
                "a disk that all machines share, and start workers where the relative --out leads to it"
            )
        time.sleep(POLL)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


class _Watch:
    """Looks whether the process that started a job has ended."""

    def __init__(self, alive: Path, mark: str) -> None:
        self._alive, self._mark = alive, mark
        self._sign, self._seen = "", time.monotonic()

    def is_left(self) -> bool:
        """Whether it is no parent any more (never so on Windows), shows no sign of life, or another one has begun."""
        sign = _read(self._alive)
        if sign != self._sign:
            self._sign, self._seen = sign, time.monotonic()
        is_other = sign != "" and not sign.startswith(self._mark)
        return os.getppid() != PARENT or is_other or time.monotonic() - self._seen > SILENCE


def _do(job: Job, folder: Path, threads: int, is_stopped: Callable[[], bool] | None) -> None:
    folder.mkdir(exist_ok=True)
    remove_unfinished(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch_threads(threads))
        seconds = stack.enter_context(_clock(folder, is_stopped))
        if is_stopped is not None:
            stack.enter_context(joblib.parallel_config("sequential"))  # else a cluster's: jobs within jobs
            stack.enter_context(_output(folder / OUTPUT))
        try:
            content: dict[str, Any] = {"result": job.run(folder)}
        except BusyError:
            raise
        except GankitError as error:
            content = {"failure": str(error)}
        content |= {"seconds": round(seconds(), 2), "threads": threads, "files": _digests(folder)}
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


def _digests(folder: Path) -> dict[str, str]:
    """The sha256 of each file that a job leaves for others, by path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and "checkpoints" not in path.parts)
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files if path.name not in (CLOCK, OUTPUT)}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_made(job: Path, *files: str) -> None:
    """Wait until a shared disk shows these files of an earlier job's folder, and check that they are what it wrote.

    Raises:
        RunError: a file was changed or lost since.
    """
    until = time.monotonic() + LATE
    while not (job / RESULT).is_file() and time.monotonic() < until and (job.parent / ALIVE).is_file():
        time.sleep(POLL)
    content = json.loads(_read(job / RESULT) or "{}")
    for name, digest in content.get("files", {}).items():
        if name in files and not ((job / name).is_file() and _sha256(job / name) == digest):
            raise RunError(f"{job / name} is not what this job wrote: delete {job} to do it again")


@contextlib.contextmanager
def repeat(look: Callable[[], object]) -> Iterator[None]:
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
    before, interrupted, start, thread = 0.0, False, time.monotonic(), threading.current_thread()
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
            _interrupt(thread)

    try:
        with repeat(look):
            yield seconds
    finally:
        write()


def _interrupt(thread: threading.Thread) -> None:
    """Raise a KeyboardInterrupt in a thread; in the main one as the keyboard would, which ends waits too."""
    can_signal = hasattr(signal, "pthread_kill")
    # Dask runs jobs in other threads, and workers of Ray block the signal: there the next line of Python raises it
    is_deaf = can_signal and signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    if thread is not threading.main_thread() or is_deaf:
        identity, error = ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, error)
    elif can_signal:
        signal.pthread_kill(thread.ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()
