"""The table `study` of a study of rater agreement."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Literal, Self

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import AfterValidator, AliasChoices, Field, field_validator, model_validator

from gankit.experiments.tables import Count, Settings
from gankit.studies.agreement.arms import CONTROLS
from gankit.studies.study import distinct

if TYPE_CHECKING:
    ControlName = str
else:
    ControlName = Literal[tuple(CONTROLS)]
Scope = Literal["critic", "critic-turn", "real"]


class AgreementSettings(Settings):
    """What a study of rater agreement compares.

    Attributes:
        thresholds: shares of raters (selection rates) below which an image is left out, in rising order; 0 keeps all.
        seeds: trainings of each arm, of the seeds `training.seed` and up.
        seeds_at_ends: trainings of the lowest and the highest threshold and of the random subset as large as the
            latter's, where these are more than `seeds`; the spread between them stands for all arms.
        drawn: images drawn of each generator for the table of the founding paper.
        kept: so many best and so many worst of them, by the critic's score, are judged besides.
        controls: "random-subset" trains besides on as many images as each threshold leaves, drawn at random; an empty
            list for no control.
        scopes: scopes of the augment. The first is that of every training; each further one trains each threshold once
            more, without controls. By default the experiment's own.
        warm_start: steps of one training of each seed on all training images, from which the others of that seed start;
            0 for none.
        measured_limit: where the data set can measure a fact on the pixels, as `eyes` the deviation in prism dioptres:
            the absolute value from which an image counts as showing it; the data set's own limit by default.
    """

    thresholds: Annotated[list[Annotated[float, Ge(0), Le(1)]], MinLen(1)] = Field(
        default_factory=lambda: [0.0, 0.6, 0.7, 0.8]
    )
    seeds: Count = 1
    seeds_at_ends: Count = 1
    drawn: Annotated[int, Ge(4)] = 100
    kept: Annotated[int, Ge(2)] = 10
    controls: Annotated[list[ControlName], AfterValidator(distinct)] = Field(default_factory=lambda: ["random-subset"])
    scopes: Annotated[list[Scope], AfterValidator(distinct)] = Field(default_factory=list)
    warm_start: Annotated[int, Ge(0)] = 0
    # Called `strabismic` in files of gankit 0.1.
    measured_limit: Annotated[float, Gt(0)] | None = Field(
        None, validation_alias=AliasChoices("measured_limit", "strabismic")
    )

    @field_validator("thresholds")
    @classmethod
    def _rising(cls, values: list[float]) -> list[float]:
        if any(b <= a for a, b in itertools.pairwise(values)):
            raise ValueError(f"thresholds rise, each once; these are {values}")
        return values

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if 2 * self.kept > self.drawn:
            raise ValueError(
                f"kept: the best and the worst {self.kept} of {self.drawn} overlap; draw more or keep fewer"
            )
        return self
