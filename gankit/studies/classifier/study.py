"""A classifier of the data, and whether generated images of the rare class help it: `gankit study classifier`."""

import functools
import json
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, final

import numpy as np
from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator, Field

from gankit.evaluation.classification import SCORES
from gankit.experiments.experiment import Experiment
from gankit.experiments.tables import Repeats
from gankit.report.pages import render
from gankit.runs.classifiers import FILE, Classifier, load_classifier
from gankit.studies import labelled
from gankit.studies.classifier.arms import ARMS, BAR
from gankit.studies.classifier.data import Split, split_data
from gankit.studies.classifier.judging import judge
from gankit.studies.classifier.report import HEADLINES, difference_rows, notes, score_rows, write_report, write_tables
from gankit.studies.classifier.training import REGRESSION, train_arm, train_regression, training_set
from gankit.studies.fitting import FitSettings, time_fit
from gankit.studies.jobs import Job, Outcome
from gankit.studies.kinds import GENERATOR, Arm
from gankit.studies.privacy import judge_privacy
from gankit.studies.reading import load_study
from gankit.studies.study import JOBS, Refuse, Results, Study, Work, distinct, write_metrics
from gankit.studies.trainings import RUN, check_training, time_training, train_or_resume
from gankit.studies.worker import made_file
from gankit.terminal.text import as_columns

__all__ = ["Classifier", "load_classifier", "load_classifier_study", "run_classifier_study"]

if TYPE_CHECKING:
    ArmName = str
else:
    ArmName = Literal[tuple(ARMS)]


class ClassifierSettings(FitSettings):
    """What a study of a classifier trains, and on what.

    Attributes:
        seeds: trainings of each arm, of the seeds `training.seed` and up.
        generators: generators to train; None trains one for each seed. With fewer, seeds take them in turn, and
            intervals leave out a part of the spread between generators.
        arms: what is trained on: "real" images; "oversampling" draws classes equally often; "classical" augments and
            weights classes, the bar to beat; "synthetic" adds generated images of the rare class; "classical-synthetic"
            does both, without weights of classes; "copies", a control, adds noised copies in place of generated images.
        folds: folds into which the cases are divided, stratified by class; one of them is the test part.
        test_split: the named split to test on; by default "test" where the data have one, else a fold.
        synthetic_classes: classes to which generated images are added; the rarest where none is named.
        synthetic_fill: how far they are filled up: real and generated images of such a class together, divided by the
            images of the most frequent class.
        copy_noise: standard deviation of the noise of copies, as a share of the range.
        groupings: by a name, classes that count as positive together, for sensitivity and specificity.
        regression: a number known of each image, which a network of its own learns to predict; "none" for no number.
        calibration: adds the Brier score, the calibration error and a calibration diagram.
    """

    seeds: Repeats = 3
    generators: Repeats | None = None
    arms: Annotated[list[ArmName], MinLen(1), AfterValidator(distinct)] = Field(
        default_factory=lambda: ["real", "oversampling", "classical", "synthetic"]
    )
    folds: Annotated[int, Ge(2), Le(1000)] = 5
    test_split: str | None = None
    synthetic_classes: Annotated[list[str], AfterValidator(distinct)] = Field(default_factory=list)
    synthetic_fill: Annotated[float, Gt(0), Le(10)] = 1.0
    copy_noise: Annotated[float, Gt(0), Lt(1)] = 0.02
    groupings: dict[str, Annotated[list[str], MinLen(1)]] = Field(default_factory=dict)
    regression: str | None = None
    calibration: bool = False


@final
class ClassifierStudy(Study):
    """Classifiers trained on real images alone, with usual remedies for rare classes, or with generated images.

    Generators are trained on the training part alone and conditioned on classes, so that `data.conditional` cannot name
    facts of the images where an arm needs generated ones. A study file must leave out `training.max_minutes`, since
    every training runs to its end.
    """

    Settings = ClassifierSettings
    settings: ClassifierSettings
    table = "classifier"
    file = "eyes.toml"
    of_data = ("groupings", "regression", "classical")

    def check_settings(self, refuse: Refuse) -> None:
        """Refuse generators that are conditioned on facts, and weights that cannot be loaded."""
        if self.needs_generators:
            labelled.refuse_conditions(self, refuse, "a generator for a classifier is conditioned on classes")
        self.settings.check_weights(refuse)

    @cached_property
    def split(self) -> Split:
        """The training and the test part, opened at first use."""
        return split_data(self)

    @property
    def classes_to_fill(self) -> list[str]:
        """Names of the classes to which images are added."""
        return self.settings.synthetic_classes or [self.split.train.class_names[self.split.rarest]]

    @property
    def needs_generators(self) -> bool:
        """Whether an arm needs a generator."""
        return any(arm.source == GENERATOR for arm in self.arms())

    def arms(self) -> list[Arm]:
        """The arms that the settings name."""
        return [ARMS[name] for name in self.settings.arms]

    def generator_experiment(self, seed: int) -> Experiment:
        """The experiment that trains a generator of the classes on the study's training part."""
        return labelled.generator_of_part(self, seed, conditional=True)

    def work(self, jobs: Path) -> list[Work]:
        """The generators, and then every arm and the regression, seed by seed."""
        train, first_seed = self.split.train, self.experiment.training.seed
        self.settings.new_network(train.image, train.image.classes)  # Raises where it cannot be made
        if self.needs_generators:
            check_training(self.generator_experiment(first_seed), train)
        seeds = self.seeds(self.settings.seeds)
        # The classifiers of each seed have a generator of their own; if there are fewer, seeds take them in turn
        count = self.settings.generators or len(seeds)
        generator_of = {seed: first_seed + (seed - first_seed) % count for seed in seeds}
        wanted = sorted(set(generator_of.values())) if self.needs_generators else []
        generators = [Job(f"{GENERATOR}-{seed}", functools.partial(self._train_generator, seed)) for seed in wanted]
        trainings = []
        for seed in seeds:  # In this order a study cut short has all arms of its first seeds
            for arm in self.arms():
                generator = f"{GENERATOR}-{generator_of[seed]}" if arm.source == GENERATOR else None
                trainings.append(Job(f"{arm.name}-{seed}", functools.partial(train_arm, self, arm, seed, generator)))
            if self.settings.regression is not None:
                trainings.append(Job(f"{REGRESSION}-{seed}", functools.partial(train_regression, self, seed)))
        time_generator = functools.partial(time_training, self.generator_experiment(first_seed), data=train)
        return [
            Work("generator", generators, self.experiment.training.steps, time_generator, first=True),
            Work("classifier", trainings, self.settings.steps, self._time_classifier),
        ]

    def inputs(self) -> dict[str, str]:
        """Both parts of the data."""
        parts = {"the training part": self.split.train, "the test part": self.split.test}
        return {name: labelled.content_digest(part) for name, part in parts.items()}

    def _train_generator(self, seed: int, folder: Path) -> dict[str, Any]:
        run = train_or_resume(self.generator_experiment(seed), folder / RUN, data=self.split.train)
        test = self.split.test
        held_out = test.subset(labelled.agreed_places(test, self.experiment.data.min_agreement))  # as training images
        privacy = judge_privacy(run, self.split.train, held_out)
        return {"steps": run.steps, "real": len(self.split.train), "privacy": privacy}

    def _time_classifier(self, threads: int | None) -> float:
        """Seconds that a step of a classifier takes with classical augmentation, which is the slowest."""
        data = training_set(self, ARMS["classical"])
        return time_fit(data, self.settings, self.split.train.image.classes, self.experiment.training.device, threads)

    def judge(self, outcomes: Mapping[str, Outcome], folder: Path) -> dict[str, Any]:
        """What `metrics.json` holds; also writes it, all tables, and one classifier."""
        found, logits = judge(self, outcomes, folder)
        generators = {name: each.result.get("privacy") for name, each in outcomes.items() if name.startswith(GENERATOR)}
        metrics = {"protocol": self._protocol(outcomes, folder), **found, "privacy": generators}
        write_tables(self, metrics, logits, folder)
        if logits:
            metrics["classifier"] = self._export(list(logits), folder)
        write_metrics(folder, metrics)
        return metrics

    def _export(self, arms: list[Arm], folder: Path) -> dict[str, Any]:
        """Copy a classifier of the first seed into the study's folder; returns what `metrics.json` says of it.

        It is that of the bar to beat where there is one, else of the first arm.
        """
        arm, seed = next((arm for arm in arms if arm.role == BAR), arms[0]), self.experiment.training.seed
        shutil.copyfile(made_file(folder / JOBS / f"{arm.name}-{seed}", FILE), folder / FILE)
        return {"file": FILE, "arm": arm.name, "seed": seed}

    def _protocol(self, outcomes: Mapping[str, Outcome], folder: Path) -> dict[str, Any]:
        settings, split = self.settings, self.split
        names, sides = split.train.class_names, {"train": split.train, "test": split.test}
        groups = {name: side.groups for name, side in sides.items()}
        counts = {name: labelled.class_counts(side).tolist() for name, side in sides.items()}
        return {
            "data": self.experiment.data.title,
            "image": list(split.train.image.shape),
            "digest": {name: side.digest() for name, side in sides.items()},
            "split": split.words,
            "cases": {name: dict(zip(names, of_side, strict=True)) for name, of_side in counts.items()},
            "groups": {name: None if of_side is None else len(np.unique(of_side)) for name, of_side in groups.items()},
            "rarest": names[split.rarest],
            "seeds": self.seeds(settings.seeds),
            "steps": settings.steps,
            "intervals": json.loads(render("gankit.studies", "classifier/intervals.json.j2")),
            "notes": notes(self),
            "threads": max((outcome.threads for outcome in outcomes.values()), default=0),
            **labelled.run_facts(self, outcomes, folder),
        }  # fmt: skip

    report = write_report

    def summary(self, results: Results) -> str:
        """Scores of the arms, differences with intervals, and notes."""
        metrics = results.values
        lines = as_columns(score_rows(metrics, HEADLINES))
        if metrics["differences"]:
            lines += as_columns(difference_rows(metrics, SCORES))
        return "\n".join([*lines, *(f"note: {note}" for note in metrics["protocol"]["notes"])])


load_classifier_study = functools.partial(load_study, "classifier")
"""Reads a study of a classifier; arguments and errors as for `gankit.studies.reading.load_study`."""


def run_classifier_study(study: Study, out: str | Path, **options: Any) -> dict[str, Any]:
    """Run a study of a classifier; returns what `metrics.json` holds. Arguments and errors as for `Study.run`."""
    return cast(dict[str, Any], study.run(out, **options).values)
