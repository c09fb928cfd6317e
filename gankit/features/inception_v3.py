"""Inception-v3 (Szegedy et al. 2016, arXiv 1512.00567): the features of FID (Heusel et al. 2017, arXiv 1706.08500)."""

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Annotated, ClassVar, final

import torch
from cleanfid import downloads_helper
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from gankit.cache import cache_folder
from gankit.errors import PartError
from gankit.features._network import Network, Resizer, read_weights, reason, without_deprecations

_FILE = "inception-2015-12-05.pt"  # the name that clean-fid's loader asks for


@final
class InceptionV3(Network):
    """The network and preprocessing of clean-fid (Parmar et al. 2022, arXiv 2104.11222), its mode "clean".

    Pixels are resized to 299x299 and become (x - 128) / 128; the features are the 2048 spatial means before the last
    layer. The weights are NVIDIA's TorchScript copy of the network of 2015-12-05, which FID is defined by.
    """

    name: ClassVar[str] = "inception-v3"
    program = "weights"
    side = 299
    dim = 2048

    def __init__(
        self,
        *,
        weights: str | Path | None = None,
        sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = None,
    ) -> None:
        """
        Args:
            weights: the file, under any name; a relative path starts at the current folder, and ~ is the home folder.
                By default clean-fid downloads it once, into the folder "weights" of gankit's cache.
            sha256: the hash that the file must have, in hexadecimal; by default it is only recorded.

        Raises:
            PartError: the file cannot be read or downloaded, has another sha256, or is not this network.
        """
        super().__init__()
        path = _download() if weights is None else Path(weights).expanduser()
        content, self.weights_sha256 = read_weights(path, sha256)
        remedy = "delete it to download it again" if weights is None else f"set weights to NVIDIA's {_FILE}"
        try:
            # clean-fid loads a file of a fixed name; from a private folder it loads the bytes that were hashed.
            with tempfile.TemporaryDirectory(prefix="gankit-") as folder, without_deprecations():
                (Path(folder) / _FILE).write_bytes(content)
                self.network = InceptionV3W(folder, download=False).eval()
            shape = tuple(self.forward(torch.zeros(1, 3, self.side, self.side)).shape)
        except OSError as error:
            where = tempfile.gettempdir()
            raise PartError(
                f"{path} cannot be copied to {where} ({reason(error)}); set TMPDIR to free space"
            ) from error
        except Exception as error:
            # A foreign or broken archive raises all sorts of errors, when it is loaded or first used.
            raise PartError(
                f"{path} is no Inception-v3 archive with {self.dim} features ({reason(error)}); {remedy}"
            ) from error
        if shape != (1, self.dim):
            raise PartError(f"{path} gives features of the shape {shape} for one image, not (1, {self.dim}); {remedy}")

    def read(self, images: Tensor) -> Tensor:
        """(n, 3, 299, 299) in [0, 255] to (n, 2048)."""
        features: Tensor = self.network(images)
        return features

    def logits(self, features: Tensor) -> Tensor:
        """(n, 2048) features to (n, 1008) logits, without the bias, as the original Inception score (arXiv 1606.03498).

        Raises:
            PartError: the archive has no class head.
        """
        weight = getattr(getattr(self.network.base, "output", None), "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2 or weight.shape[1] != self.dim:
            raise PartError(f"the weights of features {self.name} have no class head; use NVIDIA's {_FILE}")
        with torch.no_grad():
            return functional.linear(features.to(weight), weight)

    def resizer(self, side: int) -> Resizer:
        """clean-fid's mode "clean"."""
        resize: Resizer = build_resizer("clean")
        return resize

    @property
    def protocol(self) -> dict[str, str | int]:
        """The weights' sha256, the resize, the kind of logits, and the versions of the packages in use."""
        return {**super().protocol, "logits": "without bias"}


def _download() -> Path:
    """The file in gankit's cache, downloaded by clean-fid where it is missing.

    It appears under its name only when it is complete, so that two processes may do this at once.

    Raises:
        PartError: it cannot be downloaded.
    """
    path = cache_folder() / "weights" / _FILE
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="download-", dir=path.parent) as folder:
            file = downloads_helper.check_download_inception(fpath=folder)
            if not zipfile.is_zipfile(file):
                raise OSError("the download was cut off, or is not the file")
            os.replace(file, path)
    except Exception as error:
        # urllib raises OSError; http.client and proxy settings raise other errors.
        raise PartError(
            f"the Inception-v3 weights {path} are missing and {downloads_helper.inception_url} cannot be downloaded "
            f"({reason(error)}); fetch it elsewhere and set weights to its path, or choose features efficientnet-lite0"
        ) from error
    return path
