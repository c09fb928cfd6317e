"""Recipes, experiments by name: TOML files with fixed settings, and classes whose settings follow from the images."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from gankit.errors import PartError
from gankit.images.spec import ImageSpec
from gankit.registry import registry
from gankit.registry.messages import shown

SHOWN = 1_500_000
"""Images that a critic is shown in a whole training, some twenty minutes of one H200 at 64x64."""
HALF_LIFE = 10_000
"""Images in which the average of weights forgets half: StyleGAN2's (arXiv 1912.04958, in its authors' code)."""
RAMP = 0.05
"""The most of a training that the average of weights looks back: StyleGAN2-ADA's (arXiv 2006.06676, in its code)."""
MANY, FEW = 50_000, 1000
"""Images from which augmentation costs more than it gains, and below which cutout joins (arXiv 2006.10738)."""


@dataclass(frozen=True)
class TrainingImages:
    """What a recipe's settings follow from, and the rules that recipes share.

    Attributes:
        image: the images that the networks make and see, with the classes or conditions of the training.
        count: number of training images.
        pictures: whether they are pictures of 8 bits, whose brightness and contrast say little; else grey levels may be
            measurements.
        given_batch: images of a critic update, where the user sets them.
        given_steps: generator updates, where the user sets them.
    """

    image: ImageSpec
    count: int
    pictures: bool = True
    given_batch: int | None = None
    given_steps: int | None = None

    @property
    def side(self) -> float:
        """Pixels a side: the root of height times width."""
        return math.sqrt(self.image.height * self.image.width)

    @property
    def batch(self) -> int:
        """As the user sets it; else 4096 over the side (StyleGAN2-ADA, "auto"), at most half the images, 16 to 64.

        It is rounded down to a power of two.
        """
        wanted = max(min(4096 / self.side, 64, self.count / 2), 16)
        return self.given_batch or 1 << int(math.log2(wanted))

    @property
    def steps(self) -> int:
        """As the user sets them; else so many hundreds, at least one, that `SHOWN` images are shown."""
        return self.given_steps or max(SHOWN // self.batch // 100, 1) * 100

    def averaging(self, half_life: float = HALF_LIFE) -> float:
        """The decay per step of averaged weights that forget half in so many images, or in a `RAMP` of all shown."""
        return round(math.exp2(-self.batch / min(half_life, RAMP * self.steps * self.batch)), 6)

    def r1_weight(self) -> float:
        """StyleGAN2-ADA's gamma, 0.0002 x height x width / batch (arXiv 2006.06676, "auto"); three digits."""
        return float(f"{0.0002 * self.image.height * self.image.width / self.batch:.3g}")

    def widths(self, channels: int, least: int, most: int) -> list[int]:
        """Channels of the levels from 4 to 7 pixels up to the image, halved as the side doubles.

        Args:
            channels: where the shorter side is 4 to 7 pixels.
            least: the fewest of any level.
            most: the most of any level.
        """
        levels = max(min(self.image.height, self.image.width).bit_length() - 3, 0)
        return [min(max(channels >> level, least), most) for level in range(levels + 1)]

    def policy(self, color: bool = True, cutout: bool = True) -> list[str]:
        """DiffAugment's operations: colour for pictures alone, cutout below `FEW` images, none from `MANY` on."""
        wanted = {"color": color and self.pictures, "translation": True, "cutout": cutout and self.count < FEW}
        return [name for name, is_wanted in wanted.items() if is_wanted and self.count < MANY]


class Recipe(ABC):
    """An experiment whose settings follow from the images: everything but its data table.

    It is found by its name like a part, and in plug-ins by the entry point group `gankit.recipes`.

    Attributes:
        purpose: what it is for, in a few words.
        time: how long the whole training takes, and on what.
        sides: the fewest pixels of an image's shorter side, and the most of its longer one.
        data: the data table, where the user names no other data.
        proposed_on: types of devices of torch on which `gankit plan` proposes it.
    """

    purpose: ClassVar[str] = ""
    time: ClassVar[str] = ""
    sides: ClassVar[tuple[int, int]] = (28, 256)
    data: ClassVar[Mapping[str, Any]] = MappingProxyType({"name": "eyes", "size": 32, "flip": True})
    proposed_on: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        """Refuse a recipe whose facts are not what the class says, with a PartError."""
        for name, hint in get_type_hints(Recipe).items():
            value = getattr(cls, name)
            plain = dict(value) if isinstance(value, Mapping) else value  # strictly, a dict is wanted
            try:
                TypeAdapter(get_args(hint)[0]).validate_python(plain, strict=True)
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                raise PartError(f"recipe {cls.__name__}: {name} is {shown(value)}: {reason}") from None

    @abstractmethod
    def settings(self, images: TrainingImages) -> dict[str, Any]:
        """The tables of an experiment by name, without `data`; equal for equal `images`."""


_registry = registry("recipe")
names, register = _registry.names, _registry.register
get: Callable[[str], type[Recipe]] = _registry.get
__getattr__ = _registry.attribute
