"""One job of a study, done by the process that runs the study or by a worker: another process, or machine.

The main process, which runs the study, and its workers share the folder of the jobs and nothing else. There the main
process shows that it lives (`ALIVE`) and asks its workers to stop (`STOP`), and a job leaves its `RESULT`.
"""

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
from dataclasses import dataclass, field
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
ALIVE = ".alive"  # Holds the token of the main process, and a number that grows while it lives
POLL = 0.3  # Seconds between looks at the folder
CLOCK_EVERY = 10.0  # Seconds between notes of the time that a job has taken; a killed one loses no more
LATE = 60.0  # Seconds by which a shared disk may show a file late
SILENCE = 180.0  # Seconds for which `ALIVE` may stay the same; then the main process is taken for dead
PARENT = os.getppid()  # The process that started this one; it has another parent once that has ended


@dataclass(frozen=True)
class MainProcess:
    """What a worker must know of the process that runs the study."""

    directory: Path  # where relative paths begin
    token: str  # stands in `ALIVE`; a main process that takes its place has another
    parts: list[tuple[str, str, Any]]  # kind, name and class of those that its program has registered
    version: str = __version__
    number: int = field(default_factory=os.getpid)  # the operating system's


def run_job(job: Job, jobs: Path, threads: int, main: MainProcess | None) -> None:
    """Do a job, unless it is done already or the study is to stop.

    `main` is None in the main process itself. A worker changes the directory, and prints into a file.
    """
    watch = None
    if main is not None:
        _enter(jobs, main)
        watch = _Watch(jobs / ALIVE, main)
        for kind, name, part in main.parts:
            registry(kind).register(name)(part)
    folder, stop = jobs / job.name, jobs / STOP

    def is_abandoned() -> bool:
        return watch is not None and watch.is_abandoned()

    def must_stop() -> bool:
        return stop.exists() or is_abandoned()

    def is_over() -> bool:
        return (folder / RESULT).is_file() or must_stop()

    try:
        # A worker of a main process that was killed may still be at this job, until it notices
        with locked(folder, jobs / f".{job.name}.lock", is_over):
            if not is_over():
                _do(job, folder, threads, must_stop if watch else None)
    except KeyboardInterrupt:
        if not is_abandoned():  # else the next main process may have begun already
            stop.touch()
    except BusyError:
        if not is_over():
            raise


@functools.cache
def _home() -> Path:
    """The directory in which this process, a worker, was started."""
    return Path.cwd()


def _enter(jobs: Path, main: MainProcess) -> None:
    """Go to the directory from which `jobs` leads to the folder of the study: where this worker was started, or where
    the main process was.

    Raises:
        RunError: it is in neither, or the main process has another version of gankit.
    """
    host, until = socket.gethostname(), time.monotonic() + LATE
    if main.version != __version__:
        raise RunError(
            f"the worker on {host} has gankit {__version__}, and {main.version} runs the study: install the same"
        )
    places = list(dict.fromkeys((_home(), main.directory)))
    while True:
        for place in places:
            if _read(place / jobs / ALIVE).startswith(main.token):
                os.chdir(place)  # the worker may have run jobs of a program in another one
                return
        if time.monotonic() > until or not any((place / jobs).is_dir() for place in places):
            raise RunError(
                f"the worker on {host} does not see the study: {jobs} is in none of {', '.join(map(str, places))}; use "
                "a disk that all machines share, and start workers where the relative --out leads to it"
            )
        time.sleep(POLL)


def _read(path: Path) -> str:
    """The text of a file; "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


class _Watch:
    """Tells whether the main process still waits for this worker."""

    def __init__(self, alive: Path, main: MainProcess) -> None:
        self._alive, self._main = alive, main
        self._sign, self._since = "", time.monotonic()  # what `ALIVE` holds, and since when it has been the same

    def is_abandoned(self) -> bool:
        """Whether the main process has ended, is silent for long, or was replaced by another one.

        That it has ended shows at once where it is the parent of this process, but not on Windows.
        """
        sign = _read(self._alive)
        if sign != self._sign:
            self._sign, self._since = sign, time.monotonic()
        is_orphan = self._main.number == PARENT and os.getppid() != PARENT
        is_replaced = sign != "" and not sign.startswith(self._main.token)
        return is_orphan or is_replaced or time.monotonic() - self._since > SILENCE


def _do(job: Job, folder: Path, threads: int, must_stop: Callable[[], bool] | None) -> None:
    """Run a job and write its result. A worker gives `must_stop`, is interrupted by it, and prints into a file."""
    folder.mkdir(exist_ok=True)
    remove_unfinished(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch_threads(threads))
        seconds = stack.enter_context(_clock(folder))
        if must_stop is not None:
            stack.enter_context(_interrupted_if(must_stop))
            stack.enter_context(joblib.parallel_config("sequential"))  # else a cluster's: jobs within jobs
            stack.enter_context(_output(folder / OUTPUT))
        try:
            content: dict[str, Any] = {"result": job.run(folder)}
        except BusyError:
            raise
        except GankitError as error:
            content = {"failure": str(error)}
        content |= {"seconds": round(seconds(), 2), "threads": threads, "files": _digests(folder)}
        write_atomically(folder / RESULT, json.dumps({**content, "seal": seal(content)}, indent=1) + "\n")


def seal(content: dict[str, Any]) -> str:
    """The sha256 of what a result says, by which a change of it shows."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@contextlib.contextmanager
def _output(path: Path) -> Iterator[None]:
    """What is printed inside goes into a file; what a full disk cannot take is lost."""
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
def repeat(act: Callable[[], object], every: float) -> Iterator[None]:
    """Call a function every so many seconds until the block ends."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(every):
            act()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def _clock(folder: Path) -> Iterator[Callable[[], float]]:
    """A function that returns the seconds that a job has taken, over all its starts; its folder keeps count of them."""
    before, start = 0.0, time.monotonic()
    with contextlib.suppress(OSError, ValueError):
        before = float((folder / CLOCK).read_text(encoding="utf-8"))

    def seconds() -> float:
        return before + time.monotonic() - start

    def note() -> None:
        with contextlib.suppress(OSError):  # the job itself says what is wrong with the disk
            write_atomically(folder / CLOCK, f"{seconds():.2f}")

    try:
        with repeat(note, CLOCK_EVERY):
            yield seconds
    finally:
        note()


@contextlib.contextmanager
def _interrupted_if(must_stop: Callable[[], bool]) -> Iterator[None]:
    """Interrupt this thread once it must stop."""
    thread, interrupted = threading.current_thread(), False

    def look() -> None:
        nonlocal interrupted
        if not interrupted and must_stop():
            interrupted = True
            _interrupt(thread)

    with repeat(look, POLL):
        yield


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
