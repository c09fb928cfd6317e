"""The feature pass and its cache: once a content, never a wrong number, safe with two processes, bounded, resumable."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import gankit
from gankit import GankitError, cache
from gankit.cache import clear_cache, stored
from gankit.evaluation import extraction
from gankit.evaluation.sources import from_array
from gankit.interfaces import Features
from gankit.training.stopping import BrokenOff

IMAGES = np.random.default_rng(0).integers(0, 256, (150, 1, 6, 6), dtype=np.uint8)


class Counting(Features):
    """Row means, with a hash of the weights that it does not have; counts the images that it has seen."""

    def __init__(self, weights: str = "a", dim: int = 6) -> None:
        super().__init__()
        self.dim, self.weights, self.seen, self.fails_after = dim, weights, 0, 10**9

    def forward(self, images: Tensor) -> Tensor:
        if self.seen + len(images) > self.fails_after:
            raise BrokenOff
        self.seen += len(images)
        return images.mean((1, 2))

    @property
    def protocol(self) -> dict[str, str | int]:
        return {"weights_sha256": self.weights} if self.weights else {}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GANKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def features(network: Features, images: np.ndarray = IMAGES) -> np.ndarray:
    dataset = from_array(images, "images")
    return extraction.features(dataset, network, content=dataset.digest())


def test_features_are_made_once_for_equal_content() -> None:
    network = Counting()
    first = features(network)
    np.testing.assert_allclose(first, IMAGES.astype(np.float32).mean((1, 2)), rtol=1e-6)
    assert network.seen == 150
    np.testing.assert_array_equal(features(network, IMAGES.copy()), first)
    assert network.seen == 150
    features(network, IMAGES[::-1].copy())
    assert network.seen == 300
    np.testing.assert_array_equal(features(Counting()), first)


@pytest.mark.parametrize("weights", ["b", ""])
def test_other_weights_or_unknown_ones_are_other_features(weights: str) -> None:
    features(Counting())
    network = Counting(weights)
    for _ in range(2):
        features(network)
    assert network.seen == (150 if weights else 300)  # without a hash nothing is kept


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "one bit":
        content[len(content) // 2] ^= 1
    elif how == "cut off":
        content = content[: len(content) // 2]
    elif how == "empty":
        content = bytearray()
    else:
        content += b"more"
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["one bit", "cut off", "empty", "more"])
def test_a_corrupt_entry_is_made_again(how: str, folder: Path) -> None:
    network = Counting()
    first = features(network)
    (entry,) = folder.iterdir()
    damage(entry, how)
    np.testing.assert_array_equal(features(network), first)
    assert network.seen == 300
    np.testing.assert_array_equal(features(network), first)
    assert network.seen == 300


@pytest.mark.parametrize(("kept", "said"), [(80, "goes on from image 80"), (0, "starts over")])
def test_a_pass_that_was_stopped_goes_on_and_says_so(
    kept: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extraction, "CHUNK", 40)
    network = Counting()
    network.fails_after = kept + 10
    with pytest.raises(BrokenOff, match="the same command"):  # still of its kind
        features(network)
    assert network.seen == kept
    assert f"interrupted; the same command {said}" in capsys.readouterr().err
    again = Counting()
    found = features(again)
    assert again.seen == 150 - kept
    np.testing.assert_array_equal(found, features(Counting("")))


@pytest.mark.parametrize("weights", ["a", ""])
def test_features_of_many_images_are_on_disk(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = features(Counting(""))
    monkeypatch.setattr(extraction, "CHUNK", 40)
    monkeypatch.setattr(extraction, "MEMORY_MAP_ABOVE_BYTES", 150 * 6 * 4 - 1)
    found = features(Counting(weights))
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, whole)
    monkeypatch.setattr(extraction, "MEMORY_MAP_ABOVE_BYTES", 150 * 6 * 4)
    assert not isinstance(features(Counting(weights)), np.memmap)


def test_the_cache_is_bounded_and_keeps_what_was_used_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANKIT_CACHE_GB", str(3.5 * 4096e-9))
    array = np.zeros(1000, np.float32)  # 4160 bytes as a file
    for number, key in enumerate(["a", "b", "c", "a", "d"]):
        stored(key, lambda: array, "features")
        for path in folder.glob(f"{key}.npy"):
            os.utime(path, (1e9 + number, 1e9 + number))
    assert {path.stem for path in folder.iterdir()} == {"a", "c", "d"}
    stored("large", lambda: np.zeros(10**5), "features")
    assert {path.stem for path in folder.iterdir()} == {"large"}  # the newest stays in any case
    for wrong in ("much", "nan", "-1"):
        monkeypatch.setenv("GANKIT_CACHE_GB", wrong)
        with pytest.raises(GankitError, match=f"GANKIT_CACHE_GB={wrong}: a number of gigabytes"):
            stored("b", lambda: array, "features")


def test_files_of_dead_writers_go_and_those_of_living_ones_stay(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, age in (("old.tmp", 2 * cache.ABANDONED), ("new.tmp", 0)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (time.time() - age,) * 2)
    stored("a", lambda: np.zeros(3), "features")
    assert sorted(path.name for path in folder.iterdir()) == ["a.npy", "new.tmp"]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GANKIT_CACHE", str(tmp_path / "file"))
    network = Counting()
    np.testing.assert_array_equal(features(network), features(Counting("")))


def test_clearing_frees_features_and_arrays_but_no_weights(folder: Path) -> None:
    features(Counting())
    stored("x", lambda: np.zeros(10))
    weights = folder.parent / "weights" / "w.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"w")
    assert clear_cache() > 150 * 6 * 4
    assert not folder.exists()
    assert weights.exists()


def test_what_is_said_to_be_freed_is_freed_in_a_folder_that_lies_elsewhere(folder: Path, tmp_path: Path) -> None:
    large = tmp_path / "large disk"
    large.mkdir()
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(large)
    stored("x", lambda: np.zeros(10), "features")
    size = sum(file.stat().st_size for file in large.iterdir())
    assert clear_cache() >= size > 80
    assert not list(large.iterdir())


def test_two_processes_may_make_the_same_entry(folder: Path) -> None:
    code = """
import sys, time, numpy as np
from gankit.cache import stored
def make():
    time.sleep(0.3)
    return np.arange(200000.0)
for _ in range(20):
    assert (stored("key", make, "features") == np.arange(200000.0)).all()
    import os; from gankit.cache import cache_folder
    try: os.unlink(cache_folder() / "features" / "key.npy")
    except OSError: pass
    make = lambda: np.arange(200000.0)
"""
    running = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda images: images.mean((1, 2))[:, :4], r"gave \(64, 4\) for 64 images; \(64, 6\) is needed"),
        (lambda images: images.mean((1, 2)) / 0, "images: features of image 0 are not finite"),
        (
            lambda images: images @ images[0, 0, 0, :1],
            r"\(64, 1, 6, 6\), raised RuntimeError: size mismatch",
        ),
    ],
)
def test_features_that_cannot_be(forward: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(GankitError, match=message):
        features(gankit.wrap("features", forward, dim=6))


def test_nan_pixels_reach_no_feature() -> None:
    broken = IMAGES.astype(np.float32)
    dataset = gankit.wrap("dataset", broken, value_range=(0, 255))
    broken[70, 0, 2, 3] = np.nan
    with pytest.raises(GankitError, match="pixels that are NaN"):
        extraction.features(dataset, Counting())


def test_a_repeated_evaluation_makes_no_feature_again() -> None:
    network = Counting()
    reports = [gankit.evaluate(IMAGES[:70], IMAGES[70:], ["frechet", "kid"], network) for _ in range(2)]
    assert reports[0] == reports[1]
    assert network.seen == 150


def test_logits_come_from_the_same_pass() -> None:
    class Head(Counting):
        def logits(self, features: Tensor) -> Tensor:
            return features[:, :3] - torch.tensor([1.0, 2.0, 3.0])

    network = Head()
    report = gankit.evaluate(IMAGES[:70], IMAGES[70:], ["frechet", "inception-score"], network)
    assert network.seen == 150
    assert report["metrics"]["inception-score"]["value"] > 1
    none = gankit.wrap("dataset", IMAGES).subset(np.arange(0))
    found = extraction.rows(none, network, ["features", "logits"])
    assert (found.features.shape, found.logits.shape) == ((0, network.dim), (0, 3))  # type: ignore[union-attr]
    with pytest.raises(GankitError, match="have no class logits"):
        gankit.evaluate(IMAGES[:70], IMAGES[70:], ["inception-score"], "pixels")
