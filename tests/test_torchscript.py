"""Networks of features in TorchScript: what is taken, settings, and what is refused."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import feature_networks
import numpy as np
import pytest
import torch
from cleanfid.resize import make_resizer
from feature_networks import SPEC, Means, images, save
from torch import Tensor, nn
from torch.nn import functional

from gankit import GankitError, ImageSpec, build
from gankit.errors import PartError
from gankit.features.torchscript import TorchScript

no_network = feature_networks.no_network


def means(batch: Tensor) -> Tensor:
    return torch.cat([batch.mean((2, 3)), (batch * batch).mean((2, 3))], 1)


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize("traced", [False, True])
def test_torchscript_takes_scripted_and_traced_networks(tmp_path: Path, spatial: bool, traced: bool) -> None:
    path = save(Means(spatial), tmp_path / "means.pt", torch.zeros(2, 3, 12, 10) if traced else None)
    features = build("features", "torchscript", SPEC, path=str(path))
    batch = images(4, 3, 12, 10)
    assert features.dim == 6
    assert features(batch).dtype == torch.float32
    torch.testing.assert_close(features(batch), means(batch))
    assert features.protocol["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert features.protocol["resize"] == "none"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0.5, 128.0)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [None, 7, 16])
def test_torchscript_settings(tmp_path: Path, size: int | None, channels: int, low: float, high: float) -> None:
    path = save(Means(), tmp_path / "means.pt")
    spec = ImageSpec(1, 12, 10)
    features = build("features", "torchscript", spec, path=path, size=size, channels=channels, low=low, high=high)
    assert features.dim == 2 * channels
    batch = images(3, 1, 12, 10)
    if size is None:
        seen = batch.expand(-1, channels, -1, -1)
    else:
        resize = make_resizer("PIL", False, "bicubic", (size, size))
        colours = batch.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
        seen = torch.from_numpy(np.stack([resize(image) for image in colours])).permute(0, 3, 1, 2)[:, :channels]
    torch.testing.assert_close(features(batch), means(low + seen * (high - low) / 255))
    protocol = features.protocol
    assert (protocol["channels"], protocol["range"]) == (channels, f"{float(low)} to {float(high)}")
    assert protocol["resize"] == ("none" if size is None else f"clean-fid, PIL bicubic in float, {size}x{size}")


def test_torchscript_probes_the_size_that_the_network_wants(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    path = save(network, tmp_path / "linear.pt")
    assert TorchScript(SPEC, path=path, size=8).dim == 5
    with pytest.raises(PartError, match=r"linear.pt fails on images of 3 x 12 x 10 \(.*\); set size or channels"):
        TorchScript(SPEC, path=path)


def test_torchscript_gives_half_precision_as_float32(tmp_path: Path) -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)).half()

    features = TorchScript(SPEC, path=save(Half(), tmp_path / "half.pt"), high=1)
    assert features(images(2, 3, 12, 10)).dtype == torch.float32


class Whole(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)).long()


class Two(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))


class One(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((0, 2, 3))[None]


class Mixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.mean((2, 3))
        return y - y.mean(0)


class Drawn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x.flatten(1), 0.5, training=True)  # so many that two draws are never equal


class Logarithm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(x.mean((2, 3)) - 1e9)


class Raising(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 3:
            raise ValueError("only for grey")
        return x.mean((2, 3))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (Whole(), "gives torch.int64, not a tensor of floating-point features"),
        (Two(), "gives tuple, not a tensor"),
        (Flat(), r"gives the shape \(2,\) for 2 images; it must be \(2, d\) or \(2, d, 1, 1\)"),
        (nn.Identity(), r"gives the shape \(2, 3, 12, 10\) for 2 images"),
        (One(), r"gives the shape \(1, 3\) for 2 images"),
        (Mixed(), "different features in a batch than alone"),
        (Drawn(), "different features in a batch than alone"),
        (Logarithm(), "not finite"),
        (Raising(), "fails on images of 3 x 12 x 10 .*only for grey"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1)), "fails on images of 3 x 12 x 10"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_torchscript_refuses_other_outputs(tmp_path: Path, module: nn.Module, text: str) -> None:
    path = save(module, tmp_path / "other.pt")
    with pytest.raises(PartError, match=text) as caught:
        TorchScript(SPEC, path=path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_torchscript_checks_every_batch(tmp_path: Path) -> None:
    features = TorchScript(SPEC, path=save(Means(), tmp_path / "means.pt"))
    with pytest.raises(PartError, match="not finite"):
        features(torch.full((1, 3, 12, 10), torch.nan))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"low": 1, "high": 1}, "low is 1.0 and high is 1.0; low must be below high"),
        ({"low": float("nan")}, "low"),
        ({"high": float("inf")}, "high"),
        ({"channels": 2}, "channels"),
        ({"channels": 1}, "the network reads grey images, these have 3 channels"),
        ({"size": 0}, "size"),
        ({"sha256": "0" * 64}, "means.pt has the sha256"),
        ({"width": 3}, "width"),
    ],
)
def test_torchscript_refuses_settings(tmp_path: Path, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(GankitError, match=text):
        build("features", "torchscript", SPEC, path=save(Means(), tmp_path / "means.pt"), **settings)


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps([1])])
def test_torchscript_refuses_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.pt").write_bytes(content)
    with pytest.raises(PartError, match=r"other.pt is not a TorchScript archive .*torch.jit.save"):
        TorchScript(SPEC, path=tmp_path / "other.pt")
