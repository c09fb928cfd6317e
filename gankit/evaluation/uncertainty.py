"""What belongs to a value: its standard error, real images against real ones, and how often chance does as much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from tqdm import tqdm

from gankit import seeds
from gankit.errors import GankitError
from gankit.interfaces import Metric, Pool, Resampling
from gankit.registry import Part

SPLITS = 10
"""Disjoint splits of the reals whose mean is the real-against-real value."""
LEAVE_ONE_OUT = 200
"""Up to so many images (groups) the jackknife leaves out one at a time; above, one of `Metric.jackknife_groups`."""

Values = dict[str, float]


def judged(part: Part, pool: Pool, seed: int, permutations: int = 0) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The values of a metric with all that belongs to them, and what a reader must know of them.

    Args:
        part: the metric.
        pool: real and generated images with what the metric needs.
        seed: of groups, splits and permutations.
        permutations: of a permutation test; 0 for none.

    Raises:
        GankitError: the metric cannot judge these images.
    """
    metric, resampling = gathered(part, pool), part.build().resampling(pool)
    values, counts, details = metric.compute(), metric.counts(), dict(metric.details())
    errors = standard_errors(metric, resampling, values, seed)
    floor = real_against_real(resampling, values, seed)
    cautions = metric.cautions({name: entry["value"] for name, entry in floor.items()})
    chances: dict[str, dict[str, Any]] = {}
    if permutations and metric.better:
        try:
            chances = p_values(part, pool, metric.better, permutations, seed)
        except GankitError as error:
            cautions = [*cautions, f"{part.name}: no p-value: some divisions have no value ({error})"]
    entries: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        n_real, n_fake = counts.get(name, (pool.real.count, pool.fake.count))
        if name in floor and n_real + n_fake:
            # Of a class, about as many as its share of each part.
            floor[name]["n"] = min(floor[name]["n"], n_fake or floor[name]["n"], max(n_real // 2, 1))
        entries[name] = {
            "value": value, "standard_error": errors[name], "n_real": n_real, "n_fake": n_fake,
            "real_vs_real": floor.get(name), **(chances.get(name, {}) if n_fake else {}), "metric": part.table(),
        }  # fmt: skip
    if details:
        entries[next(iter(entries))]["details"] = details
    return entries, cautions


def free_name(name: str, taken: Mapping[str, Any]) -> str:
    """A name for a value, numbered where an evaluation has two metrics of one name."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def gathered(part: Part, pool: Pool) -> Metric:
    """The metric after all images of a pool."""
    metric: Metric = part.build()
    for indices, real in ((pool.reals, True), (pool.fakes, False)):
        for batch in pool.batches(indices, real):
            metric.update(batch)
    if "training" in metric.needs:
        for batch in pool.training_batches():
            metric.update(batch)
    return metric


def standard_errors(
    metric: Metric,
    resampling: Resampling,
    values: Values,
    seed: int,
    variances: Sequence[Mapping[str, float | None]] | None = None,
) -> dict[str, float | None]:
    """Of each value: in closed form where the metric has one and images are independent, else the jackknife's.

    Args:
        metric: with all images.
        resampling: of the same.
        values: of all images.
        seed: of groups.
        variances: what `jackknife` gave of the real and of the generated side, where that is known.
    """
    pool = resampling.pool
    if "groups" not in pool.real.fields and "groups" not in pool.fake.fields:
        closed = resampling.standard_errors()
        if closed is not None:
            return {name: closed.get(name) for name in values}
    variances = variances or [
        jackknife(resampling, side, values, metric.jackknife_groups, seed) for side in ("real", "fake")
    ]
    errors: dict[str, float | None] = {}
    for name in values:
        found = [variance.get(name) for variance in variances]
        # A value that no image changes, such as a precision of 0, is at a bound: its error cannot be told.
        error = math.sqrt(sum(variance for variance in found if variance is not None))
        errors[name] = None if None in found or error == 0 else error
    return errors


def jackknife(resampling: Resampling, side: str, values: Values, groups: int, seed: int) -> dict[str, float | None]:
    """The variance of values as one side varies: the sum of squared `influences`, or None where there are none."""
    return squared(influences(resampling, side, values, groups, seed))


def squared(moved: Mapping[str, NDArray[np.float64] | None]) -> dict[str, float | None]:
    """Variances by `influences`, (k,) each."""
    return {name: None if each is None else float((each**2).sum()) for name, each in moved.items()}


def influences(
    resampling: Resampling, side: str, values: Values, groups: int, seed: int
) -> dict[str, NDArray[np.float64] | None]:
    """(k,) how far each of k parts of one side moves a value, by patients where the images have groups.

    The jackknife of Efron and Stein 1981; for parts of unlike sizes that of Busing, Meijer and Van der Leeden 1999
    (Statistics and Computing 9, eq. 10), which equals it for equal ones. The variance is the sum of squares; of the
    difference of two values beside the same images, that of the difference's. Empty where too few can be left out,
    None for a value that cannot be computed without some.
    """
    pool = resampling.pool
    places = pool.reals if side == "real" else pool.fakes
    names, unit = units(pool, side)
    if len(names) > LEAVE_ONE_OUT:
        order = torch.randperm(len(names), generator=seeds.generator(seed, "jackknife")).numpy()
        unit = (order % groups)[unit]
    parts = [places[unit == number] for number in range(int(unit.max()) + 1)]
    if len(parts) < 2 or len(places) - max(map(len, parts)) < 2:
        return {}
    try:
        left = resampling.left_out(parts)
    except GankitError:
        return {}
    moved: dict[str, NDArray[np.float64] | None] = {}
    share = np.array([len(part) for part in parts]) / len(places)  # 1 / h of the paper
    for name, value in values.items():
        found = np.array([each.get(name, math.nan) for each in left])
        estimate = len(parts) * value - float(((1 - share) * found).sum())
        pseudo = value / share - (1 / share - 1) * found
        each = (pseudo - estimate) / np.sqrt((1 / share - 1) * len(parts))
        moved[name] = each if np.isfinite(each).all() else None
    return moved


def units(pool: Pool, side: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """What varies independently: (k,) groups (patients) of a side's images, or images; and (n,) which one each is."""
    rows = pool.real if side == "real" else pool.fake
    names, unit = np.unique(rows.fields.get("groups", np.arange(rows.count)), return_inverse=True)
    return names, unit.reshape(-1)


def real_against_real(resampling: Resampling, values: Values, seed: int) -> dict[str, dict[str, Any]]:
    """Mean values of ten disjoint splits of the reals at n = min(n_fake, n_real // 2), and the fakes' beside them.

    Images of one patient are alike: with some in either part, the parts would look more alike than two samples. So the
    reals are divided into halves of which at most one group is in both, and n images are drawn from each.
    """
    pool = resampling.pool
    n = min(pool.fake.count, pool.real.count // 2)
    if n < 2:
        return {}
    middle = pool.real.count // 2
    names, unit = units(pool, "real")
    between: list[Values] = []
    beside: list[Values] = []
    try:
        for split in range(SPLITS):
            rank = torch.randperm(len(names), generator=seeds.generator(seed, "split", split)).numpy()
            order = np.argsort(rank[unit], kind="stable")
            drawn = torch.randperm(pool.fake.count, generator=seeds.generator(seed, "split of fakes", split)).numpy()
            reference, other = (
                half[torch.randperm(len(half), generator=seeds.generator(seed, f"{which} half", split)).numpy()[:n]]
                for which, half in (("first", order[:middle]), ("second", order[-middle:]))
            )
            between.append(resampling.values(reference, other))
            beside.append(resampling.values(reference, pool.fakes[drawn[:n]]))
    except GankitError:
        return {}
    means = [{name: float(np.mean([v.get(name, math.nan) for v in found])) for name in values} for found in
             (between, beside)]  # fmt: skip
    return {
        name: {"value": means[0][name], "n": n, "fake_value_at_n": means[1][name]}
        for name in values
        if math.isfinite(means[0][name]) and math.isfinite(means[1][name])
    }


def p_values(part: Part, pool: Pool, better: str, permutations: int, seed: int) -> dict[str, dict[str, Any]]:
    """How often a random division of all images into two sets gives values at least as bad: a permutation test.

    Valid at any n where images are exchangeable. Whole groups are exchanged where both sides have groups of one size;
    else one image of each group takes part.

    Raises:
        GankitError: a division has too few images for the metric.
    """
    pool = _one_image_a_group(pool, seed)
    resampling: Resampling = part.build().resampling(pool)
    _, real_unit = units(pool, "real")
    _, fake_unit = units(pool, "fake")
    reals = int(real_unit.max()) + 1
    unit = np.concatenate([real_unit, fake_unit + reals])
    everything = np.arange(len(unit))

    def divided(rank: NDArray[np.int64]) -> Values:
        is_real = rank[unit] < reals
        return resampling.values(everything[is_real], everything[~is_real])

    every = int(unit.max()) + 1
    observed = divided(np.arange(every))
    worse = dict.fromkeys(observed, 1)
    sign = 1 if better == "lower" else -1
    for number in tqdm(range(permutations), unit="permutation", desc=f"{part.name} by chance", delay=1):
        values = divided(torch.randperm(every, generator=seeds.generator(seed, "permutation", number)).numpy())
        for name, value in observed.items():
            slack = 1e-9 * abs(value)  # equal divisions are ties, whatever the order of sums
            worse[name] += sign * values.get(name, math.inf * sign) >= sign * value - slack
    known = {"permutations": permutations, "n_real": pool.real.count, "n_fake": pool.fake.count}
    return {name: {"p_value": {"value": count / (permutations + 1), **known}} for name, count in worse.items()}


def _one_image_a_group(pool: Pool, seed: int) -> Pool:
    """The pool as it is where its units are exchangeable: single images, or groups of one size on both sides."""
    known = [units(pool, side)[1] for side in ("real", "fake")]
    if len({int(size) for unit in known for size in np.bincount(unit)}) == 1:
        return pool
    chosen = []
    for offset, side, unit in zip((0, pool.real.count), ("real", "fake"), known, strict=True):
        order = torch.randperm(len(unit), generator=seeds.generator(seed, f"one of each {side} group")).numpy()
        _, first = np.unique(unit[order], return_index=True)
        chosen.append(np.sort(order[first]) + offset)
    return pool.subset(np.concatenate(chosen))


def wilson(hits: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22, 209).

    Args:
        hits: cases that count, 0 to n, not necessarily whole.
        n: independent cases, not necessarily whole; of none the interval is (0, 1).
        level: of the interval.
    """
    if not n:
        return 0.0, 1.0
    z, share = float(norm.ppf((1 + level) / 2)), hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Exactly 0 and 1 at the ends, which rounding would miss.
    return (0.0 if hits <= 0 else middle - half), (1.0 if hits >= n else middle + half)
