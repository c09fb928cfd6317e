"""Features of timm's small test networks, with random weights that the tests write."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gankit
import gankit.testing
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from cleanfid.resize import make_resizer
from gankit.errors import GankitError, PartError
from gankit.interfaces import ImageSpec

from gankit_timm import Timm

SPEC = ImageSpec(3, 20, 30)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tries to reach another machine fails the test."""

    def blocked(*args: object, **kwargs: object) -> Any:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", blocked)
    monkeypatch.setattr(socket, "getaddrinfo", blocked)


def write(folder: Path, name: str = "test_resnet", **options: Any) -> tuple[torch.nn.Module, Path]:
    torch.manual_seed(0)
    network = timm.create_model(name, **options).eval()
    path = folder / f"{name}.safetensors"
    safetensors.torch.save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return network, path


def images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 255


class TestSuite(gankit.testing.FeaturesTests):
    """gankit's conformance suite."""

    part = Timm

    def write(self, folder: Path) -> Mapping[str, Any]:
        """A small network and its random weights."""
        return {"network": "test_resnet.r160_in1k", "weights": str(write(folder)[1]), "size": 32}


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"])
def test_features_and_logits_are_those_of_the_network(tmp_path: Path, name: str) -> None:
    network, path = write(tmp_path, name)
    features = gankit.build("features", "timm", SPEC, network=name, weights=str(path))
    batch = images(3, 3, 20, 30)
    side = network.pretrained_cfg["input_size"][1]
    resize = make_resizer("PIL", False, "bicubic", (side, side))
    small = torch.from_numpy(np.stack([resize(image) for image in batch.permute(0, 2, 3, 1).numpy()]))
    mean, std = (torch.tensor(network.pretrained_cfg[key]) for key in ("mean", "std"))
    with torch.no_grad():
        expected = network(((small / 255 - mean) / std).permute(0, 3, 1, 2))
    found = features(batch)
    assert found.shape == (3, features.dim) == (3, network.num_features)
    torch.testing.assert_close(features.logits(found), expected, rtol=1e-4, atol=1e-5)


def test_the_protocol_names_what_values_depend_on(tmp_path: Path) -> None:
    _, path = write(tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    protocol = Timm(SPEC, network="test_resnet.r160_in1k", weights=path, size=40, sha256=digest.upper()).protocol
    assert protocol["weights_sha256"] == digest
    assert protocol["network"] == "test_resnet.r160_in1k"
    assert protocol["resize"] == "clean-fid, PIL bicubic in float, 40x40"
    assert protocol["mean"] == "0.5, 0.5, 0.5"
    assert f"timm {timm.__version__}" in str(protocol["versions"])


def test_a_transformer_of_fixed_size_reads_another_size(tmp_path: Path) -> None:
    _, path = write(tmp_path, "test_vit")
    assert Timm(SPEC, network="test_vit", weights=path, size=64)(images(2, 3, 20, 30)).shape == (2, 64)


def test_weights_without_a_class_head_have_no_logits(tmp_path: Path) -> None:
    network, path = write(tmp_path, "vit_tiny_patch16_224", num_classes=0, depth=1)
    assert isinstance(network.head, torch.nn.Identity)
    with pytest.raises(PartError, match=r"vit_tiny.* does not hold the weights of vit_tiny_patch16_224 \(Missing key"):
        Timm(SPEC, network="vit_tiny_patch16_224", weights=path)


def test_it_judges_images(tmp_path: Path) -> None:
    _, path = write(tmp_path)
    real, fake = (images(12, 3, 16, 16).to(torch.uint8).numpy() for _ in range(2))
    chosen = {"name": "timm", "network": "test_resnet", "weights": str(path), "size": 32}
    report = gankit.evaluate(255 - fake, real, ["kid"], chosen)
    assert "\nKID (gankit-timm:timm test_resnet)" in repr(report), "a table names the network, for a paper"
    assert report["metrics"]["kid"]["value"] > 0
    assert report["protocol"]["features_protocol"]["network"] == "test_resnet"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"network": "test_resnt"}, "timm has no network 'test_resnt'; did you mean 'test_resnet'"),
        ({"network": "hf-hub:timm/test_resnet.r160_in1k"}, "no network 'hf-hub:.*did you mean 'test_resnet'"),
        ({"network": "test_vit"}, r"test_resnet.safetensors does not hold the weights of test_vit \("),
        ({"sha256": "0" * 64}, "test_resnet.safetensors has the sha256 .*, not 0000"),
        ({"sha256": "abc"}, "sha256"),
        ({"size": 0}, "size"),
        (
            {"weights": "none.safetensors"},
            "none.safetensors cannot be read .No such file.*nothing is downloaded: fetch",
        ),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    settings = {"network": "test_resnet", "weights": str(write(tmp_path)[1]), **changes}
    with pytest.raises(GankitError, match=text) as caught:
        gankit.build("features", "timm", SPEC, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"), [("test_convnext", "cannot read images of 8 x 8"), ("test_vit", "change size")]
)
def test_a_size_that_the_network_cannot_read_is_refused(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(PartError, match=text):
        Timm(SPEC, network=name, weights=write(tmp_path, name)[1], size=8)


@pytest.mark.parametrize("content", [b"", b"text", b"\x08\0\0\0\0\0\0\0not json", safetensors.torch.save({})])
def test_other_files_are_no_weights(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.safetensors").write_bytes(content)
    with pytest.raises(PartError, match=r"other.safetensors (is no safetensors file|holds no tensors)"):
        Timm(SPEC, network="test_resnet", weights=tmp_path / "other.safetensors")


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_refused(tmp_path: Path, channels: int) -> None:
    with pytest.raises(PartError, match=f"1 or 3 channels, these have {channels}"):
        Timm(ImageSpec(channels, 8, 8), network="test_resnet", weights=write(tmp_path)[1])
