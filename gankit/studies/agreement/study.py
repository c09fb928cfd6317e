"""The founding experiment: generators of images on which ever more raters agree, and the controls that it lacked."""

import functools
import itertools
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, final

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import AfterValidator, AliasChoices, Field, field_validator, model_validator

from gankit.errors import DataError, RunError
from gankit.experiments.experiment import Experiment
from gankit.experiments.tables import Repeats, Settings
from gankit.images.room import too_many
from gankit.interfaces import Dataset, MeasuresFacts
from gankit.registry import registry
from gankit.registry.messages import shown
from gankit.studies.agreement.arms import CONTROLS, Arm, StudyImages, arm_at, percent
from gankit.studies.agreement.findings import Findings, Trial
from gankit.studies.agreement.judging import Judge
from gankit.studies.agreement.report import warnings_of, write_report
from gankit.studies.jobs import Job, Outcome
from gankit.studies.labelled import content_digest
from gankit.studies.privacy import judge_privacy
from gankit.studies.study import JOBS, Refuse, Results, Study, Work, distinct
from gankit.studies.trainings import RUN, finished_run, time_training, train_or_resume

WARM_START, REALS = "warm-start", "reals"  # names of jobs; each seed's warm start adds its seed
UNAUGMENTED = "none"  # the scope of trainings without the augment

if TYPE_CHECKING:
    ControlName = str
else:
    ControlName = Literal[tuple(CONTROLS)]
Scope = Literal["critic", "critic-turn", "real", "none"]


class AgreementSettings(Settings):
    """What a study of rater agreement compares.

    Attributes:
        thresholds: shares of raters (selection rates) below which an image is left out, in rising order; 0 keeps all.
        seeds: trainings of each arm, of the seeds `training.seed` and up.
        seeds_at_ends: trainings of the arms of the lowest and the highest threshold, and of the control of the highest,
            where that is more than `seeds`; the spread between them stands for all arms.
        drawn: images drawn of each generator for the table of the founding paper.
        kept: how many of the best and how many of the worst of the drawn images, by the critic's score, are judged too.
        controls: "random-subset" also trains on as many images as each threshold leaves, chosen at random; an empty
            list for no control.
        scopes: scopes of the augment; "none" is training without it. The first is that of every training; each further
            one trains each threshold once more, without controls. By default the experiment's own.
        warm_start: steps of one training of each seed on all training images, from which the others of that seed start;
            0 for none.
        measured_limit: for a data set that can measure a fact on the pixels, as `eyes` the deviation in prism dioptres:
            the absolute value from which an image counts as positive; the data set's own limit by default.
    """

    thresholds: Annotated[list[Annotated[float, Ge(0), Le(1)]], MinLen(1)] = Field(
        default_factory=lambda: [0.0, 0.6, 0.7, 0.8]
    )
    seeds: Repeats = 1
    seeds_at_ends: Repeats = 1
    drawn: Annotated[int, Ge(4)] = 100
    kept: Annotated[int, Ge(2)] = 10
    controls: Annotated[list[ControlName], AfterValidator(distinct)] = Field(default_factory=lambda: ["random-subset"])
    scopes: Annotated[list[Scope], AfterValidator(distinct)] = Field(default_factory=list)
    warm_start: Annotated[int, Ge(0)] = 0
    # Called `strabismic` in files of gankit 0.1.
    measured_limit: Annotated[float, Gt(0)] | None = Field(
        None, validation_alias=AliasChoices("measured_limit", "strabismic")
    )

    @field_validator("thresholds")
    @classmethod
    def _rising(cls, values: list[float]) -> list[float]:
        # Arms are named by their percent, which must differ too
        if any(b <= a or percent(a) == percent(b) for a, b in itertools.pairwise(values)):
            raise ValueError(f"each threshold must be above the one before; these are {shown(values)}")
        return values

    @model_validator(mode="after")
    def _best_and_worst_are_apart(self) -> Self:
        if 2 * self.kept > self.drawn:
            sets = f"the best and the worst {self.kept} of {self.drawn}"
            raise ValueError(f"kept: {sets} overlap; draw more or keep fewer")
        return self


@final
class Agreement(Study):
    """Generators that are trained on images on which ever more raters agree, and their controls.

    `data.held_out` is 0.2 by default and cannot be 0: generators are judged against images kept from training. A study
    file must leave out `data.min_agreement`, `data.subset` and `data.subset_seed`, which the arms decide, and
    `training.max_minutes`, since every training runs to its end. `training.start_from` and `study.warm_start` exclude
    each other.
    """

    Settings = AgreementSettings
    settings: AgreementSettings
    file = "eyes.toml"
    defaults: ClassVar = {"data": {"held_out": 0.2}}
    decided: ClassVar = {
        ("data", "min_agreement"): "study.thresholds decides this in a study; leave it out",
        ("data", "subset"): "study.controls decides this in a study; leave it out",
        ("data", "subset_seed"): "study.controls decides this in a study; leave it out",
    }

    def __init__(self, experiment: Experiment, **settings: Any) -> None:
        super().__init__(experiment, **settings)
        dataset = registry("dataset").get(experiment.data.name)
        self.measurement = dataset.measurement if isinstance(dataset, MeasuresFacts) else None
        limit = None if self.measurement is None else self.settings.measured_limit or self.measurement.limit
        self.settings = self.settings.model_copy(update={"measured_limit": limit})

    def check_settings(self, refuse: Refuse) -> None:
        """Refuse a study without held-out images, with two networks to start from, or with scopes of no augment."""
        if not self.experiment.data.held_out:
            why = "a study judges against images kept from training; set for example data.held_out=0.2"
            raise refuse("data", "held_out", why)
        if self.settings.warm_start and self.experiment.training.start_from:
            why = "training.start_from already names a run to start from; leave out one of the two"
            raise refuse("study", "warm_start", why)
        if self.settings.scopes and self.experiment.augment is None:
            why = "there is no augment whose scope could vary; add an augment, or leave it out"
            raise refuse("study", "scopes", why)

    @property
    def split_seed(self) -> int:
        """The seed that decides which images are held out, the same for all trainings."""
        given = self.experiment.data.split_seed
        return self.experiment.training.seed if given is None else given

    @cached_property
    def images(self) -> StudyImages:
        """The images, opened at first use."""
        return StudyImages(self)

    @cached_property
    def judging(self) -> Judge:
        """What judges a generator in its training's job; made once, since the features of the reals take a while."""
        return Judge(self)

    def arms(self) -> list[Arm]:
        """Every arm: the thresholds, then their controls, then further scopes."""
        thresholds, images = self.settings.thresholds, self.images
        # A threshold that leaves all images has no control: as many random ones would be all of them again
        selective = [t for t in thresholds if len(images.training_at(t)) < len(images.full)]
        return [
            *map(arm_at, thresholds),
            *(arm_at(threshold, control) for control in self.settings.controls for threshold in selective),
            *(arm_at(threshold, scope=scope) for scope in self.settings.scopes[1:] for threshold in thresholds),
        ]

    def seeds_of(self, arm: Arm) -> list[int]:
        """The training seeds of an arm: `seeds_at_ends` at the ends, where those are more."""
        lowest, highest = self.settings.thresholds[0], self.settings.thresholds[-1]
        at_end = arm.threshold == highest or (arm.threshold == lowest and not arm.control)
        if at_end and not arm.scope:
            return self.seeds(max(self.settings.seeds, self.settings.seeds_at_ends))
        return self.seeds(self.settings.seeds)

    def experiment_of(self, arm: Arm, seed: int, **training: Any) -> Experiment:
        """The experiment of one training; `training` changes settings of that table."""
        changes: dict[str, Any] = {"data": {"split_seed": self.split_seed}, "training": {"seed": seed, **training}}
        if arm.control:
            changes["data"] |= CONTROLS[arm.control].data(len(self.images.training_at(arm.threshold)), seed)
        elif arm.threshold:
            changes["data"]["min_agreement"] = arm.threshold
        if (scope := self._scope(arm)) is not None:
            changes["augment"] = None if scope == UNAUGMENTED else {"scope": scope}
        return self.experiment_with(**changes)

    def inputs(self) -> dict[str, str]:
        """The training images and the held-out ones."""
        parts = {"training images": self.images.full, "held-out images": self.images.held_out}
        return {name: content_digest(part) for name, part in parts.items()}

    def _scope(self, arm: Arm) -> str | None:
        return arm.scope or next(iter(self.settings.scopes), None)  # None where the experiment's stands

    def work(self, jobs: Path) -> list[Work]:
        """A warm start for each seed, so that seeds have nothing in common; the reals; and every arm's trainings.

        Trainings without the augment have warm starts without it.

        Raises:
            DataError: no memory would hold the images to draw.
        """
        if reason := too_many(self.settings.drawn, self.images.full.image.shape):
            raise DataError(f"study.drawn: {reason}")
        arms_and_seeds, steps = self._arms_and_seeds(), self.experiment.training.steps
        time_step = functools.partial(time_training, self.experiment_of(*next(iter(arms_and_seeds.values()))))
        warm_starts: dict[str, Job] = {}
        trainings = []
        for name, (arm, seed) in arms_and_seeds.items():
            start = None
            if self.settings.warm_start:
                augmented = self._scope(arm) != UNAUGMENTED
                start = f"{WARM_START}-seed{seed}" + ("" if augmented else f"-{UNAUGMENTED}")
                scopes = (scope for scope in self.settings.scopes if (scope != UNAUGMENTED) == augmented)
                train_start = functools.partial(self._train_start, arm_at(0.0, scope=next(scopes, "")), seed)
                warm_starts.setdefault(start, Job(start, train_start))
            trainings.append(Job(name, functools.partial(self._train_and_judge, arm, seed, start)))
        return [
            Work("warm start", list(warm_starts.values()), self.settings.warm_start, time_step, first=True),
            Work("", [Job(REALS, lambda folder: self.judging.reals(), cost=0.1)], steps, time_step),
            Work("training", trainings, steps, time_step),
        ]

    def _arms_and_seeds(self) -> dict[str, tuple[Arm, int]]:
        """The arm and the seed of every training, by the name of its job."""
        return {f"{arm.name}-seed{seed}": (arm, seed) for arm in self.arms() for seed in self.seeds_of(arm)}

    def _train_start(self, arm: Arm, seed: int, folder: Path) -> dict[str, Any]:
        """A job: train the network from which the trainings of a seed start."""
        experiment = self.experiment_of(arm, seed, steps=self.settings.warm_start)
        return {"steps": train_or_resume(experiment, folder / RUN).steps}

    def _train_and_judge(self, arm: Arm, seed: int, start: str | None, folder: Path) -> dict[str, Any]:
        """A job: train a generator, from the run of the job `start` where there is one, and judge it."""
        changes = {"start_from": str(finished_run(folder.parent / start).path)} if start else {}
        run = train_or_resume(self.experiment_of(arm, seed, **changes), folder / RUN)
        began = time.monotonic()
        values = self.judging.run(run, arm, seed, folder)
        values["privacy"] = judge_privacy(run, *self._privacy_sides(arm, seed))
        return {**values, "steps": run.steps, "judging_seconds": round(time.monotonic() - began, 2)}

    def _privacy_sides(self, arm: Arm, seed: int) -> tuple[Dataset, Dataset]:
        """All that a training's generator has seen, and held-out images of the same agreement."""
        images = self.images
        if self.settings.warm_start:  # which saw all training images
            return images.full, images.held_out
        return images.full.subset(images.training_of(arm, seed)), images.held_out.subset(images.held_out_of(arm))

    def judge(self, outcomes: Mapping[str, Outcome], folder: Path) -> Findings:
        """Every training with its values.

        Raises:
            RunError: no training succeeded, or the real images cannot be judged.
        """
        if outcomes[REALS].failure:
            raise RunError(f"the real images cannot be judged: {outcomes[REALS].failure}")
        arms_and_seeds = self._arms_and_seeds().items()
        trials = [Trial(arm, seed, folder / JOBS / name, outcomes[name]) for name, (arm, seed) in arms_and_seeds]
        if all(trial.outcome.failure for trial in trials):
            raise RunError(f"no training succeeded; this is how the first failed: {trials[0].outcome.failure}")
        return Findings(self, trials, outcomes[REALS].result)

    report = write_report

    def summary(self, results: Results) -> str:
        """What a reader must know before the numbers."""
        return "\n".join(f"warning: {text}" for text in warnings_of(results.values))
