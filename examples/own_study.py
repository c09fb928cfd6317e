"""A study of your own: how far apart are trainings that differ only in their seed?"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

import gankit
from gankit.experiments.tables import Settings
from gankit.studies.jobs import Job, Outcome
from gankit.studies.reading import load_study
from gankit.studies.study import Arm, Results, Study, Work, write_page
from gankit.studies.trainings import RUN, time_training, train_or_resume


# --8<-- [start:study]
class SeedsSettings(Settings):
    """What is compared.

    Attributes:
        count: trainings.
    """

    count: Annotated[int, Ge(2)] = 2


class Seeds(Study):
    """How far apart trainings end up when only their seed differs."""

    Settings = SeedsSettings

    def arms(self) -> list[Arm]:
        return [Arm(f"seed-{seed}", f"trained with the seed {seed}") for seed in self.seeds(self.settings.count)]

    def work(self, jobs: Path) -> list[Work]:
        seeds = zip(self.arms(), self.seeds(self.settings.count), strict=True)
        trainings = [Job(arm.name, functools.partial(self.train, seed)) for arm, seed in seeds]
        time_step = functools.partial(time_training, self.experiment)
        return [Work("training", trainings, self.experiment.training.steps, time_step)]

    def train(self, seed: int, folder: Path) -> dict[str, Any]:
        run = train_or_resume(self.experiment_with(training={"seed": seed}), folder / RUN)
        report = gankit.evaluate(run, run, ["frechet"], self.experiment.evaluation.features)
        return {"distance": report["metrics"]["frechet"]["value"]}

    def judge(self, outcomes: Mapping[str, Outcome], folder: Path) -> dict[str, float]:
        return {name: outcome.result["distance"] for name, outcome in outcomes.items() if not outcome.failure}

    def report(self, results: Results) -> None:
        rows = [["arm", "distance"]]
        rows += [[arm.words, f"{results.values.get(arm.name, 'failed')}"] for arm in self.arms()]
        write_page(self, results, title="Seeds", tables={"Frechet distance to the training images": rows})


# --8<-- [end:study]

if __name__ == "__main__":
    # --8<-- [start:run]
    gankit.studies.register("seeds")(Seeds)
    study = load_study("seeds", "wgan-gp", "study.count=3", *sys.argv[1:])
    results = study.run("runs/seeds")
    print(results.values, results.report)
    # --8<-- [end:run]
