"""Standard errors by the jackknife, values between real images, and permutation tests."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gankit import seeds
from gankit.errors import GankitError
from gankit.evaluation.design import Floats
from gankit.interfaces import Indices, Pool, Resampling
from gankit.registry import Part
from gankit.terminal.text import progress_bar

SPLITS = 10
"""Random divisions of the reals into halves: the real-against-real value is the mean over them."""
MOST_LEFT_OUT_SINGLY = 200
"""Up to this many images or patients the jackknife leaves out one at a time, else `Metric.jackknife_groups` groups."""
ROUNDING = 1e-9
"""Differences below this share of a value count as rounding errors."""

Values = Mapping[str, float]


def standard_errors(
    resampling: Resampling, values: Values, variances: Sequence[Mapping[str, float | None]] | None = None
) -> dict[str, float | None]:
    """The standard error of each value: in closed form if there is one and images are independent, else a jackknife's.

    Args:
        resampling: the metric's, of all images.
        values: the metric's values of all images, by name.
        variances: of the real and of the generated side, from `variances_of`, where they are known.
    """
    if closed := closed_form(resampling):
        return {name: closed.get(name) for name in values}
    variances = variances or [variances_of(influences(resampling, side, values)) for side in ("real", "fake")]
    errors: dict[str, float | None] = {}
    for name in values:
        of_sides = [variance.get(name) for variance in variances]
        error = math.sqrt(sum(variance for variance in of_sides if variance is not None))
        # No image changes a value at a bound, such as a precision of 0 or 1: its error is unknown, not 0.
        errors[name] = None if None in of_sides or error <= ROUNDING * abs(values[name]) else error
    return errors


def closed_form(resampling: Resampling) -> Mapping[str, float] | None:
    """Standard errors in closed form, which hold for independent images only."""
    pool = resampling.pool
    return resampling.standard_errors() if pool.real.groups is None and pool.fake.groups is None else None


def variances_of(side_influences: Mapping[str, Floats | None]) -> dict[str, float | None]:
    """One side's part of the variance of each value: the sum of squares of its (k,) `influences`."""
    return {name: None if each is None else float((each**2).sum()) for name, each in side_influences.items()}


def influences(resampling: Resampling, side: str, values: Values) -> dict[str, Floats | None]:
    """(k,) numbers for each value: how much leaving out each of k blocks of one side's images changes it.

    This is the jackknife of Efron and Stein 1981, generalised to blocks of different sizes by Busing, Meijer and Van
    der Leeden 1999 (Statistics and Computing 9, eq. 10). A block holds whole patients where images are grouped.

    The squares of a value's influences sum to this side's part of its variance. Where two generators are compared with
    the same reals, the squares of the differences of their influences sum to the reals' part of the variance of the
    difference. This needs the same blocks in both evaluations: they depend only on the number of images or patients.

    The result is empty with too few blocks or images. A value that cannot be computed without some block is None.
    """
    blocks = _jackknife_blocks(resampling, side)
    sizes = np.array([len(block) for block in blocks])
    if len(blocks) < 2 or sizes.sum() - sizes.max() < 2:
        return {}
    try:
        values_without = resampling.values_without(blocks)
    except GankitError:
        return {}
    shares = sizes / sizes.sum()
    result: dict[str, Floats | None] = {}
    for name, value in values.items():
        without = np.array([without_block.get(name, math.nan) for without_block in values_without])
        changes = _influences(value, without, shares)
        result[name] = changes if np.isfinite(changes).all() else None
    return result


def _jackknife_blocks(resampling: Resampling, side: str) -> list[Indices]:
    """The places in the pool of each block: one image or patient, or a random set of them where there are many."""
    pool = resampling.pool
    places, rows = (pool.real_places, pool.real) if side == "real" else (pool.fake_places, pool.fake)
    unit_of_image = number_groups(rows.groups, rows.count)
    block_of_unit = np.arange(int(unit_of_image.max()) + 1)
    if len(block_of_unit) > MOST_LEFT_OUT_SINGLY:
        block_of_unit = _shuffle(block_of_unit, 0, "jackknife") % resampling.metric.jackknife_groups
    block = block_of_unit[unit_of_image]
    return [places[block == number] for number in range(int(block.max()) + 1)]


def _influences(value: float, without: Floats, shares: Floats) -> Floats:
    """(k,) influences from the (k,) values without each block and the (k,) blocks' shares of the images.

    In the paper's notation, with T the value, T_-j the one without block j and h_j = 1 / share: pseudo-values
    h_j T - (h_j - 1) T_-j, their centre k T - sum (1 - 1 / h_j) T_-j, and a variance of
    sum (pseudo-value - centre)^2 / (h_j - 1) / k, whose terms are the squared influences.
    """
    k = len(shares)
    centre = k * value - float(((1 - shares) * without).sum())
    pseudo_values = value / shares - (1 / shares - 1) * without
    return (pseudo_values - centre) / np.sqrt((1 / shares - 1) * k)


def number_groups(groups: NDArray[Any] | None, count: int) -> Indices:
    """(count,) the number of each image's group (patient), from 0; without groups each image is its own."""
    return np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)


def real_against_real(resampling: Resampling, values: Values, seed: int) -> dict[str, dict[str, Any]]:
    """Mean values over ten random divisions of the reals: of the second half and of the fakes, against the first half.

    The second half stands for generated images, of which no two share a patient. Three cuts make this fair:

    - The second half keeps one image of each patient that is not in the first; the fakes keep one of each group.
    - Both then keep n images, as many as the division with the fewest has.
    - The first half keeps min(n_fake, n_real // 2).
    """
    divisions = [_divide(resampling.pool, seed, number) for number in range(SPLITS)]
    n = min(min(len(second), len(fakes)) for _, second, fakes in divisions)
    if n < 2:
        return {}
    try:
        of_second = _finite_means([resampling.values(first, second[:n]) for first, second, _ in divisions], values)
        of_fakes = _finite_means([resampling.values(first, fakes[:n]) for first, _, fakes in divisions], values)
    except GankitError:
        return {}
    return {
        name: {"value": mean, "n": n, "fake_value_at_n": of_fakes[name]}
        for name, mean in of_second.items()
        if name in of_fakes
    }


def _divide(pool: Pool, seed: int, number: int) -> tuple[Indices, Indices, Indices]:
    """A random division for `real_against_real`, which differs by its number.

    Returns the places in the pool of two halves of the reals, and of at most as many generated images. The reals
    are put in random order, patient by patient. So only the patient in the middle can be in both halves.
    """
    half = pool.real.count // 2
    most = min(pool.fake.count, half)
    patient, fake_patient = (number_groups(rows.groups, rows.count) for rows in (pool.real, pool.fake))
    rank_of_patient = _shuffle(np.arange(int(patient.max()) + 1), seed, "split", number)
    order = np.argsort(rank_of_patient[patient], kind="stable")
    # Shuffled within, since `real_against_real` keeps the first n of each.
    first = _shuffle(order[:half], seed, "first half", number)
    second = _shuffle(order[-half:], seed, "second half", number)
    second = _one_of_each(second[~np.isin(patient[second], patient[first])], patient)
    fakes = _one_of_each(_shuffle(np.arange(pool.fake.count), seed, "split of fakes", number), fake_patient)
    return first[:most], second[:most], pool.fake_places[fakes[:most]]


def _finite_means(splits: Sequence[Values], names: Iterable[str]) -> dict[str, float]:
    """The mean over splits of each value that every split has, where it is finite."""
    means = {name: float(np.mean([values.get(name, math.nan) for values in splits])) for name in names}
    return {name: mean for name, mean in means.items() if math.isfinite(mean)}


def _shuffle(places: Indices, seed: int, stream: str, *index: int) -> Indices:
    """The places in the random order of a stream."""
    order: Indices = torch.randperm(len(places), generator=seeds.generator(seed, stream, *index)).numpy()
    return np.asarray(places[order])


def _one_of_each(places: Indices, unit: Indices) -> Indices:
    """The first of these places for each unit, in their order."""
    first = np.sort(np.unique(unit[places], return_index=True)[1])
    return places[first]


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
        is_real = rank[unit] < n_real_units  # units of the lowest ranks play the reals
        return resampling.values(np.flatnonzero(is_real), np.flatnonzero(~is_real))

    n_units = int(unit.max()) + 1
    observed = {name: value for name, value in values_by_rank(np.arange(n_units)).items() if math.isfinite(value)}
    as_bad = dict.fromkeys(observed, 1)  # divisions with values as bad or worse; the observed one counts
    sign = 1 if better == "lower" else -1  # sign * value is larger for worse values
    for number in progress_bar(range(permutations), unit="permutation", desc=f"{part.name} by chance", delay=1):
        values = values_by_rank(_shuffle(np.arange(n_units), seed, "permutation", number))
        for name, value in observed.items():
            slack = ROUNDING * abs(value)  # equal divisions are ties, whatever the order of sums
            is_better = sign * values.get(name, math.nan) < sign * value - slack
            as_bad[name] += not is_better  # so that a value that is missing or NaN counts
    sizes = {"permutations": permutations, "n_real": pool.real.count, "n_fake": pool.fake.count}
    return {name: {"p_value": {"value": count / (permutations + 1), **sizes}} for name, count in as_bad.items()}


def _exchangeable(pool: Pool, seed: int) -> Pool:
    """The whole pool if all groups are of one size (1 without groups); else one random image of each group."""
    unit_of_image = [number_groups(rows.groups, rows.count) for rows in (pool.real, pool.fake)]
    if len({int(size) for unit in unit_of_image for size in np.bincount(unit)}) == 1:
        return pool
    chosen = []
    for offset, side, unit in zip((0, pool.real.count), ("real", "fake"), unit_of_image, strict=True):
        order = _shuffle(np.arange(len(unit)), seed, f"one of each {side} group")
        chosen.append(np.sort(_one_of_each(order, unit)) + offset)
    return pool.subset(np.concatenate(chosen))
