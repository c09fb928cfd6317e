"""The founding experiment: generators of images on which ever more raters agree, beside the controls that it lacked."""

from __future__ import annotations

import functools
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from gankit.config import Experiment
from gankit.errors import RunError
from gankit.study.agreement_settings import AgreementStudy
from gankit.study.arms import Arm, StudyImages
from gankit.study.jobs import RESULT, Job, Outcome, run_jobs
from gankit.study.judging import Judge
from gankit.study.reading import claim, is_begun
from gankit.study.trainings import announce, seconds_a_step, trained

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
        warm: of the warm start, or None without one.
        folder: of the study.
    """

    study: AgreementStudy
    images: StudyImages
    trainings: list[Training]
    reals: dict[str, Any]
    warm: Outcome | None
    folder: Path

    @property
    def failed(self) -> list[Training]:
        """Trainings without values."""
        return [training for training in self.trainings if training.outcome.failure]

    @property
    def seconds(self) -> float:
        """Of all jobs."""
        return sum(t.outcome.seconds for t in self.trainings) + (self.warm.seconds if self.warm else 0.0)


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
    if not all((folder / JOBS / _name(arm, seed) / RESULT).is_file() for arm, seed in trainings):
        _estimate(first, len(trainings), study, workers, threads, quiet)
    claim(folder, text)
    start, warm = None, None
    if study.study.warm_start:
        changed = study.experiment(
            data={"split_seed": first.data.split_seed}, training={"steps": study.study.warm_start},
            **({"augment": {"scope": study.study.scopes[0]}} if study.study.scopes else {}),
        )  # fmt: skip
        job = Job(WARM, functools.partial(_warm, changed.tables()))
        warm = run_jobs([job], folder / JOBS, threads=threads, quiet=True)[WARM]
        if warm.failure:
            raise RunError(f"the warm start failed, from which all trainings start: {warm.failure}")
        start = str(folder / JOBS / WARM / RUN)
    jobs = [Job(REALS, functools.partial(_reals, text), cost=0.1 * study.training.steps)]
    for arm, seed in trainings:
        tables = images.experiment(arm, seed, study, start).tables()
        work = functools.partial(_train_and_judge, text, tables, arm, seed)
        jobs.append(Job(_name(arm, seed), work, cost=study.training.steps))
    outcomes = run_jobs(jobs, folder / JOBS, workers=workers, threads=threads, quiet=quiet)
    if outcomes[REALS].failure:
        raise RunError(f"the real images cannot be judged: {outcomes[REALS].failure}")
    done = [Training(a, s, folder / JOBS / _name(a, s), outcomes[_name(a, s)]) for a, s in trainings]
    if all(training.outcome.failure for training in done):
        raise RunError(f"no training succeeded; the first failed so: {done[0].outcome.failure}")
    return Findings(study, images, done, outcomes[REALS].result, warm, folder)


def _name(arm: Arm, seed: int) -> str:
    return f"{arm.name}-seed{seed}"


def _estimate(
    first: Experiment, count: int, study: AgreementStudy, workers: int, threads: int | None, quiet: bool
) -> None:
    """Say what the trainings will cost, from a few steps; also what cannot be trained is found here."""
    a_step = seconds_a_step(first, threads)
    warm = [(1, "warm start", study.study.warm_start, a_step)] if study.study.warm_start else []
    if not quiet:
        announce([(count, "training", study.training.steps, a_step), *warm], workers)


def _warm(tables: dict[str, Any], folder: Path) -> dict[str, Any]:
    run = trained(Experiment.model_validate(tables), folder / RUN)
    return {"steps": run.steps}


def _train_and_judge(text: str, tables: dict[str, Any], arm: Arm, seed: int, folder: Path) -> dict[str, Any]:
    run = trained(Experiment.model_validate(tables), folder / RUN)
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
