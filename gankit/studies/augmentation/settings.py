"""The table `augmentation` of a study of augmentation."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator, Field, field_validator, model_validator

from gankit.experiments.tables import Repeats, Settings
from gankit.studies.augmentation.arms import CONTROLS, FILL, Ratio
from gankit.studies.fitting import FitSettings
from gankit.studies.kinds import GENERATOR, KINDS
from gankit.studies.study import distinct

if TYPE_CHECKING:
    KindName = str
    ControlName = str
else:
    KindName, ControlName = Literal[tuple(KINDS)], Literal[tuple(CONTROLS)]

Factor = Annotated[float, Gt(0), Le(50)]
Amount = Factor | Literal["fill"]

EXPORTED = "exported"  # the source whose images come into the folder `export_folds`


class Other(Settings):
    """Images of another program, as a source of the study.

    Attributes:
        images: a folder with `fold-1/generated/CLASS/*.png` and so on, one folder for each fold.
        command: the file of a program (Python where it ends in .py) that is run for each fold with two arguments: the
            fold's folder, as `--export-folds` writes it, and the folder in which to put CLASS/*.png.
    """

    images: str | None = None
    command: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Other":
        if (self.images is None) == (self.command is None):
            raise ValueError("either images or command is needed")
        return self


class AugmentationSettings(FitSettings):
    """What a study of augmentation trains, on what, and what it tests.

    Attributes:
        endpoint: what is judged: "class" (balanced accuracy), "presence" (mean of sensitivity and specificity of the
            classes in `positive`) or "severity" (mean absolute error of `number`).
        positive: classes that count as present.
        number: the number known of each image that "severity" learns.
        margin: the smallest difference of the endpoint that matters, decided before the study. Arms whose difference
            is within it count as equivalent.
        folds: parts of the data, each with all classes in proportion and of whole groups; each is the test part once.
        repeats: how often all this is done, each time with another division.
        validation: 4 sets aside a quarter of the images that are neither tested nor reserved, to choose arms and
            ratios.
        reserve: 4 sets aside a quarter of the images that are not tested, for the positive control alone.
        generators: generators that are trained in each fold.
        seeds: trainings of each classifier, for every generator. No two folds share seeds.
        arms: kinds of trainings. Those that add images take them from every source in turn: the generator of the
            experiment, others' images and the controls.
        controls: what replaces generated images: "copies", noised copies of training images, should not help;
            "held-out" real images show what more data would do.
        generator: whether the experiment's own generator is a source.
        others: images of other programs, by the name of the source.
        export_folds: a folder for the training images of each fold. The images that another program then puts into
            `fold-1/generated/CLASS/` there, and so on, are the source "exported"; the study starts once they are there.
        ratios: images added to each class, divided by its real ones, or "fill" for as many as bring it up to the most
            frequent class.
        strengths: factors of the ranges of classical augmentation.
        copy_noise: standard deviation of the noise of copies, as a share of the range.
        estimator: a classifier of scikit-learn in place of the network (for "severity" a regressor), by its name or its
            import path; it learns from `features`, all at once, so that `steps` does not apply.
        options: arguments of the estimator.
        features: the features that an estimator sees.
        views: augmented copies of each image where an estimator learns with classical augmentation.
    """

    table: ClassVar[str] = "augmentation"

    endpoint: Literal["class", "presence", "severity"] = "class"
    positive: Annotated[list[str], AfterValidator(distinct)] = Field(default_factory=list)
    number: str | None = None
    margin: Annotated[float, Gt(0)] = 0.02
    folds: Annotated[int, Ge(2), Le(1000)] = 5
    repeats: Repeats = 1
    validation: Annotated[int, Ge(2)] = 4
    reserve: Annotated[int, Ge(2)] = 4
    generators: Repeats = 2
    seeds: Repeats = 2
    arms: Annotated[list[KindName], MinLen(1), AfterValidator(distinct)] = Field(default_factory=lambda: list(KINDS))
    controls: Annotated[list[ControlName], AfterValidator(distinct)] = Field(default_factory=lambda: list(CONTROLS))
    generator: bool = True
    others: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")], Other] = Field(default_factory=dict)
    export_folds: str | None = None
    ratios: Annotated[list[Amount], MinLen(1), AfterValidator(distinct)] = Field(
        default_factory=lambda: list[Ratio]([0.5, 1.0, FILL])
    )
    strengths: Annotated[list[Factor], MinLen(1)] = Field(default_factory=lambda: [1.0])
    copy_noise: Annotated[float, Gt(0), Lt(1)] = 0.02
    estimator: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    features: str = "pixels"
    views: Repeats = 4

    @field_validator("strengths")
    @classmethod
    def _distinct(cls, strengths: list[float]) -> list[float]:
        distinct([f"{strength:g}" for strength in strengths])  # as variants are named
        return strengths

    @field_validator("others")
    @classmethod
    def _own_names_are_taken(cls, others: dict[str, Other]) -> dict[str, Other]:
        own = {GENERATOR, *CONTROLS, EXPORTED}
        for name in others:
            if name in own or any(f"{kind}-{name}" in KINDS for kind in KINDS):  # two arms would have one name
                raise ValueError(f"{name!r} is a source or an arm of the study's own; choose another name")
        return others

    @property
    def outside(self) -> dict[str, Other]:
        """All sources but the experiment's own generator, by name."""
        exported = {} if self.export_folds is None else {EXPORTED: Other(images=self.export_folds)}
        return {**self.others, **exported}

    @property
    def sources(self) -> list[str]:
        """Names of where generated images come from."""
        return [*([GENERATOR] if self.generator else []), *self.outside]
