"""What a study found: values of arms over their seeds, and differences whose intervals include training noise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from gankit.evaluation.design import Estimate as ErrorParts
from gankit.evaluation.design import Part, student_quantile
from gankit.evaluation.draws import pooled_variance
from gankit.evaluation.tables import title
from gankit.evaluation.uncertainty import wilson
from gankit.interfaces import Measurement
from gankit.studies.agreement.arms import CONTROLS, Arm, StudyImages, arm_at
from gankit.studies.jobs import Outcome

if TYPE_CHECKING:
    from gankit.studies.agreement.study import Agreement

# The distances that answers are drawn from. KID alone is free of the bias that also differs between generators
METRICS = ("frechet", "kid")
CANNOT = "cannot be told"
ROWS = {"all": "All", "top": "Top", "bottom": "Bot"}


@dataclass(frozen=True)
class Trial:
    """One training of an arm and what came of it."""

    arm: Arm
    seed: int
    folder: Path  # of the job; the run is in its sub-folder `run`
    outcome: Outcome  # whose result is what `Judge.run` gave


@dataclass(frozen=True)
class Where:
    """Which value of a training is meant."""

    group: str  # "drawn" for the table of the founding paper, "equal" for equal numbers
    row: str  # "all", "top", "bottom"; or one of `judging.REFERENCES`
    metric: str = "frechet"  # "frechet", "kid", "precision" or "recall"


@dataclass(frozen=True)
class Estimate:
    """A value of an arm, the mean over its trainings."""

    value: float
    # standard error of one training's value as both sides vary, the mean over trainings; None where unknown
    error: float | None
    fake_variance: float | None  # the part of its square that the generated images make
    # (k,) how far each part of the real images moves the mean; their squares sum to the variance that the real images
    # make. None where this is unknown, or trainings were judged beside different ones
    influences: NDArray[np.float64] | None
    real_error: float | None  # the part of the error that the real images make
    seeds: int  # trainings that the mean is of
    n_real: int  # real images
    n_fake: int  # generated images of each training


@dataclass(frozen=True)
class Spread:
    """How much trainings of one arm differ, pooled over all arms with several."""

    total: float  # standard deviation between trainings of an arm
    sampling: float  # what the sampling of generated images alone would make of it
    freedom: int  # degrees of freedom


@dataclass(frozen=True)
class Difference:
    """One arm's value minus another's."""

    value: float
    low: float  # lower end of its 95 % interval
    high: float
    whole: bool  # whether the interval includes how much trainings differ; without several seeds it cannot
    matched: int  # pairs of trainings of the same seed that it is over; 0 where trainings are not matched
    by_pairs: bool = False  # whether its error is the spread of these pairs instead of that between trainings

    @property
    def verdict(self) -> str:
        """ "lower", "higher", or "cannot be told"; the last wherever it is unknown how much trainings differ."""
        if not self.whole or self.low <= 0 <= self.high:
            return CANNOT
        return "lower" if self.high < 0 else "higher"


@final
@dataclass(frozen=True)
class Findings:
    """Everything that a study found."""

    study: Agreement
    trials: list[Trial]  # one for each generator
    reals: dict[str, Any]  # what `Judge.reals` gave

    @property
    def images(self) -> StudyImages:
        """The study's images."""
        return self.study.images

    @property
    def measurement(self) -> Measurement | None:
        """What was measured on the pixels; None where the data set measures nothing or it is of no use at this size."""
        return self.study.measurement if self.reals["estimator"] else None

    def trials_of(self, arm: Arm) -> list[Trial]:
        """Trainings of an arm that have values."""
        return [trial for trial in self.trials if trial.arm == arm and not trial.outcome.failure]

    def failed(self, arm: Arm) -> int:
        """Number of trainings of an arm without values."""
        return sum(trial.arm == arm for trial in self.trials) - len(self.trials_of(arm))

    def arms(self) -> list[Arm]:
        """Every arm once."""
        return list(dict.fromkeys(trial.arm for trial in self.trials))

    def variants(self) -> list[tuple[str, str]]:
        """The (control, scope) of arms, each once: without either, then each control, then each further scope."""
        return list(dict.fromkeys((arm.control, arm.scope) for arm in self.arms()))

    @staticmethod
    def variant_words(control: str, scope: str) -> str:
        """What arms of this control or scope are called; "" for training by agreement."""
        return CONTROLS[control].words if control else f"scope {scope}" if scope else ""

    def row_words(self, row: str) -> str:
        """What tables call all drawn images, the best and the worst."""
        return ROWS[row] if row == "all" else f"{ROWS[row]} {self.study.settings.kept}"

    def arms_of(self, control: str = "", scope: str = "") -> list[Arm]:
        """One arm for each threshold, whether it was trained or not."""
        return [arm_at(threshold, control, scope) for threshold in self.images.thresholds]

    def _entries(self, arm: Arm, where: Where) -> dict[int, dict[str, Any]]:
        """The entry of each seed's training, where it has one."""
        rows = [(trial.seed, trial.outcome.result[where.group].get(where.row, {})) for trial in self.trials_of(arm)]
        return {seed: row[where.metric] for seed, row in rows if where.metric in row}

    def by_seed(self, arm: Arm, where: Where) -> dict[int, float]:
        """The value of each training."""
        return {seed: entry["value"] for seed, entry in self._entries(arm, where).items()}

    def common_seeds(self, arms: Sequence[Arm], where: Where) -> list[int]:
        """Seeds of which all arms have values."""
        return sorted(set.intersection(*(set(self._entries(arm, where)) for arm in arms))) if arms else []

    def estimate(self, arm: Arm, where: Where, seeds: Sequence[int] | None = None) -> Estimate | None:
        """The arm's value, over some seeds or over all; None where no training of it has one."""
        entries = [entry for seed, entry in self._entries(arm, where).items() if seeds is None or seed in seeds]
        if not entries:
            return None
        influences = [entry["real_influences"] for entry in entries if entry["real_influences"] is not None]
        whole = len(influences) == len(entries) and len({len(values) for values in influences}) == 1
        return Estimate(
            float(np.mean([entry["value"] for entry in entries])),
            _root_mean(entry["standard_error"] for entry in entries),
            _mean(entry["fake_variance"] for entry in entries),
            np.mean(influences, axis=0) if whole else None,
            _root_mean(math.sqrt(sum(value**2 for value in values)) for values in influences),
            len(entries), entries[0]["n_real"], entries[0]["n_fake"],
        )  # fmt: skip

    def spread(self, where: Where) -> Spread | None:
        """Between trainings, or None where no arm has two."""
        arms = [entries for arm in self.arms() if len(entries := list(self._entries(arm, where).values())) > 1]
        variance, freedom = pooled_variance([[entry["value"] for entry in entries] for entries in arms])
        if not freedom:
            return None
        sampling = float(np.mean([entry["fake_variance"] or 0.0 for entries in arms for entry in entries]))
        return Spread(math.sqrt(variance), math.sqrt(sampling), freedom)

    def contrast(self, pairs: Sequence[tuple[Arm, Arm]], where: Where, *, same_reals: bool) -> Difference | None:
        """The value of the second arm of a pair minus that of the first, mean over pairs; None where an arm has none.

        Trainings of one seed (and one warm start) have much in common, so those of the same seed are compared. The
        variance between trainings is the residual of a two-way layout by arm and seed, over all arms with several
        seeds; its degrees of freedom are those of Student's interval. There are two exceptions: where no two arms have
        several seeds, it is the spread between trainings, at least that of sampling; for several pairs whose arms have
        one seed, it is the spread of the pairs' differences, which alone shows there how arm and seed interact.

        The variance from the real images is added: from their influences on both values where these were judged beside
        the same ones (`same_reals`), else as the sum for both.
        """
        shared = [self.common_seeds(pair, where) for pair in pairs]
        residual = self._residual(where) if all(shared) else None
        once = any(len(self._entries(arm, where)) < 2 for pair in pairs for arm in pair)
        by_pairs = residual is not None and once and len(pairs) > 1
        known = []
        for (first, second), seeds in zip(pairs, shared, strict=True):
            one, other = (self.estimate(arm, where, seeds if residual else None) for arm in (first, second))
            if one is None or other is None:
                return None
            known.append((one, other))
        if not known:
            return None
        both = [estimate for pair in known for estimate in pair]
        changes = [other.value - one.value for one, other in known]
        if by_pairs:
            freedom = len(pairs) - 1
            of_training = float(np.var(changes, ddof=1)) / 2  # a difference is of two trainings
            both = [dataclasses.replace(estimate, seeds=1) for estimate in both]  # the spread is of means over seeds
        elif residual:
            of_training, freedom = residual
        else:
            floor, spread = _mean(estimate.fake_variance for estimate in both) or 0.0, self.spread(where)
            of_training, freedom = max(spread.total**2 if spread else 0.0, floor), spread.freedom if spread else 0
        real = _real_variance(known, same_reals)
        variance = sum(of_training / estimate.seeds for estimate in both) / len(known) ** 2 + (real or 0.0)
        half = student_quantile(freedom or 1e6) * math.sqrt(variance)
        value, whole = float(np.mean(changes)), freedom > 0 and real is not None
        return Difference(value, value - half, value + half, whole, sum(map(len, shared)) if residual else 0, by_pairs)

    def _residual(self, where: Where) -> tuple[float, int] | None:
        """Variance between trainings beyond their arm and their seed, and its degrees of freedom."""
        arms = [arm for arm in self.arms() if len(self._entries(arm, where)) > 1]
        seeds = self.common_seeds(arms, where)
        if len(arms) < 2 or len(seeds) < 2:
            return None
        values = np.array([[self.by_seed(arm, where)[seed] for seed in seeds] for arm in arms])
        residuals = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
        freedom = (len(arms) - 1) * (len(seeds) - 1)
        return float((residuals**2).sum()) / freedom, freedom

    def between_reals(self, arm: Arm, where: Where) -> dict[str, float] | None:
        """{"mean", "sd", "n"} of real images in the place of generated ones, or None where it is not known."""
        control = "" if where.row == "held-out-same" else arm.control
        of_arm = self.reals["arms"][arm_at(arm.threshold, control).name]
        if where.group == "drawn":
            entry = of_arm["all" if where.row == "all" else "kept"]
        else:
            entry = self.reals["whole"] if where.row in ("full", "held-out") else of_arm["equal"]
        return {"n": entry.get("n", self.images.n), **entry[where.metric]} if where.metric in entry else None

    def chance(self, arm: Arm, metric: str) -> tuple[float, float] | None:
        """Mean and standard deviation of the value of as many drawn images as are kept, chosen at random."""
        draws = [trial.outcome.result["chance"] for trial in self.trials_of(arm)]
        entries = [values[metric] for values in draws if metric in values]
        sd = _root_mean(entry["sd"] for entry in entries)
        return None if sd is None else (float(np.mean([entry["mean"] for entry in entries])), sd)

    def measured(self, arm: Arm, row: str | None) -> list[tuple[int, int, int]]:
        """Positive, measured and all images: of "all", "top" or "bottom" of each training; None for the reals."""
        assert self.measurement is not None
        fact, reals = self.measurement.fact, self.reals["arms"][arm_at(arm.threshold, arm.control).name]
        counts = [trial.outcome.result[fact][row] for trial in self.trials_of(arm)] if row else [reals[fact]]
        return [(count[self.measurement.positive], count["measured"], count["n"]) for count in counts]

    def count_measured(self, arm: Arm, row: str | None) -> tuple[int, int, int]:
        """The sums of `measured` over all trainings of the arm."""
        positive, measured, n = (sum(numbers) for numbers in zip((0, 0, 0), *self.measured(arm, row), strict=True))
        return positive, measured, n

    def spread_of_shares(self, row: str) -> tuple[float, int]:
        """Variance between trainings of an arm in the share of "all", "top" or "bottom" images that are positive.

        Pooled over arms, with its degrees of freedom: 0 where no arm has several trainings.
        """
        counts = [self.measured(arm, row) for arm in self.arms()]
        return pooled_variance([[positive / known for positive, known, _ in of_arm if known] for of_arm in counts])

    def independent_reals(self, arm: Arm) -> float:
        """How many independent cases the measured real images are: those of one patient together count as one."""
        known, groups = self.count_measured(arm, None)[1], self.images.held_out.groups
        if groups is None:
            return float(known)
        of_arm = groups[self.images.held_out_at(0.0 if arm.control else arm.threshold)]
        return known * len(np.unique(of_arm)) / len(of_arm)

    def share_interval(self, arm: Arm, row: str | None) -> tuple[float, float]:
        """The 95 % interval of the share of positive ones among the measured images; None for the reals.

        It includes how much trainings differ where an arm has several, and counts real images of one patient as one.
        """
        positive, known, _ = self.count_measured(arm, row)
        if not known:
            return 0.0, 1.0
        if row is None:
            cases = self.independent_reals(arm)
            return wilson(positive / known * cases, cases)
        share, (variance, freedom) = positive / known, self.spread_of_shares(row)
        sampling = share * (1 - share) / known
        if not freedom:
            return wilson(positive, known)
        part = Part(max(variance / len(self.trials_of(arm)), sampling), freedom)
        return ErrorParts(share, {"trainings": part}).share_interval(known, known)

    def metric_name(self, metric: str) -> str:
        """The heading of a metric's values; the distance alone names the features, which all of them share."""
        return title(metric, str(self.reals["features"])) if metric == "frechet" else {"kid": "KID"}.get(metric, metric)


def _real_variance(pairs: Sequence[tuple[Estimate, Estimate]], same: bool) -> float | None:
    """The part of the variance of a mean difference that is due to the real images; None where it is unknown."""
    if same:
        changes = [other.influences - one.influences for one, other in pairs
                   if one.influences is not None and other.influences is not None]  # fmt: skip
        return None if len(changes) < len(pairs) else float((np.mean(changes, axis=0) ** 2).sum())
    errors = [error for pair in pairs for estimate in pair if (error := estimate.real_error) is not None]
    return None if len(errors) < 2 * len(pairs) else float(np.sum(np.square(errors))) / len(pairs) ** 2


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that are known."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _root_mean(values: Iterable[float | None]) -> float | None:
    """The root of the mean square of those that are known."""
    mean = _mean(None if value is None else value * value for value in values)
    return None if mean is None else math.sqrt(mean)
