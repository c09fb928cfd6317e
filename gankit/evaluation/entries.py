"""The entries of a metrics file: values of metrics, each with its standard error, baseline and p-value."""

import itertools
import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from gankit.errors import GankitError
from gankit.evaluation.extraction import as_part
from gankit.evaluation.uncertainty import (
    Values,
    closed_form,
    influences,
    p_values,
    real_against_real,
    standard_errors,
    variances_of,
)
from gankit.interfaces import Metric, Pool, Resampling, Result
from gankit.registry import Part

MOST_WITH_INFLUENCES = 2000
"""With more images on a side, `influences`, which are slow, are left out if there is an error in closed form."""


def evaluate_metrics(
    parts: Sequence[Part], pool: Pool, seed: int, permutations: int = 0, by_default: bool = False
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The entries of a metrics file for some metrics, by the names of their values, and warnings.

    Of metrics that nobody chose (`by_default`), those that cannot judge the images are left out with a warning, and kid
    within classes is added where both sides have several classes. Other arguments are those of `evaluate_metric`.

    Raises:
        GankitError: a metric cannot judge these images; with `by_default` only if none can.
    """
    chosen = [*parts]
    if by_default and _has_classes(pool):
        chosen.append(as_part("metric", {"name": "intra-class", "metric": "kid"}))
    values: dict[str, dict[str, Any]] = {}
    warnings = []
    for part in chosen:
        try:
            entries, its_warnings = evaluate_metric(part, pool, seed, permutations)
        except GankitError as error:
            none_can = part is parts[-1] and not values  # nor can kid within classes, which needs more images
            if none_can or not by_default:
                raise
            warnings.append(f"{part.name} is left out: {error}")
            continue
        warnings += its_warnings
        for name, entry in entries.items():
            values[free_name(name, values)] = entry
    if permutations and not any("p_value" in entry for entry in values.values()):
        warnings.append("no p-values: of these metrics, neither larger nor smaller values are better")
    return values, warnings


def _has_classes(pool: Pool) -> bool:
    """Whether each side has images of several classes."""
    labels = [rows.labels for rows in (pool.real, pool.fake)]
    return all(classes is not None and classes.ndim == 1 and len(np.unique(classes)) > 1 for classes in labels)


def evaluate_metric(
    part: Part, pool: Pool, seed: int, permutations: int = 0
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The entries of a metrics file for one metric, by the names of its values, and the warnings that belong to them.

    `pool` has the real and generated images with what the metric needs. `seed` is that of groups, splits and
    permutations; `permutations` are those of a permutation test, 0 for none.

    Raises:
        GankitError: the metric cannot judge these images.
    """
    metric: Metric = part.build()
    statistics = pool.real.statistics
    errors: Mapping[str, float | None] = {}
    contributions: dict[str, dict[str, Any]] = {}
    between_reals: dict[str, dict[str, Any]] = {}
    if statistics is not None:  # no images to resample
        result = Result.of(metric, pool.real, pool.fake)
    else:
        resampling = metric.resampling(pool)
        result = resampling.whole()
        errors, contributions = _errors_of(resampling, result.values)
        between_reals = real_against_real(resampling, result.values, seed)
    warnings = [*result.warnings, *metric.warnings({name: entry["value"] for name, entry in between_reals.items()})]
    p_entries: dict[str, dict[str, Any]] = {}
    if permutations and metric.better:
        try:
            p_entries = p_values(part, pool, metric.better, permutations, seed)
        except GankitError as error:
            warnings.append(f"{part.name}: no p-value: it cannot be computed for some random regroupings ({error})")
    n_real = pool.real.count if statistics is None else statistics.n
    entries: dict[str, dict[str, Any]] = {}
    for name, value in result.values.items():
        n, m = result.counts.get(name, (n_real, pool.fake.count))
        standard_error = errors.get(name)
        if standard_error is not None and metric.meaning(name).share and standard_error**2 > value * (1 - value):
            standard_error = None  # the jackknife has failed: numbers in [0, 1] with this mean cannot spread so far
        entries[name] = {
            "value": value,
            "standard_error": standard_error,
            "n_real": n,
            "n_fake": m,
            "real_vs_real": _baseline(between_reals.get(name), n, m),
            **(p_entries.get(name, {}) if m else {}),  # m is 0 for a value of the reals alone
            "metric": part.table(),
            **contributions.get(name, {}),
        }
    if result.details:
        entries[next(iter(entries))]["details"] = dict(result.details)
    return entries, warnings


def _errors_of(resampling: Resampling, values: Values) -> tuple[Mapping[str, float | None], dict[str, dict[str, Any]]]:
    """Standard errors of the values of all images, and what each side contributes to them, which `compare` reads.

    An error is None, and a name missing among the contributions, where it is not known.
    """
    larger_side = max(resampling.pool.real.count, resampling.pool.fake.count)
    if larger_side > MOST_WITH_INFLUENCES and closed_form(resampling) is not None:
        return standard_errors(resampling, values), {}
    real_influences = influences(resampling, "real", values)
    fake_variances = variances_of(influences(resampling, "fake", values))
    errors = standard_errors(resampling, values, [variances_of(real_influences), fake_variances])
    contributions = {}
    for name, of_reals in real_influences.items():
        if of_reals is not None and (of_fakes := fake_variances.get(name)) is not None:
            short = [float(f"{each:.4g}") for each in of_reals]  # hundreds of numbers in a file that people read
            contributions[name] = {"real_influences": short, "fake_variance": of_fakes}
    return errors, contributions


def _baseline(found: dict[str, Any] | None, n: int | None, m: int) -> dict[str, Any] | None:
    """What `real_against_real` found, "n" cut to what a value uses: n real (None: unknown) and m generated images."""
    if found is None or n is None or n + m == 0:
        return found
    used = min(found["n"], max(n // 2, 1)) if n else found["n"]
    return found | {"n": min(used, m) if m else used}


def unnumbered(name: str, entries: Mapping[str, Mapping[str, Any]]) -> str:
    """The name that a value had before `free_name` numbered it: "kid" for "kid-2" of other settings than "kid".

    A number that ends a class's name stays: "kid of grade-2" and "kid of grade" are values of one metric.
    """
    base = re.sub(r"-\d+$", "", name)
    return base if base in entries and entries[base]["metric"] != entries[name]["metric"] else name


def free_name(name: str, taken: Container[str]) -> str:
    """The name of a value, or where it is taken the name with the next free number: "kid-2"."""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(free for free in itertools.chain([name], numbered) if free not in taken)
