"""What a study costs, as far as it is still to be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gankit.report.pages import render
from gankit.studies.jobs import unfinished
from gankit.terminal.text import say
from gankit.training.progress import format_seconds

if TYPE_CHECKING:
    from gankit.studies.study import Work


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
    # Kinds that share a function share its measurement
    seconds_per_step = {time_step: time_step(threads) for time_step in dict.fromkeys(kind.time_step for kind in work)}
    named = [
        (count, kind, seconds_per_step[kind.time_step])
        for kind in work
        if kind.name and (count := len(unfinished(kind.jobs, folder)))
    ]
    if named and not quiet:
        seconds = sum(count * kind.steps * step for count, kind, step in named)
        at_a_time = min(workers, max(count for count, *_ in named))
        values = {"named": named, "seconds": seconds, "at_a_time": at_a_time, "format_seconds": format_seconds}
        say(render("gankit.studies", "estimate.txt.j2", **values), error=True)

    def in_seconds(kind: Work) -> Work:
        training = seconds_per_step[kind.time_step] * kind.steps
        return replace(kind, jobs=[replace(job, cost=job.cost * training) for job in kind.jobs])

    return list(map(in_seconds, work))
