"""Shared by feature networks: loading hashed weights, and clean-fid's resize (Parmar et al. 2022, arXiv 2104.11222)."""

import hashlib
import importlib.metadata
import itertools
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from cleanfid.resize import make_resizer
from numpy.typing import NDArray
from torch import Tensor

from gankit.errors import PartError
from gankit.interfaces import Features
from gankit.registry.messages import shown


class Network(Features):
    """A trained network in evaluation mode, which gets images resized to the size that it was trained on."""

    name: ClassVar[str]  # the part's, for messages
    packages: ClassVar[tuple[str, ...]] = ()  # on whose versions features depend, besides clean-fid, Pillow and torch
    channels: int = 3  # that the network reads, 3 or 1
    side: int | None  # height and width of the images that the network gets, in pixels; None: they are not resized
    weights_sha256: str  # of the file of weights, in hexadecimal

    @abstractmethod
    def read(self, images: Tensor) -> Tensor:
        """(n, self.channels, side, side) float32 in [0, 255] to (n, dim)."""

    def forward(self, images: Tensor) -> Tensor:
        """(n, 1 or 3, height, width) float32 in [0, 255] to (n, dim), without gradients, on the network's device.

        Raises:
            PartError: images are not (n, c, height, width), or `check_channels` refuses them.
        """
        if images.ndim != 4:
            raise PartError(f"features {self.name} read (n, channels, height, width) images, not {tuple(images.shape)}")
        self.check_channels(images.shape[1])
        with torch.no_grad():
            if self.side is None:
                return self.read(self._on_device(images.float().expand(-1, self.channels, -1, -1)))
            small = _resize(images.detach().float().cpu().numpy(), self.side)[:, : self.channels]  # all equal for grey
            return self.read(self._on_device(torch.from_numpy(small)))

    def check_channels(self, channels: int) -> None:
        """Refuse images that the network cannot read.

        Raises:
            PartError: they have neither 1 nor 3 channels, or are coloured where the network reads grey ones.
        """
        if channels not in (1, 3):
            raise PartError(f"features {self.name} read grey or RGB images: 1 or 3 channels, these have {channels}")
        if channels > self.channels:
            raise PartError(f"features {self.name}: the network reads grey images, these have {channels} channels")

    def _on_device(self, images: Tensor) -> Tensor:
        weight = next(itertools.chain(self.parameters(), self.buffers()), images)
        return images.contiguous().to(weight.device)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: an image's features must not depend on its neighbours in the batch."""
        return super().train(False)

    @property
    def protocol(self) -> dict[str, str | int]:
        """The resize, the versions of the packages that compute the features, and the weights' sha256."""
        resized = "none" if self.side is None else f"clean-fid, PIL bicubic in float, {self.side}x{self.side}"
        versions = [f"{name} {importlib.metadata.version(name)}" for name in ("clean-fid", "pillow", *self.packages)]
        versions.append(f"torch {torch.__version__}")
        return {"resize": resized, "versions": ", ".join(versions), "weights_sha256": self.weights_sha256}


def _resize(images: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """(n, 1 or 3, height, width) to (n, 3, side, side) by clean-fid's mode "clean".

    Each channel is resized by Pillow's bicubic filter in floating point, clipped to [0, 255] and not rounded. Grey is
    repeated, as Pillow's conversion to RGB does.
    """
    resize: Callable[[NDArray[Any]], NDArray[np.float32]] = make_resizer(
        "PIL", quantize_after=False, filter="bicubic", output_size=(side, side)
    )
    colours = np.broadcast_to(images, (len(images), 3, *images.shape[2:])).transpose(0, 2, 3, 1)
    small = np.empty((len(images), 3, side, side), dtype=np.float32)

    def fill(i: int) -> None:
        small[i] = resize(colours[i]).transpose(2, 0, 1)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # Pillow resizes without the interpreter's lock
        list(pool.map(fill, range(len(images))))
    return small


def read_weights(path: Path, sha256: str | None = None) -> tuple[bytes, str]:
    """A file's bytes and their sha256, from one read: a write to the file in between changes neither.

    Raises:
        PartError: the file cannot be read, or its sha256 is not the one given.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PartError(
            f"the weights {shown(str(path))} cannot be read ({error.strerror}); give the path of a readable file"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise PartError(f"{path} has the sha256 {digest}, not {sha256} as set; fetch the file again or correct sha256")
    return content, digest


@contextmanager
def without_deprecations() -> Iterator[None]:
    """Silence torch's warnings (since 2.14) that TorchScript is deprecated: users' archives are TorchScript."""
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning):
            warnings.simplefilter("ignore", category)
        yield


def reason(error: BaseException) -> str:
    """An error's first sentence, in one line of at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if lines[0].startswith("Error(s) in loading state_dict"):  # a heading before what is missing
        del lines[0]
    # TorchScript errors begin with the trace and end with the message; others begin with the message.
    ends_with_message = any("TorchScript" in line for line in lines)
    return (lines[-1] if ends_with_message else lines[0]).partition(". ")[0][:200]
