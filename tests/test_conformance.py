"""gankit's own parts pass the suites that plug-in authors inherit; a new part is found by itself."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import pixels, save
from torch import Tensor, nn

import gankit.testing
from gankit.interfaces import ImageSpec

SMALL = {"width": 8}


class Archive(nn.Module):
    """Looks like NVIDIA's archive of Inception-v3: `layers`, `output`, class probabilities from 299x299 images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 32, 13, stride=13), nn.ReLU(), nn.AdaptiveAvgPool2d(8), nn.Flatten())
        self.output = nn.Linear(2048, 1008)

    def forward(self, img: Tensor, return_features: bool = False, use_fp16: bool = False) -> Tensor:
        features = self.layers((img - 128) / 128).reshape(-1, 2048)
        return features if return_features else self.output(features).softmax(1)


def file_of(name: str, setting: str, save: Callable[[Any], None]) -> Callable[[Any, Path], Mapping[str, Any]]:
    """What writes a network's file of this name, made once for all tests, and gives the setting with its path."""

    @functools.cache
    def content() -> bytes:
        file = io.BytesIO()
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # TorchScript is deprecated
            torch.manual_seed(0)
            save(file)
        return file.getvalue()

    def write(suite: Any, folder: Path) -> Mapping[str, Any]:
        (folder / name).write_bytes(content())
        return {setting: str(folder / name)}

    return write


def save_archive(file: Any) -> None:
    torch.jit.save(torch.jit.script(Archive()), file)


def save_script(file: Any) -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.LazyLinear(5))
    network(torch.zeros(1, 3, 32, 32))
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 3, 32, 32)), file)


def save_exported(file: Any) -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 5)).eval()
    any_size = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)
    program = torch.export.export(network, (torch.zeros(2, 3, 32, 32),), dynamic_shapes=(any_size,))
    torch.export.save(program, file)


def pictures(suite: Any, folder: Path) -> Mapping[str, Any]:
    for number in range(9):
        place = folder / "photographs" / "abc"[number % 3] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        save(place, pixels(12, 10, 3, seed=number))
    return {"path": str(folder / "photographs")}


def arrays(suite: Any, folder: Path) -> Mapping[str, Any]:
    images = np.stack([pixels(12, 10, 3, seed=number) for number in range(9)])
    np.savez(folder / "a.npz", images=images, labels=np.arange(9) % 3, groups=np.arange(9) // 2)
    return {"path": str(folder / "a.npz")}


def generated(suite: Any, folder: Path) -> Mapping[str, Any]:
    return {"dataset": "FakeData", "options": {"size": 9, "image_size": [3, 12, 10], "num_classes": 3}}


globals().update(
    gankit.testing.suites(
        "gankit",
        TestResnetGenerator={"settings": SMALL},
        TestResnetCritic={"settings": SMALL},
        TestDcganGenerator={"settings": SMALL},
        TestDcganCritic={"settings": SMALL},
        TestR3ganGenerator={"settings": SMALL},
        TestR3ganCritic={"settings": SMALL},
        TestAuxiliaryClassLoss={
            "image": ImageSpec(3, 16, 16, classes=3),
            "critic_settings": {"width": 6, "flat_blocks": 1, "class_head": True},
        },
        TestEyesDataset={"settings": {"counts": [6, 4, 5]}},
        TestFolderDataset={"write": pictures},
        TestNpzDataset={"write": arrays},
        TestTorchvisionDataset={"write": generated},
        TestInceptionV3Features={"write": file_of("network.pt", "weights", save_archive)},
        TestTorchExportFeatures={"write": file_of("network.pt2", "path", save_exported), "image": ImageSpec(3, 32, 32)},
        TestTorchscriptFeatures={"write": file_of("script.pt", "path", save_script), "image": ImageSpec(3, 32, 32)},
    )
)

# The suites of some losses are enough by default; test_losses.py knows the formulas of all.
for name in ("Minimax", "NonSaturating", "LeastSquares", "Drift", "WeightClipping", "R2"):
    globals()[f"Test{name}Loss"].pytestmark = pytest.mark.slow
