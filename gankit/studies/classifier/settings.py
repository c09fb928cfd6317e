"""The table `classifier` of a study of a classifier."""

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator, Field

from gankit.experiments.tables import Repeats
from gankit.studies.classifier.arms import ARMS
from gankit.studies.fitting import FitSettings
from gankit.studies.study import distinct

if TYPE_CHECKING:
    ArmName = str
else:
    ArmName = Literal[tuple(ARMS)]


class ClassifierSettings(FitSettings):
    """What a study of a classifier trains, and on what.

    Attributes:
        seeds: trainings of each arm, of the seeds `training.seed` and up.
        generators: generators to train; None trains one for each seed. With fewer, seeds take them in turn, and
            intervals leave out a part of the spread between generators.
        arms: what is trained on: "real" images; "oversampling" draws classes equally often; "classical" augments and
            weights classes, the bar to beat; "synthetic" adds generated images of the rare class; "classical-synthetic"
            does both, without weights of classes; "copies", a control, adds noised copies in place of generated images.
        folds: folds into which the cases are divided, stratified by class; one of them is the test part.
        test_split: the named split to test on; by default "test" where the data have one, else a fold.
        synthetic_classes: classes to which generated images are added; the rarest where none is named.
        synthetic_fill: how far they are filled up: real and generated images of such a class together, divided by the
            images of the most frequent class.
        copy_noise: standard deviation of the noise of copies, as a share of the range.
        groupings: by a name, classes that count as positive together, for sensitivity and specificity.
        regression: a number known of each image, which a network of its own learns to predict; "none" for no number.
        calibration: adds the Brier score, the calibration error and a calibration diagram.
    """

    seeds: Repeats = 3
    generators: Repeats | None = None
    arms: Annotated[list[ArmName], MinLen(1), AfterValidator(distinct)] = Field(
        default_factory=lambda: ["real", "oversampling", "classical", "synthetic"]
    )
    folds: Annotated[int, Ge(2), Le(1000)] = 5
    test_split: str | None = None
    synthetic_classes: Annotated[list[str], AfterValidator(distinct)] = Field(default_factory=list)
    synthetic_fill: Annotated[float, Gt(0), Le(10)] = 1.0
    copy_noise: Annotated[float, Gt(0), Lt(1)] = 0.02
    groupings: dict[str, Annotated[list[str], MinLen(1)]] = Field(default_factory=dict)
    regression: str | None = None
    calibration: bool = False
