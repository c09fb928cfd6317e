"""Inception-v3 beside its authors' code, and files of weights that are wrong, missing or downloaded."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import feature_networks
import numpy as np
import pytest
import torch
from cleanfid import downloads_helper
from cleanfid.inception_torchscript import InceptionV3W
from feature_networks import FILE, SPEC, Stub, clean, images, own, save
from torch import Tensor, nn

from gankit import GankitError, build
from gankit.errors import PartError
from gankit.features.inception_v3 import InceptionV3
from gankit.features.torchscript import TorchScript

no_network = feature_networks.no_network
pictures = feature_networks.pictures
stub = feature_networks.stub

PUBLISHED = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
"""sha256 of NVIDIA's file, as k-diffusion checks it."""


class Headless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = Stub().layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Layerless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache, a temporary folder and a current folder that are empty."""
    for name in ("cache", "temporary", "current"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("GANKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "current")
    return tmp_path / "cache"


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_inception_features_are_those_of_clean_fid(stub: Path, pictures: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = InceptionV3W(str(stub.parent), download=False).eval()
    features = own(InceptionV3(weights=stub), pictures)
    assert features.shape == (7, 2048)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, clean(pictures, reference), atol=1e-4)


def test_inception_logits_are_those_of_the_archive_without_bias(stub: Path) -> None:
    features = InceptionV3(weights=stub)
    batch = images(3, 3, 299, 299)
    expected = features.network.base(batch, False, False, True)
    logits = features.logits(features(batch).double())
    assert logits.shape == (3, 1008)
    torch.testing.assert_close(logits.softmax(1), expected)
    assert not torch.allclose(expected, features.network.base(batch), rtol=1e-3)  # the bias matters


def test_the_hash_of_the_weights_is_checked_and_recorded(stub: Path, tmp_path: Path, cache: Path) -> None:
    copy = tmp_path / "any name"
    copy.write_bytes(stub.read_bytes())
    expected = hashlib.sha256(stub.read_bytes()).hexdigest()
    features = build("features", "inception-v3", weights=str(copy), sha256=expected.upper())
    assert features.dim == 2048
    assert features.protocol["weights_sha256"] == expected
    assert features.protocol["resize"] == "clean-fid, PIL bicubic in float, 299x299"
    assert f"torch {torch.__version__}" in str(features.protocol["versions"])
    assert features.protocol["logits"] == "without bias"
    with pytest.raises(PartError, match=f"any name has the sha256 {expected}, not {'0' * 64}"):
        build("features", "inception-v3", weights=copy, sha256="0" * 64)
    with pytest.raises(GankitError, match="sha256"):
        build("features", "inception-v3", weights=copy, sha256="abc")
    assert files(tmp_path / "temporary") == files(tmp_path / "current") == files(cache) == []


def test_without_weights_and_network_it_says_what_to_do(cache: Path) -> None:
    with pytest.raises(PartError, match="the network is blocked") as caught:
        InceptionV3()
    text = str(caught.value)
    for part in (str(cache / "weights" / FILE), downloads_helper.inception_url, "set weights", "efficientnet-lite0"):
        assert part in text
    assert "\n" not in text
    assert files(cache) == ["weights"]
    assert files(cache.parent / "temporary") == files(cache.parent / "current") == []


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GANKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(PartError, match="Not a directory"):
        InceptionV3()


@pytest.mark.parametrize("race", [False, True])
def test_a_download_goes_to_the_cache_once(
    cache: Path, stub: Path, monkeypatch: pytest.MonkeyPatch, race: bool
) -> None:
    folders: list[Path] = []

    def download(fpath: str) -> str:
        folders.append(Path(fpath))
        (Path(fpath) / FILE).write_bytes(stub.read_bytes())
        if race:  # another process was faster
            (cache / "weights" / FILE).write_bytes(stub.read_bytes())
        return str(Path(fpath) / FILE)

    monkeypatch.setattr(downloads_helper, "check_download_inception", download)
    first, second = InceptionV3(), InceptionV3()
    assert [folder.parent for folder in folders] == [cache / "weights"]
    assert files(cache) == ["weights", f"weights/{FILE}"]
    assert files(cache.parent / "temporary") == files(cache.parent / "current") == []
    assert first.protocol == second.protocol == InceptionV3(weights=stub).protocol


@pytest.mark.parametrize("how", ["cut off", "a page", "interrupted"])
def test_a_broken_download_leaves_nothing(cache: Path, stub: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def download(fpath: str) -> str:
        content = b"<html>sign in" if how == "a page" else stub.read_bytes()[:5000]
        (Path(fpath) / FILE).write_bytes(content)
        if how == "interrupted":
            raise ConnectionResetError(104, "connection reset")
        return str(Path(fpath) / FILE)

    monkeypatch.setattr(downloads_helper, "check_download_inception", download)
    with pytest.raises(PartError, match="connection reset" if how == "interrupted" else "cut off, or is not the file"):
        InceptionV3()
    assert files(cache) == ["weights"]


def test_a_broken_file_in_the_cache_is_named(cache: Path, stub: Path) -> None:
    path = cache / "weights" / FILE
    path.parent.mkdir()
    path.write_bytes(stub.read_bytes()[:5000])
    with pytest.raises(
        PartError, match=f"{path} is not an Inception-v3 archive.*or delete {path} to download it again$"
    ):
        InceptionV3()


def test_a_temporary_folder_that_cannot_be_written_is_told(
    stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(PartError, match=r"cannot be copied to .*none \(.*\); set TMPDIR"):
        InceptionV3(weights=stub)


BROKEN: dict[str, Callable[[Path, Path], object]] = {
    "truncated": lambda path, stub: path.write_bytes(stub.read_bytes()[:5000]),
    "empty": lambda path, stub: path.write_bytes(b""),
    "text": lambda path, stub: path.write_text("not weights"),
    "state dict": lambda path, stub: torch.save({"weight": torch.zeros(2)}, path),
    "pickle": lambda path, stub: path.write_bytes(pickle.dumps({"weight": 1})),
    "no layers": lambda path, stub: save(Layerless(), path),
    "narrow": lambda path, stub: save(Stub(1024), path),
}


@pytest.mark.parametrize("how", BROKEN)
def test_other_files_are_no_inception_weights(tmp_path: Path, stub: Path, how: str) -> None:
    path = tmp_path / "some.pt"
    BROKEN[how](path, stub)
    with pytest.raises(PartError, match=r"some.pt is not an Inception-v3 archive.*set weights") as caught:
        InceptionV3(weights=path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


@pytest.mark.parametrize("make", [InceptionV3, lambda weights: TorchScript(SPEC, path=weights)])
def test_a_missing_file_is_named(tmp_path: Path, make: Callable[..., object]) -> None:
    with pytest.raises(PartError, match=r"none.pt' cannot be read \(No such file or directory\)"):
        make(weights=tmp_path / "none.pt")
    with pytest.raises(PartError, match="cannot be read"):
        make(weights=tmp_path)


def test_an_archive_without_class_head_has_no_logits(tmp_path: Path) -> None:
    features = InceptionV3(weights=save(Headless(), tmp_path / "headless.pt"))
    assert features(images(2, 1, 20, 20)).shape == (2, 2048)
    with pytest.raises(PartError, match="no class head"):
        features.logits(torch.zeros(2, 2048))


@pytest.mark.skipif(
    "GANKIT_INCEPTION_WEIGHTS" not in os.environ, reason=f"GANKIT_INCEPTION_WEIGHTS does not name NVIDIA's {FILE}"
)
def test_the_real_inception_weights(pictures: Path, tmp_path: Path) -> None:
    path = Path(os.environ["GANKIT_INCEPTION_WEIGHTS"])
    features = InceptionV3(weights=path, sha256=PUBLISHED)
    (tmp_path / FILE).symlink_to(path.resolve())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = InceptionV3W(str(tmp_path), download=False).eval()
    np.testing.assert_allclose(own(features, pictures), clean(pictures, reference), atol=1e-4)
    batch = images(2, 3, 299, 299)
    expected = features.network.base(batch, False, False, True)
    torch.testing.assert_close(features.logits(features(batch)).softmax(1), expected, rtol=1e-2, atol=1e-5)


@pytest.fixture(scope="module")
def fidelity(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """torch-fidelity's network with random weights, and the file of them."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    extractor = module.FeatureExtractorInceptionV3
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        patch.setattr(module, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(extractor, "load_state_dict", lambda self, state: None)
        network = extractor("inception", ["2048", "logits_unbiased"])
    path = tmp_path_factory.mktemp("fidelity") / "any name"
    torch.save(network.state_dict(), path)
    return network, path


@pytest.mark.slow
def test_the_file_of_torch_fidelity_is_the_spare_of_clean_fids(fidelity: tuple[nn.Module, Path]) -> None:
    network, path = fidelity
    spare = InceptionV3(weights=path)
    batch = torch.randint(0, 256, (2, 3, 299, 299), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    features, logits = network(batch)
    torch.testing.assert_close(spare(batch.float()), features)
    torch.testing.assert_close(spare.logits(features), logits)
    assert spare.protocol["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(spare.protocol["graph"]).startswith("torch-fidelity 0")
    assert not torch.equal(spare(batch[:1].float() * 0.999), spare(batch[:1].float()))  # nothing is rounded to 8 bits


def test_the_spare_says_what_it_needs(
    fidelity: tuple[nn.Module, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torch.load(fidelity[1], weights_only=True)
    del state["fc.weight"]
    torch.save(state, tmp_path / "headless.pth")
    with pytest.raises(PartError, match=r"headless.pth is not an Inception-v3 archive .*fc.weight"):
        InceptionV3(weights=tmp_path / "headless.pth")
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(PartError, match=r"is torch-fidelity's file, and needs it: pip install torch-fidelity$"):
        InceptionV3(weights=fidelity[1])


def test_where_clean_fid_fails_the_spare_is_named(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.jit, "load")
    with pytest.raises(PartError, match=r"no attribute 'load'.*; set weights to .* torch-fidelity's weights-inception"):
        InceptionV3(weights=stub)
