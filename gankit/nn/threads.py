"""CPU threads of torch: as many as the user set, or a number that is chosen by timing the work itself."""

import contextlib
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import final

import torch

PIECES, LONG = 5, 1.0
"""A number of threads is judged by so many pieces of work, or by fewer that take so many seconds together."""
SLOWER, WINDOW = 1.7, 10.0
"""Fewer threads are tried when the pieces of so many seconds take so many times as long as before."""
PATIENCE, REST = 120.0, 20.0
"""More are tried after so many seconds; and nothing before so many times the seconds of the last trial."""

_held = False


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """So many CPU threads for torch meanwhile, which `thread_options` respects; None leaves them as they are."""
    global _held
    before = torch.get_num_threads(), _held
    torch.set_num_threads(count or before[0])
    _held = _held or count is not None
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        _held = before[1]


def thread_options() -> list[int]:
    """The numbers of CPU threads to choose from, rising: one, then doubled up to torch's own number.

    The present one alone where somebody has chosen it: by `torch_threads`, OMP_NUM_THREADS, MKL_NUM_THREADS or
    `torch.set_num_threads`.
    """
    own = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # By itself torch takes all cores, or half where two of them share one.
    if _held or {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & set(os.environ) or own not in (cores, cores // 2):
        return [own]
    return sorted({own >> halvings for halvings in range(own.bit_length())})


def fastest(options: Sequence[int], seconds: Callable[[int], float]) -> int:
    """The first of rising numbers of threads after which more are not faster, by what a piece of work takes with it."""
    best, least = options[0], seconds(options[0]) if len(options) > 1 else 0.0
    for threads in options[1:]:
        now = seconds(threads)
        if now >= least:
            break
        best, least = threads, now
    return best


@final
class ThreadChoice:
    """Chooses the number of CPU threads of a long work by what its pieces take.

    At the start it tries rising numbers for as long as they are faster. When pieces become slower, because other
    programs need the cores, it tries fewer, and from time to time again more. Only the seconds that it is told of
    decide.

    Args:
        options: from `thread_options`.
        threads: the number of a work that goes on; None for one that starts.
        usual: seconds of a piece with that number; None where they are not known.

    Attributes:
        threads: for the next piece.
        usual: median seconds of a piece with them; None where not known yet.
        trying: whether `threads` are on trial.
    """

    def __init__(self, options: Sequence[int], threads: int | None = None, usual: float | None = None) -> None:
        self._options = sorted({*options, threads or options[0]}) if len(options) > 1 else [threads or options[0]]
        self.threads, self.usual = threads or options[0], usual
        self.trying = threads is None and len(options) > 1
        self._before = self.threads  # the number that the one on trial is compared with
        self._direction = 1  # of a trial: to more threads, or -1
        self._times: list[float] = []
        self._took = self._since = 0.0  # seconds of the last trial, and since then

    def note(self, seconds: float) -> None:
        """Take in how long a piece took with `threads`, which may then be another number."""
        if len(self._options) == 1:
            return
        self._times.append(seconds)
        total, enough = sum(self._times), len(self._times) >= PIECES
        if self.trying:
            self._took += seconds
            if enough or total >= LONG:
                self._judge(statistics.median(self._times[1:] or self._times))  # the first starts the threads
        else:
            self._since += seconds
            if enough and total >= WINDOW:
                self._look(statistics.median(self._times))

    def _judge(self, seconds: float) -> None:
        """End the trial of a number, and of more if it was not faster."""
        faster = self.usual is None or seconds < self.usual
        if faster:
            self.usual = seconds
        else:
            self.threads = self._before
        self._try(self._next() if faster else None)

    def _look(self, seconds: float) -> None:
        """Start a trial if it is time for one, at these median seconds of the latest pieces."""
        slower = self.usual is None or seconds > SLOWER * self.usual
        self._direction, self._times = (-1 if slower else 1), []
        due = self._since >= REST * self._took and (slower or self._since >= PATIENCE)
        if due and (following := self._next()):
            self.usual, self._took = seconds, 0.0
            self._try(following)
        elif self.usual is None or seconds < self.usual:
            self.usual = seconds

    def _next(self) -> int | None:
        place = self._options.index(self.threads) + self._direction
        return self._options[place] if 0 <= place < len(self._options) else None

    def _try(self, threads: int | None) -> None:
        self.trying, self._times = threads is not None, []
        if threads is None:
            self._since = 0.0
        else:
            self._before, self.threads = self.threads, threads
