"""Do generated images help a classifier of the data? `gankit study augmentation`."""

import functools
import itertools
import time
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np

from gankit.experiments.experiment import Experiment
from gankit.seeds import derive_seed
from gankit.studies.augmentation.arms import HELD_OUT, Variant, make_arms, variants
from gankit.studies.augmentation.endpoint import Endpoint
from gankit.studies.augmentation.estimators import FeatureLearner
from gankit.studies.augmentation.folds import Division, Fold, divide, flow
from gankit.studies.augmentation.judging import judge, read_cells
from gankit.studies.augmentation.learning import train_variant, training_set
from gankit.studies.augmentation.report import arm_rows, verdict_line, write_report, write_tables
from gankit.studies.augmentation.settings import AugmentationSettings
from gankit.studies.augmentation.sources import check_sources, digests_of_others, make_images
from gankit.studies.fitting import time_fit
from gankit.studies.jobs import Job, Outcome, failures
from gankit.studies.kinds import GENERATOR, KINDS, Arm
from gankit.studies.labelled import content_digest, generator_of_part, refuse_conditions, run_facts
from gankit.studies.study import Refuse, Results, Study, Work, write_metrics
from gankit.studies.trainings import check_training, time_training
from gankit.terminal.text import as_columns


@final
class AugmentationStudy(Study):
    """Whether generated images help a classifier, by cross-validation; each fold trains generators of its own.

    The generator is trained on the part of each fold that classifiers learn from, and is conditioned on classes, or on
    the number of the endpoint "severity". `data.min_agreement` and `data.subset` apply to that part alone.
    `training.max_minutes` is left out, since every training runs to its end.
    """

    Settings = AugmentationSettings
    settings: AugmentationSettings
    table = "augmentation"
    file = "eyes.toml"
    of_data = ("positive", "number", "classical")

    def check_settings(self, refuse: Refuse) -> None:
        """Refuse settings that leave nothing to compare, or lack what the endpoint needs."""
        settings = self.settings
        settings.check_weights(refuse)
        if settings.generator:
            why = "the study conditions its generator on classes or on augmentation.number"
            refuse_conditions(self, refuse, why)
        if settings.endpoint == "presence" and not settings.positive:
            raise refuse(self.table, "positive", "the endpoint presence needs the classes that count as present")
        if settings.endpoint == "severity" and settings.number is None:
            raise refuse(self.table, "number", "the endpoint severity needs the name of a number known of each image")
        kinds = [KINDS[name] for name in settings.arms]
        if not settings.sources or not any(kind.adds for kind in kinds):
            why = "generated images need a source and an arm that adds them: set generator=true, others or export_folds"
            raise refuse(self.table, "arms", why)
        if not any(arm.role == "baseline" for arm in self.arms()):
            raise refuse(self.table, "arms", "no baseline is among them; add real and classical-weights")

    @cached_property
    def division(self) -> Division:
        """The data and all folds, opened at first use."""
        return divide(self.experiment, self.settings)

    @property
    def folds(self) -> list[Fold]:
        """All folds of all repeats."""
        return self.division.folds

    def fold(self, number: int) -> Fold:
        """The fold of a number, from 1."""
        return self.folds[number - 1]

    @cached_property
    def endpoint(self) -> Endpoint:
        """What is judged."""
        return Endpoint(self)

    @property
    def outputs(self) -> int:
        """How many outputs a classifier has: one for each class, or 1 for a number."""
        return 1 if self.settings.endpoint == "severity" else self.division.dataset.image.classes

    def arms(self) -> list[Arm]:
        """Every kind that the settings name, with every source and control."""
        settings = self.settings
        arms = make_arms(settings.arms, settings.sources, settings.controls)
        return [arm for arm in arms if not (arm.kind.tuned and settings.endpoint == "severity")]

    @cached_property
    def variants(self) -> list[Variant]:
        """All variants of all arms."""
        settings = self.settings
        return [variant for arm in self.arms() for variant in variants(arm, settings.strengths, settings.ratios)]

    def fold_seeds(self, fold: Fold, count: int, stream: str) -> list[int]:
        """`count` seeds that no other fold has, so that the spread of the folds includes that of the seeds."""
        return [derive_seed(self.experiment.training.seed, stream, fold.number, i) % 2**31 for i in range(count)]

    def generators_of(self, source: str | None) -> int:
        """How many generators a source has in each fold."""
        return self.settings.generators if source == GENERATOR else 1

    def image_jobs(self, fold: Fold, source: str) -> list[str]:
        """Names of the jobs that make or read a source's images for a fold, one for each generator."""
        return [f"{fold.name}-images-{source}-{g}" for g in range(self.generators_of(source))]

    def trainings(self, fold: Fold, variant: Variant) -> list[list[str]]:
        """(generators, seeds) names of the trainings of a variant in a fold."""
        name, seeds = f"{fold.name}-{variant.training_name}", range(self.settings.seeds)
        return [[f"{name}-{g}-{s}" for s in seeds] for g in range(self.generators_of(variant.arm.source))]

    def generator_experiment(self, seed: int) -> Experiment:
        """The experiment of a generator; the study passes its data, the images of a fold to learn from."""
        if self.settings.endpoint == "severity":
            return generator_of_part(self, seed, conditional=[self.settings.number], balance=0.0)
        return generator_of_part(self, seed, conditional=True)

    def work(self, jobs: Path) -> list[Work]:
        """The images of every source in every fold, and then every variant, fold by fold."""
        settings, learn = self.settings, self.fold(1).learn
        generator = self.generator_experiment(self.experiment.training.seed)
        if settings.estimator is not None:  # Refuses what could not be trained, before anything is written
            FeatureLearner(settings, learn, 0)
        else:
            settings.new_network(learn.image, self.outputs)
        if settings.generator:
            check_training(generator, learn)
        check_sources(self, jobs.parent)
        own = self._source_jobs([GENERATOR] if settings.generator else [])
        steps = 1 if settings.estimator else settings.steps
        time_generator = functools.partial(time_training, generator, data=learn)
        return [
            Work("generator", own, self.experiment.training.steps, time_generator, first=True),
            Work("", self._source_jobs(settings.outside), 1, lambda threads: 1.0, first=True),
            Work("classifier", self._training_jobs(), steps, self._time_classifier),
        ]  # fmt: skip

    def inputs(self) -> dict[str, str]:
        """The data, and the images in folders of other programs."""
        data = self.division.dataset.subset(self.division.cases)
        return {"the data": content_digest(data), **digests_of_others(self)}

    def _source_jobs(self, sources: Iterable[str]) -> list[Job]:
        return [
            Job(name, functools.partial(make_images, self, fold.number, source, seed))
            for fold, source in itertools.product(self.folds, sources)
            for seed, name in zip(self.fold_seeds(fold, self.generators_of(source), "generator"),
                                  self.image_jobs(fold, source), strict=True)
        ]  # fmt: skip

    def _training_jobs(self) -> list[Job]:
        """The trainings of every variant, fold by fold; variants that only judge differently share theirs."""
        trainings: dict[str, Job] = {}
        for fold, variant in itertools.product(self.folds, self.variants):
            has_jobs = variant.arm.source in self.settings.sources  # controls need none
            image_jobs = self.image_jobs(fold, str(variant.arm.source)) if has_jobs else [None]
            seeds = self.fold_seeds(fold, self.settings.seeds, "classifier")
            for row, image_job in zip(self.trainings(fold, variant), image_jobs, strict=True):
                for seed, name in zip(seeds, row, strict=True):
                    run = functools.partial(train_variant, self, fold.number, variant, image_job, seed)
                    trainings.setdefault(name, Job(name, run))
        return list(trainings.values())

    def _time_classifier(self, threads: int | None) -> float:
        """Seconds of a step with classical augmentation, which is the slowest; of an estimator's whole training."""
        fold, settings = self.fold(1), self.settings
        data = training_set(self, fold, Variant(Arm("", "", KINDS["classical"]), 1.0), 0, None)
        if settings.estimator is not None:
            start = time.perf_counter()
            FeatureLearner(settings, fold.learn, 0).fit(data)
            return time.perf_counter() - start
        return time_fit(data, settings, self.outputs, self.experiment.training.device, threads)

    def judge(self, outcomes: Mapping[str, Outcome], folder: Path) -> dict[str, Any]:
        """What `metrics.json` holds; written with all tables."""
        cells, lacking = read_cells(self, outcomes, folder)
        findings = judge(self, outcomes, cells, lacking)
        metrics = {**findings, "protocol": self._protocol(outcomes, folder), "flow": flow(self.division)}
        metrics["failures"] = failures(outcomes)
        write_tables(self, metrics, cells, folder)
        write_metrics(folder, metrics)
        return metrics

    def _protocol(self, outcomes: Mapping[str, Outcome], folder: Path) -> dict[str, Any]:
        settings, division = self.settings, self.division
        data, cases = division.dataset, division.cases
        return {
            "data": self.experiment.data.title,
            "image": list(data.image.shape),
            "digest": data.digest(cases),
            "cases": len(cases),
            "groups": None if data.groups is None else len(np.unique(data.groups[cases])),
            "endpoint": self.endpoint.words,
            "margin": settings.margin,
            "visible": self.endpoint.visible(data.subset(cases)),
            "folds": settings.folds,
            "repeats": settings.repeats,
            "reserve": HELD_OUT in settings.controls,
            "generators": settings.generators if settings.generator else 0,
            "seeds": settings.seeds,
            "trainings": len(outcomes),
            **run_facts(self, outcomes, folder),
        }  # fmt: skip

    report = write_report

    def summary(self, results: Results) -> str:
        """The verdict, the contrast, the arms and the notes."""
        metrics = results.values
        rows = [[arm, gain, difference] for arm, _, gain, difference, *_ in arm_rows(metrics)]
        return "\n".join([verdict_line(metrics), *as_columns(rows), *(f"note: {note}" for note in metrics["notes"])])
