"""Settings whose values change while a network trains."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar, Union

from annotated_types import Ge
from pydantic import Discriminator, Tag

from gankit.registry.settings import Settings

if TYPE_CHECKING:  # not at run time: `gankit list` need not load torch
    from torch import Tensor

Number = TypeVar("Number", bound=float)


class Schedule(Settings, Generic[Number]):
    """A number that changes from one value to another over the first steps, and stays there.

    Half a cosine is the shape in R3GAN (Huang et al. 2024, arXiv 2501.05441, appendix D).

    Attributes:
        start: the value at step 0.
        end: the value from step `steps` on.
        steps: generator updates between the two.
        shape: "cosine" changes slowly at either end, "linear" evenly.
    """

    start: Number
    end: Number
    steps: Annotated[int, Ge(1)]
    shape: Literal["cosine", "linear"] = "cosine"

    def at(self, step: int) -> float:
        """The value after `step` generator updates."""
        progress = min(step / self.steps, 1.0)
        if self.shape == "cosine":
            progress = (1 - math.cos(math.pi * progress)) / 2
        return self.start + (self.end - self.start) * progress


if TYPE_CHECKING:
    Scheduled = Union[Number, Schedule[Number]]  # noqa: UP007 - an alias that is generic
else:

    class Scheduled:
        """The type of a setting that is a number, or a table such as `{ start = 2e-4, end = 5e-5, steps = 20000 }`.

        `Scheduled[X]` is `X | Schedule[X]`. The form of a value decides which of the two pydantic validates, so that
        errors are about that one only.
        """

        def __class_getitem__(cls, number: Any) -> Any:
            union = Annotated[number, Tag("number")] | Annotated[Schedule[number], Tag("table")]
            tables = (Mapping, Schedule)
            return Annotated[union, Discriminator(lambda value: "table" if isinstance(value, tables) else "number")]


def fill_at(buffer: "Tensor", setting: float | Schedule[float] | None, step: int) -> float | None:
    """Set a scalar buffer to a schedule's value after `step` generator updates, and return that value.

    A setting that is a plain number leaves the buffer as it is, and gives None.
    """
    if not isinstance(setting, Schedule):
        return None
    value = setting.at(step)
    buffer.fill_(value)
    return value


def value_at(setting: float | Schedule[float], step: int) -> float:
    """The value of a number or schedule after `step` generator updates."""
    return setting.at(step) if isinstance(setting, Schedule) else setting
