"""Resizing of pictures, and data sets of torchvision: shapes, depths, antialiasing, classes, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import error, pixels, save

from gankit import Dataset, GankitError, ImageSpec, build
from gankit.cache import clear_cache
from gankit.datasets.folder import Folder
from gankit.datasets.npz import Npz
from gankit.datasets.torchvision import Torchvision
from gankit.images import decoding
from gankit.interfaces import DecodedDataset

SHARED = Path(__file__).parents[2] / "shared" / "data"


class TestResize:
    def test_crop_pad_and_stretch(self) -> None:
        image = np.zeros((1, 10, 20), np.uint8)
        image[:, :, 5:15] = 200
        cropped = decoding.resized(image, (10, 10), "crop")
        assert (cropped == 200).all()
        padded = decoding.resized(image, (20, 20), "pad")
        assert (padded[:, :5] == 0).all()
        assert (padded[:, 15:] == 0).all()
        np.testing.assert_array_equal(padded[:, 5:15], image)
        stretched = decoding.resized(image, (10, 10), "stretch")
        assert stretched[0, 0, 0] == 0
        assert stretched[0, 5, 5] == 200
        assert decoding.resized(image, (10, 20)) is image

    @pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
    @pytest.mark.parametrize("size", [(1, 1), (7, 3), (64, 2), (33, 50)])
    def test_any_size(self, fit: decoding.Fit, size: tuple[int, int]) -> None:
        image = np.full((3, 20, 30), 77, np.uint8)
        result = decoding.resized(image, size, fit)
        assert result.shape == (3, *size)
        assert set(np.unique(result)) <= ({0, 77} if fit == "pad" else {77})

    def test_sixteen_bits_are_resized_at_full_depth(self) -> None:
        ramp = np.linspace(1000, 1255, 256).round().astype(np.uint16)
        image = np.tile(ramp, (1, 64, 1))
        result = decoding.resized(image, (16, 64))
        assert result.dtype == np.uint16
        np.testing.assert_allclose(result[0, 8, 2:-2], ramp.reshape(64, 4).mean(1)[2:-2], atol=1)

    def test_edges_of_deep_images_stay_within_their_values(self) -> None:
        """Twelve bits of sixteen: a bicubic filter overshoots beside an edge."""
        edge = np.repeat(np.array([100, 4095], np.uint16), 32)[None, None].repeat(64, 1)
        result = decoding.resized(edge, (20, 20))
        assert (result.min(), result.max()) == (100, 4095)

    def test_antialiased_and_clipped(self) -> None:
        board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[None]
        assert np.abs(decoding.resized(board, (8, 8)).astype(int) - 127).max() <= 4
        step = np.zeros((1, 8, 8), np.uint16)
        step[..., 4:] = 65535
        assert decoding.resized(step, (32, 32)).max() == 65535
        assert decoding.resized(step, (32, 32)).min() == 0


@pytest.fixture
def generated() -> Torchvision:
    return Torchvision(dataset="FakeData", options={"size": 12, "image_size": [3, 8, 10], "num_classes": 3})


class TestTorchvision:
    def test_fake_data(self, generated: Torchvision) -> None:
        data = generated
        assert data.image == ImageSpec(3, 8, 10, classes=3)
        assert data.images.shape == (12, 3, 8, 10)
        assert data.images.dtype == np.uint8
        assert data.labels is not None
        assert set(data.labels) == {0, 1, 2}
        assert data.class_names == ("0", "1", "2")
        assert data.value_range == (0, 255)

    def test_resized_grey_and_mapped(self, generated: Torchvision) -> None:
        settings: dict[str, Any] = {"dataset": "FakeData", "options": generated.options, "grey": True}
        mapped = build("dataset", "torchvision", (4, 4), in_memory=False, **settings)
        assert mapped.image == ImageSpec(1, 4, 4, classes=3)
        assert isinstance(mapped.images, np.memmap)
        np.testing.assert_array_equal(mapped.images, Torchvision((4, 4), **settings).images)

    def test_image_folder(self, tmp_path: Path) -> None:
        for name in ("cat/1.png", "dog/2.png", "dog/3.png"):
            save(tmp_path / name, pixels(4, 4, 3))
        data = Torchvision(dataset="ImageFolder", root=tmp_path)
        assert data.class_names == ("cat", "dog")
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1, 1]
        np.testing.assert_array_equal(data.images, Folder(path=tmp_path).images)
        key = data.cache_key()
        save(tmp_path / "cat" / "1.png", pixels(5, 5, 3))
        assert Torchvision(dataset="ImageFolder", root=tmp_path).cache_key() != key
        text = error(lambda: Torchvision(dataset="ImageFolder", root=tmp_path).images)
        assert "pictures have 2 sizes, from 4 x 4 (ImageFolder image 1) to 5 x 5 (ImageFolder image 0)" in text

    def test_classes_without_an_image_are_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import torchvision.datasets

        monkeypatch.setattr(torchvision.datasets.FakeData, "targets", [5, 2, 5, 2], raising=False)
        monkeypatch.setattr(torchvision.datasets.FakeData, "classes", list("abcdef"), raising=False)
        data = Torchvision(dataset="FakeData", options={"size": 4, "image_size": [1, 2, 2]})
        assert data.class_names == ("c", "f")
        assert data.labels is not None
        assert data.labels.tolist() == [1, 0, 1, 0]

    @pytest.mark.parametrize(
        ("targets", "message"),
        [([0, -1, 0, 1], "1 images without a class among 4"), ([[0, 1]] * 4, "targets of type list, not one class")],
    )
    def test_refused_targets(self, monkeypatch: pytest.MonkeyPatch, targets: list[Any], message: str) -> None:
        import torchvision.datasets

        monkeypatch.setattr(torchvision.datasets.FakeData, "targets", targets, raising=False)
        data = Torchvision(dataset="FakeData", options={"size": 4, "image_size": [1, 2, 2]})
        assert message in error(lambda: data.labels)

    def test_any_error_of_a_set_names_the_picture(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import torchvision.datasets

        plain = torchvision.datasets.FakeData.__getitem__

        def damaged(self: Any, index: int) -> Any:
            return plain(self, index if index != 2 else {}[index])

        monkeypatch.setattr(torchvision.datasets.FakeData, "__getitem__", damaged)
        data = Torchvision(dataset="FakeData", options={"size": 4, "image_size": [1, 2, 2]})
        for read in (lambda: data.images, lambda: data.labels):
            assert error(read) == "FakeData image 2 cannot be decoded (2); replace it or take it out"

    def test_wholly_unlabelled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import torchvision.datasets

        monkeypatch.setattr(torchvision.datasets.FakeData, "targets", [-1] * 4, raising=False)
        data = Torchvision(dataset="FakeData", options={"size": 4, "image_size": [1, 2, 2]}, mirror_keeps_label=False)
        assert data.labels is None
        assert data.image.classes == 0
        assert data.mirror(data.images) is None

    def test_absent(self, tmp_path: Path) -> None:
        text = error(lambda: Torchvision(dataset="CIFAR10", root=tmp_path).image)
        assert text.startswith(f"torchvision CIFAR10 cannot be read in {tmp_path}")
        assert "download = true" in text
        text = error(lambda: Torchvision(dataset="ImageFolder", root=tmp_path / "none").image)
        assert text.endswith("; put it there")

    def test_no_connection(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import urllib.error
        import urllib.request

        def refuse(*_: Any, **__: Any) -> None:
            raise urllib.error.URLError("no route to host")

        monkeypatch.setattr(urllib.request, "urlopen", refuse)
        text = error(lambda: Torchvision(dataset="CIFAR10", root=tmp_path, download=True).image)
        assert "no route to host" in text
        assert text.endswith("check the connection")

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"dataset": "Cifar10", "root": "."}, "no data set 'Cifar10'; did you mean 'CIFAR10'?"),
            ({"dataset": "Zzz"}, "no data set 'Zzz'; known: CIFAR10, "),
            ({"dataset": "MNIST"}, "MNIST needs root"),
            (
                {"dataset": "MNIST", "root": ".", "options": {"trian": 1}},
                "takes no option 'trian' here; options: train",
            ),
            ({"dataset": "FakeData", "options": {"transform": None}}, "takes no option 'transform' here"),
            ({"dataset": "ImageFolder", "root": ".", "download": True}, "cannot download ImageFolder"),
        ],
    )
    def test_refused(self, settings: dict[str, Any], message: str) -> None:
        assert message in error(lambda: Torchvision(**settings))

    def test_empty(self) -> None:
        assert "holds no images" in error(lambda: Torchvision(dataset="FakeData", options={"size": 0}).image)


class TestDecodedDataset:
    """What a plug-in gets that decodes files."""

    class Constant(DecodedDataset):
        image = ImageSpec(1, 2, 3)

        def __init__(self, key: str, **settings: Any) -> None:
            super().__init__(**{"in_memory": True, "mirror_keeps_label": True} | settings)
            self.key, self.decoded = key, 0

        def decode(self) -> Any:
            self.decoded += 1
            return np.arange(24, dtype=np.uint16).reshape(4, 1, 2, 3)

        def cache_key(self) -> str:
            return self.key

    def test_images_are_decoded_once_and_kept(self, tmp_path: Path) -> None:
        within, mapped, again = (self.Constant(tmp_path.name, in_memory=memory) for memory in (True, False, False))
        assert (within.reads_without_decoding, mapped.reads_without_decoding) == (False, True)
        for data in (within, mapped, again):
            np.testing.assert_array_equal(data.rows(np.array([3, 1])), data.decode()[[3, 1]])
            assert len(data) == 4
        assert within.reads_without_decoding
        assert isinstance(mapped.images, np.memmap)
        assert (within.decoded, mapped.decoded, again.decoded) == (2, 2, 1)  # one of each is the test's own

    def test_settings_decide_range_and_mirror(self) -> None:
        data = self.Constant("unused")
        assert data.value_range == (0, 65535)
        np.testing.assert_array_equal(data.mirror(data.images), data.images[..., ::-1])
        narrow = self.Constant("unused", value_range=(0, 30), mirror_keeps_label=False)
        assert narrow.value_range == (0, 30)
        assert narrow.mirror(narrow.images) is None
        assert "black before white" in error(lambda: self.Constant("unused", value_range=(30, 0)))


class TestCommon:
    def test_unknown_settings_name_the_part(self) -> None:
        with pytest.raises(GankitError, match=r"dataset npz\.pathh: there is no such setting; did you mean 'path'"):
            build("dataset", "npz", path="x.npz", pathh=1)
        with pytest.raises(GankitError, match=r"dataset folder\.fit: input should be 'crop', 'pad' or 'stretch'"):
            build("dataset", "folder", path="x", fit="squeeze")
        with pytest.raises(GankitError, match=r"size is not a setting: .* build\('dataset', 'npz', size\)"):
            build("dataset", "npz", path="x.npz", size=(8, 8))

    def test_cache_can_be_cleared(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        cache = tmp_path / "cache"
        monkeypatch.setenv("GANKIT_CACHE", str(cache))
        save(tmp_path / "pictures" / "a.png", pixels(30, 30))
        assert isinstance(Folder(path=tmp_path / "pictures", in_memory=False).images, np.memmap)
        assert any(cache.rglob("folder-*.npy"))
        assert clear_cache() > 900
        assert not any(cache.rglob("*.npy"))


def shared(name: str) -> Dataset:
    path = SHARED / name
    if not path.is_file():
        pytest.skip("this test reads data that is not part of the project")
    return Npz(path=path)


class TestSharedData:
    def counts(self, data: Dataset, split: str | None = None) -> list[int]:
        assert data.labels is not None
        labels = data.labels if split is None else data.labels[data.splits[split]]
        return [int(count) for count in np.bincount(labels)]

    def test_retinamnist(self) -> None:
        data = shared("retinamnist/retinamnist.npz")
        assert data.image == ImageSpec(3, 28, 28, classes=5)
        assert data.images.shape == (1600, 3, 28, 28)
        assert self.counts(data, "train") == [486, 128, 206, 194, 66]
        assert self.counts(data, "val") == [54, 12, 28, 20, 6]
        assert self.counts(data, "test") == [174, 46, 92, 68, 20]

    def test_breastmnist(self) -> None:
        data = shared("breastmnist/breastmnist.npz")
        assert data.image == ImageSpec(1, 28, 28, classes=2)
        assert self.counts(data, "train") == [147, 399]
        assert self.counts(data, "val") == [21, 57]
        assert self.counts(data, "test") == [42, 114]
        # One image is in training and test with opposite labels: the arrays must not have been reordered.
        train, test = data.splits["train"][115], data.splits["test"][76]
        np.testing.assert_array_equal(data.images[train], data.images[test])
        assert data.labels is not None
        assert (data.labels[train], data.labels[test]) == (0, 1)

    def test_blood_cells(self) -> None:
        data = shared("bccd_cells/bccd_cells_64.npz")
        assert data.image == ImageSpec(3, 64, 64, classes=3)
        assert data.class_names == ("platelet", "rbc", "wbc")
        assert self.counts(data) == [225, 1000, 345]
        assert data.groups is not None
        assert len(np.unique(data.groups)) == 363

    def test_fashion(self) -> None:
        data = shared("fashion_mnist_900/fashion_mnist_900.npz")
        assert data.image == ImageSpec(1, 28, 28, classes=10)
        assert data.class_names[-1] == "Ankle boot"
        assert self.counts(data) == [90] * 10
