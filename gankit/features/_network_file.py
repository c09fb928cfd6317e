"""Features from a user's own network in a file, whatever its format."""

from abc import abstractmethod
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gankit.cache import user_path
from gankit.errors import PartError
from gankit.features._network import Network, read_weights, reason
from gankit.interfaces import ImageSpec

Finite = Annotated[float, Field(allow_inf_nan=False)]


class NetworkFile(Network):
    """A network in a file, tried on random images when it is loaded.

    Such a file holds a program, which can read and write files: use only those of people you trust. gankit loads one
    only where you name it yourself: on the command line, in a program, or in the variable GANKIT_TRUST. That the file
    of an experiment, a run or a study names it is not enough.
    """

    remedy: ClassVar[str]  # what to do where the network fails on images, for messages
    program = "path"  # the setting that names a file with a program

    def __init__(
        self,
        image: ImageSpec,
        *,
        path: str | Path,
        sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = None,
        size: Annotated[int, Field(ge=1, le=4096)] | None = None,
        channels: Literal[1, 3] = 3,
        low: Finite = 0.0,
        high: Finite = 255.0,
    ) -> None:
        """
        Args:
            image: what the images are; the network is tried on two random ones.
            path: the file; a relative path starts at the current folder, and ~ is the home folder.
            sha256: the hash that the file must have, in hexadecimal; by default it is only recorded.
            size: height and width that images are resized to, by clean-fid's bicubic filter; by default they are not.
            channels: how many the network reads. With 3, grey images are repeated; with 1, colour images are refused.
            low: the value that the network expects for black, for example 0 or -1.
            high: the value that the network expects for white, for example 1 or 255.

        Raises:
            PartError: the file cannot be read, has another sha256 or is not of this format; the network cannot read
                these images or does not give one vector of finite numbers per image; the features of an image change
                with its neighbours in the batch or from call to call.
        """
        super().__init__()
        if not low < high:
            raise PartError(f"features {self.name}: low is {low} and high is {high}; low must be below high")
        self.path, self.side, self.channels = user_path(path), size, channels
        self.low, self.high = low, high
        self.check_channels(image.channels)
        content, self.weights_sha256 = read_weights(self.path, sha256)
        self.network = self.load(content)
        shape = (2, image.channels, image.height, image.width)
        images = 255 * torch.rand(shape, generator=torch.Generator().manual_seed(0))
        in_batch, alone = self.forward(images)[:1], self.forward(images[:1])
        self.dim = in_batch.shape[1]
        tolerance = 1e-3 * float(alone.abs().max())
        if alone.shape != in_batch.shape or not torch.allclose(in_batch, alone, rtol=1e-3, atol=tolerance):
            raise PartError(
                f"{self.path} gives an image different features in a batch than alone; save the network in "
                "evaluation mode, without random layers and without statistics of the batch"
            )

    @abstractmethod
    def load(self, content: bytes) -> nn.Module:
        """The network from the bytes of `self.path`, on the CPU and in evaluation mode.

        Raises:
            PartError: the bytes are of another format.
        """

    def read(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) in [0, 255] to (n, dim) float32.

        Raises:
            PartError: the network fails, or returns something else.
        """
        scaled = self.low + images * ((self.high - self.low) / 255)
        try:
            features = self.network(scaled)
        except Exception as error:  # a network may raise any error
            shape = " x ".join(map(str, images.shape[1:]))
            raise PartError(f"{self.path} fails on images of {shape} ({reason(error)}); {self.remedy}") from error
        if not isinstance(features, Tensor) or not features.is_floating_point():
            kind = features.dtype if isinstance(features, Tensor) else type(features).__name__
            raise PartError(f"{self.path} gives {kind}, not a tensor of floating-point features")
        n = len(images)
        if features.ndim < 2 or len(features) != n or features.shape[2:] not in ((), (1, 1)):
            raise PartError(
                f"{self.path} gives the shape {tuple(features.shape)} for {n} images; it must be ({n}, d) or "
                f"({n}, d, 1, 1)"
            )
        features = features.flatten(1).float()
        if not features.isfinite().all():
            raise PartError(f"{self.path} gives features that are not finite; check low and high, and the images")
        return features

    @property
    def protocol(self) -> dict[str, str | int]:
        """The file's sha256, the resize, the channels and range that the network gets, and the versions."""
        return {**super().protocol, "channels": self.channels, "range": f"{self.low} to {self.high}"}
