"""Values of arms over their seeds, and differences of arms with intervals that know how much trainings differ."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from scipy.stats import t as student

from gankit.study.agreement import Findings, Training
from gankit.study.arms import Arm

LEVEL = 0.95
ROWS = {"all": "All", "top": "Top", "bottom": "Bot"}


@dataclass(frozen=True)
class Where:
    """Which value of a training is meant.

    Attributes:
        group: "drawn" for the table of the founding paper, "equal" for equal numbers.
        row: "all", "top", "bottom"; or one of `judging.REFERENCES`.
        metric: "frechet", "kid", "precision" or "recall".
    """

    group: str
    row: str
    metric: str = "frechet"


@dataclass(frozen=True)
class Estimate:
    """A value of an arm, the mean over its trainings.

    Attributes:
        value: the mean.
        error: standard error of one training's value as both sides vary, the mean over trainings; None where untold.
        real_error: the part of it that the real images make.
        fake_error: the part of it that the generated images make.
        seeds: trainings that the mean is of.
        n_real: real images.
        n_fake: generated images of each training.
    """

    value: float
    error: float | None
    real_error: float
    fake_error: float
    seeds: int
    n_real: int
    n_fake: int


@dataclass(frozen=True)
class Spread:
    """How much trainings of one arm differ, pooled over all arms with several.

    Attributes:
        total: standard deviation between trainings of an arm.
        beyond: the part of it that the sampling of images does not explain; 0 where all is explained.
        freedom: degrees of freedom.
    """

    total: float
    beyond: float
    freedom: int


@dataclass(frozen=True)
class Difference:
    """One arm less another.

    Attributes:
        value: the difference.
        low: lower end of its 95 % interval.
        high: upper end.
        whole: whether the interval knows how much trainings differ; without several seeds it does not.
    """

    value: float
    low: float
    high: float
    whole: bool

    @property
    def verdict(self) -> str:
        """ "lower", "higher", or "cannot be told"; never one of the first two where trainings may differ unknown."""
        if not self.whole or self.low <= 0 <= self.high:
            return "cannot be told"
        return "lower" if self.high < 0 else "higher"


@final
class Estimates:
    """Reads findings."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self._spreads: dict[Where, Spread | None] = {}

    def trainings(self, arm: Arm) -> list[Training]:
        """Those of an arm that have values."""
        return [t for t in self.findings.trainings if t.arm == arm and not t.outcome.failure]

    def failed(self, arm: Arm) -> int:
        """Trainings of an arm without values."""
        return sum(training.arm == arm for training in self.findings.failed)

    def _entries(self, arm: Arm, where: Where) -> list[dict[str, Any]]:
        rows = [t.outcome.result[where.group].get(where.row, {}).get(where.metric) for t in self.trainings(arm)]
        return [row for row in rows if row is not None]

    def of(self, arm: Arm, where: Where) -> Estimate | None:
        """The arm's value, or None where no training of it has one."""
        entries = self._entries(arm, where)
        if not entries:
            return None
        known = [entry for entry in entries if entry["standard_error"] is not None]
        fake = [entry["fake_error"] or 0.0 for entry in entries]
        real = [math.sqrt(max(e["standard_error"] ** 2 - (e["fake_error"] or 0.0) ** 2, 0.0)) for e in known]
        return Estimate(
            float(np.mean([entry["value"] for entry in entries])),
            _root_mean(entry["standard_error"] for entry in known) if known else None,
            _root_mean(real) if real else 0.0,
            _root_mean(fake),
            len(entries), entries[0]["n_real"], entries[0]["n_fake"],
        )  # fmt: skip

    def arms(self) -> list[Arm]:
        """Every arm once."""
        return list(dict.fromkeys(training.arm for training in self.findings.trainings))

    def spread(self, where: Where) -> Spread | None:
        """Between trainings, or None where no arm has two."""
        if where not in self._spreads:
            self._spreads[where] = self._spread(where)
        return self._spreads[where]

    def _spread(self, where: Where) -> Spread | None:
        squares, freedom, sampling = 0.0, 0, []
        for arm in self.arms():
            entries = self._entries(arm, where)
            if len(entries) > 1:
                values = np.array([entry["value"] for entry in entries])
                squares += float(((values - values.mean()) ** 2).sum())
                freedom += len(entries) - 1
                sampling += [(entry["fake_error"] or 0.0) ** 2 for entry in entries]
        if not freedom:
            return None
        variance, explained = squares / freedom, float(np.mean(sampling))
        return Spread(math.sqrt(variance), math.sqrt(max(variance - explained, 0.0)), freedom)

    def difference(self, first: Arm, second: Arm, where: Where, *, same_reals: bool) -> Difference | None:
        """The second arm's value less the first's, or None where one has none.

        Its error is the spread between trainings, at least that of sampling, and with other reals on either side the
        error that they make; the interval is Student's with the degrees of freedom of the spread.
        """
        one, other = self.of(first, where), self.of(second, where)
        if one is None or other is None:
            return None
        spread = self.spread(where)
        sampling = (one.fake_error**2 + other.fake_error**2) / 2
        each = max(spread.total**2, sampling) if spread else sampling
        variance = each * (1 / one.seeds + 1 / other.seeds)
        if not same_reals:
            variance += one.real_error**2 + other.real_error**2
        half = float(student.ppf((1 + LEVEL) / 2, spread.freedom if spread else 1e6)) * math.sqrt(variance)
        value = other.value - one.value
        return Difference(value, value - half, value + half, spread is not None)

    def between_reals(self, arm: Arm, where: Where) -> dict[str, float] | None:
        """{"mean", "sd", "n"} of real images in the place of generated ones, or None where it is not known."""
        reals = self.findings.reals
        at = reals["arms"][Arm(arm.threshold, arm.control).name]
        if where.group == "drawn":
            entry = at["all" if where.row == "all" else "kept"]
            found, n = entry.get(where.metric), entry["n"]
        else:
            whole = where.row in ("full", "held-out")
            if where.row == "held-out-same":
                at = reals["arms"][Arm(arm.threshold).name]
            found, n = (reals["whole"] if whole else at["equal"]).get(where.metric), self.findings.images.n
        return None if found is None else {**found, "n": n}

    def chance(self, arm: Arm, metric: str) -> tuple[float, float] | None:
        """Mean and standard deviation of the value of as many drawn images as are kept, chosen at random."""
        found = [t.outcome.result["chance"].get(metric) for t in self.trainings(arm)]
        known = [entry for entry in found if entry is not None]
        if not known:
            return None
        return float(np.mean([entry["mean"] for entry in known])), _root_mean(entry["sd"] for entry in known)


def _root_mean(values: Iterable[float]) -> float:
    return math.sqrt(float(np.mean(np.square(list(values)))))
