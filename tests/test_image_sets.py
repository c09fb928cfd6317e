"""Images to be judged reach the features from anywhere, as they are: depth, windows, labels, digests."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gankit
from gankit import GankitError
from gankit.errors import counted
from gankit.evaluation.sources import Source, Window, open_images, open_source
from gankit.interfaces import Dataset

DRAW = np.random.default_rng(0)
COLOUR = DRAW.integers(0, 256, (6, 3, 5, 7), dtype=np.uint8)
DEEP = DRAW.integers(0, 4096, (6, 1, 5, 7), dtype=np.uint16)


def folder(path: Path, images: np.ndarray) -> Path:
    path.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(path / f"{number}.png")
    return path


def opened(source: Source, count: int | None = None, seed: int = 0, window: Window = None) -> Dataset:
    return open_images(source, "real", count=count, seed=seed, window=window)


def pixels(images: Dataset) -> np.ndarray:
    return images.read(np.arange(len(images)))


def test_the_same_images_from_everywhere(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=COLOUR)
    sources = [COLOUR, torch.from_numpy(COLOUR), gankit.wrap("dataset", COLOUR), folder(tmp_path / "f", COLOUR),
               str(tmp_path / "a.npz"), tmp_path / "a.npz"]  # fmt: skip
    sets = [opened(source) for source in sources]
    for images in sets:
        np.testing.assert_array_equal(pixels(images), COLOUR)
        assert (len(images), images.image.shape, images.value_range) == (6, (3, 5, 7), (0.0, 255.0))
    digests = [images.digest() for images in sets]
    assert len({digests[i] for i in (0, 1, 2, 4, 5)}) == 1  # a folder's is that of its files
    assert digests[3] != digests[0]


def test_digests_tell_content_order_depth_and_range_apart() -> None:
    def digest(images: np.ndarray, window: tuple[float, float] | None = None) -> str:
        return opened(images, window=window).digest()

    changed = COLOUR.copy()
    changed[3, 1, 2, 4] ^= 1
    turned = COLOUR.transpose(0, 1, 3, 2)
    found = [digest(COLOUR), digest(changed), digest(COLOUR[::-1]), digest(COLOUR[:5]), digest(turned),
             digest(COLOUR.astype(np.uint16), (0, 255)), digest(COLOUR.astype(np.uint16), (0, 256))]  # fmt: skip
    assert len(set(found)) == len(found)
    assert digest(COLOUR.copy()) == found[0]
    whole = opened(COLOUR)
    assert whole.subset(np.array([4, 1])).digest() != whole.subset(np.array([1, 4])).digest()
    np.testing.assert_array_equal(pixels(whole.subset(np.array([4, 1]))), COLOUR[[4, 1]])


def test_digests_of_views() -> None:
    dataset: Dataset = gankit.wrap("dataset", COLOUR, labels=[0, 1] * 3)
    chosen = dataset.subset([4, 1])
    assert chosen.digest() == gankit.wrap("dataset", COLOUR[[4, 1]]).digest()
    assert chosen.subset([1]).digest() == gankit.wrap("dataset", COLOUR[[1]]).digest()
    assert chosen.digest(np.array([1])) == chosen.subset([1]).digest()
    np.testing.assert_array_equal(chosen.read(np.array([1])), COLOUR[[1]])


def test_a_folder_s_digest_follows_its_files_and_how_they_are_read(tmp_path: Path) -> None:
    path = folder(tmp_path / "f", COLOUR)
    build: Callable[..., Dataset] = lambda **more: gankit.build("dataset", "folder", path=str(path), **more)  # noqa: E731
    first = build().digest()
    assert build().digest() == first
    assert build(grey=True).digest() != first
    assert build().digest(np.array([0, 1])) != first
    Image.fromarray(COLOUR[0].transpose(1, 2, 0) ^ 1).save(path / "5.png")
    assert build().digest() != first


def test_a_folder_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gankit.datasets import folder as module

    path = folder(tmp_path / "f", COLOUR)
    read: list[str] = []
    monkeypatch.setattr(module, "open_picture", lambda path: read.append(path.name) or Image.open(path))
    images = opened(str(path))
    np.testing.assert_array_equal(images.read(np.array([4, 2])), COLOUR[[4, 2]])
    assert sorted(set(read)) == ["0.png", "2.png", "4.png"]  # the first one says what all are like


@pytest.mark.parametrize("kind", ["array", "npz", "folder"])
def test_deep_images_want_a_window(kind: str, tmp_path: Path) -> None:
    source: object = DEEP
    if kind == "npz":
        np.savez(tmp_path / "a.npz", images=DEEP)
        source = str(tmp_path / "a.npz")
    if kind == "folder":
        source = str(folder(tmp_path / "f", DEEP))
    with pytest.raises(GankitError, match=r"uint16, .* which values are black and white.*--window black,white"):
        opened(source)  # type: ignore[arg-type]
    images = opened(source, window=(0, 4095))  # type: ignore[arg-type]
    assert images.value_range == (0, 4095)
    np.testing.assert_array_equal(pixels(images), DEEP)
    with pytest.raises(GankitError, match="outside"):
        pixels(opened(source, window=(0, 1000)))  # type: ignore[arg-type]


def test_float_images_want_a_window(tmp_path: Path) -> None:
    values = DEEP.astype(np.float32) / 4095
    np.savez(tmp_path / "a.npz", images=values)
    for source in (values, str(tmp_path / "a.npz")):
        with pytest.raises(GankitError, match=r"float32.*--window black,white"):
            opened(source)
        assert opened(source, window=(0, 1)).value_range == (0, 1)
    Image.fromarray(values[0, 0]).save(tmp_path / "one.tiff")
    (tmp_path / "f").mkdir()
    Image.fromarray(values[0, 0]).save(tmp_path / "f" / "one.tiff")
    with pytest.raises(GankitError, match="floating-point, which does not define black and white"):
        opened(str(tmp_path / "f"))


def test_a_window_leaves_8_bit_images_alone(tmp_path: Path) -> None:
    for source in (COLOUR, str(folder(tmp_path / "f", COLOUR))):
        assert opened(source, window=(0, 4095)).value_range == (0, 255)


def test_the_window_decides_what_features_see() -> None:
    wide = DEEP[:, :, :4, :4]
    narrow = np.rint(wide * (255 / 4095)).astype(np.uint8)
    report = gankit.evaluate(wide, narrow, ["frechet"], {"name": "pixels", "side": 1}, window=(0, 4095))
    assert report["metrics"]["frechet"]["value"] < 1e-5
    assert report["protocol"]["features_protocol"]["side"] == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "nothing", "there is no such folder or file"),
        (lambda path: path / "nothing.npz", "nothing.npz"),
        (lambda path: "nowhere", "no dataset named 'nowhere'"),
        (lambda path: np.zeros((3, 4, 4), np.uint8), r"\(n, channels, height, width\) is needed"),
        (lambda path: np.zeros((3, 1, 4, 4), complex), "complex128"),
        (lambda path: np.full((3, 1, 4, 4), np.nan), "float64"),
    ],
)
def test_refusals(make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    with pytest.raises(GankitError, match=message) as caught:
        opened(make(tmp_path))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_mixed_sizes_are_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "f", COLOUR)
    Image.fromarray(COLOUR[0].transpose(1, 2, 0)[:4]).save(path / "5.png")
    sizes = r"2 sizes, from 4 x 7 \(.*5\.png\) to 5 x 7 \(.*0\.png\)"
    with pytest.raises(GankitError, match=sizes + r", .* \{name = \.\.\., size = 64\} elsewhere"):
        gankit.evaluate(str(path), COLOUR, ["frechet"], "pixels")
    table = {"name": "folder", "path": str(path), "size": [8, 7]}
    assert gankit.evaluate(table, COLOUR, ["frechet"], "pixels")["protocol"]["fake_size"] == [3, 8, 7]


def test_nan_pixels_are_named() -> None:
    broken = np.zeros((4, 1, 4, 4), np.float32)
    broken[2, 0, 1, 1] = np.nan
    with pytest.raises(GankitError, match=r"^window: real images: some values are NaN"):
        gankit.evaluate(broken, broken, ["frechet"], "pixels", window=(0, 1))


def test_one_image_or_none_is_refused() -> None:
    for count in (0, 1):
        with pytest.raises(GankitError, match=f"fake: {counted(count, 'image')}; at least 2 are needed"):
            gankit.evaluate(COLOUR[:count], COLOUR, ["frechet"], "pixels")


def test_data_sets_by_name() -> None:
    dataset = open_source("eyes")
    assert isinstance(dataset, Dataset)
    assert len(opened("eyes").class_names) == 3


def test_a_part_of_a_set_is_drawn_by_the_seed() -> None:
    images = [opened(COLOUR, 4, seed) for seed in (0, 0, 1)]
    assert [len(each) for each in images] == [4, 4, 4]
    np.testing.assert_array_equal(pixels(images[0]), pixels(images[1]))
    assert len({each.digest() for each in images}) == 2
    report = gankit.evaluate(COLOUR, COLOUR, ["frechet"], {"name": "pixels", "side": 1}, count=4)
    assert (report["protocol"]["n_fake"], report["protocol"]["n_real"]) == (4, 6)
    for count in (7, -1):
        with pytest.raises(GankitError, match=f"{count} images are asked for, and there are 6"):
            opened(COLOUR, count)


@pytest.mark.parametrize("window", [(0, math.inf), (0, 0), (255, 0), (math.nan, 1), (0,), 5, "wide"])
def test_windows_that_are_none(window: Any) -> None:
    with pytest.raises(GankitError, match=r"^window: value_range = .* must be two finite numbers, black before white"):
        opened(DEEP, window=window)


def test_ranges_that_differ_are_said() -> None:
    wide = gankit.wrap("dataset", DEEP)
    report = gankit.evaluate(wide, DEEP, ["frechet"], {"name": "pixels", "side": 1}, window=(0, 4095))
    assert report["protocol"]["fake_range"] == [0, 65535]
    assert report["protocol"]["real_range"] == [0, 4095]
    assert any("black and white are" in warning for warning in report["protocol"]["warnings"])


def test_images_of_another_size_than_the_real_ones_are_pointed_out() -> None:
    report = gankit.evaluate(COLOUR, COLOUR[:, :, :4], ["frechet"], {"name": "pixels", "side": 1})
    said = "the generated images are of 5 x 7 pixels, the real ones of 4 x 7: sharpness differs"
    assert said in report["protocol"]["warnings"]


def test_images_of_other_classes_than_the_real_ones_are_pointed_out() -> None:
    data = gankit.wrap("dataset", COLOUR, labels=["mild", "none", "severe"] * 2)
    said = [
        warning
        for part in (data.subset([2, 5]), data.subset([0, 1, 2, 3]))
        for warning in gankit.evaluate(part, data, ["frechet"], {"name": "pixels", "side": 1})["protocol"]["warnings"]
        if "compare like with like" in warning
    ]
    assert said == ["the generated images are of severe, the real ones of mild, none, severe: compare like with like"]


def test_half_precision_tensors_are_read() -> None:
    images = opened(torch.rand(3, 1, 4, 4).bfloat16(), window=(0, 1))
    assert pixels(images).dtype == np.float32
    with pytest.raises(GankitError, match="images cannot be an array: its rows have several lengths"):
        opened([np.zeros((1, 2, 2)), np.zeros((1, 3, 3))])  # type: ignore[arg-type]


def test_masked_arrays_and_things_that_are_no_arrays_are_refused() -> None:
    masked = np.ma.masked_greater(np.random.default_rng(1).integers(0, 256, (3, 1, 4, 4), dtype=np.uint8), 200)
    for images, message in (
        (masked, "fake images has values that are masked out"),
        ((image for image in masked.data), "fake images are of type generator; an array, a data set"),
    ):
        with pytest.raises(GankitError, match=message):
            gankit.evaluate(images, masked.data, ["kid"], "pixels")


class TestTables:
    """A data set with settings wherever images are named."""

    def test_a_key_of_an_experiment_is_not_answered_with_itself(self) -> None:
        with pytest.raises(GankitError, match=r"npz\.flip: there is no such setting; known: "):
            open_source('{name = "npz", path = "a.npz", flip = true}')

    def test_as_a_text_and_as_a_dictionary(self, tmp_path: Path) -> None:
        path = folder(tmp_path / "f", COLOUR)
        for table in (
            {"name": "folder", "path": str(path), "grey": True},
            f'{{name="folder", path="{path}", grey=true}}',
        ):
            assert opened(table).image.channels == 1  # type: ignore[arg-type]
        report = gankit.evaluate(f'{{name = "folder", path = "{path}"}}', COLOUR, ["frechet"], "pixels")
        assert report["protocol"]["fake"] == str(path)

    def test_one_split_or_all_with_a_word(self, tmp_path: Path) -> None:
        path = tmp_path / "a.npz"
        np.savez(path, train_images=COLOUR[:4], val_images=COLOUR[4:5], test_images=COLOUR)
        table = {"name": "npz", "path": str(path), "split": "test"}
        np.testing.assert_array_equal(pixels(opened(table)), COLOUR)  # type: ignore[arg-type]
        for real, name, said in ((table, f"{path} (test)", False), (path, str(path), True)):
            report = gankit.evaluate(COLOUR, real, ["frechet"], "pixels")
            assert report["protocol"]["real"] == name
            text = "the splits train, val, test are all used, training images among them"
            assert any(text in warning for warning in report["protocol"]["warnings"]) == said
            assert ("warnings" in gankit.statistics(real, "pixels").protocol) == said
        with pytest.raises(GankitError, match="no split 'tset' in this data set; known: all, train, val, test"):
            opened({**table, "split": "tset"})  # type: ignore[arg-type]
        with pytest.raises(GankitError, match=r"no split \['test'\] in this data set"):
            opened({**table, "split": ["test"]})  # type: ignore[arg-type]

    def test_a_size(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", images=COLOUR)
        for size in (8, [8, 8]):
            table = {"name": "npz", "path": str(tmp_path / "a.npz"), "size": size}
            assert opened(table).image.shape == (3, 8, 8)  # type: ignore[arg-type]
        for size in (0, "8", [8], [8, 8.0], True):
            with pytest.raises(GankitError, match="a number of pixels for squares"):
                opened({**table, "size": size})  # type: ignore[arg-type]

    def test_deep_images_need_a_window_or_a_range(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", images=DEEP)
        table = {"name": "npz", "path": str(tmp_path / "a.npz")}
        with pytest.raises(GankitError, match="--window black,white"):
            opened(table)  # type: ignore[arg-type]
        assert opened(table, window=(0, 4095)).value_range == (0, 4095)  # type: ignore[arg-type]
        assert opened({**table, "value_range": [0, 4095]}).value_range == (0, 4095)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{name = "folder"', "it is not a TOML table"),
            ('{path = "f"}', "the table needs a name"),
            ('{name = "fodler", path = "f"}', "did you mean 'folder'"),
            ('{name = "folder", path = "f", gray = true}', "folder.gray"),
            ('{name = "folder", path = "f", split = 3}', "does not exist"),
        ],
    )
    def test_refusals(self, text: str, message: str) -> None:
        with pytest.raises(GankitError, match=message) as caught:
            opened(text)
        assert "\n" not in str(caught.value)


def test_pictures_that_the_table_of_labels_does_not_list_are_told(tmp_path: Path) -> None:
    path = folder(tmp_path / "f", COLOUR)
    names = sorted(file.name for file in path.iterdir())
    (path / "labels.csv").write_text("file,label\n" + "".join(f"{name},a\n" for name in names[:3]))
    text = f"{path}: {len(names) - 3} images ({names[3]} first) are left out"
    for fake, real in ((path, COLOUR), (COLOUR, path)):
        report = gankit.evaluate(fake, real, ["frechet"], "pixels")
        assert any(text in warning for warning in report["protocol"]["warnings"])
    assert text in gankit.statistics(path, "pixels").protocol["warnings"][0]
    for name in names[4:]:
        (path / name).unlink()
    (path / names[3]).rename(path / "grid.png")  # as `gankit sample` leaves it
    assert gankit.statistics(path, "pixels").protocol.keys().isdisjoint({"warnings"})


@pytest.mark.parametrize("name", ["images.zip", "one.png", "images.pt", "pipe.npz"])
def test_files_that_hold_no_set_of_images(tmp_path: Path, name: str) -> None:
    if name == "pipe.npz":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(GankitError, match=r"unpack a zip file, put a picture into a folder|there is no file"):
        opened(tmp_path / name)


def test_arrays_without_a_name_and_moments_beside_images(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", COLOUR)
    np.savez(tmp_path / "a.npz", COLOUR)
    np.savez(tmp_path / "b.npz", arr_0=COLOUR, mu=np.zeros(9), sigma=np.eye(9))
    for name in ("a.npy", "a.npz", "b.npz"):
        np.testing.assert_array_equal(pixels(opened(tmp_path / name)), COLOUR)


def test_default_metrics_that_need_more_images_are_left_out() -> None:
    report = gankit.evaluate(COLOUR[:2], COLOUR[:2], None, "pixels")
    assert "frechet" in report["metrics"]
    assert any("precision-recall is left out: k = 1 needs" in text for text in report["protocol"]["warnings"])
    with pytest.raises(GankitError, match="leave precision-recall out"):
        gankit.evaluate(COLOUR[:2], COLOUR[:2], ["precision-recall"], "pixels")


def test_constant_images_have_values_or_a_reason() -> None:
    level = [np.full((12, 1, 8, 8), value, np.uint8) for value in (7, 100)]
    for real in level:
        report = gankit.evaluate(level[0], real, None, "pixels")
        assert all(np.isfinite(entry["value"]) for entry in report["metrics"].values())
        assert any("variance-ratio is left out" in text for text in report["protocol"]["warnings"])
    assert report["metrics"]["frechet"]["value"] == pytest.approx(64 * (93 / 255) ** 2)
