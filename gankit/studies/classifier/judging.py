"""From the outputs of all trainings to scores, intervals and differences."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
import torch
import torchvision
from numpy.typing import NDArray
from scipy.special import softmax

from gankit.evaluation.classification import (
    Floats,
    Score,
    auc,
    balanced_accuracy,
    brier,
    calibration_error,
    macro_auc,
    macro_f1,
    recall_of,
    reliability,
)
from gankit.evaluation.paired import (
    Cases,
    confusions,
    crossed,
    independent_cases,
    paired_difference,
    score_interval,
)
from gankit.evaluation.uncertainty import wilson
from gankit.seeds import derive_seed
from gankit.studies.classifier.arms import Arm, added_labels
from gankit.studies.classifier.data import class_labels, data_notes, numbers
from gankit.studies.classifier.training import OUTPUTS
from gankit.studies.jobs import Outcome
from gankit.studies.study import JOBS
from gankit.version import __version__ as gankit_version

if TYPE_CHECKING:
    from gankit.studies.classifier.study import ClassifierStudy

SCORES: dict[str, Score] = {"balanced accuracy": balanced_accuracy, "macro F1": macro_f1}
Values = dict[str, Any]


class Scorer:
    """Scores of every arm on one test part; all draws are those of one seed, so that arms share them."""

    def __init__(self, study: ClassifierStudy) -> None:
        self.settings, self.test = study.settings, study.split.test
        self.names = list(self.test.class_names)
        self.labels = class_labels(self.test)
        self.cases = Cases.of(self.labels, self.test.groups)
        self.seed = derive_seed(study.experiment.training.seed, "intervals")
        self.rarest = study.split.rarest

    def counts(self, logits: Floats) -> Floats:
        """(seeds, n, k) logits to (seeds, groups, k, k) counts."""
        return self.cases.counts(logits.argmax(-1), len(self.names))

    def arm(self, logits: Floats) -> Values:
        """Scores of one arm from its (seeds, n, k) logits, as JSON can hold them."""
        counts, predicted = self.counts(logits), logits.argmax(-1)
        probabilities: Floats = softmax(logits, axis=-1)
        values: Values = {}
        for name, score in SCORES.items():
            interval = score_interval(self.cases, counts, score, self.seed)
            values[name] = _entry(*interval, score(confusions(counts)))
        values["AUC"] = self._resample(
            lambda seed, weights: macro_auc(self.labels, probabilities[seed], weights), len(logits)
        )
        values["recall"] = {
            name: self._share(self.labels == label, predicted == label) for label, name in enumerate(self.names)
        }
        values["groupings"] = {name: self._grouping(chosen, probabilities)
                               for name, chosen in self.settings.groupings.items()}  # fmt: skip
        values["confusion"] = confusions(counts).mean(0).tolist()
        if self.settings.calibration:
            for name, error in (("Brier score", brier), ("calibration error", calibration_error)):
                values[name] = float(np.mean([error(self.labels, of_seed) for of_seed in probabilities]))
            bins = reliability(np.tile(self.labels, len(logits)), probabilities.reshape(-1, len(self.names)))
            values["reliability"] = [list(row) for row in bins]
        return values

    def _resample(self, score: Callable[[int, Floats | None], Floats], seeds: int) -> Values:
        """A score of probabilities or numbers: `score(seed, weights of the cases)`, drawn over groups and seeds."""
        random = np.random.default_rng(self.seed)
        weights = self.cases.draws(random)[:, self.cases.group]
        by_seed = np.array([score(seed, None)[0] for seed in range(seeds)])
        drawn = np.stack([score(seed, weights) for seed in range(seeds)], 1)
        return _entry(float(by_seed.mean()), *crossed(drawn, random), by_seed)

    def _share(self, among: NDArray[np.bool_], hits: NDArray[np.bool_]) -> Values:
        """A proportion of the (n,) cases `among`, from (seeds, n) hits: Wilson's interval of the mean over seeds."""
        groups = self.cases.groups
        sizes = np.bincount(self.cases.group[among], minlength=groups).astype(np.float64)
        by_group = np.bincount(self.cases.group[among], hits.mean(0)[among], minlength=groups).astype(np.float64)
        n = independent_cases(by_group, sizes)
        share = float(by_group.sum() / sizes.sum())
        low, high = wilson(share * n, n)
        by_seed = hits[:, among].mean(1)
        return {**_entry(share, low, high, by_seed), "n": int(among.sum()), "independent": round(n, 1)}

    def _grouping(self, chosen: list[str], probabilities: Floats) -> Values:
        positive_classes = [self.names.index(name) for name in chosen]
        positive = np.isin(self.labels, positive_classes)
        chance = probabilities[..., positive_classes].sum(-1)
        called = chance > 0.5
        return {
            "positive": chosen,
            "sensitivity": self._share(positive, called),
            "specificity": self._share(~positive, ~called),
            "AUC": self._resample(lambda seed, weights: auc(positive, chance[seed], weights), len(chance)),
        }

    def differences(self, logits: Mapping[Arm, Floats]) -> list[Values]:
        """Each arm less the baseline, and less the bar, on the same cases and seeds."""
        counts = {arm: self.counts(outputs) for arm, outputs in logits.items()}
        scores = {**SCORES, f"recall of {self.names[self.rarest]}": recall_of(self.rarest)}
        baselines, bars = [arm for arm in counts if arm.baseline], [arm for arm in counts if arm.bar]
        pairs = [(arm, against) for against in baselines for arm in counts if arm != against]
        pairs += [(arm, against) for against in bars for arm in counts if arm != against and not arm.baseline]
        return [
            {"arm": arm.name, "against": against.name, "score": name,
             **vars(paired_difference(self.cases, counts[arm], counts[against], score))}
            for arm, against in pairs for name, score in scores.items()
        ]  # fmt: skip

    def regression(self, predicted: Floats, training_mean: float) -> Values:
        """Errors of (seeds, n) numbers in their own units, beside those of the training cases' mean."""
        true = numbers(self.test)[str(self.settings.regression)]

        def mean(values: Floats, weights: Floats | None) -> Floats:
            weights = np.ones((1, len(values))) if weights is None else weights
            means: Floats = weights @ values / weights.sum(1)
            return means

        def correlation(seed: int, weights: Floats | None) -> Floats:
            x, y = predicted[seed], true
            moments = [mean(values, weights) for values in (x, y, x * y, x * x, y * y)]
            covariance = moments[2] - moments[0] * moments[1]
            spread = (moments[3] - moments[0] ** 2) * (moments[4] - moments[1] ** 2)
            correlations: Floats = np.divide(covariance, np.sqrt(np.maximum(spread, 0)), where=spread > 0,
                                             out=np.full(len(spread), np.nan))  # fmt: skip
            return correlations

        errors, seeds = np.abs(predicted - true), len(predicted)
        squares = errors**2
        return {
            "number": self.settings.regression,
            "mean absolute error": self._resample(lambda seed, weights: mean(errors[seed], weights), seeds),
            "root mean square error": self._resample(lambda seed, weights: mean(squares[seed], weights) ** 0.5, seeds),
            "correlation": self._resample(correlation, seeds),
            "mean absolute error of the training mean": float(np.abs(true - training_mean).mean()),
        }


def _entry(value: float, low: float, high: float, by_seed: Floats) -> Values:
    return {"value": value, "low": low, "high": high, "by_seed": by_seed.tolist()}


def load_outputs(folder: Path, name: str, seeds: list[int]) -> Floats:
    """(seeds, n, outputs) of one kind of networks for the test part."""
    return np.stack([np.load(folder / JOBS / f"{name}-{seed}" / OUTPUTS) for seed in seeds])


INTERVALS = {
    "shares": "95 % by Wilson's score, of the mean over seeds; cases of a group count by their design effect",
    "scores": "95 % by percentiles of a bootstrap over groups of test cases within classes and over seeds, which is "
    "too short where seeds are few and differ",
    "differences": "95 %, paired: t intervals of a jackknife over groups of test cases and of the spread between "
    "seeds, added in squares",
}


def protocol(study: ClassifierStudy, outcomes: Mapping[str, Outcome], folder: Path) -> Values:
    """How values came about: data, split, seeds, intervals, versions, the command."""
    settings, split = study.settings, study.split
    names, sides = split.train.class_names, {"train": split.train, "test": split.test}
    notes = data_notes(split)
    if settings.seeds == 1:
        notes.append("one seed: intervals know nothing of what another seed would change, and are too short")
    if any(arm.adds for arm in study.arms()) and not len(added_labels(study)):
        notes.append("nothing is added in any arm: the classes to fill up have images enough for synthetic_fill")
    if study.needs_generators and (settings.generators or settings.seeds) < settings.seeds:
        few = f"{settings.generators} generator{'s' if settings.generators != 1 else ''}"
        notes.append(f"{few} for {settings.seeds} seeds: intervals leave out a part of their spread")
    return {
        "data": study.experiment.data.name,
        "image": list(split.train.image.shape),
        "digest": {side: data.digest() for side, data in sides.items()},
        "split": split.words,
        "cases": {side: dict(zip(names, split.counts(data).tolist(), strict=True)) for side, data in sides.items()},
        "groups": {side: None if data.groups is None else len(np.unique(data.groups)) for side, data in sides.items()},
        "rarest": names[split.rarest],
        "seeds": study.seeds(settings.seeds),
        "steps": settings.steps,
        "intervals": INTERVALS,
        "notes": notes,
        "seconds": round(sum(outcome.seconds for outcome in outcomes.values()), 1),
        "threads": max((outcome.threads for outcome in outcomes.values()), default=0),
        "versions": {
            "gankit": gankit_version, "python": platform.python_version(), "torch": torch.__version__,
            "torchvision": torchvision.__version__, "numpy": np.__version__, "scikit-learn": sklearn.__version__,
        },
        "command": study.command(folder),
    }  # fmt: skip
