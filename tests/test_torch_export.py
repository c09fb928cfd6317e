"""Features from `.pt2` files of torch.export."""

from __future__ import annotations

import hashlib
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cleanfid.resize import make_resizer
from torch import Tensor, nn
from torch.nn import functional

from gankit import GankitError, ImageSpec, build
from gankit.errors import PartError
from gankit.features.torch_export import TorchExport

SPEC = ImageSpec(3, 12, 10)
ANY_BATCH = {0: torch.export.Dim("batch")}


class Means(nn.Module):
    """Channel means and squares, as (n, 2c)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean((2, 3)), (x * x).mean((2, 3))], 1)


def export(network: nn.Module, path: Path, *size: int, batch: Any = ANY_BATCH) -> Path:
    example = torch.rand(2, *(size or (3, 12, 10)))
    torch.export.save(torch.export.export(network, (example,), dynamic_shapes=batch and (batch,)), path)
    return path


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 255


def test_features_are_those_of_the_network(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(), nn.AdaptiveAvgPool2d(1)).eval()
    path = export(network, tmp_path / "net.pt2")
    features = build("features", "torch-export", SPEC, path=str(path), high=1)
    batch = images(5, 3, 12, 10)
    assert features.dim == 8
    with torch.no_grad():
        torch.testing.assert_close(features(batch), network(batch / 255).flatten(1))
    assert features(batch[:0]).shape == (0, 8)
    assert features.protocol["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("channels", [1, 3])
def test_settings_are_those_of_torchscript(tmp_path: Path, channels: int) -> None:
    path = export(Means(), tmp_path / "means.pt2", channels, 7, 7)
    spec = ImageSpec(1, 12, 10)
    features = build("features", "torch-export", spec, path=path, size=7, channels=channels, low=-1, high=1)
    batch = images(3, 1, 12, 10)
    colours = batch.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    resize = make_resizer("PIL", False, "bicubic", (7, 7))
    seen = torch.from_numpy(np.stack([resize(image) for image in colours])).permute(0, 3, 1, 2)[:, :channels]
    torch.testing.assert_close(features(batch), Means()(seen * 2 / 255 - 1))
    assert (features.protocol["channels"], features.protocol["range"]) == (channels, "-1.0 to 1.0")


def test_training_mode_changes_nothing(tmp_path: Path) -> None:
    features = TorchExport(SPEC, path=export(Means().eval(), tmp_path / "means.pt2"))
    assert features.train() is features
    assert not any(module.training for module in features.modules())


class Drawn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x.mean((2, 3)).repeat(1, 30), 0.5, training=True)  # hardly ever twice the same


def test_networks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for network, size, batch, text in (
        (Means(), (3, 8, 8), ANY_BATCH, r"fails on images of 3 x 12 x 10 \(.*\); set size or channels, or export it"),
        (Means(), (3, 12, 10), None, r"fails on images of 3 x 12 x 10 .*with a dynamic batch"),
        (nn.Identity(), (3, 12, 10), ANY_BATCH, r"gives the shape \(2, 3, 12, 10\) for 2 images"),
        (Drawn(), (3, 12, 10), ANY_BATCH, "different features in a batch than alone"),
    ):
        path = export(network, tmp_path / "other.pt2", *size, batch=batch)
        with pytest.raises(PartError, match=text) as caught:
            TorchExport(SPEC, path=path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["empty", "text", "pickle", "cut off", "state dict"])
def test_other_files_are_refused_in_one_line(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    path = export(Means(), tmp_path / "other.pt2")
    if content == "state dict":
        torch.save(Means().state_dict(), path)
    else:
        cut_off = path.read_bytes()[:2000]
        path.write_bytes({"empty": b"", "text": b"text", "pickle": pickle.dumps([1]), "cut off": cut_off}[content])
    caplog.clear()
    capfd.readouterr()
    with pytest.raises(PartError, match=r"other.pt2 is not a torch.export file .*; save one with torch.export.save$"):
        TorchExport(SPEC, path=path)
    assert caplog.text == "".join(capfd.readouterr()) == ""
    assert not logging.getLogger("torch.export").disabled


def test_a_missing_file_and_another_hash_are_named(tmp_path: Path) -> None:
    with pytest.raises(PartError, match=r"none.pt2' cannot be read \(No such file or directory\)"):
        TorchExport(SPEC, path=tmp_path / "none.pt2")
    with pytest.raises(GankitError, match=r"means.pt2 has the sha256"):
        build("features", "torch-export", SPEC, path=export(Means(), tmp_path / "means.pt2"), sha256="0" * 64)
