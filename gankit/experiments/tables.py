"""The tables of an experiment file that name a part (a registered generator, critic, data set, loss or augment).

Each holds gankit's own keys together with the part's settings.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BeforeValidator, ValidationInfo, model_validator

from gankit.interfaces import Scope
from gankit.registry import Part, Scheduled, read_part, registry
from gankit.registry.settings import Settings as Settings
from gankit.registry.settings import as_table

Count = Annotated[int, Ge(1)]
Repeats = Annotated[int, Ge(1), Le(1000)]
"""A number of repetitions; more than 1000 is surely a typing error."""
Share = Annotated[float, Ge(0), Lt(1)]
Rate = Annotated[float, Gt(0), Lt(1)]
Factor = Annotated[float, Ge(0)]


def _read_part(value: object, info: ValidationInfo) -> object:
    """Read a part from the pair (kind, table) that `PartTable._split` below makes; a part that was read is kept."""
    if not isinstance(value, tuple):
        return value
    kind, table = value
    # Of a run's parts only the generator must be there, since images are drawn from it.
    may_be_missing = bool(info.context and info.context["may_be_missing"]) and kind != "generator"
    return read_part(kind, table, may_be_missing)


class PartTable(Settings):
    """A table that names a part, and holds gankit's own keys and the part's settings.

    Attributes:
        part: the part's name and validated settings.
    """

    kind: ClassVar[str]
    part: Annotated[Part, BeforeValidator(_read_part)]

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        # No part of this kind may have a setting of one of these names.
        registry(cls.kind).reserve(key for key in cls.model_fields if key != "part")

    @property
    def name(self) -> str:
        """The part's qualified name."""
        return self.part.name

    @property
    def settings(self) -> Any:
        """The part's validated settings."""
        return self.part.settings

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Split gankit's keys from the part's settings, so that the errors of both are reported together."""
        if isinstance(value, cls) or (isinstance(value, Mapping) and isinstance(value.get("part"), Part)):
            return value  # it was split before
        if not isinstance(value, Mapping):
            return {"part": (cls.kind, value)}  # a name without a table
        own = {key: item for key, item in value.items() if key in cls.model_fields and key != "part"}
        return {**own, "part": (cls.kind, {key: item for key, item in value.items() if key not in own})}

    def table(self) -> dict[str, Any]:
        """As written in an experiment file."""
        own = as_table(self, exclude={"part"})
        part = self.part.table()
        return {"name": part.pop("name"), **own, **part}


class GeneratorTable(PartTable):
    """The generator."""

    kind = "generator"


class CriticTable(PartTable):
    """The critic."""

    kind = "critic"


class DataTable(PartTable):
    """The data set and what of it is used.

    Attributes:
        size: pixels, a number for squares or [height, width]; None keeps the data set's own.
        conditional: what the networks are conditioned on: nothing (false), the class (true), or numeric columns of the
            data set (a list of their names).
        split: the named split to train on; by default "train" where there is one, else everything.
        held_out: the share of images kept from training: whole groups, or a share of each class if there are none.
        min_agreement: keeps images on which at least this share of raters agrees.
        subset: keeps this many images, drawn by `subset_seed`.
        split_seed: decides the held-out images and the subset; `training.seed` where None.
        subset_seed: decides the subset in place of `split_seed`.
        flip: shows each image or its label-preserving mirror image, at random.
        balance: 0 draws images as they come, 1 draws classes equally often; in between, a class is drawn with a
            probability proportional to count^(1 - balance).
        weights: the name of the column that holds each image's sampling weight, or "agreement" for the share of raters
            that agree; `balance` then uses the sum of weights of each class in place of its count of images.
    """

    kind = "dataset"
    size: Count | tuple[Count, Count] | None = None
    conditional: bool | list[str] = False
    split: str | None = None
    held_out: Share = 0.0
    min_agreement: Annotated[float, Ge(0), Le(1)] | None = None
    subset: Count | None = None
    split_seed: Annotated[int, Ge(0), Lt(2**63)] | None = None
    subset_seed: Annotated[int, Ge(0), Lt(2**63)] | None = None
    flip: bool = False
    balance: Annotated[float, Ge(0), Le(1)] = 0.0
    weights: str | None = None

    @property
    def title(self) -> str:
        """What reports call the data: its folder or file, and the part that reads it, as in "scans (folder)"."""
        source = getattr(self.settings, "path", None) or getattr(self.settings, "dataset", None)
        return f"{Path(source).expanduser().absolute().name} ({self.name})" if source else self.name

    @property
    def height_width(self) -> tuple[int, int] | None:
        """The size as (height, width)."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


class LossTable(PartTable):
    """A term of the objective.

    Attributes:
        weight: its factor: a number, or a table `{start, end, steps}` for a factor that changes from `start` to `end`;
            None takes the loss's own default.
        every: 1 computes the loss on every update, 4 on every fourth with 4 times its weight; the updates of each
            network are counted separately. `training.lazy_scaling` adapts rate and betas to it.
    """

    kind = "loss"
    weight: Scheduled[Factor] | None = None
    every: Count = 1


class AugmentTable(PartTable):
    """The augment between images and critic.

    Attributes:
        scope: "critic" augments everything that the critic sees, "critic-turn" only what it sees in its own update,
            "real" only real images, "on-request" nothing but the images that a loss passes through the augment.
    """

    kind = "augment"
    scope: Scope = "critic"
