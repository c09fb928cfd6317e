"""Networks of features that are small or look like published ones, pictures, and what clean-fid makes of them."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cleanfid import fid
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from gankit import ImageSpec
from gankit.features.efficientnet_lite0 import EfficientNetLite0

FILE = "inception-2015-12-05.pt"
SPEC = ImageSpec(3, 12, 10)


class Stub(nn.Module):
    """Looks like NVIDIA's archive: `layers`, `output`, and class probabilities from 299x299 images."""

    def __init__(self, width: int = 2048) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, width // 64, 13, stride=13), nn.ReLU(), nn.AdaptiveAvgPool2d(8), nn.Flatten()
        )
        self.output = nn.Linear(2048, 1008)

    def forward(
        self, img: Tensor, return_features: bool = False, use_fp16: bool = False, no_output_bias: bool = False
    ) -> Tensor:
        features = self.layers((img - 128) / 128).reshape(-1, 2048)
        if return_features:
            return features
        bias = self.output.bias
        if no_output_bias:
            bias = torch.zeros_like(bias)
        return functional.linear(features, self.output.weight, bias).softmax(1)


def save(module: nn.Module, path: Path, example: Tensor | None = None) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        script = torch.jit.script(module) if example is None else torch.jit.trace(module, example, check_trace=False)
        torch.jit.save(script, path)
    return path


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 255


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def blocked(*args: object, **kwargs: object) -> Any:
        raise urllib.error.URLError("the network is blocked")

    monkeypatch.setattr(urllib.request, "urlopen", blocked)
    monkeypatch.setattr(socket.socket, "connect", blocked)
    monkeypatch.setattr(socket, "getaddrinfo", blocked)


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(Stub(), tmp_path_factory.mktemp("stub") / FILE)


@pytest.fixture(scope="module")
def lite() -> EfficientNetLite0:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra offline is not installed")
    return EfficientNetLite0()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PNGs, grey and in colour, square and not, larger and smaller than what the networks read."""
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for i, shape in enumerate([(40, 40, 3), (33, 57, 3), (320, 310, 3), (28, 28), (61, 20), (299, 299, 3), (224, 224)]):
        smooth = Image.fromarray(draw.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(shape[1::-1])
        noisy = np.asarray(smooth, dtype=int) + draw.integers(-30, 30, (*shape[:2], 3))
        picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        (picture if len(shape) == 3 else picture.convert("L")).save(folder / f"{i}.png")
    return folder


def own(features: nn.Module, folder: Path) -> np.ndarray:
    """Features of a folder's pictures, read at their own number of channels."""
    rows = []
    for path in sorted(folder.glob("*.png")):
        array = np.asarray(Image.open(path), dtype=np.float32)
        array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        rows.append(features(torch.from_numpy(array[None])).numpy())
    return np.concatenate(rows)


def clean(folder: Path, model: Any, **options: Any) -> np.ndarray:
    """What clean-fid gives for the folder."""
    return fid.get_folder_features(
        str(folder), model=model, num_workers=0, device=torch.device("cpu"), mode="clean", verbose=False, **options
    )


class Means(nn.Module):
    """Channel means and squares, as (n, 2c) or (n, 2c, 1, 1)."""

    def __init__(self, spatial: bool = False) -> None:
        super().__init__()
        self.spatial = spatial

    def forward(self, x: Tensor) -> Tensor:
        means = torch.cat([x.mean((2, 3)), (x * x).mean((2, 3))], 1)
        return means[:, :, None, None] if self.spatial else means
