"""The founding experiment: generators of images on which ever more raters agree, beside the controls that it lacked."""

from __future__ import annotations

import functools
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from gankit.errors import RunError
from gankit.experiments.experiment import Experiment
from gankit.studies.agreement.arms import Arm, StudyImages
from gankit.studies.agreement.judging import Judge
from gankit.studies.agreement.settings import AgreementStudy
from gankit.studies.jobs import RESULT, Job, Outcome, run_jobs
from gankit.studies.reading import claim, is_begun
from gankit.studies.trainings import announce, seconds_a_step, train_or_resume

JOBS, WARM, REALS, RUN = "jobs", "warm-start", "reals", "run"


@dataclass(frozen=True)
class Training:
    """One training of an arm and what came of it.

    Attributes:
        arm: the arm.
        seed: of the training.
        folder: of the job; the run is in its sub-folder `run`.
        outcome: what `Judge.run` said, or the failure.
    """

    arm: Arm
    seed: int
    folder: Path
    outcome: Outcome


@final
@dataclass(frozen=True)
class Findings:
    """Everything that a study found.

    Attributes:
        study: its settings.
        images: its images.
        trainings: one a generator.
        reals: what `Judge.reals` gave.
        seconds: that all jobs took.
        folder: of the study.
    """

    study: AgreementStudy
    images: StudyImages
    trainings: list[Training]
    reals: dict[str, Any]
    seconds: float
    folder: Path

    @property
    def failed(self) -> list[Training]:
        """Trainings without values."""
        return [training for training in self.trainings if training.outcome.failure]


def run_agreement(
    study: AgreementStudy, out: str | Path, *, workers: int = 1, threads: int | None = None, quiet: bool = False
) -> Findings:
    """Do a study, or go on with one where it was: train, draw, rank and judge each arm.

    Args:
        study: from `load_study`.
        out: its folder.
        workers: trainings at a time.
        threads: CPU threads of each.
        quiet: no progress bar over the trainings, and no estimate.

    Raises:
        GankitError: the images do not serve (nothing is written then), the folder is taken, or no training succeeds.
        KeyboardInterrupt: it was interrupted; the same call goes on.
    """
    folder = Path(out)
    images = StudyImages(study)
    text = study.toml()
    is_begun(folder, text)
    trainings = [(arm, seed) for arm in images.arms(study) for seed in images.seeds(arm, study)]
    first = images.experiment(*trainings[0], study, None)
    a_step = 0.0
    if not all((folder / JOBS / _name(arm, seed) / RESULT).is_file() for arm, seed in trainings):
        starts = len({seed for _, seed in trainings}) if study.study.warm_start else 0
        a_step = _estimate(first, len(trainings), starts, study, workers, threads, quiet)
    claim(folder, text)
    warm = _warm_starts(study, images, trainings, a_step) if study.study.warm_start else []
    each = a_step * study.training.steps
    jobs = [Job(REALS, functools.partial(_reals, text), cost=each / 10)]
    for arm, seed in trainings:
        start = str(folder / JOBS / f"{WARM}-seed{seed}" / RUN) if warm else None
        tables = images.experiment(arm, seed, study, start).tables()
        work = functools.partial(_train_and_judge, text, tables, arm, seed)
        jobs.append(Job(_name(arm, seed), work, cost=each))
    if warm:
        started = run_jobs(warm, folder / JOBS, workers=workers, threads=threads, quiet=quiet)
        if failed := next((outcome for outcome in started.values() if outcome.failure), None):
            raise RunError(f"the {failed.name} failed, from which trainings start: {failed.failure}")
    # The bar over all of them tells how much is left.
    outcomes = run_jobs([*warm, *jobs], folder / JOBS, workers=workers, threads=threads, quiet=quiet)
    if outcomes[REALS].failure:
        raise RunError(f"the real images cannot be judged: {outcomes[REALS].failure}")
    done = [Training(a, s, folder / JOBS / _name(a, s), outcomes[_name(a, s)]) for a, s in trainings]
    if all(training.outcome.failure for training in done):
        raise RunError(f"no training succeeded; the first failed so: {done[0].outcome.failure}")
    seconds = sum(outcome.seconds for outcome in outcomes.values())
    return Findings(study, images, done, outcomes[REALS].result, seconds, folder)


def _name(arm: Arm, seed: int) -> str:
    return f"{arm.name}-seed{seed}"


def _estimate(
    first: Experiment, count: int, starts: int, study: AgreementStudy, workers: int, threads: int | None, quiet: bool
) -> float:
    """Say what the trainings will cost, from a few steps, and give the seconds of one; what cannot be trained is found
    here, too."""
    a_step = seconds_a_step(first, threads)
    warm = [(starts, "warm start", study.study.warm_start, a_step)] if starts else []
    if not quiet:
        announce([(count, "training", study.training.steps, a_step), *warm], workers)
    return a_step


def _warm_starts(
    study: AgreementStudy, images: StudyImages, trainings: list[tuple[Arm, int]], a_step: float
) -> list[Job]:
    """One for each seed, so that trainings of several seeds have nothing in common."""
    everything, jobs = Arm(0.0), []
    for seed in sorted({seed for _, seed in trainings}):
        experiment = images.experiment(everything, seed, study, None)
        training = experiment.training.model_copy(update={"steps": study.study.warm_start})
        tables = experiment.model_copy(update={"training": training}).tables()
        jobs.append(Job(f"{WARM}-seed{seed}", functools.partial(_warm, tables), cost=a_step * study.study.warm_start))
    return jobs


def _warm(tables: dict[str, Any], folder: Path) -> dict[str, Any]:
    run = train_or_resume(Experiment.model_validate(tables), folder / RUN)
    return {"steps": run.steps}


def _train_and_judge(text: str, tables: dict[str, Any], arm: Arm, seed: int, folder: Path) -> dict[str, Any]:
    run = train_or_resume(Experiment.model_validate(tables), folder / RUN)
    start = time.monotonic()
    found = _judge(text).run(run, arm, seed, folder)
    return {**found, "steps": run.steps, "judging_seconds": round(time.monotonic() - start, 2)}


def _reals(text: str, folder: Path) -> dict[str, Any]:
    return _judge(text).reals()


@functools.lru_cache(maxsize=1)
def _judge(text: str) -> Judge:
    """One a process, since the features of the reals take a while."""
    study = AgreementStudy.model_validate(tomllib.loads(text))
    return Judge(study, StudyImages(study))


def failures(findings: Findings) -> str | None:
    """What to tell of trainings that failed, in one line."""
    if not findings.failed:
        return None
    named = "; ".join(f"{_name(t.arm, t.seed)}: {t.outcome.failure}" for t in findings.failed)
    return (
        f"{len(findings.failed)} of {len(findings.trainings)} trainings failed and are marked in the report ({named}); "
        f"delete their folders in {findings.folder / JOBS} to train them again"
    )
