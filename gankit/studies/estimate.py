"""How long the rest of a study takes, and with how many CPU threads it is fastest."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gankit.nn.threads import fastest, thread_options
from gankit.report.pages import render
from gankit.studies.jobs import unfinished
from gankit.terminal.text import say
from gankit.training.progress import format_seconds

if TYPE_CHECKING:
    from gankit.studies.study import Work


def estimate(
    work: Sequence[Work], folder: Path, workers: int, threads: int | None, *, choose_threads: bool, quiet: bool
) -> tuple[list[Work], int | None]:
    """Time the steps of each kind of a study's work; unless `quiet`, print on stderr how long what is left takes.

    `workers` is the number of jobs at a time; `folder` is where finished jobs left their results. `choose_threads`
    takes, in place of the given number of CPU threads of each job, the one that is fastest for the kind of work of
    which what is left takes longest. All kinds that have jobs are returned, their costs now in seconds, and the number
    of threads.
    """
    work = [kind for kind in work if kind.jobs]
    left = [(count, kind) for kind in work if kind.name and (count := len(unfinished(kind.jobs, folder)))]

    @functools.cache  # kinds that share a function share its measurements
    def seconds(time_step: Callable[[int | None], float], threads: int | None) -> float:
        return time_step(threads)

    if choose_threads:
        options = thread_options()
        threads = options[0]
        if len(options) > 1 and left:
            _, costliest = max(left, key=lambda row: row[0] * row[1].steps * seconds(row[1].time_step, options[0]))
            threads = fastest(options, functools.partial(seconds, costliest.time_step))
    if left and not quiet:
        named = [(count, kind, seconds(kind.time_step, threads)) for count, kind in left]
        total = sum(count * kind.steps * step for count, kind, step in named)
        at_a_time = min(workers, max(count for count, *_ in named))
        values = {"named": named, "seconds": total, "at_a_time": at_a_time, "format_seconds": format_seconds}
        say(render("gankit.studies", "estimate.txt.j2", **values), error=True)
    in_seconds = []
    for kind in work:
        training = seconds(kind.time_step, threads) * kind.steps
        in_seconds.append(replace(kind, jobs=[replace(job, cost=job.cost * training) for job in kind.jobs]))
    return in_seconds, threads
