"""The table `readers` of a study of readers."""

from typing import Annotated, Any

from annotated_types import Ge, Le
from pydantic import Field, field_validator

from gankit.experiments.tables import Settings
from gankit.ranking.rating_files import REAL

Place = str | dict[str, Any]


class ReadersSettings(Settings):
    """Which images readers see, and how many.

    Attributes:
        generated: generated images by the name of their source: whatever `gankit evaluate` takes, such as a run's
            folder, a folder of pictures, or a table such as `{name = "folder", path = "images", size = 64}`.
        real: real images, named likewise; those of a run are its held-out images, or its training images if it has
            none. By default those of the first source that is a run.
        images: how many images of each source, and how many real ones, are rated one by one; 0 for none.
        pairs: pairs of a real and a generated image of each source, of which readers choose the real one; 0 for none.
        repeats: the share of images and of pairs that are shown a second time, to see whether readers agree with
            themselves.
    """

    generated: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")], Place] = Field(default_factory=dict)
    real: Place | None = None
    images: Annotated[int, Ge(0)] = 40
    pairs: Annotated[int, Ge(0)] = 20
    repeats: Annotated[float, Ge(0), Le(0.5)] = 0.1

    @field_validator("generated")
    @classmethod
    def _real_is_taken(cls, generated: dict[str, Place]) -> dict[str, Place]:
        if REAL in generated:
            raise ValueError(f"{REAL!r} is what the real images are called; choose another name")
        return generated

    @property
    def real_images(self) -> int:
        """How many different real images are shown: those rated one by one, and one in each pair."""
        return self.images + self.pairs * len(self.generated)
