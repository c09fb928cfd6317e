"""What a run records besides its experiment."""

import dataclasses
from typing import Annotated, Literal, Self

from annotated_types import Ge, Le
from pydantic import Field, field_validator, model_validator

from gankit.experiments.tables import Settings
from gankit.images.spec import ImageSpec


class RunRecord(Settings):
    """What a run records besides the experiment; gankit alone writes it, and reads it to resume and to sample.

    Attributes:
        versions: of gankit, Python, torch, numpy, and of the plug-ins in use.
        image: the fields of the `ImageSpec`.
        dtype: pixel type of the data set; samples are saved in the same type.
        value_range: the pixel values of black and white.
        class_names: one per class.
        condition_mean: mean of each float condition over the training images.
        condition_scale: standard deviation of each float condition.
        label_counts: the number of training images of each class.
        images: the number of training images.
        image_means: of up to 32 training images, spread evenly over all, the mean pixel value as a share of
            `value_range`. They show when images were exchanged or are split in another way. Empty in older records.
        held_out: the number of images held out; None in older records.
        device: the device in use.
        arithmetic: how precisely the device computes, in words; empty in older records.
        threads: the most CPU threads that a process used; threads.jsonl lists the changes, if there were any.
        processes: number of processes that the run was started with.
        data_in_process: whether a program passed the data set as an object; `gankit resume` then cannot resume the run.
        features: the features for evaluations while training, where the experiment names none. A resumed run uses the
            same ones, whatever is installed then. Empty where the experiment names features, and in older records.
    """

    versions: dict[str, str]
    image: dict[str, int]
    dtype: Literal["uint8", "uint16", "float32"]
    value_range: tuple[float, float]
    class_names: list[str] = Field(default=[])
    condition_mean: list[float] = Field(default=[])
    condition_scale: list[float] = Field(default=[])
    label_counts: list[Annotated[int, Ge(0)]] = Field(default=[])
    images: Annotated[int, Ge(1)]
    image_means: list[float] = Field(default=[])
    held_out: Annotated[int, Ge(0)] | None = None
    device: str
    arithmetic: str = ""
    threads: Annotated[int, Ge(1), Le(4096)]
    processes: Annotated[int, Ge(1)] = 1
    data_in_process: bool = False
    features: str = ""

    @field_validator("image")
    @classmethod
    def _check_image(cls, image: dict[str, int]) -> dict[str, int]:
        try:
            return dataclasses.asdict(ImageSpec(**image))
        except TypeError:
            raise ValueError(f"channels, height, width, classes and conditions are needed, not {image}") from None

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if (classes := self.image["classes"]) and not len(self.class_names) == len(self.label_counts) == classes:
            raise ValueError(f"class_names and label_counts need a value for each of {classes} classes")
        if classes and (counted := sum(self.label_counts)) != self.images:
            raise ValueError(f"label_counts counts {counted} of {self.images} images")
        if self.value_range[0] >= self.value_range[1]:
            raise ValueError("value_range needs two numbers, the smaller one first")
        if min(len(self.condition_mean), len(self.condition_scale)) < self.image["conditions"]:
            raise ValueError(f"condition_mean and condition_scale need {self.image['conditions']} values each")
        return self
