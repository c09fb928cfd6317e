"""Run one job of a study: in the main process, which runs the study, or in a worker, here or on another machine.

The main process and its workers share the folder of the jobs and nothing else. There the main process shows that it
is running (`ALIVE`) and asks its workers to stop (`STOP`). Each job writes its `RESULT` into its own sub-folder.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import functools
import hashlib
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import psutil

from gankit.errors import BusyError, GankitError, RunError, first_of, report_lost
from gankit.files import OWN, locked, remove_unfinished, write_atomically
from gankit.nn.threads import torch_threads
from gankit.registry import registry
from gankit.version import __version__

if TYPE_CHECKING:
    from gankit.studies.jobs import Job

# Files in the folder of all jobs
ALIVE = ".alive"  # holds the token of the main process, and a number that grows while that process runs
STOP = ".stop"  # its presence asks the workers to stop
# Files in the folder of one job
RESULT = "result.json"  # what the job returned, or why it failed
CLOCK = "seconds.txt"  # how long the job has run so far
OUTPUT = "output.txt"  # what the job printed in a worker
INPUTS = "inputs.txt"  # in the study's folder: digests of what jobs read besides the settings

POLL = 0.3  # seconds between looks at the folder
CLOCK_EVERY = 10.0  # seconds between updates of `CLOCK`: so much of a killed job's time can go uncounted
LATE = 60.0  # seconds that a file may take to appear on a shared disk
SILENCE = 180.0  # seconds without a change of `ALIVE` after which the main process is taken for dead
# The process that has started this worker on its machine, perhaps through a shell, and with which it ends; 0 in others
PARENT = 0
ORPHANED = threading.Event()  # once that process has ended
BUSY = threading.Lock()  # held during a job by a worker that the main process has started


@dataclass(frozen=True)
class MainProcess:
    """What a worker must know of the process that runs the study."""

    directory: Path  # its working directory
    token: str  # stands in `ALIVE`; unlike that of any other main process
    parts: list[tuple[str, str, Any]]  # kind, name and class of the parts that its program has registered
    version: str = __version__
    process_id: int = field(default_factory=os.getpid)


def run_job(job: Job, jobs: Path, threads: int, main: MainProcess | None) -> None:
    """Run a job in its sub-folder of `jobs`, unless it has a result already or the study is to stop.

    `main` is None in the main process itself. A worker changes its working directory, and prints into a file.
    """
    watch, started_here = None, main is not None and main.process_id == PARENT
    if main is not None:
        _enter_directory(jobs, main)
        watch = _watch(jobs / ALIVE, main)
        for kind, name, part in main.parts:
            registry(kind).register(name)(part)
    folder, stop = jobs / job.name, jobs / STOP

    def is_abandoned() -> bool:
        return watch is not None and watch()

    def must_stop() -> bool:
        return stop.exists() or is_abandoned()

    def is_over() -> bool:
        return (folder / RESULT).is_file() or must_stop()

    try:
        # After a main process was killed, one of its workers may hold the lock until it notices
        with BUSY if started_here else contextlib.nullcontext(), locked(folder, give_up=is_over):
            if not is_over():
                _run_and_record(job, folder, threads, must_stop if watch else None)
    except KeyboardInterrupt:
        if not is_abandoned():  # An abandoned worker must not stop the study that the next main process runs
            stop.touch()
    except BusyError:
        if not is_over():
            raise


@functools.cache
def _first_directory() -> Path:
    """The working directory in which this worker was started, whatever jobs have changed since."""
    return Path.cwd()


def _enter_directory(jobs: Path, main: MainProcess) -> None:
    """Change to a directory from which the path `jobs` leads to the study.

    That is the one in which this worker was started, or the one of the main process.
    """
    host, until = socket.gethostname(), time.monotonic() + LATE
    if main.version != __version__:
        raise RunError(
            f"the worker on {host} has gankit {__version__}, and {main.version} runs the study: install one version"
        )
    directories = list(dict.fromkeys((_first_directory(), main.directory)))
    while True:
        for directory in directories:
            if _read(directory / jobs / ALIVE).startswith(main.token):
                os.chdir(directory)
                return
        if time.monotonic() > until or not any((directory / jobs).is_dir() for directory in directories):
            raise RunError(
                f"the worker on {host} does not see the study: {jobs} is in none of "
                f"{', '.join(map(str, directories))}; use a disk that all machines share, and start workers where the "
                "relative --out leads to it"
            )
        time.sleep(POLL)


def _read(path: Path) -> str:
    """The text of a file; "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _watch(alive: Path, main: MainProcess) -> Callable[[], bool]:
    """A function that tells whether the main process has ended, has been silent for long, or was replaced by another.

    Its end shows at once where it has started this process, elsewhere by its silence.
    """
    last_sign, unchanged_since = "", time.monotonic()  # what `ALIVE` held last, and since when

    def is_abandoned() -> bool:
        nonlocal last_sign, unchanged_since
        sign = _read(alive)
        if sign != last_sign:
            last_sign, unchanged_since = sign, time.monotonic()
        is_replaced = sign != "" and not sign.startswith(main.token)
        is_orphan = main.process_id == PARENT and ORPHANED.is_set()
        return is_orphan or is_replaced or time.monotonic() - unchanged_since > SILENCE

    return is_abandoned


def end_with(parent: int) -> None:
    """End this process when `parent` has ended and no job runs here: joblib would let it wait for jobs for good.

    Called first of all: `parent` may end while this process still loads what its first job needs.
    """
    global PARENT
    PARENT = parent

    def watch() -> None:
        process = None
        while True:
            with contextlib.suppress(psutil.Error, OSError):  # too many open files, for one, say nothing of the parent
                try:
                    process = process or psutil.Process(parent)
                    if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                        break
                except psutil.NoSuchProcess:
                    break
            time.sleep(POLL)
        ORPHANED.set()
        with BUSY:
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run_and_record(job: Job, folder: Path, threads: int, must_stop: Callable[[], bool] | None) -> None:
    """Run a job and write its result.

    `must_stop` is None in the main process. A worker is interrupted once it is true, and prints into a file.
    """
    folder.mkdir(exist_ok=True)
    remove_unfinished(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(report_lost(folder))
        stack.enter_context(torch_threads(threads))
        seconds = stack.enter_context(_clock(folder))
        if must_stop is not None:
            stack.enter_context(_interrupted_if(must_stop))
            # What the job itself does through joblib must not become further jobs of the cluster
            stack.enter_context(joblib.parallel_config("sequential"))
            stack.enter_context(_print_into(folder / OUTPUT))
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
def _print_into(path: Path) -> Iterator[None]:
    """Append to a file what is printed inside the block; what a full disk cannot take is lost."""
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
    passing = re.compile(rf"{OWN.pattern}|{re.escape(CLOCK)}|{re.escape(OUTPUT)}")
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files if not passing.fullmatch(path.name)}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def made_file(job: Path, name: str) -> Path:
    """The path of a file in the folder of an earlier job, which is still what that job wrote.

    A worker waits for the result of that job first, since a shared disk may show it late. A job without a result
    passes: whoever needs its file finds that it is missing.

    Raises:
        RunError: the file was changed or lost since.
    """
    until = time.monotonic() + LATE
    # There is `ALIVE` only where workers run: a main process that works alone has nothing to wait for
    while not (job / RESULT).is_file() and time.monotonic() < until and (job.parent / ALIVE).is_file():
        time.sleep(POLL)
    path, digest = job / name, json.loads(_read(job / RESULT) or "{}").get("files", {}).get(name)
    if digest is not None and not (path.is_file() and _sha256(path) == digest):
        raise RunError(f"{path} is not what this job wrote: delete {job} to do it again")
    return path


def check_inputs(study: Path, inputs: Mapping[str, str]) -> str:
    """The lines of the file in a study's folder that lists what the study reads; older folders have none.

    Raises:
        RunError: the file has other digests.
    """
    lines, path = {f"{digest} {name}" for name, digest in inputs.items()}, study / INPUTS
    before = set(path.read_text(encoding="utf-8", errors="replace").splitlines()) if path.is_file() else lines
    if changed := sorted({line.partition(" ")[2] for line in before ^ lines}):
        raise RunError(
            f"{study}: {first_of(changed)} changed since this study began; put back what was there, or choose another "
            "--out"
        )
    return "".join(f"{line}\n" for line in sorted(lines))


@contextlib.contextmanager
def repeat(act: Callable[[], object], every: float) -> Iterator[None]:
    """Call a function every so many seconds, in a thread of its own, until the block ends."""
    over = threading.Event()

    def act_until_over() -> None:
        while not over.wait(every):
            act()

    thread = threading.Thread(target=act_until_over, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def _clock(folder: Path) -> Iterator[Callable[[], float]]:
    """A function that returns how many seconds a job has run, over all its starts, of which `CLOCK` keeps count."""
    earlier, start = 0.0, time.monotonic()
    with contextlib.suppress(OSError, ValueError):
        earlier = float((folder / CLOCK).read_text(encoding="utf-8"))

    def seconds() -> float:
        return earlier + time.monotonic() - start

    def save() -> None:
        with contextlib.suppress(OSError):  # The job itself reports what is wrong with the disk
            write_atomically(folder / CLOCK, f"{seconds():.2f}")

    try:
        with repeat(save, CLOCK_EVERY):
            yield seconds
    finally:
        save()


@contextlib.contextmanager
def _interrupted_if(must_stop: Callable[[], bool]) -> Iterator[None]:
    """Raise a KeyboardInterrupt in the block, once, when `must_stop` becomes true."""
    thread, interrupted = threading.current_thread(), False

    def look() -> None:
        nonlocal interrupted
        if not interrupted and must_stop():
            interrupted = True
            _interrupt(thread)

    with repeat(look, POLL):
        yield


def _interrupt(thread: threading.Thread) -> None:
    """Raise a KeyboardInterrupt in a thread: by SIGINT, which ends waits too, where the thread can receive it."""
    can_signal = hasattr(signal, "pthread_kill")
    is_deaf = can_signal and signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())  # as in workers of Ray
    is_deaf |= signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as in those of a study in the background
    if thread is not threading.main_thread() or is_deaf:  # as on Dask, which runs jobs in other threads
        identity, error = ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, error)  # raised before the next line of Python
    elif can_signal:
        signal.pthread_kill(thread.ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()
