"""The common base of data sets whose images must be decoded from files."""

from abc import abstractmethod
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from gankit.cache import stored
from gankit.images.grey_levels import Images, valid_range
from gankit.interfaces.dataset import Dataset


class DecodedDataset(Dataset):
    """Images that are decoded at first use, and then kept in memory, or memory-mapped from gankit's cache on disk.

    Args:
        in_memory: False keeps the images memory-mapped in the cache on disk.
        mirror_keeps_label: False where left and right matter to the label.
        value_range: the values of black and white; by default 0 and the largest of the integer type.

    Attributes:
        declared_range: `value_range` as given, or None.

    Raises:
        DataError: value_range is not two finite numbers, the smaller first.
    """

    def __init__(
        self, *, in_memory: bool, mirror_keeps_label: bool, value_range: tuple[float, float] | None = None
    ) -> None:
        self.in_memory = in_memory
        self.mirror_keeps_label = mirror_keeps_label
        self.declared_range = valid_range(value_range)

    @abstractmethod
    def decode(self) -> NDArray[Any]:
        """All images, (n, channels, height, width) uint8, uint16 or float32.

        Raises:
            DataError: an image cannot be decoded, differs from the others, or has values outside the declared range.
        """

    @abstractmethod
    def cache_key(self) -> str:
        """A file name for the cache, different for every different set of images."""

    @cached_property
    def images(self) -> NDArray[Any]:
        """(n, channels, height, width), as `decode` gives them."""
        return self.decode() if self.in_memory else stored(self.cache_key(), self.decode)

    @property
    def reads_without_decoding(self) -> bool:
        """Whether rows are read from `images`, in memory or in the cache on disk, instead of being decoded one by one.

        If the cache is still empty, the first read fills it with all images.
        """
        return "images" in vars(self) or not self.in_memory

    @property
    def value_range(self) -> tuple[float, float]:
        """The values of black and white: as declared, else the whole range of the integer type."""
        return self.declared_range or super().value_range

    def mirror(self, images: Images) -> Images | None:
        """(n, c, h, w) images with left and right exchanged, or None where `mirror_keeps_label` is False."""
        return super().mirror(images) if self.mirror_keeps_label else None
