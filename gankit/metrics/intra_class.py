"""Any metric within each class, like the intra-FID of Miyato and Koyama 2018, arXiv 1802.05637, section 4."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar, final

import numpy as np

from gankit.errors import GankitError
from gankit.interfaces import Indices, Meaning, Metric, Pool, Resampling, Result, Rows
from gankit.metrics import get

Key = str | int
"""A class: its name, or its number where no names are known."""
NameLists = frozenset[tuple[str, ...]]
"""The different lists of class names that the image sets came with."""
WITHIN = " within classes"
"""Suffix of the name of the mean over the classes, as in "frechet within classes"."""
Values = Mapping[str, float]
Outcome = Values | GankitError
"""A metric's values within a class, or why there are none."""
T = TypeVar("T")


@final
class IntraClass(Metric):
    """A metric within each class, and its unweighted mean: rare classes count as much as common ones.

    Generated images are compared with real ones of their own class only, so that a generator that ignores its labels,
    or collapses within one class, is exposed. Classes are matched by name where both sides have class names, else by
    number. Those that one side lacks, or that have too few images for the metric, are left out of the mean and named
    in the warnings.

    Args:
        metric: what to compute within each class; only its first value is used.
    """

    def __init__(self, *, metric: Metric = "frechet") -> None:  # type: ignore[assignment]
        # The registry passes a metric that is already built; a direct call may leave the default, a name.
        self.metric: Metric = get(metric)() if isinstance(metric, str) else metric
        self.needs = tuple(dict.fromkeys((*self.metric.needs, "labels")))
        self.better = self.metric.better

    def compute(self, real: Rows, fake: Rows) -> Result:
        """`NAME within classes`, the unweighted mean over the classes, and `NAME of CLASS` for each.

        NAME is the metric's first value.

        Details: "classes", what the metric adds to each class's value, where it adds anything.

        Raises:
            GankitError: no labels, labels that are no classes, or no class with enough images on both sides.
        """
        return self.resampling(Pool(real, fake)).whole()

    def meaning(self, name: str) -> Meaning:
        """As the metric explains it; words are given for the mean over the classes only."""
        of_metric = self.metric.meaning(name.removesuffix(WITHIN).partition(" of ")[0])
        words = f"mean over the classes: {of_metric.words}" if name.endswith(WITHIN) else ""
        return of_metric._replace(words=words)

    def warnings(self, real_vs_real: Mapping[str, float]) -> list[str]:
        """The metric's warnings about each class's real-against-real value."""
        warnings = []
        for value_name, value in real_vs_real.items():
            name, separator, key = value_name.partition(" of ")
            if separator:
                warnings += [f"class {key}: {warning}" for warning in self.metric.warnings({name: value})]
        return warnings

    def resampling(self, pool: Pool) -> Resampling:
        """Values within each class from the metric's own resampling of that class."""
        return _ByClass(self, pool)


def _places_by_class(rows: Rows, side: str, name_lists: NameLists) -> dict[Key, Indices]:
    """The indices of the images of each class, by its name where any set has names; messages name the `side`."""
    labels, names = rows.labels, rows.class_names
    if not rows.count:
        return {}
    if labels is None:
        generated = side == "generated"
        advice = "train conditionally, or give a folder with labels" if generated else "give a data set with classes"
        raise GankitError(f"intra-class needs the class of each image, and the {side} images have no labels; {advice}")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise GankitError(
            f"intra-class needs labels that are classes, and those of the {side} images are {labels.dtype} of the "
            f"shape {labels.shape}; train on classes in place of conditions, or leave out this metric"
        )
    if labels.min() < 0:
        raise GankitError(f"intra-class: the {side} images have the label {labels.min()}; classes are numbered from 0")
    if not names and len(name_lists) > 1:
        raise GankitError(
            f"intra-class: label {labels.min()} has no class name, and the other images come with different names: "
            f"{' and '.join(', '.join(names) for names in sorted(name_lists))}; give all images class names"
        )
    names = names or next(iter(name_lists), None)
    if names and labels.max() >= len(names):
        raise GankitError(
            f"intra-class: the {side} images have the label {labels.max()} and {len(names)} class names, for 0 to "
            f"{len(names) - 1}; give each class a name"
        )
    return {names[label] if names else int(label): np.flatnonzero(labels == label) for label in np.unique(labels)}


def _combine(outcomes: Mapping[Key, Outcome], average: Callable[[list[float]], Any] = np.mean) -> dict[str, float]:
    """The unweighted mean over the classes of the metric's first value, then its value in each class.

    `average` replaces the mean where the outcomes are standard errors.
    """
    named_values = {
        key: next(iter(values.items())) for key, values in outcomes.items() if not isinstance(values, GankitError)
    }
    if not named_values:
        reasons = [f"{key}: {reason}" for key, reason in outcomes.items()]
        text = "; ".join(reasons[:3]) + ("; ..." if len(reasons) > 3 else "")
        raise GankitError(f"intra-class: no class has enough images on both sides ({text or 'there are no images'})")
    name, _ = next(iter(named_values.values()))
    mean = {name + WITHIN: float(average([value for _, value in named_values.values()]))}
    return mean | {f"{name} of {key}": value for key, (_, value) in named_values.items()}


def _in_order(keys: set[Key], name_lists: NameLists) -> list[Key]:
    """Classes in the order of the lists of names; by number where there are no names.

    Where lists differ, the alphabetically first one counts: in reversed order its ranks are set last.
    """
    rank = {name: number for names in sorted(name_lists, reverse=True) for number, name in enumerate(names)}
    return sorted(keys, key=lambda key: (rank.get(str(key), 0), key))


class _ByClass(Resampling):
    """The metric's own resampling of each class."""

    def __init__(self, metric: IntraClass, pool: Pool) -> None:
        super().__init__(metric, pool)
        training = pool.real.training or Rows()
        name_lists = frozenset(rows.class_names for rows in (pool.real, pool.fake, training) if rows.class_names)
        places_in_real, places_in_fake, places_in_training = (
            _places_by_class(rows, side, name_lists)
            for rows, side in ((pool.real, "real"), (pool.fake, "generated"), (training, "training"))
        )
        keys = _in_order({*places_in_real, *places_in_fake, *places_in_training}, name_lists)
        none = np.array([], dtype=np.int64)
        # Copies by class of arrays that the metric does not need would cost memory.
        unneeded: dict[str, Any] = dict.fromkeys({"features", "logits", "images"}.difference(metric.metric.needs))
        real, fake, training = (
            dataclasses.replace(rows, training=None, **unneeded) for rows in (pool.real, pool.fake, training)
        )
        self.classes: dict[Key, Resampling] = {}  # in order
        # For each place in the pool, the number of its class in `classes`, and its place in the pool of that class.
        self.class_of = np.zeros(pool.real.count + pool.fake.count, dtype=np.int64)
        self.index_in_class = np.zeros_like(self.class_of)
        for number, key in enumerate(keys):
            of_real, of_fake = places_in_real.get(key, none), places_in_fake.get(key, none)
            places = np.concatenate([of_real, of_fake + pool.real.count])
            self.class_of[places], self.index_in_class[places] = number, np.arange(len(places))
            of_training = None if pool.real.training is None else training.take(places_in_training.get(key, none))
            class_pool = Pool(dataclasses.replace(real.take(of_real), training=of_training), fake.take(of_fake))
            self.classes[key] = _resampling(metric.metric, class_pool)

    @cached_property
    def _results(self) -> dict[Key, Result | GankitError]:
        """The result, or why there is none, for each class that has images."""
        results: dict[Key, Result | GankitError] = {}
        for key, resampling in self.classes.items():
            n_real, n_fake = resampling.pool.real.count, resampling.pool.fake.count
            if n_real or n_fake:
                results[key] = _attempt(resampling.whole, n_real, n_fake)
        return results

    @cached_property
    def _outcomes(self) -> dict[Key, Outcome]:
        return {key: result.values if isinstance(result, Result) else result for key, result in self._results.items()}

    @cached_property
    def _in_mean(self) -> dict[Key, Values]:
        """The values of each class that has any: the mean is over these classes."""
        return {key: values for key, values in self._outcomes.items() if not isinstance(values, GankitError)}

    def whole(self) -> Result:
        values = _combine(self._outcomes)
        name = next(iter(values)).removesuffix(WITHIN)
        counts: dict[str, tuple[int, int]] = {}
        details, warnings = {}, []
        for key, result in self._results.items():
            n_real, n_fake = self.classes[key].pool.real.count, self.classes[key].pool.fake.count
            if isinstance(result, GankitError):
                images = f"{n_real} real and {n_fake} generated images"
                warnings.append(f"{name}{WITHIN}: class {key} is left out of the mean ({images}): {result}")
                continue
            counts[f"{name} of {key}"] = result.counts.get(name, (n_real, n_fake))
            warnings += [f"class {key}: {warning}" for warning in result.warnings]
            if result.details:
                details[str(key)] = dict(result.details)
        real, fake = (sum(side) for side in zip(*counts.values(), strict=True))
        return Result(values, {name + WITHIN: (real, fake)} | counts, {"classes": details} if details else {}, warnings)

    def values(self, real: Indices, fake: Indices) -> Values:
        outcomes: dict[Key, Outcome] = {}
        for number, (key, resampling) in enumerate(self.classes.items()):
            of_real, of_fake = (self.index_in_class[side[self.class_of[side] == number]] for side in (real, fake))
            if len(of_real) or len(of_fake):
                outcomes[key] = _values(resampling, of_real, of_fake)
        return self._comparable(outcomes)

    def _comparable(self, outcomes: Mapping[Key, Outcome]) -> Values:
        """The values, without the mean where a class drops out of it: over other classes it is another quantity."""
        values = _combine(outcomes)
        if not all(isinstance(outcomes.get(key), Mapping) for key in self._in_mean):
            del values[next(iter(values))]  # the mean
        return values

    def values_without(self, parts: Sequence[Indices]) -> list[Values]:
        outcomes = [dict(self._outcomes) for _ in parts]
        for number, (key, resampling) in enumerate(self.classes.items()):
            if key in self._in_mean:
                in_class = [self.index_in_class[part[self.class_of[part] == number]] for part in parts]
                touched = [place for place, part in enumerate(in_class) if len(part)]
                changed = _values_without(resampling, [in_class[place] for place in touched])
                for place, outcome in zip(touched, changed, strict=True):
                    outcomes[place][key] = outcome
        return [self._comparable(outcome) for outcome in outcomes]

    def standard_errors(self) -> Values | None:
        errors: dict[Key, Outcome] = {}
        for key, values in self._in_mean.items():
            error, name = self.classes[key].standard_errors(), next(iter(values))
            if error is None or name not in error:
                return None
            errors[key] = {name: error[name]}
        # Classes hold different images, so that their values are independent.
        return _combine(errors, average=lambda of_classes: math.hypot(*of_classes) / len(of_classes))


def _resampling(inner: Metric, pool: Pool) -> Resampling:
    """The metric's own resampling; where that refuses the class, a plain one, which raises the metric's error."""
    try:
        return inner.resampling(pool) if min(pool.real.count, pool.fake.count) > 1 else Resampling(inner, pool)
    except GankitError:
        return Resampling(inner, pool)


def _attempt(compute: Callable[[], T], n_real: int, n_fake: int) -> T | GankitError:
    """What `compute` returns for a class with so many images, or the error that says why there is nothing."""
    if not n_real or not n_fake:
        return GankitError(f"it has no {'generated' if n_real else 'real'} images")
    try:
        return compute()
    except GankitError as error:
        return error


def _values(resampling: Resampling, real: Indices, fake: Indices) -> Outcome:
    return _attempt(lambda: resampling.values(real, fake), len(real), len(fake))


def _values_without(resampling: Resampling, parts: list[Indices]) -> list[Outcome]:
    """The outcome without each part: all at once if the resampling can, else each from the places that remain."""
    real, fake = resampling.pool.real_places, resampling.pool.fake_places

    def by_itself(part: Indices) -> Outcome:
        return _values(resampling, np.setdiff1d(real, part), np.setdiff1d(fake, part))

    n, m = len(real), len(fake)
    enough = [min(n - (part < n).sum(), m - (part >= n).sum()) >= 2 for part in parts]
    try:
        together = iter(resampling.values_without([part for part, fits in zip(parts, enough, strict=True) if fits]))
    except GankitError:  # some part leaves too little for the metric
        return [by_itself(part) for part in parts]
    return [next(together) if fits else by_itself(part) for part, fits in zip(parts, enough, strict=True)]
