"""Any metric within each class: as intra-FID of Miyato and Koyama 2018, arXiv 1802.05637, section 4."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gankit.errors import GankitError
from gankit.interfaces import Batch, Metric, Pool, Resampling
from gankit.metrics import get
from gankit.metrics._by_class import (
    WITHIN,
    ByClass,
    Key,
    Names,
    Result,
    combined,
    known_classes,
    lacking,
    places_by_class,
)
from gankit.metrics._rows import checked

PER_IMAGE = ("features", "logits", "images", "labels", "groups", "ids")


@final
class IntraClass(Metric):
    """A metric within each class, and its unweighted mean: rare classes count as much as common ones.

    Generated images are compared with real ones of their own class only, so that a generator that ignores its labels,
    or collapses within one class, is found out. Classes are matched by name where both sides tell names, else by
    number. Those that one side lacks, or that have too few images for the metric, are left out of the mean and named
    in `cautions`.

    Args:
        metric: what to compute within each class, a metric without any batch; its first value counts.
    """

    classes: dict[Key, Metric]
    numbers: dict[Key, NDArray[np.int64]]
    names: Names
    _results: dict[Key, Result]
    _numbers: dict[Key, tuple[int, int]]
    _judged: dict[Key, Metric]
    _name: str

    def __init__(self, *, metric: Metric = "frechet") -> None:  # type: ignore[assignment]
        # The default is a name, as in a file; a registry has built it by now, a direct call has not.
        self.metric: Metric = get(metric)() if isinstance(metric, str) else metric
        self.needs = tuple(dict.fromkeys((*self.metric.needs, "labels")))
        self.better = self.metric.better
        self.add_state("classes", dict, _joined)
        self.add_state("numbers", dict, _added)
        self.add_state("names", frozenset, frozenset.union)

    def update(self, batch: Batch) -> None:
        """Take in images of several classes, with what else the metric needs.

        Raises:
            GankitError: no labels, labels that are no classes, or features that are not finite.
        """
        count = max((len(value) for name in PER_IMAGE if (value := getattr(batch, name)) is not None), default=0)
        for name in {"features", "logits"} & set(self.needs):
            checked(self.wanted(batch, name), f"{name} of the {'real' if batch.real else 'generated'} images")
        for key, places in places_by_class(batch.labels, batch.class_names, batch.real, count).items():
            if key not in self.classes:
                self.classes[key] = copy.deepcopy(self.metric)
                self.numbers[key] = np.zeros(2, dtype=np.int64)
            fields = {name: value[places] for name in PER_IMAGE if (value := getattr(batch, name)) is not None}
            self.classes[key].update(replace(batch, **fields))
            if not batch.training:
                self.numbers[key] = self.numbers[key] + len(places) * np.array([batch.real, not batch.real])
        if batch.class_names:
            self.names = self.names | {batch.class_names}

    def compute(self) -> dict[str, float]:
        """"... within classes", the unweighted mean of the metric's first value, and "... of CLASS" for each class.

        Raises:
            GankitError: no class has enough images on both sides.
        """  # fmt: skip
        metrics: dict[Key, Metric] = {}
        self._results, self._numbers = {}, {}
        for known, keys in known_classes(self.classes, self.names).items():
            metrics[known] = self.classes[keys[0]]
            if len(keys) > 1:
                metrics[known] = copy.deepcopy(metrics[known])
                for key in keys[1:]:
                    metrics[known].merge(self.classes[key])
            real, fake = (int(number) for number in np.sum([self.numbers[key] for key in keys], axis=0))
            self._numbers[known] = real, fake
            try:
                self._results[known] = lacking(real, fake) or metrics[known].compute()
            except GankitError as error:
                self._results[known] = error
        self._judged = {key: metrics[key] for key, result in self._results.items() if isinstance(result, dict)}
        values = combined(self._results)
        self._name = next(iter(values)).removesuffix(WITHIN)
        return values

    def counts(self) -> Mapping[str, tuple[int, int]]:
        """Those of each class, and of all classes that are in the mean."""
        own = {key: metric.counts().get(self._name, self._numbers[key]) for key, metric in self._judged.items()}
        real, fake = (sum(side) for side in zip(*own.values(), strict=True))
        return {self._name + WITHIN: (real, fake)} | {f"{self._name} of {key}": pair for key, pair in own.items()}

    def details(self) -> Mapping[str, Any]:
        """"classes": what the metric tells of each class, where it tells anything."""  # fmt: skip
        own = {str(key): dict(told) for key, metric in self._judged.items() if (told := metric.details())}
        return {"classes": own} if own else {}

    def cautions(self, real_vs_real: Mapping[str, float]) -> list[str]:
        """Classes that are left out of the mean and why, and what the metric says of each of the others."""
        found = []
        for key, result in self._results.items():
            real, fake = self._numbers[key]
            if isinstance(result, dict):
                beside = real_vs_real.get(f"{self._name} of {key}")
                own = self._judged[key].cautions({} if beside is None else {self._name: beside})
                found += [f"class {key}: {caution}" for caution in own]
            else:
                found.append(
                    f"{self._name}{WITHIN}: class {key} is left out of the mean ({real} real and {fake} generated "
                    f"images): {result}"
                )
        return found

    def resampling(self, pool: Pool) -> Resampling:
        """Values within each class from the metric's own resampling of that class."""
        return ByClass(self, self.metric, pool)


def _joined(first: dict[Key, Metric], second: dict[Key, Metric]) -> dict[Key, Metric]:
    joined = dict(first)
    for key, metric in second.items():
        if key in joined:
            joined[key].merge(metric)
        else:
            joined[key] = copy.deepcopy(metric)
    return joined


def _added(first: dict[Key, NDArray[np.int64]], second: dict[Key, NDArray[np.int64]]) -> dict[Key, NDArray[np.int64]]:
    zero = np.zeros(2, dtype=np.int64)
    return {key: first.get(key, zero) + second.get(key, zero) for key in {**first, **second}}
