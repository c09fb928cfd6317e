"""Inception-v3 (Szegedy et al. 2016, arXiv 1512.00567): the features of FID (Heusel et al. 2017, arXiv 1706.08500)."""

import importlib.metadata
import io
import os
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast, final

import torch
from cleanfid import downloads_helper
from cleanfid.inception_torchscript import InceptionV3W
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gankit.cache import cache_folder, user_path
from gankit.errors import PartError
from gankit.features._network import Network, read_weights, reason, without_deprecations

_FILE = "inception-2015-12-05.pt"  # the name that clean-fid's loader asks for
_TORCH_FIDELITY_FILE = "weights-inception-2015-12-05-6726825d.pth"  # the same weights as torch-fidelity publishes them


@final
class InceptionV3(Network):
    """The network and preprocessing of clean-fid (Parmar et al. 2022, arXiv 2104.11222), its mode "clean".

    Pixels are resized to 299x299 and become (x - 128) / 128; the features are the 2048 spatial means before the last
    layer. The weights are those of the network of 2015-12-05, which FID is defined by: NVIDIA's TorchScript copy
    through clean-fid, or where that fails torch-fidelity's copy and graph (Obukhov et al. 2020).
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
            weights: NVIDIA's or torch-fidelity's file, under any name; a relative path starts at the current folder,
                and ~ is the home folder. By default clean-fid downloads NVIDIA's once, into the folder "weights" of
                gankit's cache.
            sha256: the hash that the file must have, in hexadecimal; by default it is only recorded.

        Raises:
            PartError: the file cannot be read or downloaded, has another sha256, or is not this network; the file is
                torch-fidelity's, which is not installed.
        """
        super().__init__()
        path = _download() if weights is None else user_path(weights)
        content, self.weights_sha256 = read_weights(path, sha256)
        remedy = f"set weights to NVIDIA's {_FILE} or torch-fidelity's {_TORCH_FIDELITY_FILE}"
        if weights is None:
            remedy = f"set weights to torch-fidelity's {_TORCH_FIDELITY_FILE}, or delete {path} to download it again"
        tensors = _torch_fidelity_tensors(content)
        try:
            # Both loaders want a file: a private copy holds the very bytes that were hashed.
            with tempfile.TemporaryDirectory(prefix="gankit-") as folder:
                if tensors is None:
                    (Path(folder) / _FILE).write_bytes(content)
                    with without_deprecations():
                        self.network: nn.Module = InceptionV3W(folder, download=False).eval()
                else:
                    torch.save(tensors, Path(folder) / _TORCH_FIDELITY_FILE)
                    self.network = _TorchFidelity(Path(folder) / _TORCH_FIDELITY_FILE)
            shape = tuple(self.forward(torch.zeros(1, 3, self.side, self.side)).shape)
        except ImportError as error:
            raise PartError(f"{path} is torch-fidelity's file, and needs it: pip install torch-fidelity") from error
        except OSError as error:
            where = tempfile.gettempdir()
            raise PartError(
                f"{path} cannot be copied to {where} ({reason(error)}); set TMPDIR to free space"
            ) from error
        except Exception as error:  # a foreign or broken archive raises all sorts, when it is loaded or first used
            raise PartError(
                f"{path} is not an Inception-v3 archive with {self.dim} features ({reason(error)}); {remedy}"
            ) from error
        if shape != (1, self.dim):
            raise PartError(f"{path} gives features of the shape {shape} for one image, not (1, {self.dim}); {remedy}")

    def read(self, images: Tensor) -> Tensor:
        """(n, 3, 299, 299) in [0, 255] to (n, 2048)."""
        return cast(Tensor, self.network(images))

    def logits(self, features: Tensor) -> Tensor:
        """(n, 2048) features to (n, 1008) logits, without the bias, as the original Inception score (arXiv 1606.03498).

        Raises:
            PartError: the archive has no class head.
        """
        base: Any = self.network.base
        weight = getattr(getattr(base, "output", None), "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2 or weight.shape[1] != self.dim:
            raise PartError(f"the weights of features {self.name} have no class head; use NVIDIA's {_FILE}")
        with torch.no_grad():
            return functional.linear(features.to(weight), weight)

    @property
    def protocol(self) -> dict[str, str | int]:
        """The weights' sha256, the resize, the kind of logits, and the versions of the packages in use."""
        protocol = {**super().protocol, "logits": "without bias"}
        if isinstance(self.network, _TorchFidelity):
            protocol["graph"] = f"torch-fidelity {importlib.metadata.version('torch-fidelity')}"
        return protocol


@final
class _TorchFidelity(nn.Module):
    """torch-fidelity's graph without its own resize, which would round to 8 bits first."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        whole = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path))
        *layers, head = whole.children()
        self.layers = nn.Sequential(*layers)
        self.base = nn.ModuleDict({"output": head})  # the class head, where NVIDIA's archive has it

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers((images - 128) / 128)
        return features.flatten(1)


def _torch_fidelity_tensors(content: bytes) -> dict[str, Tensor] | None:
    """The tensors of torch-fidelity's file; None for any other."""
    try:
        with warnings.catch_warnings(action="ignore"):
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # torch warns of TorchScript archives and refuses them; broken files raise all sorts
        return None
    return loaded if isinstance(loaded, dict) and "Mixed_7c.branch_pool.conv.weight" in loaded else None


def _download() -> Path:
    """The file in gankit's cache, downloaded by clean-fid where it is missing.

    It appears under its name only when it is complete, so that two processes may do this at once.
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
    except Exception as error:  # urllib raises OSError; http.client and proxy settings raise other errors
        raise PartError(
            f"the Inception-v3 weights {path} are missing and {downloads_helper.inception_url} cannot be downloaded "
            f"({reason(error)}); fetch it, or torch-fidelity's {_TORCH_FIDELITY_FILE}, elsewhere and set weights to "
            "its path, or choose features efficientnet-lite0"
        ) from error
    return path
