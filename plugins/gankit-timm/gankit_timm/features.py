"""Any network of timm (Wightman 2019, PyTorch Image Models) as features, with weights from a local file."""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
from pathlib import Path
from typing import Annotated, Any, Self, final

import numpy as np
import safetensors.torch
import torch
from annotated_types import Ge, Le
from cleanfid.resize import make_resizer
from gankit.cache import user_path
from gankit.errors import PartError
from gankit.interfaces import Features, ImageSpec
from pydantic import StringConstraints
from torch import Tensor


@final
class Timm(Features):
    """The vector before the class head of a network that timm knows by name.

    Images are resized by clean-fid's bicubic filter (Parmar et al. 2022, arXiv 2104.11222) to the square that the
    network was trained on, and normalised with the mean and deviation that timm states for its weights. Nothing is ever
    downloaded. Distances between these features are not FID, nor comparable with it.
    """

    def __init__(
        self,
        image: ImageSpec,
        *,
        network: str,
        weights: str | Path,
        sha256: Annotated[str, StringConstraints(pattern="^[0-9a-fA-F]{64}$")] | None = None,
        size: Annotated[int, Ge(1), Le(4096)] | None = None,
    ) -> None:
        """
        Args:
            image: what the images are: grey or RGB.
            network: timm's name, best with the tag of the weights ("resnet50.a1_in1k"), since weights of other tags
                were trained with other sizes and normalisations.
            weights: the safetensors file of these weights; a relative path starts at the current folder, and ~ is the
                home folder.
            sha256: the hash that the file must have, in hexadecimal; by default it is only recorded.
            size: height and width that images are resized to, in pixels; by default those that timm states.

        Raises:
            PartError: timm does not know the network; the file cannot be read, has another sha256, or does not hold the
                network's weights; the images have other channels.
        """
        super().__init__()
        self._check_channels(image.channels)
        name = _known(network)
        path = user_path(weights)
        tensors, self._sha256 = _read(path, sha256, network)
        self.network: Any = _load(name, tensors, path, size).eval()
        stated = self.network.pretrained_cfg
        self.side = size or min(stated["input_size"][1:])
        self._name = network
        mean, std = (torch.tensor(stated[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        try:
            self.dim = int(self.forward(torch.zeros(1, 3, self.side, self.side)).shape[1])
        except Exception as error:
            # A network may raise any error at a size that is not its own.
            raise PartError(
                f"features timm: {network} cannot read images of {self.side} x {self.side} ({_reason(error)}); "
                "change size"
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        """(n, 1 or 3, height, width) float32 in [0, 255] to (n, dim), without gradients, on the network's device.

        Raises:
            PartError: the images have another number of channels.
        """
        self._check_channels(images.shape[1])
        resize = make_resizer("PIL", False, "bicubic", (self.side, self.side))
        colours = images.detach().float().cpu().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
        small = np.empty((len(images), self.side, self.side, 3), dtype=np.float32)
        for place, image in enumerate(colours):
            small[place] = resize(image)
        with torch.no_grad():
            scaled = torch.from_numpy(small).permute(0, 3, 1, 2).to(self.mean) / 255
            maps = self.network.forward_features((scaled - self.mean) / self.std)
            features: Tensor = self.network.forward_head(maps, pre_logits=True).flatten(1).float()
        return features

    def logits(self, features: Tensor) -> Tensor:
        """(n, dim) features to (n, k) logits of the classes that the network was trained on.

        Raises:
            PartError: these weights have no class head.
        """
        head = self.network.get_classifier()
        if not isinstance(head, torch.nn.Linear):
            raise PartError(f"features timm: {self._name} has no class head; choose a network trained on classes")
        with torch.no_grad():
            logits: Tensor = head(features.to(head.weight))
        return logits

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: an image's features must not depend on its neighbours in the batch."""
        return super().train(False)

    @property
    def protocol(self) -> dict[str, str | int]:
        """The network, its weights' sha256, resize and normalisation, and the versions of the packages in use."""
        packages = ("clean-fid", "pillow", "timm")
        versions = [*(f"{name} {importlib.metadata.version(name)}" for name in packages), f"torch {torch.__version__}"]
        numbers = [", ".join(f"{value:.4g}" for value in buffer.flatten().tolist()) for buffer in (self.mean, self.std)]
        return {
            "network": self._name,
            "resize": f"clean-fid, PIL bicubic in float, {self.side}x{self.side}",
            "mean": numbers[0],
            "std": numbers[1],
            "versions": ", ".join(versions),
            "weights_sha256": self._sha256,
        }

    def _check_channels(self, channels: int) -> None:
        if channels not in (1, 3):
            raise PartError(f"features timm read grey or RGB images: 1 or 3 channels, these have {channels}")


def _known(network: str) -> str:
    """The name, if timm has such a network; raises where it has none, and for names that point to a hub."""
    import timm  # which takes seconds

    if ":" not in network and timm.is_model(network):
        return network
    architecture = network.partition(":")[2].rpartition("/")[2] or network
    close = difflib.get_close_matches(architecture.partition(".")[0], timm.list_models(), n=1)
    hint = f"did you mean {close[0]!r}?" if close else "timm.list_models() lists all"
    raise PartError(f"features timm: timm has no network {network!r}; {hint}")


def _read(path: Path, sha256: str | None, network: str) -> tuple[dict[str, Tensor], str]:
    """The file's tensors and its sha256, from one read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PartError(
            f"features timm: the weights {path} cannot be read ({error.strerror}); nothing is downloaded: fetch the "
            f"safetensors file of {network} and set weights to its path"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise PartError(f"{path} has the sha256 {digest}, not {sha256} as set; fetch the file again or correct sha256")
    try:
        tensors = safetensors.torch.load(content)
    except Exception as error:
        # safetensors has errors of its own, and raises others for headers that are no JSON.
        raise PartError(f"{path} is no safetensors file ({_reason(error)}); set weights to one") from error
    if not tensors:
        raise PartError(f"{path} holds no tensors; set weights to the safetensors file of {network}")
    return tensors, digest


def _load(name: str, tensors: dict[str, Tensor], path: Path, size: int | None) -> Any:
    """The network with these weights, which timm converts where its own files need it."""
    import timm

    cfg = timm.get_pretrained_cfg(name)
    resized: dict[str, Any] = {"img_size": size} if size and cfg is not None and cfg.fixed_input_size else {}
    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": tensors}, **resized)
    except Exception as error:
        # A file of another network makes half a dozen errors, on the way to the layers and in them.
        raise PartError(
            f"{path} does not hold the weights of {name} ({_reason(error)}); set network to the name that belongs to it"
            + (", or change size" if resized else "")
        ) from error


def _reason(error: Exception) -> str:
    """An error's most telling line, of at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    # load_state_dict puts a heading before what is missing.
    return lines[min(1, len(lines) - 1) if lines[0].startswith("Error(s) in loading") else 0][:200]
