"""From the outputs of all trainings to gains, choices inside training folds, contrasts and a verdict."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from gankit.errors import counted, first_of
from gankit.evaluation.design import Floats, holm, mean_of_known
from gankit.evaluation.paired import part_of_cases
from gankit.report.pages import render
from gankit.studies.augmentation.arms import CONTROLS, Variant
from gankit.studies.augmentation.contrasts import contrast, verdict
from gankit.studies.augmentation.endpoint import Endpoint
from gankit.studies.augmentation.folds import Fold, count_twins
from gankit.studies.augmentation.learning import OUTPUTS
from gankit.studies.jobs import Outcome
from gankit.studies.kinds import GENERATOR, Arm
from gankit.studies.labelled import class_counts
from gankit.studies.study import JOBS
from gankit.studies.worker import made_file

if TYPE_CHECKING:
    from gankit.studies.augmentation.study import AugmentationStudy


@dataclass(frozen=True)
class Cell:
    """What the trainings of a variant reached in a fold."""

    validation: Floats  # (generators, seeds) gains
    test: Floats  # (generators, seeds) gains
    outputs: NDArray[np.float64]  # (generators, seeds, n, k) for the test part, adjusted where the arm does so
    left_out: Floats  # (groups,) mean gains on the test part without each of its groups (patients)


def _cell(endpoint: Endpoint, fold: Fold, variant: Variant, jobs: list[list[Path]]) -> Cell:
    """The gains of a variant in a fold, from the outputs in the folders of (generators, seeds) trainings."""
    validation, test, outputs = [], [], []
    for job in itertools.chain.from_iterable(jobs):
        with np.load(made_file(job, OUTPUTS)) as file:
            of_validation, of_test = (file[name].astype(np.float64) for name in ("validation", "test"))
        if variant.arm.kind.tuned:
            gain, of_test = _adjust(endpoint, fold, of_validation, of_test)
        else:
            gain = endpoint.gain(fold.validation, of_validation)
        validation.append(gain)
        test.append(endpoint.gain(fold.test, of_test))
        outputs.append(of_test)
    shape, all_outputs = (len(jobs), len(jobs[0])), np.stack(outputs)
    return Cell(
        np.reshape(validation, shape), np.reshape(test, shape), all_outputs.reshape(*shape, *all_outputs.shape[1:]),
        endpoint.left_out(fold.test, all_outputs),
    )  # fmt: skip


def _adjust(endpoint: Endpoint, fold: Fold, of_validation: Floats, of_test: Floats) -> tuple[float, Floats]:
    """The gain of adjusted decisions on the validation part, and the adjusted outputs for the test part.

    An adjustment judged on the cases for which it was chosen would seem too good. So each half of the groups, divided
    class by class, is adjusted as serves the other half; the gain is that of both together. Minus infinity with one
    group.
    """
    part, counts = fold.validation, class_counts(fold.learn)
    log_prior = np.log(counts / counts.sum())
    of_validation, of_test = log_softmax(of_validation, axis=-1), log_softmax(of_test, axis=-1)
    adjusted = of_test - endpoint.adjustment(part, of_validation, log_prior) * log_prior
    cases = endpoint.cases(part)
    if cases.n_groups < 2:
        return -np.inf, adjusted
    in_first_half = np.zeros(cases.n_groups, bool)
    in_first_half[np.argsort(cases.stratum, kind="stable")[::2]] = True
    first_half, strengths = in_first_half[cases.group_of_case], np.zeros((len(part), 1))
    for half in (first_half, ~first_half):
        strengths[~half] = endpoint.adjustment(part, of_validation, log_prior, half)
    return endpoint.gain(part, of_validation - strengths * log_prior), adjusted


Cells = dict[tuple[int, str], Cell]  # by the number of the fold and the name of the variant


def read_cells(study: AugmentationStudy, outcomes: Mapping[str, Outcome], folder: Path) -> tuple[Cells, list[str]]:
    """The cells of all variants and folds that have every training, and names of those that lack one.

    Raises:
        RunError: what a training wrote was changed or lost since.
    """
    cells, lacking = {}, []
    for fold in study.folds:
        for variant in study.variants:
            names = study.trainings(fold, variant)
            if all(outcomes[name].failure is None for row in names for name in row):
                jobs = [[folder / JOBS / name for name in row] for row in names]
                cells[fold.number, variant.name] = _cell(study.endpoint, fold, variant, jobs)
            else:
                lacking.append(f"{variant.name} in fold {fold.number}")
    return cells, lacking


def choose(cells: Cells, fold: Fold, among: Sequence[Variant]) -> Variant | None:
    """The variant of the greatest mean gain on the validation part, the first of equals; None if all lack trainings."""
    complete = [variant for variant in among if (fold.number, variant.name) in cells]
    return max(complete, key=lambda variant: cells[fold.number, variant.name].validation.mean(), default=None)


class Comparison:
    """Compares what is chosen among a study's variants with the best of the baselines, fold by fold."""

    def __init__(self, study: AugmentationStudy, cells: Cells, baselines: Sequence[Variant]) -> None:
        self.study, self.cells, self.endpoint = study, cells, study.endpoint
        self.baselines = {fold.number: choose(cells, fold, baselines) for fold in study.folds}
        self.patient_step = float(np.mean([self.endpoint.patient_step(fold.test) for fold in study.folds]))

    def of(self, among: Sequence[Variant]) -> dict[str, Any]:
        """What is "chosen" among variants in each fold, in how many none is ("missing"), and the contrast."""
        chosen, differences, patient_variances = [], [], []
        for fold in self.study.folds:
            variant, baseline = choose(self.cells, fold, among), self.baselines[fold.number]
            if variant is None or baseline is None:
                continue
            cell, baseline_cell = (self.cells[fold.number, side.name] for side in (variant, baseline))
            difference = cell.test - baseline_cell.test  # the seeds of classifiers are the same on both sides
            differences.append(difference)
            left_out = cell.left_out - baseline_cell.left_out
            patient_variances.append(part_of_cases(self.endpoint.cases(fold.test), left_out).variance)
            chosen.append({
                "fold": fold.number, "variant": variant.name, "baseline": baseline.name,
                "gain": float(cell.test.mean()), "baseline_gain": float(baseline_cell.test.mean()),
                "difference": float(difference.mean()),
            })  # fmt: skip
        folds = self.study.settings.folds
        return {
            "chosen": chosen,
            "missing": len(self.study.folds) - len(chosen),
            # 1 / (folds - 1): tested images over all others, whether learnt from or set aside; see `contrast`
            **contrast(differences, 1 / (folds - 1), patient_variances, self.patient_step),
        }

    def of_arm(self, arm: Arm) -> dict[str, Any]:
        """`of` all variants of an arm, with its words, and means of gain and scores over what was chosen."""
        found = self.of([variant for variant in self.study.variants if variant.arm == arm])
        scores = [
            self.endpoint.scores(self.study.fold(row["fold"]).test, outputs)
            for row in found["chosen"]
            for outputs in np.concatenate(self.cells[row["fold"], row["variant"]].outputs)  # generator by generator
        ]
        return {
            "words": arm.words,
            "role": arm.role,
            "gain": mean_of_known(row["gain"] for row in found["chosen"]),
            "scores": {
                name: mean_of_known(values[name] for values in scores) for name in (scores[0] if scores else ())
            },
            **found,
        }


def judge(
    study: AugmentationStudy, outcomes: Mapping[str, Outcome], cells: Cells, lacking: Sequence[str]
) -> dict[str, Any]:
    """The findings in `metrics.json`; `cells` and the names of those that are `lacking` are from `read_cells`.

    An arm is compared whether its source is trusted or not; the primary contrast and the controls leave out sources
    with a leak.
    """
    sources = source_rows(study, outcomes)
    leaking = {row["source"] for row in sources.values() if is_leak(row)}
    trusted = defaultdict[str, list[Variant]](list)  # by role
    for variant in study.variants:
        if variant.arm.source not in leaking:
            trusted[variant.arm.role].append(variant)
    comparison = Comparison(study, cells, trusted["baseline"])
    primary = comparison.of(trusted["synthetic"])
    controls = {name: comparison.of(trusted[name]) for name in study.settings.controls}
    arms = {arm.name: comparison.of_arm(arm) for arm in study.arms()}
    # An arm that cannot differ, such as the only baseline less itself, counts as one comparison too
    p_holm = holm({
        name: 1.0 if entry["p"] is None else entry["p"] for name, entry in arms.items()
        if entry["p"] is not None or len(entry["chosen"]) > 1
    })  # fmt: skip
    remedies = [variant for variant in trusted["baseline"] if variant.arm.kind.remedy]
    has_remedy = all(choose(cells, fold, remedies) is not None for fold in study.folds)
    return {
        "verdict": verdict(primary, study.settings.margin, has_remedy),
        "primary": primary,
        "controls": controls,
        "arms": {
            name: {**entry, "p_holm": None if entry["p"] is None else p_holm[name]} for name, entry in arms.items()
        },
        "sources": list(sources.values()),
        "privacy": {name: row.get("privacy") for name, row in sources.items()},
        "notes": _notes(study, sources.values(), controls, primary["missing"], lacking),
    }


def source_rows(study: AugmentationStudy, outcomes: Mapping[str, Outcome]) -> dict[str, dict[str, Any]]:
    """What each source made for each fold, and what was found of the judging parts in it, by the name of the job."""
    rows = {}
    for fold, source in itertools.product(study.folds, study.settings.sources):
        for name in study.image_jobs(fold, source):
            found = outcomes[name].result or {"images": 0, "by_class": [], "leaked": 0, "exact": 0, "alarm": False}
            rows[name] = {"fold": fold.number, "source": source, "failure": outcomes[name].failure, **found}
    return rows


def is_leak(row: Mapping[str, Any]) -> bool:
    """Whether a row of `source_rows` shows a leak; the study's own generator, which sees no judging image, has none."""
    return bool(row["alarm"]) and row["source"] != GENERATOR


def _notes(
    study: AugmentationStudy, sources: Iterable[Mapping[str, Any]], controls: Mapping[str, Any], missing: int,
    lacking: Sequence[str],
) -> list[str]:  # fmt: skip
    """What a reader of the numbers should know: leaks, missing trainings and folds, what controls and data say."""
    strata = {fold.name: study.endpoint.cases(fold.test).stratum for fold in study.folds}
    text = render(
        "gankit.studies", "augmentation/notes.txt.j2", settings=study.settings, leaks=list(filter(is_leak, sources)),
        controls=controls, words=CONTROLS, lacking=lacking, missing=missing, folds=len(study.folds),
        # `part_of_cases` cannot tell how much patients of a class differ where there is one
        single=[name for name, stratum in strata.items() if 1 in np.bincount(stratum)],
        has_groups=study.division.dataset.groups is not None, twins=count_twins(study.division),
        first_of=first_of, counted=counted,
    )  # fmt: skip
    return text.split("\n")[:-1]
