"""The pixels of a shrunken image: features without weights, for tests and for a first look."""

from typing import Annotated, ClassVar, final

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from gankit.errors import PartError
from gankit.interfaces import Features, ImageSpec


@final
class Pixels(Features):
    """Antialiased bilinear resize to a square, flattened and scaled to [0, 1].

    Distances between pixels see layout and colour, not meaning, and are not comparable with those of other features.
    """

    # Printed with each table of values from these features.
    limits: ClassVar = "pixels see layout and colour, not shapes: blobs in the right places and colours score well"

    def __init__(self, image: ImageSpec, *, side: Annotated[int, Field(ge=1, le=256)] = 8) -> None:
        """
        Args:
            image: of which only the channels matter.
            side: height and width after the resize, in pixels.
        """
        super().__init__()
        self.channels = image.channels
        self.side = side
        self.dim = image.channels * side * side

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) float32 in [0, 255] to (n, channels * side * side) in [0, 1].

        Raises:
            PartError: the images have another number of channels.
        """
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise PartError(
                f"pixels features are for {self.channels} channels here, and these images have the shape "
                f"{tuple(images.shape)}: read both sets as grey or both as colour, as in a table "
                '{name = "folder", path = "scans", grey = false}'
            )
        small = functional.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)
        return small.flatten(1) / 255

    @property
    def protocol(self) -> dict[str, str | int]:
        """The resize and its side; there are no weights."""
        return {"resize": "antialiased bilinear", "side": self.side}
