"""Differences of arms, with intervals that allow for the choice of real images and for how much trainings differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gankit.evaluation.design import ROUNDING, VariancePart, mean_of_known, student_quantile, variance_of_mean
from gankit.studies.agreement.arms import Arm
from gankit.studies.agreement.findings import Estimate, Findings, Where

CANNOT = "cannot be told"

Compared = Sequence[tuple[Estimate, Estimate]]  # the values of the first and of the second arm of each pair


@dataclass(frozen=True)
class Difference:
    """One arm's value minus another's, or the mean of several such differences."""

    value: float
    low: float  # lower end of its 95 % interval, -infinity where its error is unknown
    high: float  # upper end, then infinity
    whole: bool  # whether the interval allows for how much trainings differ; without several seeds it cannot
    matched: int  # pairs of trainings of the same seed over which it is taken; 0 where trainings are not paired
    by_pairs: bool = False  # whether its error follows from the spread of these pairs, not from that between trainings

    @property
    def error_known(self) -> bool:
        """Whether there is an interval at all, be it of sampling alone."""
        return math.isfinite(self.high)

    @property
    def verdict(self) -> str:
        """ "lower", "higher", or "cannot be told"; the last also where it is unknown how much trainings differ."""
        if not self.whole or self.low <= 0 <= self.high:
            return CANNOT
        return "lower" if self.high < 0 else "higher"


def contrast(
    findings: Findings, pairs: Sequence[tuple[Arm, Arm]], where: Where, *, same_reals: bool
) -> Difference | None:
    """The value of the second arm of a pair minus that of the first, mean over pairs; None where an arm has none.

    Trainings of one seed (and one warm start) have much in common. Where several arms share several seeds, values are
    means over the seeds that both arms of a pair have; elsewhere over all trainings of each arm.

    The interval is Student's. Its variance is that from the real images (`_real_variance`) plus that from trainings:

    - Seeds are shared: the variance that arm and seed leave unexplained (`_residual`), divided by the number of
      trainings of each arm.
    - The same, but with several pairs and an arm that was trained once: the variance between the pairs' differences,
      divided by the number of pairs. A residual of other arms would not show how this arm and the seed interact.
    - No seeds are shared: the variance between trainings of one arm (`_unpaired`), divided by their number.

    Where neither real images nor trainings make a difference, the error is unknown, and the interval infinite.

    `same_reals` says whether both arms of a pair were judged against the same real images.
    """
    shared_seeds = [findings.common_seeds(pair, where) for pair in pairs]
    residual = _residual(findings, where) if all(shared_seeds) else None
    compared = []
    for pair, seeds in zip(pairs, shared_seeds, strict=True):
        first, second = (findings.estimate(arm, where, seeds if residual else None) for arm in pair)
        if first is None or second is None:
            return None
        compared.append((first, second))
    if not compared:
        return None
    changes = np.array([second.value - first.value for first, second in compared])
    some_trained_once = any(len(findings.by_seed(arm, where)) < 2 for pair in pairs for arm in pair)
    by_pairs = residual is not None and some_trained_once and len(pairs) > 1
    if by_pairs:
        trainings = variance_of_mean(changes)
    else:
        of_one = residual or _unpaired(findings, compared, where)
        of_changes = [of_one.variance / first.seeds + of_one.variance / second.seeds for first, second in compared]
        trainings = VariancePart(sum(of_changes) / len(pairs) ** 2, of_one.freedom)
    real_variance = _real_variance(compared, same_reals)
    # With 10^6 degrees of freedom, Student's interval is the normal one
    error = math.sqrt(trainings.variance + real_variance)
    half = student_quantile(trainings.freedom or 1e6) * error if error > ROUNDING else math.inf
    value = float(changes.mean())
    return Difference(
        value=value,
        low=value - half,
        high=value + half,
        whole=trainings.freedom > 0,
        matched=sum(map(len, shared_seeds)) if residual else 0,
        by_pairs=by_pairs,
    )


def _residual(findings: Findings, where: Where) -> VariancePart | None:
    """The variance of one training's value beyond what its arm and its seed explain: that of a two-way layout.

    None unless two arms or more have several seeds in common.
    """
    arms = [arm for arm in findings.arms() if len(findings.by_seed(arm, where)) > 1]
    seeds = findings.common_seeds(arms, where)
    if len(arms) < 2 or len(seeds) < 2:
        return None
    values = np.array([[findings.by_seed(arm, where)[seed] for seed in seeds] for arm in arms])
    residuals = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    freedom = (len(arms) - 1) * (len(seeds) - 1)
    return VariancePart(float((residuals**2).sum()) / freedom, freedom)


def _unpaired(findings: Findings, compared: Compared, where: Where) -> VariancePart:
    """The variance of one training's value as trainings of one arm differ, at least that of sampling where it is known.

    Without any arm of several trainings it is that of sampling, infinite where unknown, with 0 degrees of freedom.
    """
    sampling, spread = mean_of_known(side.fake_variance for pair in compared for side in pair), findings.spread(where)
    if spread is None:
        return VariancePart(math.inf if sampling is None else sampling, 0)
    return VariancePart(max(spread.total**2, sampling or 0.0), spread.freedom)


def _real_variance(compared: Compared, same_reals: bool) -> float:
    """The part of the variance of a mean difference that comes from the real images; infinite where it is unknown.

    Where both sides have the same real images, their influences on both values cancel in part; else errors add up.
    """
    if same_reals:
        changes = [
            second.influences - first.influences for first, second in compared
            if first.influences is not None and second.influences is not None
        ]  # fmt: skip
        return float((np.mean(changes, axis=0) ** 2).sum()) if len(changes) == len(compared) else math.inf
    errors = [side.real_error for pair in compared for side in pair if side.real_error is not None]
    return float(np.sum(np.square(errors))) / len(compared) ** 2 if len(errors) == 2 * len(compared) else math.inf
