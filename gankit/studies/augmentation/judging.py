"""From the outputs of all trainings to gains, choices inside training folds, contrasts and a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from gankit.errors import first_of
from gankit.evaluation import classification
from gankit.evaluation.design import Floats, holm
from gankit.evaluation.paired import Cases, part_of_cases
from gankit.interfaces import Dataset
from gankit.studies.augmentation.arms import CONTROLS, COPIES, GENERATOR, HELD_OUT, Arm, Variant
from gankit.studies.augmentation.contrasts import contrast, verdict
from gankit.studies.augmentation.folds import Fold, values_of
from gankit.studies.augmentation.learning import OUTPUTS, Labels
from gankit.studies.jobs import Outcome
from gankit.studies.labelled import class_counts, class_labels, groups_of
from gankit.studies.study import JOBS
from gankit.studies.worker import check_made

if TYPE_CHECKING:
    from gankit.studies.augmentation.study import AugmentationStudy

PRIOR_STRENGTHS = np.linspace(0, 2, 21)  # Multiples of the classes' log frequencies among which `adjustment` chooses


@dataclass(frozen=True)
class Cell:
    """What the trainings of a variant reached in a fold."""

    validation: Floats  # (generators, seeds) gains
    test: Floats  # (generators, seeds) gains
    outputs: NDArray[np.float64]  # (generators, seeds, n, k) for the test part, adjusted where the arm does so
    left_out: Floats  # (groups,) mean gains on the test part without each of its groups (patients)


class Endpoint:
    """What is judged: turns outputs into gains, of which a higher one is always better."""

    def __init__(self, study: AugmentationStudy) -> None:
        self.settings, names = study.settings, study.division.dataset.class_names
        self.positive = [names.index(name) for name in study.settings.positive]

    @property
    def words(self) -> str:
        """What a gain is."""
        return {
            "class": "balanced accuracy",
            "presence": f"mean of sensitivity and specificity of {', '.join(self.settings.positive)}",
            "severity": f"mean absolute error of {self.settings.number}, with a minus sign",
        }[self.settings.endpoint]

    def labels(self, part: Dataset) -> Labels:
        """(n,) what is to be told: each image's class; for "presence" 1 for the positive classes, 0 for others."""
        labels = class_labels(part)
        return np.isin(labels, self.positive).astype(np.int64) if self.settings.endpoint == "presence" else labels

    def gain(self, part: Dataset, outputs: Floats, places: Any = slice(None)) -> float:
        """The gain of (n, k) outputs for the images of a part at some places."""
        outputs = outputs[places]
        if self.settings.endpoint == "severity":
            return -float(np.abs(outputs[:, 0] - values_of(part, self.settings)[places]).mean())
        counts = confusion(self.labels(part)[places], self.predicted(outputs), outputs.shape[1])
        return float(classification.balanced_accuracy(counts))

    def predicted(self, outputs: Floats) -> Labels:
        """(..., n, k) outputs to (..., n) predictions of what `labels` returns."""
        if self.settings.endpoint == "presence":
            return np.asarray(softmax(outputs, axis=-1)[..., self.positive].sum(-1) > 0.5, np.int64)
        return np.asarray(outputs.argmax(-1), np.int64)

    def cases(self, part: Dataset) -> Cases:
        """The images of a part in their groups (patients)."""
        return Cases.of(self.labels(part), groups_of(part, np.arange(len(part))))

    def left_out(self, part: Dataset, outputs: Floats) -> Floats:
        """(trainings, n, k) outputs to (groups,) gains without each of the groups, means over the trainings."""
        cases = self.cases(part)
        if self.settings.endpoint == "severity":
            errors = np.abs(outputs[..., 0] - values_of(part, self.settings)).mean(0)
            sums = errors.sum() - np.bincount(cases.group, errors)
            numbers = len(errors) - np.bincount(cases.group)
            return np.asarray(-sums / np.maximum(numbers, 1))
        counts = cases.counts(self.predicted(outputs), outputs.shape[-1])
        return np.asarray(classification.balanced_accuracy(counts.sum(1, keepdims=True) - counts).mean(0))

    def patient_step(self, part: Dataset) -> float:
        """By how much one group (patient) changes the gain on a part, on average over classes; 0 for numbers."""
        if self.settings.endpoint == "severity":
            return 0.0
        counts = np.unique(self.cases(part).stratum, return_counts=True)[1]
        return float(np.mean(1 / (len(counts) * counts)))

    def adjustment(self, part: Dataset, outputs: Floats, log_prior: Floats, places: Any = slice(None)) -> float:
        """The multiple of (k,) `log_prior` to subtract for the greatest gain; the smallest of equally good ones."""
        gains = [self.gain(part, outputs - strength * log_prior, places) for strength in PRIOR_STRENGTHS]
        return float(PRIOR_STRENGTHS[int(np.argmax(gains))])

    def scores(self, part: Dataset, outputs: Floats) -> dict[str, float]:
        """Further scores of (n, k) outputs."""
        labels = class_labels(part)
        if self.settings.endpoint == "severity":
            truth, predicted = values_of(part, self.settings), outputs[:, 0]
            error = predicted - truth
            return {
                "mean absolute error": float(np.abs(error).mean()),
                "root mean square error": float(np.sqrt((error**2).mean())),
                "correlation": float(classification.correlation(predicted, truth)[0]),
            }
        probabilities: Floats = softmax(outputs, axis=-1)
        counts = confusion(labels, outputs.argmax(-1), outputs.shape[1])
        recalls = zip(part.class_names, classification.recalls(counts), strict=True)
        values = {
            "balanced accuracy": float(classification.balanced_accuracy(counts)),
            "macro F1": float(classification.macro_f1(counts)),
            "AUC": float(classification.macro_auc(labels, probabilities)[0]),
            "Brier score": classification.brier(labels, probabilities),
            "calibration error": classification.calibration_error(labels, probabilities),
            **{f"recall of {name}": float(recall) for name, recall in recalls},
        }
        if self.positive:
            present, probability = np.isin(labels, self.positive), probabilities[:, self.positive].sum(-1)
            values["sensitivity"] = float((probability[present] > 0.5).mean())
            values["specificity"] = float((probability[~present] <= 0.5).mean())
            values["AUC of presence"] = float(classification.auc(present, probability)[0])
        return values


def confusion(labels: Labels, predicted: Labels, classes: int) -> Floats:
    """(n,) true and (n,) predicted classes to (classes, classes) counts, true classes in rows."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes).astype(np.float64)


def _cell(endpoint: Endpoint, fold: Fold, variant: Variant, files: list[list[Path]]) -> Cell:
    """The gains of a variant in a fold, from the outputs of (generators, seeds) trainings."""
    paths, test_outputs = np.array(files, dtype=object), []
    validation, test = np.zeros(paths.shape), np.zeros(paths.shape)
    for place, path in np.ndenumerate(paths):
        check_made(path.parent, OUTPUTS)
        with np.load(path) as file:
            of_validation, of_test = (file[name].astype(np.float64) for name in ("validation", "test"))
        if variant.arm.kind.tuned:
            validation[place], of_test = _adjust(endpoint, fold, of_validation, of_test)
        else:
            validation[place] = endpoint.gain(fold.validation, of_validation)
        test[place] = endpoint.gain(fold.test, of_test)
        test_outputs.append(of_test)
    outputs = np.stack(test_outputs)
    left_out = endpoint.left_out(fold.test, outputs)
    return Cell(validation, test, outputs.reshape(*test.shape, *outputs.shape[1:]), left_out)


def _adjust(endpoint: Endpoint, fold: Fold, of_validation: Floats, of_test: Floats) -> tuple[float, Floats]:
    """The gain of adjusted decisions on the validation part, and the adjusted outputs for the test part.

    An adjustment judged on the cases for which it was chosen would seem too good. So the gain is the mean of two, each
    of an adjustment that is chosen on one half of the groups and judged on the other; minus infinity with one group.
    """
    part, counts = fold.validation, class_counts(fold.learn)
    log_prior = np.log(counts / counts.sum())
    of_validation, of_test = log_softmax(of_validation, axis=-1), log_softmax(of_test, axis=-1)
    first_half = endpoint.cases(part).group % 2 == 0
    gains = []
    for half in (first_half, ~first_half):
        if half.any() and not half.all():
            strength = endpoint.adjustment(part, of_validation, log_prior, half)
            gains.append(endpoint.gain(part, of_validation - strength * log_prior, ~half))
    adjusted = of_test - endpoint.adjustment(part, of_validation, log_prior) * log_prior
    return float(np.mean(gains)) if gains else -np.inf, adjusted


Cells = dict[tuple[int, str], Cell]
"""By the number of the fold and the name of the variant."""


def read_cells(study: AugmentationStudy, outcomes: Mapping[str, Outcome], folder: Path) -> tuple[Cells, list[str]]:
    """The cells of all variants and folds that have every training, and names of those that lack one.

    Raises:
        RunError: what a training wrote was changed or lost since.
    """
    endpoint, cells, lacking = Endpoint(study), {}, []
    for fold in study.folds:
        for variant in study.variants:
            names = study.trainings(fold, variant)
            if all(outcomes[name].failure is None for row in names for name in row):
                files = [[folder / JOBS / name / OUTPUTS for name in row] for row in names]
                cells[fold.number, variant.name] = _cell(endpoint, fold, variant, files)
            else:
                lacking.append(f"{variant.name} in fold {fold.number}")
    return cells, lacking


def choose(cells: Cells, fold: Fold, among: Sequence[Variant]) -> Variant | None:
    """The variant of the greatest mean gain on the validation part, the first of equals; None if all lack trainings."""
    complete = [variant for variant in among if (fold.number, variant.name) in cells]
    return max(complete, key=lambda variant: cells[fold.number, variant.name].validation.mean(), default=None)


def judge(
    study: AugmentationStudy, outcomes: Mapping[str, Outcome], cells: Cells, lacking: Sequence[str]
) -> dict[str, Any]:
    """What `metrics.json` holds beside the protocol; cells and the names of lacking ones are from `read_cells`."""
    sources = source_rows(study, outcomes)
    alarmed = {row["source"] for row in sources if is_leak(row)}
    trusted = [variant for variant in study.variants if variant.arm.source not in alarmed]
    by_role = {
        role: [variant for variant in trusted if variant.arm.role == role]
        for role in ("baseline", "synthetic", *study.settings.controls)
    }
    test_to_train, endpoint = 1 / (study.settings.folds - 1), Endpoint(study)
    patient_step = float(np.mean([endpoint.patient_step(fold.test) for fold in study.folds]))
    baselines = {fold.number: choose(cells, fold, by_role["baseline"]) for fold in study.folds}

    def against_baseline(among: Sequence[Variant]) -> dict[str, Any]:
        """The choice among variants in each fold, and its contrast with the best baseline."""
        chosen, differences, patient_variances = [], [], []
        for fold in study.folds:
            variant, baseline = choose(cells, fold, among), baselines[fold.number]
            if variant is None or baseline is None:
                continue
            cell, baseline_cell = (cells[fold.number, side.name] for side in (variant, baseline))
            difference = cell.test - baseline_cell.test  # the seeds of classifiers are the same on both sides
            differences.append(difference)
            left_out = cell.left_out - baseline_cell.left_out
            patient_variances.append(part_of_cases(endpoint.cases(fold.test), left_out).variance)
            chosen.append({
                "fold": fold.number, "variant": variant.name, "baseline": baseline.name,
                "gain": float(cell.test.mean()), "baseline_gain": float(baseline_cell.test.mean()),
                "difference": float(difference.mean()),
            })  # fmt: skip
        return {
            "chosen": chosen,
            "missing": len(study.folds) - len(chosen),
            **contrast(differences, test_to_train, patient_variances, patient_step),
        }

    primary = against_baseline(by_role["synthetic"])
    arms = {}
    for arm in study.arms():
        entry = against_baseline([variant for variant in study.variants if variant.arm == arm])
        arms[arm.name] = {**_arm_values(study, cells, arm, entry["chosen"]), **entry, "p_holm": None}
    for name, p in holm({name: entry["p"] for name, entry in arms.items() if entry["p"] is not None}).items():
        arms[name]["p_holm"] = p
    remedies = [variant for variant in by_role["baseline"] if variant.arm.kind.remedy]
    has_remedy = all(choose(cells, fold, remedies) is not None for fold in study.folds)
    controls = {name: against_baseline(by_role[name]) for name in study.settings.controls}
    return {
        "verdict": verdict(primary, study.settings.margin, has_remedy),
        "primary": primary,
        "controls": controls,
        "arms": arms,
        "sources": sources,
        "notes": [*_alarms(sources), *_control_notes(controls), *_gaps(lacking, primary)],
    }


def _arm_values(
    study: AugmentationStudy, cells: Cells, arm: Arm, chosen: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """An arm's words, and the means of its gain and scores over folds and seeds, of the variants that were chosen."""
    endpoint, scores = Endpoint(study), []
    for row in chosen:
        fold, cell = study.fold(row["fold"]), cells[row["fold"], row["variant"]]
        scores += [endpoint.scores(fold.test, cell.outputs[training]) for training in np.ndindex(cell.test.shape)]
    means: dict[str, float | None] = {}
    for name in scores[0] if scores else []:
        known = [values[name] for values in scores if not np.isnan(values[name])]
        means[name] = float(np.mean(known)) if known else None
    gain = float(np.mean([row["gain"] for row in chosen])) if chosen else None
    return {"words": arm.words, "role": arm.role, "gain": gain, "scores": means}


def source_rows(study: AugmentationStudy, outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """What each source made for each fold, and what was found of the judging parts in it."""
    rows = []
    for fold in study.folds:
        for source in study.settings.sources:
            for name in study.image_jobs(fold, source):
                outcome = outcomes[name]
                found = outcome.result or {"images": 0, "by_class": [], "leaked": 0, "exact": 0, "alarm": False}
                rows.append({"fold": fold.number, "source": source, "failure": outcome.failure, **found})
    return rows


def is_leak(row: Mapping[str, Any]) -> bool:
    """Whether a row of `source_rows` shows a leak; the study's own generator, which sees no judging image, has none."""
    return bool(row["alarm"]) and row["source"] != GENERATOR


def _alarms(sources: list[dict[str, Any]]) -> Iterator[str]:
    for row in sources:
        if is_leak(row):
            yield (
                f"leak: images of {row['source']} for fold {row['fold']} show {row['leaked']} images of the validation "
                f"or the test part ({row['exact']} pairs are identical) that its training images do not show; "
                "no verdict uses this source"
            )


def _control_notes(controls: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, entry in controls.items():
        low = entry["low"]
        if low is None:
            yield f"the {CONTROLS[name].partition(':')[0]} could not be judged"
        elif name == COPIES and low > 0:
            yield (
                "the negative control helps: noised copies do what generated images should, so that a gain is no merit "
                "of the generator"
            )
        elif name == HELD_OUT and low <= 0:
            yield (
                "no gain of the positive control can be seen: where more real images do not show, generated ones "
                "hardly could"
            )


def _gaps(lacking: Sequence[str], primary: Mapping[str, Any]) -> Iterator[str]:
    """Notes on trainings and folds that are missing."""
    if lacking:
        yield f"incomplete, so not chosen: {first_of(lacking)}; the reasons are among the failed jobs"
    if primary["missing"]:
        yield f"the contrast lacks {primary['missing']} folds, in which nothing could be chosen on one side"


def predictions(study: AugmentationStudy, cells: Cells, arms: Mapping[str, Any]) -> Iterator[list[object]]:
    """Rows of the outputs of the chosen variants for every test case, a header first."""
    numeric, classes = study.outputs == 1, study.division.dataset.class_names
    names = [str(study.settings.number)] if numeric else [f"p_{name}" for name in classes]
    yield ["fold", "case", "group", "label", "arm", "variant", "generator", "seed", *names]
    for arm, entry in arms.items():
        for row in entry["chosen"]:
            fold, cell = study.fold(row["fold"]), cells[row["fold"], row["variant"]]
            cases, labels = fold.places["test"], class_labels(fold.test)
            groups = groups_of(study.division.dataset, cases)
            shown = cell.outputs if numeric else softmax(cell.outputs, axis=-1)
            for (g, s), _ in np.ndenumerate(cell.test):
                for case, group, label, values in zip(cases, groups, labels, shown[g, s], strict=True):
                    texts = [f"{value:.5f}" for value in values]
                    yield [fold.number, case, group, classes[label], arm, row["variant"], g, s, *texts]
