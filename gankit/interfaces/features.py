"""The interface of networks that map images to feature vectors, on which metrics are computed."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from gankit.errors import PartError


class Features(nn.Module, ABC):
    """Maps images to feature vectors, on which metrics are computed.

    Attributes:
        dim: length of a feature vector.
        limits: a note for tables on what the features cannot see, or empty.
        program: name of the setting whose value is a file with executable code, such as a TorchScript archive; None
            if there is none. The file is loaded only if the user has named it in Python, on the command line or in
            `GANKIT_TRUST`; an experiment file that names it is not enough.
    """

    dim: int
    limits: ClassVar[str] = ""
    program: ClassVar[str | None] = None

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) float32 in [0, 255] to (n, dim) features."""

    if TYPE_CHECKING:
        __call__ = forward

    def logits(self, features: Tensor) -> Tensor:
        """(n, dim) features to (n, k) class logits, where the network has a class head on top of them.

        Raises:
            PartError: it has none.
        """
        raise PartError(f"features {type(self).__name__} have no class logits; choose features of a classifier")

    @property
    def protocol(self) -> dict[str, str | int]:
        """The measuring protocol, for the metrics file: all that features depend on besides the images.

        It holds the resizing, the weights and their hash, and under the key `versions` the versions of packages. Metric
        values are compared only if their protocols are equal, `versions` aside. A protocol with the key
        `weights_sha256` promises that the features depend only on the images and the protocol; only then are features
        cached on disk.
        """
        return {}
