"""What a study of augmentation judges: the gain of a classifier's outputs, and further scores of them."""

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from gankit.evaluation import classification
from gankit.evaluation.design import Floats, visible_difference
from gankit.evaluation.paired import Cases
from gankit.interfaces import Dataset
from gankit.studies.kinds import Labels
from gankit.studies.labelled import class_labels, groups_of, groups_of_classes, numeric_facts

if TYPE_CHECKING:
    from gankit.studies.augmentation.study import AugmentationStudy

PRIOR_STRENGTHS = np.linspace(0, 2, 21)  # multiples of the classes' log frequencies among which `adjustment` chooses


class Endpoint:
    """What is judged: turns outputs into gains, of which a higher one is always better."""

    def __init__(self, study: "AugmentationStudy") -> None:
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
        """(n,) what is to be predicted: each image's class; for "presence" 1 for the positive classes, 0 for others."""
        labels = class_labels(part)
        return np.isin(labels, self.positive).astype(np.int64) if self.settings.endpoint == "presence" else labels

    def values(self, part: Dataset) -> Floats:
        """(n,) numbers that the endpoint "severity" learns; zeros for another endpoint.

        Raises:
            KeyError: the images have no such number.
        """
        if self.settings.endpoint != "severity":
            return np.zeros(len(part))
        return numeric_facts(part)[str(self.settings.number)]

    def gain(self, part: Dataset, outputs: Floats, places: Any = slice(None)) -> float:
        """The gain of (n, k) outputs for the images of a part at some places."""
        outputs = outputs[places]
        if self.settings.endpoint == "severity":
            return -float(np.abs(outputs[:, 0] - self.values(part)[places]).mean())
        counts = confusion(self.labels(part)[places], self.predicted(outputs), outputs.shape[1])
        return float(classification.balanced_accuracy(counts))

    def predicted(self, outputs: Floats) -> Labels:
        """(..., n, k) outputs to (..., n) predictions of what `labels` returns."""
        if self.settings.endpoint == "presence":
            return np.asarray(softmax(outputs, axis=-1)[..., self.positive].sum(-1) > 0.5, np.int64)
        return np.asarray(outputs.argmax(-1), np.int64)

    def cases(self, part: Dataset) -> Cases:
        """The images of a part in their groups (patients)."""
        return Cases.of(self.labels(part), part.groups)

    def left_out(self, part: Dataset, outputs: Floats) -> Floats:
        """(trainings, n, k) outputs to (groups,) gains without each of the groups, means over the trainings."""
        cases = self.cases(part)
        if self.settings.endpoint == "severity":
            errors = np.abs(outputs[..., 0] - self.values(part)).mean(0)
            sums = errors.sum() - np.bincount(cases.group_of_case, errors)
            numbers = len(errors) - np.bincount(cases.group_of_case)
            return np.asarray(-sums / np.maximum(numbers, 1))
        counts = cases.counts(self.predicted(outputs), outputs.shape[-1])
        return np.asarray(classification.balanced_accuracy(counts.sum(1, keepdims=True) - counts).mean(0))

    def patient_step(self, part: Dataset) -> float:
        """By how much one group (patient) changes the gain on a part, on average over classes; 0 for numbers."""
        if self.settings.endpoint == "severity":
            return 0.0
        counts = np.unique(self.cases(part).stratum, return_counts=True)[1]
        return float(np.mean(1 / (len(counts) * counts)))

    def visible(self, data: Dataset) -> float | None:
        """The smallest difference that a study of all these images can see, as `visible_difference` has it.

        None for numbers, of which nothing is assumed.
        """
        if self.settings.endpoint == "severity":
            return None
        labels = self.labels(data)
        return visible_difference(groups_of_classes(labels, groups_of(data), labels.max() + 1), self.settings.folds)

    def adjustment(self, part: Dataset, outputs: Floats, log_prior: Floats, places: Any = slice(None)) -> float:
        """The multiple of (k,) `log_prior` to subtract for the greatest gain; the smallest of equally good ones."""
        gains = [self.gain(part, outputs - strength * log_prior, places) for strength in PRIOR_STRENGTHS]
        return float(PRIOR_STRENGTHS[int(np.argmax(gains))])

    def scores(self, part: Dataset, outputs: Floats) -> dict[str, float]:
        """Further scores of (n, k) outputs."""
        labels = class_labels(part)
        if self.settings.endpoint == "severity":
            truth, predicted = self.values(part), outputs[:, 0]
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
            **{name: float(score(counts)) for name, score in classification.SCORES.items()},
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
