"""CPU threads of torch: as many as the user set, or a number that is chosen by timing the work itself."""

import contextlib
import os
import statistics
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import final

import torch

PIECES = 5
"""Pieces of work by which a number of threads is judged; fewer where they take `LONG`."""
LONG = 1.0
"""Seconds of work after which a number on trial is judged in any case."""
WINDOW = 10.0
"""After so many seconds of work outside trials, it is decided whether to start one."""
SLOWER = 1.7
"""Fewer threads are tried when the pieces of a window take so many times as long as before."""
PATIENCE = 120.0
"""Seconds since the last trial after which more threads are tried."""
REST = 20.0
"""No trial starts before so many times the seconds that the last one took."""


class _ThisThread(threading.local):
    """For one thread of the program: the `count` of each `torch_threads` that it is inside."""

    counts: tuple[int | None, ...] = ()


_this_thread, _lock = _ThisThread(), threading.Lock()
_program_counts: list[int] = []
"""The program's own number of threads, once for each `torch_threads` that is entered, in whatever thread."""


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Use so many CPU threads of torch inside, and let `thread_options` offer no others; None keeps their number.

    This holds for the calling thread of the program alone; at the end its former number is set again.
    """
    before, outer = own_threads(), _this_thread.counts
    with _lock:
        _program_counts.append(_program_counts[0] if _program_counts else before)
    torch.set_num_threads(count or before)
    _this_thread.counts = (*outer, count)
    try:
        yield
    finally:
        _this_thread.counts = outer
        torch.set_num_threads(before)
        with _lock:
            _program_counts.pop()


def own_threads() -> int:
    """How many CPU threads of torch this thread of the program uses.

    torch keeps a number for each thread of the program, and a new thread starts with the number last set in any, which
    may be a training's. So outside of `torch_threads` the program's own number counts while another thread is inside.
    """
    with _lock:
        return _program_counts[0] if _program_counts and not _this_thread.counts else torch.get_num_threads()


def thread_options() -> list[int]:
    """The numbers of CPU threads to choose from, rising: torch's own, halved again and again down to one.

    The present one alone where somebody has chosen it: by `torch_threads`, OMP_NUM_THREADS, MKL_NUM_THREADS or
    `torch.set_num_threads`.
    """
    own = own_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    is_set = any(_this_thread.counts) or not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}.isdisjoint(os.environ)
    # By default torch uses all logical cores, or half of them where each physical core counts as two.
    if is_set or own not in (cores, cores // 2):
        return [own]
    return sorted({own >> halvings for halvings in range(own.bit_length())})


def fastest(options: Sequence[int], seconds: Callable[[int], float]) -> int:
    """The number of threads beyond which more are no longer faster.

    Args:
        options: numbers of threads, rising.
        seconds: does a piece of work with so many threads and says what it took.
    """
    best, least = options[0], seconds(options[0]) if len(options) > 1 else 0.0
    for threads in options[1:]:
        now = seconds(threads)
        if now >= least:
            break
        best, least = threads, now
    return best


@final
class ThreadChoice:
    """Chooses the number of CPU threads for work that comes in pieces, such as the steps of a training, by their time.

    At the start it tries rising numbers for as long as they are faster. When pieces become slower, because other
    programs need the cores, it tries fewer, and more again from time to time. It reads no clock: only the seconds
    passed to `note` decide.

    Args:
        options: from `thread_options`.
        threads: the number to go on with; None where the work starts.
        usual: seconds of a piece with that number; None where they are not known.

    Attributes:
        threads: for the next piece.
        usual: median seconds of a piece with them; None where not known yet.
        trying: whether `threads` are on trial.
    """

    def __init__(self, options: Sequence[int], threads: int | None = None, usual: float | None = None) -> None:
        self.threads, self.usual = threads or options[0], usual
        self._options = sorted({*options, self.threads}) if len(options) > 1 else [self.threads]
        self.trying = threads is None and len(options) > 1
        self._before = self.threads  # the number that the one on trial is compared with
        self._direction = 1  # of a trial: 1 to more threads, -1 to fewer
        self._times: list[float] = []  # seconds of the pieces since the last decision
        self._trial_seconds = self._seconds_since = 0.0  # of the last trial, and since its end

    def note(self, seconds: float) -> None:
        """Take in how long a piece took with `threads`, which may then be another number."""
        if len(self._options) == 1:
            return
        self._times.append(seconds)
        total, enough = sum(self._times), len(self._times) >= PIECES
        if self.trying:
            self._trial_seconds += seconds
            if enough or total >= LONG:
                # Without the first piece, in which the threads start.
                self._judge(statistics.median(self._times[1:] or self._times))
        else:
            self._seconds_since += seconds
            if enough and total >= WINDOW:
                self._start_trial_if_due(statistics.median(self._times))

    def _judge(self, seconds: float) -> None:
        """End the trial of a number of threads, and try the next one if it was faster."""
        faster = self.usual is None or seconds < self.usual
        if faster:
            self.usual = seconds
        else:
            self.threads = self._before
        self._try(self._next() if faster else None)

    def _start_trial_if_due(self, seconds: float) -> None:
        """Start a trial if it is time for one; `seconds` is the median of the latest pieces."""
        slower = self.usual is None or seconds > SLOWER * self.usual
        self._direction, self._times = (-1 if slower else 1), []
        rested = self._seconds_since >= REST * self._trial_seconds
        due = rested and (slower or self._seconds_since >= PATIENCE)
        if due and (following := self._next()):
            self.usual, self._trial_seconds = seconds, 0.0
            self._try(following)
        elif self.usual is None or seconds < self.usual:
            self.usual = seconds

    def _next(self) -> int | None:
        """The next option in the direction of the trial, or None."""
        place = self._options.index(self.threads) + self._direction
        return self._options[place] if 0 <= place < len(self._options) else None

    def _try(self, threads: int | None) -> None:
        """Put a number on trial; None ends the trials."""
        self.trying, self._times = threads is not None, []
        if threads is None:
            self._seconds_since = 0.0
        else:
            self._before, self.threads = self.threads, threads
