"""How long a step of a training takes on this machine, for plans and studies: some steps are done and thrown away."""

import itertools
import math
import time
from pathlib import Path
from statistics import median

from gankit import seeds
from gankit.experiments.experiment import Experiment
from gankit.interfaces import Dataset
from gankit.nn.threads import torch_threads
from gankit.training.data import prepare
from gankit.training.execution.graphs import WARM_UPS, Graphs
from gankit.training.log import TickLog
from gankit.training.pixels import ReadAhead
from gankit.training.step import Stepper

TIMED_STEPS, TIMED_SECONDS = 5, 20.0
"""Steps of each kind that are timed; fewer where these seconds, shared by all kinds, are over first."""


@seeds.plain_torch()
def time_training(
    experiment: Experiment, threads: int | None = None, data: Dataset | None = None, limit: float = TIMED_SECONDS
) -> float:
    """Seconds that a step of a training takes, the mean over steps with and without lazy losses.

    Raises GankitError if the experiment cannot be trained.

    Args:
        experiment: its own number of CPU threads takes precedence over `threads`.
        threads: of the CPU; None keeps the present number.
        data: as for `gankit.train`.
        limit: seconds of timed steps; one of each kind is always timed, after untimed ones that load and compile.
    """
    own, seed = experiment.training.threads, experiment.training.seed
    with seeds.own_draws(), torch_threads(threads if own == "auto" else own):
        stepper = Stepper(experiment, prepare(experiment.data, seed, data), TickLog(Path(), tensorboard=False))
        with stepper.computing():
            kinds = _kinds(stepper)
            seconds = sum(_time_steps(stepper, steps, limit / len(kinds)) * count for steps, count in kinds)
    return seconds / sum(count for _, count in kinds)


def _kinds(stepper: Stepper) -> list[tuple[range, int]]:
    """For each kind of step: a range with one step of this kind from every period, and their number in a period.

    Steps are of one kind if their updates, in any order, have the same losses due.
    """
    critic_steps, due = stepper.settings.critic_steps, stepper.objective.due
    period, end = math.lcm(*(loss.every for loss in stepper.experiment.losses)), stepper.settings.steps
    steps_of: dict[object, list[int]] = {}
    for step in range(min(period, end)):
        turns = [("critic", due("critic", step * critic_steps + update)) for update in range(critic_steps)]
        turns.append(("generator", due("generator", step)))
        kind = tuple(sorted((side, *(term.name for term in terms)) for side, terms in turns))
        steps_of.setdefault(kind, []).append(step)
    return [(range(steps[0], end, period), len(steps)) for steps in steps_of.values()]


def _time_steps(stepper: Stepper, steps: range, limit: float) -> float:
    """The median seconds of steps of one kind, done for about `limit` seconds; after the last comes the first again."""

    def advance(step: int) -> float:
        stepper.go_to(step)
        start = time.perf_counter()
        stepper.advance()
        stepper.log.means()  # waits for the device
        return time.perf_counter() - start

    reads_ahead = isinstance(stepper.data.pixels(stepper.like.device), ReadAhead)
    warm_ups = WARM_UPS + 1 if isinstance(stepper.execution, Graphs) else 1
    numbers, times = itertools.cycle(steps), list[float]()
    while len(times) <= warm_ups or (len(times) < warm_ups + TIMED_STEPS and sum(times[warm_ups:]) < limit):
        step = next(numbers)
        if reads_ahead and 0 < step != stepper.step:
            advance(step - 1)  # as in a training, where the step before reads the images of this one
        times.append(advance(step))
    return median(times[warm_ups:])
