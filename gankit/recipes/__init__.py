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

IMAGES_SHOWN = 1_500_000
"""Images of a whole training, one batch a step, which takes `fastgan` some twenty minutes on one H200 at 64x64."""
HALF_LIFE = 10_000
"""Images, one batch a step, in which the average of weights forgets half (code of StyleGAN2, arXiv 1912.04958)."""
LONGEST_HALF_LIFE = 0.05
"""The longest half-life, as a share of the whole training, as in the code of StyleGAN2-ADA (arXiv 2006.06676)."""
NO_AUGMENT_FROM, CUTOUT_BELOW = 50_000, 1000
"""Numbers of images: from the first on augmentation costs more than it gains; below the second cutout is used too
(arXiv 2006.10738)."""


@dataclass(frozen=True)
class TrainingImages:
    """What a recipe's settings follow from, and the rules that recipes share.

    Attributes:
        image: the images that the networks make and see, with the classes or conditions of the training.
        count: number of training images.
        pictures: whether they have 8 bits, like photographs, whose brightness and contrast may be changed. Grey levels
            of other images may be measurements.
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
        """As the user sets it; else 4096 / side (StyleGAN2-ADA, "auto"), rounded down to a power of two.

        It is at most 64 and at most half the images, but at least 16.
        """
        wanted = max(min(4096 / self.side, 64, self.count / 2), 16)
        return self.given_batch or 2 ** math.floor(math.log2(wanted))

    @property
    def steps(self) -> int:
        """As the user sets them; else `IMAGES_SHOWN` images, one batch a step, in hundreds, at least 100."""
        return self.given_steps or max(IMAGES_SHOWN // self.batch // 100, 1) * 100

    def averaging(self, half_life: float = HALF_LIFE) -> float:
        """The decay per step of averaged weights with this half-life (images), at most `LONGEST_HALF_LIFE`."""
        return round(math.exp2(-self.batch / min(half_life, LONGEST_HALF_LIFE * self.steps * self.batch)), 6)

    def r1_weight(self) -> float:
        """StyleGAN2-ADA's gamma, 0.0002 x height x width / batch (arXiv 2006.06676, "auto"); three digits."""
        return float(f"{0.0002 * self.image.height * self.image.width / self.batch:.3g}")

    def widths(self, channels: int, least: int, most: int) -> list[int]:
        """Channels of every level, from the smallest up to the image; as the side doubles, they are halved.

        Args:
            channels: those of the smallest level, whose shorter side is 4 to 7 pixels.
            least: the fewest of any level.
            most: the most of any level.
        """
        doublings = max(min(self.image.height, self.image.width).bit_length() - 3, 0)  # 4 to 7 have three bits
        return [min(max(channels >> doubled, least), most) for doubled in range(doublings + 1)]

    def policy(self, color: bool = True, cutout: bool = True) -> list[str]:
        """DiffAugment's operations; colour only for `pictures`, cutout only for few images, none for very many."""
        wanted = {"color": color and self.pictures, "translation": True, "cutout": cutout and self.count < CUTOUT_BELOW}
        return [name for name, is_wanted in wanted.items() if is_wanted and self.count < NO_AUGMENT_FROM]


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

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a recipe whose facts are not of the types above, with a PartError."""
        super().__init_subclass__(**options)
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
