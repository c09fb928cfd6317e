"""From the logits of all trainings to scores, intervals and differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gankit.evaluation.uncertainty import wilson
from gankit.seeds import derive_seed
from gankit.studies.classifier.data import Parts, labels_of, numbers
from gankit.studies.classifier.intervals import (
    Cases,
    confusions,
    crossed,
    independent_cases,
    paired_difference,
    score_interval,
)
from gankit.studies.classifier.scores import (
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
    softmax,
)
from gankit.studies.classifier.settings import BAR, ClassifierStudy

SCORES: dict[str, Score] = {"balanced accuracy": balanced_accuracy, "macro F1": macro_f1}
Values = dict[str, Any]


class Judge:
    """Scores of every arm on one test part; all draws are those of one seed, so that arms share them.

    Args:
        study: its settings.
        parts: its data.
    """

    def __init__(self, study: ClassifierStudy, parts: Parts) -> None:
        self.settings = study.classifier
        self.names = list(parts.test.class_names)
        self.labels = labels_of(parts.test)
        self.cases = Cases.of(self.labels, parts.test.groups)
        self.seed = derive_seed(study.training.seed, "intervals")
        self.rarest = parts.rarest
        self.parts = parts

    def counts(self, logits: Floats) -> Floats:
        """(seeds, n, k) logits to (seeds, groups, k, k) counts."""
        return self.cases.counts(logits.argmax(-1), len(self.names))

    def arm(self, logits: Floats) -> Values:
        """Scores of one arm from its (seeds, n, k) logits, as JSON can hold them."""
        counts = self.counts(logits)
        probabilities = np.stack([softmax(each) for each in logits])
        found: Values = {}
        for name, score in SCORES.items():
            value, low, high = score_interval(self.cases, counts, score, self.seed)
            found[name] = _entry(value, low, high, score(confusions(counts)))
        found["AUC"] = self._drawn(
            lambda seed, weights: macro_auc(self.labels, probabilities[seed], weights), len(logits)
        )
        predicted = logits.argmax(-1)
        found["recall"] = {
            name: self._share(self.labels == label, predicted == label) for label, name in enumerate(self.names)
        }
        found["groupings"] = {name: self._grouping(chosen, probabilities)
                              for name, chosen in self.settings.groupings.items()}  # fmt: skip
        found["confusion"] = confusions(counts).mean(0).tolist()
        if self.settings.calibration:
            found["Brier score"] = float(np.mean([brier(self.labels, each) for each in probabilities]))
            found["calibration error"] = float(
                np.mean([calibration_error(self.labels, each) for each in probabilities])
            )
            pooled = np.tile(self.labels, len(logits)), probabilities.reshape(-1, len(self.names))
            found["reliability"] = [list(each) for each in reliability(*pooled)]
        return found

    def _drawn(self, score: Callable[[int, Floats | None], Floats], seeds: int) -> Values:
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
            "AUC": self._drawn(lambda seed, weights: auc(positive, chance[seed], weights), len(chance)),
        }

    def differences(self, logits: Mapping[str, Floats]) -> list[Values]:
        """Each arm less real, and less the bar, on the same cases and seeds."""
        counts = {arm: self.counts(each) for arm, each in logits.items()}
        rarest = self.names[self.rarest]
        scores = {**SCORES, f"recall of {rarest}": recall_of(self.rarest)}
        found = []
        for against in ("real", BAR):
            for arm in [
                arm for arm in counts if against in counts and arm != against and (against, arm) != (BAR, "real")
            ]:
                for name, score in scores.items():
                    difference = paired_difference(self.cases, counts[arm], counts[against], score)
                    found.append({"arm": arm, "against": against, "score": name, **vars(difference)})
        return found

    def regression(self, predicted: Floats, training_mean: float) -> Values:
        """Errors of (seeds, n) numbers in their own units, beside those of the training cases' mean."""
        true = numbers(self.parts.test)[str(self.settings.regression)]

        def mean(values: Floats, weights: Floats | None) -> Floats:
            weights = np.ones((1, len(values))) if weights is None else weights
            found: Floats = weights @ values / weights.sum(1)
            return found

        def correlation(seed: int, weights: Floats | None) -> Floats:
            x, y = predicted[seed], true
            moments = [mean(values, weights) for values in (x, y, x * y, x * x, y * y)]
            covariance = moments[2] - moments[0] * moments[1]
            spread = (moments[3] - moments[0] ** 2) * (moments[4] - moments[1] ** 2)
            found: Floats = np.divide(covariance, np.sqrt(np.maximum(spread, 0)), where=spread > 0,
                                      out=np.full(len(spread), np.nan))  # fmt: skip
            return found

        errors = np.abs(predicted - true)
        seeds = len(predicted)
        return {
            "number": self.settings.regression,
            "mean absolute error": self._drawn(lambda seed, weights: mean(errors[seed], weights), seeds),
            "root mean square error": self._drawn(lambda seed, weights: mean(errors[seed] ** 2, weights) ** 0.5, seeds),
            "correlation": self._drawn(correlation, seeds),
            "mean absolute error of the training mean": float(np.abs(true - training_mean).mean()),
        }


def _entry(value: float, low: float, high: float, by_seed: Floats) -> Values:
    return {"value": value, "low": low, "high": high, "by_seed": by_seed.tolist()}
