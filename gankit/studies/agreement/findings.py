"""What a study found: the values of every arm over its trainings, and shares of images that measure as positive."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from gankit.evaluation.design import Estimate as ErrorParts
from gankit.evaluation.design import VariancePart, mean_of_known, wilson
from gankit.evaluation.tables import name_of_features, title
from gankit.interfaces import Measurement
from gankit.studies.agreement.arms import CONTROLS, Arm, StudyImages, arm_at
from gankit.studies.jobs import Outcome

if TYPE_CHECKING:
    from gankit.studies.agreement.study import Agreement

# The choices among a generator's drawn images, all or the best and worst by the critic's score, with their words
ROWS = {"all": "All", "top": "Top", "bottom": "Bot"}


@dataclass(frozen=True)
class Trial:
    """One training of an arm and what came of it."""

    arm: Arm
    seed: int
    folder: Path  # the job's; the run is in its sub-folder `run`
    outcome: Outcome  # its result is what `Judge.run` returned


@dataclass(frozen=True)
class Where:
    """Where a value stands in the result of a training: `result[group][row][metric]`."""

    group: str  # "drawn" for the choices of the founding paper's table, "equal" for equal n on both sides
    row: str  # in "drawn" a key of `ROWS`, in "equal" a key of `judging.REFERENCES`
    metric: str = "frechet"  # "frechet", "kid", "precision" or "recall"
    # Whether the value is an excess: what `kept` random drawn images of the same training get on average is subtracted.
    # Errors from sampling are still those of the value alone
    beyond_chance: bool = False


@dataclass(frozen=True)
class Estimate:
    """A value of an arm: the mean over its trainings.

    `error`, `fake_variance` and `real_error` are those of one training, averaged as variances; None where unknown.
    """

    value: float
    error: float | None  # standard error, as both sides are sampled
    fake_variance: float | None  # the part of the variance that comes from the generated images
    real_error: float | None  # the part of the standard error that comes from the real images
    # (k,) how far each part of the real images moves the mean: the sum of squares is the variance that comes from the
    # real images. None where this is unknown, or trainings were judged against different real images
    influences: NDArray[np.float64] | None
    seeds: int  # trainings over which the mean is taken
    n_real: int  # real images
    n_fake: int  # generated images of each training


@dataclass(frozen=True)
class Spread:
    """How much trainings of one arm differ, pooled over all arms with several."""

    total: float  # standard deviation between trainings of an arm
    # The standard deviation that would come from the sampling of generated images alone; None where unknown
    sampling: float | None
    freedom: int  # degrees of freedom


class Count(NamedTuple):
    """How many images measure as positive."""

    positive: int
    measured: int  # images that could be measured
    n: int  # all images


@final
@dataclass(frozen=True)
class Findings:
    """Everything that a study found."""

    study: "Agreement"
    trials: list[Trial]  # every training, failed ones included
    reals: dict[str, Any]  # what `Judge.reals` returned

    @property
    def images(self) -> StudyImages:
        """The study's images."""
        return self.study.images

    @property
    def measurement(self) -> Measurement | None:
        """What was measured on the pixels; None where the data set measures nothing, or too badly at this size."""
        return self.study.measurement if self.reals["estimator"] else None

    def trials_of(self, arm: Arm) -> list[Trial]:
        """The trainings of an arm that did not fail."""
        return [trial for trial in self.trials if trial.arm == arm and not trial.outcome.failure]

    def count_failed(self, arm: Arm) -> int:
        """How many trainings of an arm failed."""
        return sum(trial.arm == arm for trial in self.trials) - len(self.trials_of(arm))

    def arms(self) -> list[Arm]:
        """Every arm once."""
        return list(dict.fromkeys(trial.arm for trial in self.trials))

    def variants(self) -> list[tuple[str, str]]:
        """The (control, scope) of arms, each once: ("", ""), then each control, then each further scope."""
        return list(dict.fromkeys((arm.control, arm.scope) for arm in self.arms()))

    @staticmethod
    def variant_words(control: str, scope: str) -> str:
        """What arms of this control or scope are called; "" for training by agreement."""
        if control:
            return CONTROLS[control].words
        return f"scope {scope}" if scope else ""

    def row_words(self, row: str) -> str:
        """What tables call one of `ROWS`, with the number of images that are kept."""
        return ROWS[row] if row == "all" else f"{ROWS[row]} {self.study.settings.kept}"

    def arms_of(self, control: str = "", scope: str = "") -> list[Arm]:
        """One arm for each threshold, whether it was trained or not."""
        return [arm_at(threshold, control, scope) for threshold in self.images.thresholds]

    def _entries(self, arm: Arm, where: Where) -> dict[int, dict[str, Any]]:
        """The value of each training that has it, with errors and numbers of images, by seed."""
        entries = {}
        for trial in self.trials_of(arm):
            result = trial.outcome.result
            entry = result[where.group].get(where.row, {}).get(where.metric)
            chance = result["chance"].get(where.metric) if where.beyond_chance else {"mean": 0.0}
            if entry is not None and chance is not None:
                entries[trial.seed] = {**entry, "value": entry["value"] - chance["mean"]}
        return entries

    def by_seed(self, arm: Arm, where: Where) -> dict[int, float]:
        """The value of each training that has it, by seed."""
        return {seed: entry["value"] for seed, entry in self._entries(arm, where).items()}

    def common_seeds(self, arms: Sequence[Arm], where: Where) -> list[int]:
        """The seeds for which every one of these arms has a value."""
        return sorted(set.intersection(*(set(self._entries(arm, where)) for arm in arms))) if arms else []

    def estimate(self, arm: Arm, where: Where, seeds: Sequence[int] | None = None) -> Estimate | None:
        """The arm's value, over these seeds or over all; None where no training of it has one."""
        entries = [entry for seed, entry in self._entries(arm, where).items() if seeds is None or seed in seeds]
        if not entries:
            return None
        influences = [entry["real_influences"] for entry in entries if entry["real_influences"] is not None]
        comparable = len(influences) == len(entries) and len({len(values) for values in influences}) == 1
        return Estimate(
            value=float(np.mean([entry["value"] for entry in entries])),
            error=_root_mean_square(entry["standard_error"] for entry in entries),
            fake_variance=mean_of_known(entry["fake_variance"] for entry in entries),
            real_error=_root_mean_square(math.sqrt(sum(value**2 for value in values)) for values in influences),
            influences=np.mean(influences, axis=0) if comparable else None,
            seeds=len(entries),
            n_real=entries[0]["n_real"],
            n_fake=entries[0]["n_fake"],
        )

    def spread(self, where: Where) -> Spread | None:
        """How much the values of trainings of one arm differ; None where no arm has several."""
        arms = [entries for arm in self.arms() if len(entries := list(self._entries(arm, where).values())) > 1]
        variance, freedom = pooled_variance([[entry["value"] for entry in entries] for entries in arms])
        if not freedom:
            return None
        sampling = mean_of_known(entry["fake_variance"] for entries in arms for entry in entries)
        return Spread(math.sqrt(variance), None if sampling is None else math.sqrt(sampling), freedom)

    def between_reals(self, arm: Arm, where: Where) -> dict[str, float] | None:
        """{"mean", "sd", "n"} of real images in the place of generated ones, or None where it is not known."""
        # Held-out images of one SR are compared with training images of that SR, whatever the arm was trained on
        control = "" if where.row == "held-out-same" else arm.control
        of_arm = self.reals["arms"][arm_at(arm.threshold, control).name]  # The same for every scope
        if where.group == "drawn":
            entry = of_arm["all" if where.row == "all" else "kept"]
        else:
            entry = self.reals["whole"] if where.row in ("full", "held-out") else of_arm["equal"]
        return {"n": entry.get("n", self.images.equal_n), **entry[where.metric]} if where.metric in entry else None

    def by_chance(self, arm: Arm) -> tuple[float, float] | None:
        """Mean and standard deviation of the distance of `kept` random images of one training; None where unknown."""
        draws = [trial.outcome.result["chance"] for trial in self.trials_of(arm)]
        entries = [values["frechet"] for values in draws if "frechet" in values]
        sd = _root_mean_square(entry["sd"] for entry in entries)
        return None if sd is None else (float(np.mean([entry["mean"] for entry in entries])), sd)

    def deviation(self, arm: Arm, row: str) -> float | None:
        """How far the distance of the images of `ROWS` lies from that of `by_chance`, in standard deviations of a draw.

        This is an effect size, the mean over trainings of one training's deviation, and no test. None where unknown.
        """
        excess, chance = self.estimate(arm, Where("drawn", row, beyond_chance=True)), self.by_chance(arm)
        if excess is None or chance is None:
            return None
        _, sd = chance
        return excess.value / sd if sd else 0.0

    def measured_by_training(self, arm: Arm, row: str | None) -> list[Count]:
        """The count of each training's images of `ROWS`; for None the single one of the real images."""
        assert self.measurement is not None
        fact, reals = self.measurement.fact, self.reals["arms"][arm_at(arm.threshold, arm.control).name]
        counts = [trial.outcome.result[fact][row] for trial in self.trials_of(arm)] if row else [reals[fact]]
        return [Count(count[self.measurement.positive], count["measured"], count["n"]) for count in counts]

    def count_measured(self, arm: Arm, row: str | None) -> Count:
        """The sum over all trainings of the arm; for None the count of the real images."""
        counts = self.measured_by_training(arm, row)
        return Count(
            positive=sum(count.positive for count in counts),
            measured=sum(count.measured for count in counts),
            n=sum(count.n for count in counts),
        )

    def spread_of_shares(self, row: str) -> tuple[float, int]:
        """Variance between trainings in the share of positives, and its degrees of freedom, as `pooled_variance`."""
        counts = [self.measured_by_training(arm, row) for arm in self.arms()]
        return pooled_variance([
            [count.positive / count.measured for count in of_arm if count.measured] for of_arm in counts
        ])  # fmt: skip

    def independent_reals(self, arm: Arm) -> float:
        """As how many independent cases the measured real images count: all those of one patient as one."""
        measured, groups = self.count_measured(arm, None).measured, self.images.held_out.groups
        if groups is None:
            return float(measured)
        of_arm = groups[self.images.held_out_of(arm)]
        return measured * len(np.unique(of_arm)) / len(of_arm)

    def share_interval(self, arm: Arm, row: str | None) -> tuple[float, float]:
        """The 95 % interval of the share of positive images among the measured ones; for None of the real images.

        It allows for how much trainings differ where any arm has several, and counts the real images of one patient as
        one case.
        """
        count = self.count_measured(arm, row)
        if not count.measured:
            return 0.0, 1.0
        share = count.positive / count.measured
        if row is None:
            cases = self.independent_reals(arm)
            return wilson(share * cases, cases)
        variance, freedom = self.spread_of_shares(row)
        if not freedom:
            return wilson(count.positive, count.measured)
        sampling = share * (1 - share) / count.measured
        part = VariancePart(max(variance / len(self.trials_of(arm)), sampling), freedom)
        return ErrorParts(share, {"trainings": part}).share_interval(count.measured, count.measured)

    @property
    def privacy(self) -> dict[str, Any]:
        """What `judge_privacy` found of each training, by the name of its job."""
        return {trial.folder.name: trial.outcome.result.get("privacy") for trial in self.trials}

    def metric_name(self, metric: str) -> str:
        """The heading of a metric's values; that of the Frechet distance names the features, which all share."""
        if metric == "frechet":
            facts = {"features": self.reals["features"], "features_protocol": self.reals["protocol"]}
            return title(metric, name_of_features(facts))
        return "KID" if metric == "kid" else metric


def _root_mean_square(values: Iterable[float | None]) -> float | None:
    """The root mean square of the known values; None where none is known."""
    mean = mean_of_known(None if value is None else value * value for value in values)
    return None if mean is None else math.sqrt(mean)


def pooled_variance(samples: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Variance within samples, and its degrees of freedom: (0, 0) where none has several values."""
    several = [np.array(values) for values in samples if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in several)
    return (squares / freedom if freedom else 0.0), freedom
