"""Metrics: functions of real and generated images, and how their values on resamples are computed."""

from __future__ import annotations

import dataclasses
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, final

import numpy as np

from gankit.errors import PartError, blame
from gankit.interfaces.rows import Indices, Pool, Rows

OLD_STYLE_MESSAGE = (
    "metrics are functions of rows: write compute(self, real, fake) in place of add_state, update and compute(self); "
    "CHANGELOG.md shows the change"
)


class Meaning(NamedTuple):
    """How to read a value.

    Attributes:
        words: what it is, in a few words; empty where that is clear from other rows of the table.
        better: "lower", "higher", or the best value, such as "1"; empty where none of these applies.
        share: whether it is a mean of numbers in [0, 1]; the variance of these numbers is then at most
            value * (1 - value).
    """

    words: str = ""
    better: str = ""
    share: bool = False


@final
@dataclass(frozen=True)
class Result:
    """What a metric computes from real and generated images.

    Attributes:
        values: numbers by name, unique among metrics; the first of the first metric decides the best checkpoint.
        counts: how many real and generated images a value uses, by name, for values that do not use all of them.
        details: what else to store besides the values in a metrics file, as types that JSON has. Pairs of images to
            look at are a list "pairs" of {"fake": id, "real": id, "distance": number}.
        warnings: what a reader must know of the values, one sentence each.
    """

    values: Mapping[str, float]
    counts: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = field(default_factory=list)

    @classmethod
    def of(cls, metric: Metric, real: Rows, fake: Rows) -> Result:
        """Call a metric's `compute`, and check and convert what it returns: a result whose values are floats.

        Raises:
            PartError: `compute` returns something other than numbers by name, or details that JSON cannot hold, or it
                raises an error that is no GankitError.
            GankitError: as `Metric.compute`.
        """
        who = f"metric {type(metric).__name__}"
        with blame(PartError, f"{who} raised"):
            output: Any = metric.compute(real, fake)
        result = output if isinstance(output, Result) else cls(output)
        try:
            json.dumps(dict(result.details))
        except (TypeError, ValueError) as error:
            raise PartError(
                f"{who}: its details cannot be stored ({error}); make them of plain numbers, texts, lists and "
                "dictionaries"
            ) from error
        values: Any = result.values
        try:
            floats = {str(name): float(value) for name, value in values.items()}
        except (
            AttributeError,
            TypeError,
            ValueError,
            RuntimeError,
        ):  # RuntimeError: float() of a tensor of many values
            floats = {}
        if not floats:
            raise PartError(
                f"{who}: compute returned {str(values)[:80]} ({type(values).__name__}); return numbers by name, such "
                'as {"brightness": 0.3}'
            )
        return dataclasses.replace(result, values=floats)


class Resampling:
    """Computes a metric on a pool and on parts of it: for standard errors, real-against-real values and permutations.

    This class computes each value from scratch. A metric that can share work between the values (a matrix of distances,
    an eigendecomposition) returns a subclass from `Metric.resampling`.

    Attributes:
        metric: the metric that computes the values.
        pool: the images.
    """

    def __init__(self, metric: Metric, pool: Pool) -> None:
        self.metric, self.pool = metric, pool

    def whole(self) -> Result:
        """What `Metric.compute` gives for all images of the pool."""
        return Result.of(self.metric, self.pool.real, self.pool.fake)

    def values(self, real: Indices, fake: Indices) -> Mapping[str, float]:
        """The values when these images of the pool are the real and the generated ones.

        Args:
            real: (n,) places in the pool, without repetition; the images may be real or generated.
            fake: (m,) places, none of them in `real`.
        """
        return Result.of(self.metric, self.pool.rows(real), self.pool.rows(fake)).values

    def values_without(self, parts: Sequence[Indices]) -> list[Mapping[str, float]]:
        """The values when one part of the pool is left out, for each part in turn.

        Args:
            parts: the (k,) places of each part, all on one side; at least two images of each side must remain.
        """
        # A part is of one side; setdiff1d leaves the other as it is.
        real, fake = self.pool.real_places, self.pool.fake_places
        return [self.values(np.setdiff1d(real, part), np.setdiff1d(fake, part)) for part in parts]

    def standard_errors(self) -> Mapping[str, float] | None:
        """Standard errors in closed form, for independent images; None makes gankit compute them by a jackknife."""
        return None


class Metric(ABC):
    """Computes one or more values that compare generated images with real ones.

    Attributes:
        needs: what `compute` reads, by the names of the attributes of `Rows`. Only these are computed; labels, groups
            and ids are there wherever they are known.
        better: whether lower or higher values are better; None if neither. It decides the tail of a permutation test
            and, for the first metric, the best checkpoint of a training.
        takes_moments: whether `compute` also takes rows that have moments, in `Rows.statistics`, in place of features.
        jackknife_groups: number of random groups into which the jackknife divides the images, if leaving out one image
            at a time would take too long.
        meanings: how tables explain the values, by name.
    """

    needs: tuple[str, ...] = ("features",)
    better: Literal["lower", "higher"] | None = None
    takes_moments: ClassVar[bool] = False
    jackknife_groups: ClassVar[int] = 50
    meanings: ClassVar[Mapping[str, Meaning]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if len(inspect.signature(cls.compute).parameters) == 1:  # self alone, as in the older interface
            raise PartError(f"metric {cls.__name__}: {OLD_STYLE_MESSAGE}")

    @abstractmethod
    def compute(self, real: Rows, fake: Rows) -> Mapping[str, float] | Result:
        """The values by name, or a `Result` with what else there is to say.

        Raises:
            GankitError: too few images, or images that the metric cannot judge.
        """

    def warnings(self, real_vs_real: Mapping[str, float]) -> list[str]:
        """Warnings that follow from comparing disjoint sets of real images with each other, one sentence each.

        All other warnings belong to the result of `compute`.

        Args:
            real_vs_real: the means of these comparisons, by name of the value; empty if there are too few real images.
        """
        return []

    def meaning(self, name: str) -> Meaning:
        """How tables explain the value of this name."""
        return self.meanings.get(name) or Meaning(better=self.better or "")

    def resampling(self, pool: Pool) -> Resampling:
        """How values on parts of a pool are computed.

        Args:
            pool: real and generated images with what this metric needs.
        """
        return Resampling(self, pool)
