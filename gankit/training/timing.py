"""How long a step of a training takes on this machine, for plans and studies: some steps are done and thrown away."""

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
from gankit.training.step import Stepper

TIMED_STEPS, TIMED_SECONDS = 5, 20.0
"""Steps of each kind that are timed; fewer where these seconds, shared by all kinds, are over first."""


@seeds.plain_torch()
def time_training(
    experiment: Experiment, threads: int | None = None, data: Dataset | None = None, limit: float = TIMED_SECONDS
) -> float:
    """Seconds that a step of a training takes, the mean over steps with and without lazy losses.

    Args:
        experiment: its own number of CPU threads goes before `threads`.
        threads: of the CPU; None keeps the present number.
        data: as for `gankit.train`.
        limit: seconds of timed steps; one of each kind is always timed, after untimed ones that load and compile.

    Raises:
        GankitError: the experiment cannot be trained.
    """
    own, seed = experiment.training.threads, experiment.training.seed
    with seeds.own_draws(), torch_threads(threads if own == "auto" else own):
        stepper = Stepper(experiment, prepare(experiment.data, seed, data), TickLog(Path(), tensorboard=False))
        with stepper.computing():
            kinds = _kinds(stepper)
            seconds = sum(_time_step(stepper, step, limit / len(kinds)) * count for step, count in kinds)
    return seconds / sum(count for _, count in kinds)


def _kinds(stepper: Stepper) -> list[tuple[int, int]]:
    """The first step of each kind, and how many are of its kind before all repeats.

    Steps are of one kind if the same losses are due in as many of their updates.
    """
    critic_steps, due = stepper.settings.critic_steps, stepper.objective.due
    period = math.lcm(*(loss.every for loss in stepper.experiment.losses))
    steps_of: dict[object, list[int]] = {}
    for step in range(min(period, stepper.settings.steps)):
        turns = [("critic", due("critic", step * critic_steps + update)) for update in range(critic_steps)]
        turns.append(("generator", due("generator", step)))
        kind = tuple(sorted((side, *(term.name for term in terms)) for side, terms in turns))
        steps_of.setdefault(kind, []).append(step)
    return [(steps[0], len(steps)) for steps in steps_of.values()]


def _time_step(stepper: Stepper, step: int, limit: float) -> float:
    """The median seconds of one step, done again and again for about `limit` seconds."""

    def advance() -> float:
        stepper.go_to(step)
        start = time.perf_counter()
        stepper.advance()
        stepper.log.means()  # waits for the device
        return time.perf_counter() - start

    for _ in range(WARM_UPS + 1 if isinstance(stepper.execution, Graphs) else 1):
        advance()
    times = [advance()]
    while len(times) < TIMED_STEPS and sum(times) < limit:
        times.append(advance())
    return median(times)
