"""A classifier of the data, and whether generated images of the rare class help it: `gankit study classifier`."""

from __future__ import annotations

import dataclasses
import functools
import json
import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
import torchvision

from gankit.files import write_atomically, write_csv
from gankit.studies.classifier.data import Parts, labels_of, notes_of, parts_of
from gankit.studies.classifier.judging import SCORES, Judge
from gankit.studies.classifier.networks import FILE, Classifier, load_classifier, new_network
from gankit.studies.classifier.report import interval, write_report
from gankit.studies.classifier.scores import Floats, softmax
from gankit.studies.classifier.settings import BAR, ClassifierStudy, load_classifier_study
from gankit.studies.classifier.training import (
    ADDING,
    LOGITS,
    RUN,
    added_labels,
    seconds_a_fitting_step,
    train_arm,
    train_generator,
    train_regression,
)
from gankit.studies.jobs import RESULT, Job, Outcome, run_jobs
from gankit.studies.reading import claim
from gankit.studies.trainings import announce, seconds_a_step
from gankit.training.assembly import build
from gankit.training.data import prepare
from gankit.version import __version__ as gankit_version

__all__ = ["Classifier", "load_classifier", "load_classifier_study", "run_classifier_study"]

JOBS = "jobs"
GENERATOR, REGRESSION = "generator", "regression"
INTERVALS = {
    "shares": "95 % by Wilson's score, of the mean over seeds; cases of a group count by their design effect",
    "scores": "95 % by percentiles of a bootstrap over groups of test cases within classes and over seeds, which is "
    "too short where seeds are few and differ",
    "differences": "95 %, paired: t intervals of a jackknife over groups of test cases and of the spread between "
    "seeds, added in squares",
}


def run_classifier_study(
    study: ClassifierStudy,
    out: str | Path,
    *,
    workers: int = 1,
    threads: int | None = None,
    command: str = "",
    quiet: bool = False,
) -> dict[str, Any]:
    """Train every arm with every seed, judge all on the same test part, and write tables and the report.

    Called again on the same folder it does only what is missing.

    Args:
        study: from `load_classifier_study`.
        out: the folder.
        workers: trainings at a time.
        threads: CPU threads of each; `training.threads` where None.
        command: that repeats the study, for the report.
        quiet: no progress bar, and no estimate.

    Returns:
        What `metrics.json` holds.

    Raises:
        GankitError: the data or networks do not fit the study (nothing is written then), or the folder is taken.
    """
    folder, parts = Path(out), parts_of(study)
    _check(study, parts)
    claim(folder, study.toml())
    (folder / JOBS).mkdir(exist_ok=True)
    threads = threads or study.training.threads
    generators, others = _generators(study), _trainings(study, folder / JOBS)
    if not all((folder / JOBS / job.name / RESULT).is_file() for job in [*generators, *others]):
        generators, others = _estimate(study, parts, generators, others, workers, threads, quiet)
    # Trainings need the generators; the bar over all of them tells how much is left.
    if generators:
        run_jobs(generators, folder / JOBS, workers=workers, threads=threads, quiet=quiet)
    outcomes = run_jobs([*generators, *others], folder / JOBS, workers=workers, threads=threads, quiet=quiet)
    metrics = _judged(study, parts, outcomes, folder, command)
    write_atomically(folder / "metrics.json", (json.dumps(metrics, indent=1) + "\n").encode())
    write_report(study, parts, metrics, folder)
    return metrics


def lost(metrics: dict[str, Any]) -> str:
    """Which trainings failed and why, in one line; empty where none did."""
    failures: dict[str, str] = metrics["failures"]
    if not failures:
        return ""
    name, reason = next(iter(failures.items()))
    return f"{len(failures)} trainings failed and their arms are left out: {', '.join(failures)}; {name}: {reason}"


def text_table(metrics: dict[str, Any]) -> str:
    """Scores of the arms, and differences with intervals, as lines for a terminal."""
    rows = [["arm", *SCORES, "AUC"]]
    rows += [[arm, *(interval(found[name]) for name in (*SCORES, "AUC"))] for arm, found in metrics["arms"].items()]
    differences = [["difference", "", *SCORES]]
    for row in metrics["differences"]:
        if row["score"] == next(iter(SCORES)):
            differences.append([row["arm"], f"less {row['against']}"])
        if row["score"] in SCORES:
            differences[-1].append(interval(row, signed=True))
    tables = [rows, differences] if len(differences) > 1 else [rows]
    lines = []
    for table in tables:
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        lines += [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
    return "\n".join([*lines, *(f"note: {note}" for note in metrics["protocol"]["notes"])])


def _check(study: ClassifierStudy, parts: Parts) -> None:
    """Refuse before anything is written what could not be trained."""
    with torch.random.fork_rng():
        new_network(parts.train.image, parts.train.image.classes, study.classifier)
        if study.classifier.generated:
            experiment = study.generator_experiment(study.training.seed)
            build(experiment, prepare(experiment.data, study.training.seed, parts.train).image)


def _seeds(study: ClassifierStudy) -> list[int]:
    return [study.training.seed + number for number in range(study.classifier.seeds)]


def _generator_seed(study: ClassifierStudy, seed: int) -> int:
    """Whose generator a classifier's seed takes: its own, or in turn where there are fewer."""
    first, count = study.training.seed, study.classifier.generators or study.classifier.seeds
    return first + (seed - first) % count


def _generators(study: ClassifierStudy) -> list[Job]:
    if not study.classifier.generated:
        return []
    tables = study.tables()
    wanted = sorted({_generator_seed(study, seed) for seed in _seeds(study)})
    return [Job(f"{GENERATOR}-{seed}", functools.partial(train_generator, tables=tables, seed=seed)) for seed in wanted]


def _trainings(study: ClassifierStudy, folder: Path) -> list[Job]:
    tables, own = study.tables(), study.classifier
    jobs = []
    for seed in _seeds(study):  # seed by seed: a study cut short has all arms of its first seeds
        for arm in own.arms:
            generator = folder / f"{GENERATOR}-{_generator_seed(study, seed)}" / RUN if "synthetic" in arm else None
            run = functools.partial(train_arm, tables=tables, arm=arm, seed=seed, generator=generator)
            jobs.append(Job(f"{arm}-{seed}", run))
        if own.regression is not None:
            run = functools.partial(train_regression, tables=tables, seed=seed)
            jobs.append(Job(f"{REGRESSION}-{seed}", run))
    return jobs


def _estimate(
    study: ClassifierStudy, parts: Parts, generators: list[Job], others: list[Job], workers: int, threads: int | None,
    quiet: bool,
) -> tuple[list[Job], list[Job]]:  # fmt: skip
    """Say what the trainings will cost, from a few steps of each kind; also the same jobs, which know their cost."""
    making = 0.0
    if generators:
        making = seconds_a_step(study.generator_experiment(study.training.seed), threads, parts.train)
    fitting = seconds_a_fitting_step(study, parts, threads)
    steps, own_steps = study.training.steps, study.classifier.steps
    work = [(len(generators), "generator", steps, making), (len(others), "classifier", own_steps, fitting)]
    if not quiet:
        announce([kind for kind in work if kind[0]], workers)
    return (
        [dataclasses.replace(job, cost=steps * making) for job in generators],
        [dataclasses.replace(job, cost=own_steps * fitting) for job in others],
    )


def _judged(
    study: ClassifierStudy, parts: Parts, outcomes: dict[str, Outcome], folder: Path, command: str
) -> dict[str, Any]:
    judge, own, seeds = Judge(study, parts), study.classifier, _seeds(study)
    failures = {name: outcome.failure for name, outcome in outcomes.items() if outcome.failure is not None}
    whole = [arm for arm in own.arms if not any(f"{arm}-{seed}" in failures for seed in seeds)]
    logits: dict[str, Floats] = {
        arm: np.stack([np.load(folder / JOBS / f"{arm}-{seed}" / LOGITS) for seed in seeds]) for arm in whole
    }
    arms: dict[str, Any] = {}
    for arm, found in logits.items():
        results = [outcomes[f"{arm}-{seed}"] for seed in seeds]
        facts = {key: results[0].result[key] for key in ("real", "added")}
        done = {"steps": [each.result["steps"] for each in results], "seconds": [each.seconds for each in results]}
        losses = np.mean([each.result["losses"] for each in results], axis=0)
        arms[arm] = {**facts, **done, "losses": losses.tolist(), **judge.arm(found)}
    metrics: dict[str, Any] = {
        "protocol": _protocol(study, parts, outcomes, command),
        "arms": arms,
        "differences": judge.differences(logits),
        "failures": failures,
    }
    if own.regression is not None and not any(f"{REGRESSION}-{seed}" in failures for seed in seeds):
        predicted = np.stack([np.load(folder / JOBS / f"{REGRESSION}-{seed}" / LOGITS)[:, 0] for seed in seeds])
        metrics["regression"] = judge.regression(predicted, outcomes[f"{REGRESSION}-{seeds[0]}"].result["mean"])
    _write_tables(folder, parts, metrics, logits, seeds)
    best = BAR if BAR in logits else next(iter(logits), None)
    if best is not None:
        shutil.copyfile(folder / JOBS / f"{best}-{seeds[0]}" / FILE, folder / FILE)
        metrics["classifier"] = {"file": FILE, "arm": best, "seed": seeds[0]}
    return metrics


def _protocol(study: ClassifierStudy, parts: Parts, outcomes: dict[str, Outcome], command: str) -> dict[str, Any]:
    names, k = parts.train.class_names, parts.train.image.classes
    sides = {"train": parts.train, "test": parts.test}
    counts = {
        side: dict(zip(names, np.bincount(labels_of(data), minlength=k).tolist(), strict=True))
        for side, data in sides.items()
    }
    groups = {side: None if data.groups is None else len(np.unique(data.groups)) for side, data in sides.items()}
    notes = notes_of(parts)
    if study.classifier.seeds == 1:
        notes.append("one seed: intervals know nothing of what another seed would change, and are too short")
    own = study.classifier
    if not set(own.arms).isdisjoint(ADDING) and not len(added_labels(study, parts)):
        notes.append("nothing is added in any arm: the classes to fill up have images enough for synthetic_fill")
    if own.generated and (own.generators or own.seeds) < own.seeds:
        few = f"{own.generators} generator{'s' if own.generators != 1 else ''}"
        notes.append(f"{few} for {own.seeds} seeds: intervals leave out a part of their spread")
    return {
        "data": study.data.name,
        "image": list(parts.train.image.shape),
        "digest": {side: data.digest() for side, data in sides.items()},
        "split": parts.how,
        "cases": counts,
        "groups": groups,
        "rarest": names[parts.rarest],
        "seeds": _seeds(study),
        "steps": own.steps,
        "intervals": INTERVALS,
        "notes": notes,
        "seconds": round(sum(outcome.seconds for outcome in outcomes.values()), 1),
        "threads": max((outcome.threads for outcome in outcomes.values()), default=0),
        "versions": {
            "gankit": gankit_version, "python": platform.python_version(), "torch": torch.__version__,
            "torchvision": torchvision.__version__, "numpy": np.__version__, "scikit-learn": sklearn.__version__,
        },
        "command": command,
    }  # fmt: skip


def _write_tables(
    folder: Path, parts: Parts, metrics: dict[str, Any], logits: dict[str, Floats], seeds: list[int]
) -> None:
    """results.csv, differences.csv, predictions.csv, and a confusion matrix an arm."""
    names, labels = list(parts.test.class_names), labels_of(parts.test)
    results: list[list[Any]] = [["arm", "seed", "score", "value"]]
    for arm, found in metrics["arms"].items():
        rows = {**{name: found[name] for name in (*SCORES, "AUC")}}
        rows |= {f"recall of {name}": entry for name, entry in found["recall"].items()}
        for grouping, entry in found["groupings"].items():
            rows |= {f"{name} of {grouping}": entry[name] for name in ("sensitivity", "specificity", "AUC")}
        results += [
            [arm, seed, name, entry["by_seed"][i]] for name, entry in rows.items() for i, seed in enumerate(seeds)
        ]
        matrix = [["true", *names], *([name, *row] for name, row in zip(names, found["confusion"], strict=True))]
        write_csv(folder / f"confusion-{arm}.csv", matrix)
    for name, entry in metrics.get("regression", {}).items():
        if isinstance(entry, dict):
            results += [[REGRESSION, seed, name, entry["by_seed"][i]] for i, seed in enumerate(seeds)]
    write_csv(folder / "results.csv", results)
    head = ["arm", "against", "score", "value", "low", "high", "cases_error", "seeds_error"]
    write_csv(folder / "differences.csv", [head, *([row[key] for key in head] for row in metrics["differences"])])
    groups = parts.test_indices if parts.test.groups is None else parts.test.groups
    rows_: list[list[Any]] = [["case", "group", "label", "arm", "seed", "predicted", *(f"p_{name}" for name in names)]]
    for arm, each in logits.items():
        for seed, found in zip(seeds, each, strict=True):
            chances = softmax(found)
            rows_ += [
                [case, group, names[label], arm, seed, names[row.argmax()], *(f"{value:.5f}" for value in row)]
                for case, group, label, row in zip(parts.test_indices, groups, labels, chances, strict=True)
            ]
    write_csv(folder / "predictions.csv", rows_)
