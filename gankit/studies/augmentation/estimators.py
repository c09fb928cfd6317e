"""Estimators of scikit-learn that learn from features of images, in place of a network."""

import functools
import importlib
import inspect
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import all_estimators
from sklearn.utils.validation import has_fit_parameter

from gankit.errors import PartError, one_line, suggestion
from gankit.evaluation.design import Floats
from gankit.evaluation.extraction import device_of, extractor
from gankit.interfaces import Dataset, Features
from gankit.nn.modes import exact
from gankit.registry.messages import shown
from gankit.seeds import derive_seed
from gankit.studies.augmentation.settings import AugmentationSettings
from gankit.studies.fitting import AT_ONCE, TrainingSet, batch_images, to_tensor
from gankit.studies.kinds import KINDS

CPU = torch.device("cpu")


def new_estimator(settings: AugmentationSettings, seed: int) -> Any:
    """The estimator that settings name, seeded where it draws random numbers.

    Raises:
        PartError: there is none of this name, it takes other options, or cannot do what endpoint and arms need.
    """
    name = str(settings.estimator)
    kind = "regressor" if settings.endpoint == "severity" else "classifier"
    estimator_class = _import_class(name) if "." in name else _find_class(name, kind)
    options = dict(settings.options)
    if "random_state" in inspect.signature(estimator_class).parameters:
        options.setdefault("random_state", derive_seed(seed, "estimator") % 2**32)
    try:
        estimator = estimator_class(**options)
    except Exception as error:  # an estimator may raise anything
        raise PartError(f"augmentation.options: {name} cannot be made: {one_line(error, 120)}") from None
    # Scores of pairs of classes ("ovo") do not say how likely each class is
    by_class = hasattr(estimator, "decision_function") and getattr(estimator, "decision_function_shape", "") != "ovo"
    is_able, needed = by_class or hasattr(estimator, "predict_proba"), "predict_proba, or decision_function by class"
    if kind == "regressor":
        is_able, needed = hasattr(estimator, "predict"), "predict"
    if not is_able:
        raise PartError(
            f"augmentation.estimator: {name} is not a {kind} with {needed}; choose another one, or other options"
        )
    if any(KINDS[arm].weighted for arm in settings.arms) and not has_fit_parameter(estimator, "sample_weight"):
        raise PartError(
            f"augmentation.estimator: {name} takes no weights for images; leave the arms with weights out, or choose "
            "another one"
        )
    return estimator


@functools.cache
def _find_class(name: str, kind: str) -> type:
    """The class of this name among scikit-learn's estimators of a kind, "classifier" or "regressor"."""
    known: dict[str, type] = dict(all_estimators(kind))
    if name not in known:
        near = suggestion(name, known)
        raise PartError(f"augmentation.estimator: scikit-learn has no {kind} {shown(name)}; {near}")
    return known[name]


def _import_class(path: str) -> type:
    module, _, name = path.rpartition(".")
    try:
        result = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module may raise anything
        raise PartError(f"augmentation.estimator: {path} cannot be imported: {one_line(error, 120)}") from None
    if not (isinstance(result, type) and issubclass(result, BaseEstimator)):
        raise PartError(f"augmentation.estimator: {path} is not a scikit-learn estimator: name a class that is one")
    return result


class FeatureLearner:
    """An estimator on standardised features of images.

    Args:
        settings: name the estimator and the features.
        dataset: has images of the size that will be given.
        seed: of the estimator, and of classical augmentation.
    """

    def __init__(self, settings: AugmentationSettings, dataset: Dataset, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.network: Features = extractor(settings.features, dataset.image.shape)[1]
        self.pipeline = make_pipeline(StandardScaler(), new_estimator(settings, seed))

    def fit(self, data: TrainingSet) -> None:
        """Learn from features of the images; balanced, weighted and augmented as the arm says.

        Raises:
            PartError: the estimator cannot learn from them.
        """
        places = np.arange(len(data.images))
        if data.balanced:  # as many draws as if every class had the images of the most frequent one
            counts = np.unique(data.labels, return_counts=True)[1]
            places = data.order(self.seed).batch(0, int(counts.max() * len(counts)))
        views = [to_tensor(data.images[places], data.dataset, CPU)]
        if data.classical is not None:
            views += [batch_images(data, places, self.seed, view, CPU) for view in range(self.settings.views)]
        x = np.concatenate([self._features(view) for view in views])
        labels, targets = data.labels[places], data.targets.numpy()[places]
        y = np.tile(targets[:, 0] if data.targets.is_floating_point() else targets, len(views))
        weights = {}
        if data.weights is not None:  # under the name by which a pipeline passes them to its last step
            key = f"{self.pipeline.steps[-1][0]}__sample_weight"
            weights[key] = np.tile(data.weights.numpy()[labels], len(views)).astype(np.float64)
        self._call("fit", x, y, **weights)

    def apply(self, dataset: Dataset) -> Floats:
        """(n, classes) log probabilities, or (n, 1) numbers, for all images of a data set.

        Scores take the place of log probabilities where the estimator has no `predict_proba`.

        Raises:
            PartError: the estimator cannot judge them.
        """
        x = self._features(to_tensor(dataset.read(np.arange(len(dataset))), dataset, CPU))
        if self.settings.endpoint == "severity":
            return np.asarray(self._call("predict", x), np.float64).reshape(-1, 1)
        if hasattr(self.pipeline, "predict_proba"):
            return cast(Floats, np.log(np.clip(self._call("predict_proba", x), 1e-12, None)))
        scores = np.asarray(self._call("decision_function", x), np.float64)
        if scores.ndim == 1:  # of two classes: how much more likely the second one is
            scores = np.stack([-scores, scores], 1) / 2
        return scores

    def _call(self, method: str, *arguments: Any, **more: Any) -> Any:
        try:
            return getattr(self.pipeline, method)(*arguments, **more)
        except Exception as error:  # an estimator may raise anything
            verb, why = "learn" if method == "fit" else "judge", one_line(error, 160)
            raise PartError(f"{self.settings.estimator} cannot {verb} these images: {why}") from None

    @torch.no_grad()
    def _features(self, images: torch.Tensor) -> NDArray[np.float32]:
        """(n, c, h, w) images in [-1, 1] to (n, d) features; their network takes images in [0, 255]."""
        device = device_of(self.network)
        with exact(device):
            pieces = [self.network(((piece + 1) * 127.5).to(device)).cpu() for piece in torch.split(images, AT_ONCE)]
        return torch.cat(pieces).numpy()
