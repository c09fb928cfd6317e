"""The table `classifier` of a study of a classifier."""

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator, Field, field_validator

from gankit.experiments.tables import Count, Rate, Settings, Share
from gankit.registry.messages import suggestion
from gankit.runs.classifiers import SMALL
from gankit.studies.classifier.arms import ARMS
from gankit.studies.study import distinct

if TYPE_CHECKING:
    ArmName = str
else:
    ArmName = Literal[tuple(ARMS)]


class Classical(Settings):
    """Random changes of real images that keep the label; every one is drawn anew for each image of each batch.

    Attributes:
        flip: shows each image or its mirror image that keeps the label; no change where the data set has none.
        shift: at most this share of the height and of the width.
        rotate: at most these degrees either way.
        scale: at most this share larger or smaller.
        brightness: at most this share of the range brighter or darker.
        contrast: at most this share more or less contrast.
    """

    flip: bool = True
    shift: Share = 0.06
    rotate: Annotated[float, Ge(0), Le(180)] = 5.0
    scale: Share = 0.05
    brightness: Share = 0.1
    contrast: Share = 0.1


class ClassifierSettings(Settings):
    """What a study of a classifier trains, and on what.

    Attributes:
        network: "small", gankit's own: a few convolutions for images of any size and channels; or a classification
            network of torchvision by name.
        width: channels of the small network's first layer.
        weights: a file of weights for a network of torchvision, as torchvision publishes them; its head is left out.
            Nothing is downloaded, and without a file first weights are drawn.
        input_size: pixels to which images are resized for a network of torchvision; their own size where None.
        steps: optimiser steps of every training, whatever the arm. The last weights are tested, so that nothing is
            chosen on the test part.
        batch: images a step.
        lr: the highest learning rate of AdamW; it falls to 0 along a cosine.
        weight_decay: AdamW's.
        seeds: trainings of each arm, of the seeds `training.seed` and up.
        generators: generators to train; one a seed where None. With fewer, seeds share them in turn, and intervals
            leave out a part of what another generator would change.
        arms: what is trained on: "real" images; "oversampling" draws classes equally often; "classical" augments and
            weights classes, the bar to beat; "synthetic" adds generated images of the rare class; "classical-synthetic"
            does both, without weights of classes; "copies", a control, adds noised copies in place of generated images.
        folds: one of so many folds of the cases, stratified by class, is the test part.
        test_split: the named split to test on; by default "test" where the data have one, else a fold.
        synthetic_classes: classes that generated images are added to; the rarest where none is named.
        synthetic_fill: images of such a class, real and generated, over those of the most frequent class.
        copy_noise: standard deviation of the noise of copies, as a share of the range.
        groupings: names with the classes that are positive in each, for sensitivity and specificity.
        regression: a number known of each image that a network of its own learns; "none" takes one away.
        calibration: adds the Brier score, the calibration error and their diagram.
        checkpoint_every: steps between checkpoints of a training.
        classical: the augmentation of the arms that have one.
    """

    network: str = SMALL
    width: Count = 16
    weights: str | None = None
    input_size: Annotated[int, Ge(8)] | None = None
    steps: Count = 1000
    batch: Annotated[int, Ge(2)] = 64
    lr: Rate = 2e-3
    weight_decay: Annotated[float, Ge(0)] = 1e-2
    seeds: Count = 3
    generators: Count | None = None
    arms: Annotated[list[ArmName], MinLen(1), AfterValidator(distinct)] = Field(
        default_factory=lambda: ["real", "oversampling", "classical", "synthetic"]
    )
    folds: Annotated[int, Ge(2)] = 5
    test_split: str | None = None
    synthetic_classes: list[str] = Field(default_factory=list)
    synthetic_fill: Annotated[float, Gt(0), Le(10)] = 1.0
    copy_noise: Annotated[float, Gt(0), Lt(1)] = 0.02
    groupings: dict[str, Annotated[list[str], MinLen(1)]] = Field(default_factory=dict)
    regression: str | None = None
    calibration: bool = False
    checkpoint_every: Count = 500
    classical: Classical = Classical()

    @field_validator("network")
    @classmethod
    def _known(cls, name: str) -> str:
        if name != SMALL:
            from torchvision import models

            names = models.list_models(module=models)
            if name not in names:
                raise ValueError(f"torchvision has no network {name!r}; {suggestion(name, [SMALL, *names])}")
        return name
