"""How long the rest of a study takes."""

from __future__ import annotations

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


def choose_threads(work: Sequence[Work], folder: Path) -> int:
    """The number of CPU threads that is fastest for the kind of which what is left takes longest.

    Args:
        work: of the whole study.
        folder: of the jobs, in which those that are done have left their results.
    """
    options, left = thread_options(), _left(work, folder)
    if len(options) == 1 or not left:
        return options[0]
    costliest = left[0][1]
    if len(left) > 1:
        seconds_per_step = _seconds_per_step([kind for _, kind in left], None)
        costliest = max(left, key=lambda row: row[0] * row[1].steps * seconds_per_step[row[1].time_step])[1]
    return fastest(options, costliest.time_step)


def estimate(work: Sequence[Work], folder: Path, workers: int, threads: int | None, quiet: bool) -> list[Work]:
    """Time the steps of each kind of work, print on stderr how long what is left of the study takes, and return all.

    In what is returned, the costs of jobs are in seconds, and kinds without jobs are left out.

    Args:
        work: of the whole study.
        folder: of the jobs, in which those that are done have left their results.
        workers: jobs at a time.
        threads: CPU threads of each job.
        quiet: whether nothing is printed.
    """
    work = [kind for kind in work if kind.jobs]
    seconds_per_step = _seconds_per_step(work, threads)
    named = [(count, kind, seconds_per_step[kind.time_step]) for count, kind in _left(work, folder)]
    if named and not quiet:
        seconds = sum(count * kind.steps * step for count, kind, step in named)
        at_a_time = min(workers, max(count for count, *_ in named))
        values = {"named": named, "seconds": seconds, "at_a_time": at_a_time, "format_seconds": format_seconds}
        say(render("gankit.studies", "estimate.txt.j2", **values), error=True)

    def in_seconds(kind: Work) -> Work:
        training = seconds_per_step[kind.time_step] * kind.steps
        return replace(kind, jobs=[replace(job, cost=job.cost * training) for job in kind.jobs])

    return list(map(in_seconds, work))


def _left(work: Sequence[Work], folder: Path) -> list[tuple[int, Work]]:
    """How many jobs are unfinished of each kind that has a name and such jobs."""
    return [(count, kind) for kind in work if kind.name and (count := len(unfinished(kind.jobs, folder)))]


def _seconds_per_step(work: Sequence[Work], threads: int | None) -> dict[Callable[[int | None], float], float]:
    """What a step takes, by the function that measures it: kinds that share one share its measurement."""
    return {time_step: time_step(threads) for time_step in dict.fromkeys(kind.time_step for kind in work)}
