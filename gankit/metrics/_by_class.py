"""Images by class, and a metric's values within each: for intra-FID of Miyato and Koyama 2018, arXiv 1802.05637."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gankit.errors import GankitError
from gankit.interfaces import Indices, Metric, Pool, Resampling, Rows

Key = str | int
"""A class: its name, or its number where no names were told."""
Names = frozenset[tuple[str, ...]]
"""The lists of class names that were told."""
WITHIN = " within classes"
"""What the mean over the classes is called, after the metric's value."""
Result = dict[str, float] | GankitError
"""A metric's values within a class, or why there are none."""


def places_by_class(
    labels: NDArray[Any] | None, names: tuple[str, ...] | None, real: bool, count: int
) -> dict[Key, Indices]:
    """Where the images of each class are.

    Args:
        labels: (n,) classes.
        names: one a class, or None.
        real: whose labels they are, for the message.
        count: number of images.

    Raises:
        GankitError: no labels, or labels that are no classes or have no name.
    """
    side = "real" if real else "generated"
    if not count:
        return {}
    if labels is None:
        advice = "give a data set with classes" if real else "train conditionally, or give a folder with labels"
        raise GankitError(f"intra-class needs the class of each image, and the {side} images have no labels; {advice}")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise GankitError(
            f"intra-class needs labels that are classes, and those of the {side} images are {labels.dtype} of the "
            f"shape {labels.shape}; train on classes in place of conditions, or leave out this metric"
        )
    if len(labels) != count:
        raise GankitError(f"intra-class: the {side} images have {len(labels)} labels for {count} images")
    if labels.min() < 0:
        raise GankitError(f"intra-class: the {side} images have the label {labels.min()}; classes are numbered from 0")
    if names is not None and labels.max() >= len(names):
        raise GankitError(
            f"intra-class: the {side} images have the label {labels.max()} and {len(names)} class names, for 0 to "
            f"{len(names) - 1}; give each class a name"
        )
    return {
        names[label] if names else int(label): np.flatnonzero(labels == label)
        for label in np.unique(labels)
    }  # fmt: skip


def known_classes(keys: Iterable[Key], names: Names) -> dict[Key, list[Key]]:
    """The classes in order, each with the keys it goes by; numbers are told apart from names where names are known.

    Raises:
        GankitError: numbers that no single list of names explains.
    """
    place = {name: number for told in sorted(names, reverse=True) for number, name in enumerate(told)}
    classes: dict[Key, list[Key]] = {}
    for key in keys:
        known = key
        if names and isinstance(key, int):
            if len(names) > 1:
                raise GankitError(
                    f"intra-class: label {key} has no class name, and the names that others have differ: "
                    f"{' and '.join(', '.join(told) for told in sorted(names))}; give all images class names"
                )
            (told,) = names
            if key >= len(told):
                raise GankitError(f"intra-class: there is a label {key} and only {len(told)} class names")
            known = told[key]
        classes.setdefault(known, []).append(key)
    return dict(sorted(classes.items(), key=lambda item: (place.get(str(item[0]), 0), item[0])))


def lacking(real: int, fake: int) -> GankitError | None:
    """Why a class cannot be judged whatever the metric."""
    side = "real" if not real else "generated" if not fake else ""
    return GankitError(f"it has no {side} images") if side else None


def combined(results: Mapping[Key, Result]) -> dict[str, float]:
    """The unweighted mean over the classes of the first value, and that value of each class.

    Raises:
        GankitError: no class has values.
    """
    kept = {key: next(iter(result.items())) for key, result in results.items() if isinstance(result, dict)}
    if not kept:
        reasons = [f"{key}: {result}" for key, result in results.items()]
        told = "; ".join(reasons[:3]) + ("; ..." if len(reasons) > 3 else "")
        raise GankitError(f"intra-class: no class has enough images on both sides ({told or 'there are no images'})")
    name = next(iter(kept.values()))[0]
    mean = {name + WITHIN: float(np.mean([value for _, value in kept.values()]))}
    return mean | {f"{name} of {key}": value for key, (_, value) in kept.items()}


class ByClass(Resampling):
    """Values within classes of a pool, each by the inner metric's own resampling of that class."""

    def __init__(self, metric: Metric, inner: Metric, pool: Pool) -> None:
        super().__init__(metric, pool)
        sides = [
            places_by_class(rows.fields.get("labels"), rows.class_names, real, rows.count)
            for rows, real in ((pool.real, True), (pool.fake, False), (pool.training, True))
            if rows is not None
        ]
        told = (rows.class_names for rows in (pool.real, pool.fake, pool.training) if rows is not None)
        names: Names = frozenset(names for names in told if names)
        wanted = {*inner.needs, "groups", "ids"}
        lean = Pool(_lean(pool.real, wanted), _lean(pool.fake, wanted))
        training = None if pool.training is None else _lean(pool.training, wanted)
        self.of = np.zeros(pool.real.count + pool.fake.count, dtype=np.int64)
        self.local = np.zeros_like(self.of)
        self.classes: dict[Key, Resampling] = {}
        offsets = (0, pool.real.count)
        for number, (known, keys) in enumerate(
            known_classes(dict.fromkeys(key for side in sides for key in side), names).items()
        ):
            own = [np.concatenate([side.get(key, np.array([], dtype=np.int64)) for key in keys]) for side in sides]
            places = np.sort(np.concatenate([places + offset for places, offset in zip(own, offsets, strict=False)]))
            self.of[places], self.local[places] = number, np.arange(len(places))
            part = lean.subset(places)
            if training is not None:
                part = Pool(part.real, part.fake, training.take(np.sort(own[2])))
            few = min(part.real.count, part.fake.count) < 2
            self.classes[known] = Resampling(inner, part) if few else inner.resampling(part)

    @cached_property
    def _whole(self) -> dict[Key, Result]:
        return self._results(self.pool.reals, self.pool.fakes)

    def values(self, real: Indices, fake: Indices) -> dict[str, float]:
        """As for any metric, but without the mean where a class drops out of it."""
        return self._of_all(self._results(real, fake))

    def _of_all(self, results: dict[Key, Result]) -> dict[str, float]:
        values = combined(results)
        if any(
            isinstance(found, dict) and not isinstance(results.get(key), dict) for key, found in self._whole.items()
        ):
            # The mean over other classes is another quantity, to be compared with nothing.
            del values[next(iter(values))]
        return values

    def left_out(self, parts: Sequence[Indices]) -> list[dict[str, float]]:
        """As `values`."""
        whole = self._whole
        results = [dict(whole) for _ in parts]
        for number, (key, resampling) in enumerate(self.classes.items()):
            if isinstance(whole.get(key), dict):
                own = [self.local[part[self.of[part] == number]] for part in parts]
                touched = [place for place, part in enumerate(own) if len(part)]
                left = _left_out(resampling, [own[place] for place in touched])
                for place, found in zip(touched, left, strict=True):
                    results[place][key] = found
        return [self._of_all(each) for each in results]

    def standard_errors(self) -> dict[str, float] | None:
        errors: dict[Key, Result] = {}
        for key, result in self._whole.items():
            if isinstance(result, dict):
                error = self.classes[key].standard_errors()
                name = next(iter(result))
                if error is None or name not in error:
                    return None
                errors[key] = {name: error[name]}
        # Classes hold different images, so that their values are independent.
        values = combined(errors)
        mean = next(iter(values))
        return values | {mean: math.hypot(*list(values.values())[1:]) / len(errors)}

    def _results(self, real: Indices, fake: Indices) -> dict[Key, Result]:
        results: dict[Key, Result] = {}
        for number, (key, resampling) in enumerate(self.classes.items()):
            own, other = (self.local[side[self.of[side] == number]] for side in (real, fake))
            if len(own) or len(other):
                results[key] = _result(resampling, own, other)
        return results


def _result(resampling: Resampling, real: Indices, fake: Indices) -> Result:
    reason = lacking(len(real), len(fake))
    if reason is not None:
        return reason
    try:
        return resampling.values(real, fake)
    except GankitError as error:
        return error


def _left_out(resampling: Resampling, parts: list[Indices]) -> list[Result]:
    n, m = resampling.pool.real.count, resampling.pool.fake.count
    enough = [min(n - (part < n).sum(), m - (part >= n).sum()) >= 2 for part in parts]
    try:
        shared = iter(resampling.left_out([part for part, fits in zip(parts, enough, strict=True) if fits]))
    except GankitError:  # of some of them: one at a time
        enough = [False] * len(parts)
    reals, fakes = resampling.pool.reals, resampling.pool.fakes
    return [
        next(shared) if fits else _result(resampling, np.setdiff1d(reals, part), np.setdiff1d(fakes, part))
        for part, fits in zip(parts, enough, strict=True)
    ]


def _lean(rows: Rows, wanted: set[str]) -> Rows:
    fields = {name: values for name, values in rows.fields.items() if name in wanted}
    return Rows(fields, rows.count, rows.value_range, rows.class_names)
