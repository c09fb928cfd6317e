"""Standard errors, real-against-real baselines, and p-values of a metric's values."""

import itertools
import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from gankit import seeds
from gankit.errors import GankitError
from gankit.evaluation.extraction import as_part
from gankit.interfaces import Indices, Metric, Pool, Resampling, Result
from gankit.registry import Part
from gankit.terminal.text import progress_bar

SPLITS = 10
"""Disjoint splits of the reals whose mean is the real-against-real value."""
LEAVE_ONE_OUT = 200
"""Up to this many images or patients the jackknife leaves out one at a time, else `Metric.jackknife_groups` groups."""
MOST_WITH_INFLUENCES = 2000
"""With more images on a side, `influences`, which are slow, are left out if there is an error in closed form."""
ROUNDING = 1e-9
"""Differences below this share of a value count as rounding errors."""

Values = Mapping[str, float]


def evaluate_metrics(
    parts: Sequence[Part], pool: Pool, seed: int, permutations: int = 0, by_default: bool = False
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The entries of a metrics file for some metrics, by the names of their values, and warnings.

    Of metrics that nobody chose (`by_default`), those that cannot judge the images are left out with a warning, and kid
    within classes follows where both sides have several classes. Other arguments are those of `evaluate_metric`.

    Raises:
        GankitError: a metric cannot judge these images; of default ones, all of them.
    """
    by_class = (
        [as_part("metric", {"name": "intra-class", "metric": "kid"})] if by_default and _has_classes(pool) else []
    )
    values: dict[str, dict[str, Any]] = {}
    warnings = []
    for part in [*parts, *by_class]:
        try:
            entries, of_metric = evaluate_metric(part, pool, seed, permutations)
        except GankitError as error:
            if not by_default or (part is parts[-1] and not values):
                raise
            warnings.append(f"{part.name} is left out: {error}")
            continue
        warnings += of_metric
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

    Args:
        part: the metric.
        pool: real and generated images with what the metric needs.
        seed: of groups, splits and permutations.
        permutations: of a permutation test; 0 for none.

    Raises:
        GankitError: the metric cannot judge these images.
    """
    metric: Metric = part.build()
    n_real: int | None = pool.real.count
    n_fake = pool.fake.count
    errors: Mapping[str, float | None] = {}
    real_influences: Mapping[str, NDArray[np.float64] | None] = {}
    fake_variances: Mapping[str, float | None] = {}
    between_reals: dict[str, dict[str, Any]] = {}
    if pool.real.statistics is not None:  # no images to resample
        n_real = pool.real.statistics.n
        result = Result.of(metric, pool.real, pool.fake)
    else:
        resampling = metric.resampling(pool)
        result = resampling.whole()
        variances = []
        if max(pool.real.count, pool.fake.count) <= MOST_WITH_INFLUENCES or _closed_form(resampling) is None:
            real_influences = influences(resampling, "real", result.values)
            fake_variances = variances_of(influences(resampling, "fake", result.values))
            variances = [variances_of(real_influences), fake_variances]
        errors = standard_errors(resampling, result.values, variances)
        between_reals = real_against_real(resampling, result.values, seed)
    warnings = [*result.warnings, *metric.warnings({name: entry["value"] for name, entry in between_reals.items()})]
    p_entries: dict[str, dict[str, Any]] = {}
    if permutations and metric.better:
        try:
            p_entries = p_values(part, pool, metric.better, permutations, seed)
        except GankitError as error:
            warnings.append(f"{part.name}: no p-value: it cannot be computed for some random regroupings ({error})")
    entries: dict[str, dict[str, Any]] = {}
    for name, value in result.values.items():
        n, m = result.counts.get(name, (n_real, n_fake))
        if name in between_reals and n is not None and n + m:
            # A half has at most n // 2 of the n reals that a value uses; m is 0 for a value of the reals alone.
            baseline = between_reals[name]
            baseline["n"] = min(baseline["n"], m or baseline["n"], max(n // 2, 1))
        standard_error = errors.get(name)
        if standard_error is not None and metric.meaning(name).share and standard_error**2 > value * (1 - value):
            standard_error = None  # numbers in [0, 1] with this mean cannot spread so far: the jackknife has failed
        entries[name] = {
            "value": value, "standard_error": standard_error, "n_real": n, "n_fake": m,
            "real_vs_real": between_reals.get(name), **(p_entries.get(name, {}) if m else {}), "metric": part.table(),
        }  # fmt: skip
        of_reals, of_fakes = real_influences.get(name), fake_variances.get(name)
        if of_reals is not None and of_fakes is not None:  # for `compare`, where two values share their reals
            entries[name]["real_influences"] = [float(f"{influence:.4g}") for influence in of_reals]
            entries[name]["fake_variance"] = of_fakes
    if result.details:
        entries[next(iter(entries))]["details"] = dict(result.details)
    return entries, warnings


def free_name(name: str, taken: Container[str]) -> str:
    """The name of a value, or where it is taken the name with the next free number: "kid-2"."""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(free for free in itertools.chain([name], numbered) if free not in taken)


def standard_errors(
    resampling: Resampling, values: Values, variances: Sequence[Mapping[str, float | None]] | None = None
) -> dict[str, float | None]:
    """The standard error of each value: in closed form if there is one and images are independent, else a jackknife's.

    Args:
        resampling: of all images.
        values: of all images.
        variances: of the real and of the generated side, from `variances_of`, where they are known.
    """
    if closed := _closed_form(resampling):
        return {name: closed.get(name) for name in values}
    variances = variances or [variances_of(influences(resampling, side, values)) for side in ("real", "fake")]
    errors: dict[str, float | None] = {}
    for name in values:
        of_sides = [variance.get(name) for variance in variances]
        # A value that no image changes beyond rounding, such as a precision of 0 or 1, is at a bound: its error is
        # unknown.
        error = math.sqrt(sum(variance for variance in of_sides if variance is not None))
        errors[name] = None if None in of_sides or error <= ROUNDING * abs(values[name]) else error
    return errors


def _closed_form(resampling: Resampling) -> Mapping[str, float] | None:
    """Standard errors in closed form, which hold for independent images only."""
    sides = resampling.pool.real, resampling.pool.fake
    return resampling.standard_errors() if all(rows.groups is None for rows in sides) else None


def variances_of(of_side: Mapping[str, NDArray[np.float64] | None]) -> dict[str, float | None]:
    """The sum of squares of each value's (k,) `influences`, which are those of one side."""
    return {name: None if changes is None else float((changes**2).sum()) for name, changes in of_side.items()}


def influences(resampling: Resampling, side: str, values: Values) -> dict[str, NDArray[np.float64] | None]:
    """(k,) numbers for each value: how much leaving out each of k blocks of one side's images changes it.

    This is the jackknife of Efron and Stein 1981, generalised to blocks of different sizes by Busing, Meijer and Van
    der Leeden 1999 (Statistics and Computing 9, eq. 10). A block holds whole patients where images are grouped.

    The squares of a value's influences sum to this side's part of its variance. Where two generators are compared with
    the same reals, the squares of the differences of their influences sum to the reals' part of the variance of the
    difference: therefore the blocks depend on the number of units alone.

    The result is empty with too few blocks or images, and None for a value that is missing without some block.
    """
    pool = resampling.pool
    places = pool.real_places if side == "real" else pool.fake_places
    rows = pool.real if side == "real" else pool.fake
    unit = number_groups(rows.groups, rows.count)
    n_units = int(unit.max()) + 1
    if n_units > LEAVE_ONE_OUT:
        order = _shuffle(np.arange(n_units), 0, "jackknife")
        unit = (order % resampling.metric.jackknife_groups)[unit]
    parts = [places[unit == number] for number in range(int(unit.max()) + 1)]
    if len(parts) < 2 or len(places) - max(map(len, parts)) < 2:
        return {}
    try:
        values_without = resampling.values_without(parts)
    except GankitError:
        return {}
    result: dict[str, NDArray[np.float64] | None] = {}
    share = np.array([len(part) for part in parts]) / len(places)  # 1 / h of the paper
    for name, value in values.items():
        without = np.array([of_part.get(name, math.nan) for of_part in values_without])
        estimate = len(parts) * value - float(((1 - share) * without).sum())
        pseudo = value / share - (1 / share - 1) * without
        influence = (pseudo - estimate) / np.sqrt((1 / share - 1) * len(parts))
        result[name] = influence if np.isfinite(influence).all() else None
    return result


def number_groups(groups: NDArray[Any] | None, count: int) -> Indices:
    """(count,) the number of each image's group (patient), from 0; without groups each image is its own."""
    return np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)


def real_against_real(resampling: Resampling, values: Values, seed: int) -> dict[str, dict[str, Any]]:
    """Mean values over ten random divisions of the reals: the second half, and the fakes, each beside the first half.

    The second half stands for generated images. Images of one patient look alike, generated ones do not: so it is cut
    to one image of each patient that is not in the first half, and generated images with groups to one of each group.
    Both are then cut to n images, as many as every division has, and the first half to min(n_fake, n_real // 2).
    """
    pool = resampling.pool
    most, middle = min(pool.fake.count, pool.real.count // 2), pool.real.count // 2
    unit, fake_unit = (number_groups(rows.groups, rows.count) for rows in (pool.real, pool.fake))
    divisions: list[tuple[Indices, Indices, Indices]] = []
    for split in range(SPLITS):
        rank = _shuffle(np.arange(int(unit.max()) + 1), seed, "split", split)
        order = np.argsort(rank[unit], kind="stable")
        first = _shuffle(order[:middle], seed, "first half", split)
        second = _shuffle(order[-middle:], seed, "second half", split)
        second = _one_of_each(second[~np.isin(unit[second], unit[first])], unit)
        fakes = _one_of_each(_shuffle(np.arange(pool.fake.count), seed, "split of fakes", split), fake_unit)
        divisions.append((first[:most], second[:most], pool.fake_places[fakes[:most]]))
    n = min(len(part) for division in divisions for part in division[1:])
    if n < 2:
        return {}
    real_values: list[Values] = []
    fake_values: list[Values] = []
    try:
        for reference, other, fakes in divisions:
            real_values.append(resampling.values(reference, other[:n]))
            fake_values.append(resampling.values(reference, fakes[:n]))
    except GankitError:
        return {}
    real_means, fake_means = (
        {name: float(np.mean([split.get(name, math.nan) for split in splits])) for name in values}
        for splits in (real_values, fake_values)
    )
    return {
        name: {"value": real_means[name], "n": n, "fake_value_at_n": fake_means[name]}
        for name in values
        if math.isfinite(real_means[name]) and math.isfinite(fake_means[name])
    }


def _shuffle(places: Indices, seed: int, stream: str, *index: int) -> Indices:
    """The places in the random order of a stream."""
    order: Indices = torch.randperm(len(places), generator=seeds.generator(seed, stream, *index)).numpy()
    return np.asarray(places[order])


def _one_of_each(places: Indices, unit: Indices) -> Indices:
    """The first of these places for each unit, in their order."""
    first = np.sort(np.unique(unit[places], return_index=True)[1])
    chosen: Indices = places[first]
    return chosen


def p_values(part: Part, pool: Pool, better: str, permutations: int, seed: int) -> dict[str, dict[str, Any]]:
    """How often a random division of all images into two sets gives values as bad or worse: a permutation test.

    Valid at any n where images are exchangeable. Whole groups are exchanged where both sides have groups of one size;
    else one image of each group takes part.

    Raises:
        GankitError: a division has too few images for the metric.
    """
    pool = _exchangeable(pool, seed)
    resampling: Resampling = part.build().resampling(pool)
    real_unit, fake_unit = (number_groups(rows.groups, rows.count) for rows in (pool.real, pool.fake))
    n_real_units = int(real_unit.max()) + 1
    unit = np.concatenate([real_unit, fake_unit + n_real_units])

    def values_by_rank(rank: NDArray[np.int64]) -> Values:
        is_real = rank[unit] < n_real_units
        return resampling.values(np.flatnonzero(is_real), np.flatnonzero(~is_real))

    n_units = int(unit.max()) + 1
    observed = values_by_rank(np.arange(n_units))
    worse = dict.fromkeys(observed, 1)  # divisions with values as bad or worse; the observed one counts
    sign = 1 if better == "lower" else -1  # sign * value is larger for worse values
    for number in progress_bar(range(permutations), unit="permutation", desc=f"{part.name} by chance", delay=1):
        values = values_by_rank(_shuffle(np.arange(n_units), seed, "permutation", number))
        for name, value in observed.items():
            slack = ROUNDING * abs(value)  # equal divisions are ties, whatever the order of sums
            by_chance = values.get(name, math.inf * sign)  # a missing value is worse
            worse[name] += sign * by_chance >= sign * value - slack
    sizes = {"permutations": permutations, "n_real": pool.real.count, "n_fake": pool.fake.count}
    return {name: {"p_value": {"value": count / (permutations + 1), **sizes}} for name, count in worse.items()}


def _exchangeable(pool: Pool, seed: int) -> Pool:
    """The whole pool if all groups are of one size, as single images are; else one random image of each group."""
    unit_of_image = [number_groups(rows.groups, rows.count) for rows in (pool.real, pool.fake)]
    if len({int(size) for unit in unit_of_image for size in np.bincount(unit)}) == 1:
        return pool
    chosen = []
    for offset, side, unit in zip((0, pool.real.count), ("real", "fake"), unit_of_image, strict=True):
        order = _shuffle(np.arange(len(unit)), seed, f"one of each {side} group")
        chosen.append(np.sort(_one_of_each(order, unit)) + offset)
    return pool.subset(np.concatenate(chosen))


def wilson(hits: float, n: float) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22, 209).

    Args:
        hits: cases that count, 0 to n, not necessarily whole.
        n: independent cases, not necessarily whole; of none the interval is (0, 1).
    """
    if not n:
        return 0.0, 1.0
    z, share = float(ndtri(0.975)), hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Exactly 0 and 1 at the ends, which rounding would miss.
    return (0.0 if hits <= 0 else middle - half), (1.0 if hits >= n else middle + half)
