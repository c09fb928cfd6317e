"""What a study of rater agreement is made of: an experiment with a table `study`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import Field, field_validator, model_validator

from gankit.experiments.experiment import Experiment
from gankit.experiments.tables import Settings
from gankit.studies.reading import experiment_of, read_study

PACKAGED = "agreement/eyes"
HELD_OUT = 0.2
"""The share of images that are held out where a study does not say."""
DECIDED = {"min_agreement": "study.thresholds", "subset": "study.controls", "subset_seed": "study.controls"}
"""Settings of the data that a study must leave out, and what decides them in it."""
Control = Literal["random-subset"]
Scope = Literal["critic", "critic-turn", "real"]


class AgreementTable(Settings):
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
        strabismic: measured deviation, in prism dioptres, from which a pair of the data set `eyes` counts as
            strabismic.
    """

    thresholds: Annotated[list[Annotated[float, Ge(0), Le(1)]], MinLen(1)] = Field(
        default_factory=lambda: [0.0, 0.6, 0.7, 0.8]
    )
    seeds: Annotated[int, Ge(1)] = 1
    seeds_at_ends: Annotated[int, Ge(1)] = 1
    drawn: Annotated[int, Ge(4)] = 100
    kept: Annotated[int, Ge(2)] = 10
    controls: list[Control] = Field(default_factory=lambda: list[Control](["random-subset"]))
    scopes: list[Scope] = Field(default_factory=list)
    warm_start: Annotated[int, Ge(0)] = 0
    strabismic: Annotated[float, Gt(0), Lt(100)] = 10.0

    @field_validator("thresholds")
    @classmethod
    def _rising(cls, values: list[float]) -> list[float]:
        if any(b <= a for a, b in itertools.pairwise(values)):
            raise ValueError(f"thresholds rise, each once; these are {values}")
        return values

    @field_validator("scopes")
    @classmethod
    def _different(cls, values: list[Scope]) -> list[Scope]:
        if len(set(values)) < len(values):
            raise ValueError(f"each scope once; these are {values}")
        return values

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if 2 * self.kept > self.drawn:
            raise ValueError(
                f"kept: the best and the worst {self.kept} of {self.drawn} overlap; draw more or keep fewer"
            )
        return self


class AgreementStudy(Experiment):
    """An experiment that is trained for each arm of a study of rater agreement.

    Its `data.held_out` is 0.2 by default and cannot be 0: a study judges beside images kept from training. It leaves
    out `data.min_agreement`, `data.subset` and `data.subset_seed`, which its arms decide, and `training.max_minutes`,
    since every training runs to its end. `training.start_from` and `study.warm_start` exclude each other.

    Attributes:
        study: what is compared.
    """

    study: AgreementTable = Field(default_factory=AgreementTable)

    @model_validator(mode="before")
    @classmethod
    def _holds_out(cls, value: object) -> object:
        """A study needs held-out images, so that there are some where nothing is said of them."""
        if isinstance(value, Mapping) and isinstance(value.get("data"), Mapping):
            return {**value, "data": {"held_out": HELD_OUT, **value["data"]}}
        return value

    def tables(self) -> dict[str, Any]:
        """As `Experiment.tables`, with the table `study`."""
        return {"study": self.study.model_dump(mode="json"), **super().tables()}

    def experiment(self, **changes: dict[str, Any]) -> Experiment:
        """The experiment of one training: its tables with some settings changed, table by table."""
        return experiment_of(self, "study", changes)


def load_study(file: str | Path | None, *overrides: str) -> AgreementStudy:
    """Read a study of rater agreement.

    Args:
        file: a TOML, JSON or YAML file with a table `study`, a recipe, or None for the packaged study of the eyes.
        overrides: settings as `key.path=value`, as for `gankit.load`.

    Raises:
        SettingsError: as `gankit.load`; or a setting that the study itself decides.
    """
    study, refuse = read_study(AgreementStudy, PACKAGED, file, overrides)
    if not study.data.held_out:
        raise refuse("data", "held_out", "a study judges beside images kept from training; set data.held_out=0.2, say")
    for key, why in DECIDED.items():
        if getattr(study.data, key) is not None:
            raise refuse("data", key, f"{why} decides this in a study; leave it out")
    if study.study.warm_start and study.training.start_from:
        raise refuse("study", "warm_start", "training.start_from names a run to start from already; leave out one")
    if study.study.scopes and study.augment is None:
        raise refuse("study", "scopes", "there is no augment whose scope could vary; add an augment, or leave it out")
    return study
