"""Exact and near duplicates between two sets, against brute force, at any size and colour."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gankit import GankitError, build
from gankit.interfaces import Pool, Resampling, Result, Rows
from gankit.metrics.leakage import Leakage, shrink

Array = NDArray[Any]


def noise(n: int, seed: int, channels: int = 1, height: int = 12, width: int = 12) -> Array:
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (n, channels, height, width)).astype(np.float32)


def rows(images: Array, labels: Array | None = None, names: tuple[str, ...] | None = None) -> Rows:
    return Rows(images=images, ids=np.arange(len(images)), labels=labels, class_names=names)


def result(first: Array, second: Array, threshold: float = 3.0) -> Result:
    return Leakage(threshold=threshold).compute(rows(second), rows(first))


def rms(x: Array, y: Array) -> float:
    return float(np.sqrt(np.square(x.astype(np.float64) - y.astype(np.float64)).mean()))


def averaged(image: Array, height: int, width: int) -> Array:
    """Area averaging by repeating every pixel until the new pixels are whole blocks, one axis at a time."""
    c, h, w = image.shape
    low = image.astype(np.float64).repeat(height, axis=1).reshape(c, height, h, w).mean(2)
    return low.repeat(width, axis=2).reshape(c, height, width, w).mean(3)


@pytest.mark.parametrize(("size", "new"), [((12, 12), (4, 6)), ((7, 10), (3, 10)), ((9, 5), (1, 4)), ((6, 6), (6, 6))])
def test_shrinking_is_exact_area_averaging(size: tuple[int, int], new: tuple[int, int]) -> None:
    image = noise(1, 0, 2, *size)[0].astype(np.float64)
    small = shrink(image, *new)
    np.testing.assert_allclose(small, averaged(image, *new), rtol=1e-13)
    assert np.square(small).mean() <= np.square(image).mean() * (1 + 1e-12)
    if size == new:
        assert (small == image).all()


def test_controls_in_order() -> None:
    second = noise(60, 1)
    draw = np.random.default_rng(0)
    slight = second[:20] + draw.normal(0, 2, (20, 1, 12, 12)).astype(np.float32)
    strong = second[:20] + draw.normal(0, 5, (20, 1, 12, 12)).astype(np.float32)
    sets = {"copies": second[:20], "near": slight, "far": strong, "unrelated": noise(20, 2)}
    values = {name: result(first, second).values for name, first in sets.items()}
    assert values["copies"] == {"leakage": 1.0, "exact duplicates": 1.0}
    assert values["near"] == {"leakage": 1.0, "exact duplicates": 0.0}
    assert values["far"] == values["unrelated"] == {"leakage": 0.0, "exact duplicates": 0.0}


@pytest.mark.parametrize("size", [(8, 8), (12, 12), (24, 40), (70, 65), (128, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_brute_force(size: tuple[int, int], channels: int) -> None:
    """Differences around the threshold, on images smaller than, equal to and larger than what is compared."""
    second, draw = noise(40, 1, channels, *size), np.random.default_rng(2)
    first = noise(30, 3, channels, *size)
    for i in range(20):
        first[i] = second[draw.integers(40)] + 0.31 * i
    small = tuple(min(64, side) for side in size)
    x, y = ([averaged(image, *small).astype(np.float32) for image in side] for side in (first, second))
    table = np.array([[rms(a, b) for b in y] for a in x])
    found = result(first, second)
    values = found.values
    assert values == {"leakage": (table.min(1) < 3).mean(), "exact duplicates": 1 / 30}
    pairs = found.details["pairs"]
    distances = {(pair["fake"], pair["real"]): pair["distance"] for pair in pairs}
    assert distances == pytest.approx({(i, j): table[i, j] for i, j in np.argwhere(table < 3).tolist()}, rel=1e-6)
    assert [pair["distance"] for pair in pairs] == sorted(distances.values())
    assert found.details["exact_pairs"] == 1
    assert found.details["near_pairs"] == len(pairs) - 1


def test_the_threshold_is_exclusive_and_in_grey_levels() -> None:
    second = noise(5, 1)
    first = second + 3
    assert result(first, second).values["leakage"] == 0
    assert result(first, second, threshold=3.0001).values["leakage"] == 1
    assert result(first - 1, second).values["leakage"] == 1
    exact = result(np.concatenate([second[:1], second[1:3] + 0.001]), second, threshold=0)
    assert exact.values == {"leakage": 1 / 3, "exact duplicates": 1 / 3}


def test_sets_of_different_sizes_meet_at_the_smaller_one() -> None:
    large = noise(10, 1, 3, 48, 96)
    small = np.stack([averaged(image, 24, 32) for image in large]).astype(np.float32)
    found = result(np.concatenate([small[:4], noise(4, 2, 3, 24, 32)]), large)
    # 96 columns are first kept at 64, so that 32 are not quite the direct average, but near.
    assert found.values["exact duplicates"] == 0
    halves = np.stack([averaged(image, 24, 48) for image in large[..., :96]]).astype(np.float32)
    direct = result(halves, noise(3, 3, 3, 48, 48)).values
    assert direct["leakage"] == 0
    tall = noise(6, 4, 1, 64, 40)
    shrunk = np.stack([averaged(image, 32, 20) for image in tall]).astype(np.float32)
    assert result(shrunk, tall).values == {"leakage": 1.0, "exact duplicates": 0.0}
    assert result(tall, shrunk).values == {"leakage": 1.0, "exact duplicates": 0.0}


def test_an_image_and_its_larger_self_are_not_exact() -> None:
    flat = np.full((1, 1, 8, 8), 9, np.float32)
    assert result(flat, flat.reshape(1, 1, 4, 16)).values == {"leakage": 1.0, "exact duplicates": 0.0}


def test_grey_images_are_found_among_colour_ones() -> None:
    grey = noise(5, 1)
    assert result(grey, grey.repeat(3, axis=1)).values == {"leakage": 1.0, "exact duplicates": 0.0}
    assert result(grey.repeat(3, axis=1), grey).values["leakage"] == 1


def test_different_labels_are_told() -> None:
    images, labels = noise(10, 1), np.arange(10) % 2
    other = labels.copy()
    other[:3] = 1 - other[:3]
    for names in (None, ("benign", "malignant")):
        found = Leakage().compute(rows(images, other, names), rows(images, labels, names))
        assert found.details["differently_labelled_pairs"] == 3
        assert found.warnings == ["3 of 10 pairs of duplicates carry different labels: correct them"]
    swapped = Leakage().compute(
        rows(images, 1 - labels, ("malignant", "benign")), rows(images, labels, ("benign", "malignant"))
    )
    assert swapped.details["differently_labelled_pairs"] == 0  # names count, not their numbers
    assert swapped.warnings == []
    severity = Leakage().compute(rows(images, np.ones((10, 2)) + np.eye(10, 2)), rows(images, np.ones((10, 2))))
    assert severity.details["differently_labelled_pairs"] == 2
    for first, second in ((labels, None), (None, None)):
        unknown = Leakage().compute(rows(images, second), rows(images, first))
        assert "differently_labelled_pairs" not in unknown.details
        assert unknown.warnings == []


def test_the_fifty_closest_pairs_are_listed() -> None:
    second = noise(90, 1)
    first = second + np.linspace(0, 2, 90, dtype=np.float32)[:, None, None, None]
    found = result(first[::-1].copy(), second)
    pairs = found.details["pairs"]
    assert [pair["real"] for pair in pairs] == list(range(50))
    assert [pair["fake"] for pair in pairs] == list(range(89, 39, -1))
    assert found.details["near_pairs"] == 89
    assert type(pairs[0]["fake"]) is int


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 12))
def test_order_changes_nothing(seed: int, n: int) -> None:
    draw = np.random.default_rng(seed)
    few = draw.integers(0, 4, (5, 1, 2, 2)).astype(np.float32)
    sides = [rows(few[draw.integers(0, 5, n)], draw.integers(0, 2, n)) for _ in range(2)]
    mixed = [side.take(draw.permutation(n)) for side in sides]
    assert Leakage().compute(*mixed) == Leakage().compute(*sides)


@pytest.mark.parametrize("size", [12, 20])
def test_resampling_equals_fresh_metrics(size: int) -> None:
    draw = np.random.default_rng(0)
    real = noise(40, 1).astype(np.uint8)
    real[5:9], real[30] = real[4], np.clip(real[31].astype(int) + 1, 0, 255)
    fake = noise(30, 2, 1, size, size).astype(np.uint8)
    fake[12] = fake[3]
    if size == 12:
        fake[:6], fake[6:8] = real[2:8], np.clip(real[10:12].astype(int) + 2, 0, 255)
    pool = Pool(rows(real), rows(fake))
    shared, fresh = Leakage().resampling(pool), Resampling(Leakage(), pool)
    mixed = draw.permutation(70)
    halves = draw.permutation(pool.real_places)
    for first, second in ((pool.real_places, pool.fake_places), (halves[:20], halves[20:])):
        assert shared.values(first, second) == fresh.values(first, second)
    if size == 12:
        assert shared.values(mixed[:40], mixed[40:]) == fresh.values(mixed[:40], mixed[40:])
    else:
        assert shared.values(mixed[:40], mixed[40:])["leakage"] < 1
        with pytest.raises(GankitError, match=r"images of the shapes \(1, 12, 12\) and \(1, 20, 20\) cannot be mixed"):
            fresh.values(mixed[:40], mixed[40:])
    parts = [pool.real_places[2:5], pool.real_places[::7], pool.fake_places[:1], pool.fake_places[5:20]]
    assert shared.values_without(parts) == fresh.values_without(parts)
    with pytest.raises(GankitError, match="no images of the second"):
        shared.values(np.zeros(0, np.int64), pool.fake_places)


class TestErrors:
    def test_sets_without_images(self) -> None:
        with pytest.raises(GankitError, match=r"no images of the first \(generated\) set"):
            result(noise(0, 1), noise(1, 1))
        with pytest.raises(GankitError, match=r"no images of the second \(real\) set"):
            result(noise(1, 1), noise(0, 1))
        assert result(noise(1, 1), noise(1, 1)).values["leakage"] == 1

    def test_settings(self) -> None:
        assert build("metric", "leakage", threshold=1.5).threshold == 1.5  # type: ignore[attr-defined]
        with pytest.raises(GankitError, match="threshold"):
            build("metric", "leakage", threshold=-1)

    def test_images_that_do_not_fit(self) -> None:
        images = rows(noise(3, 1))
        with pytest.raises(GankitError, match="the second images have no pixels"):
            Leakage().compute(Rows(ids=np.arange(3)), images)
        with pytest.raises(GankitError, match="the first images have no ids"):
            Leakage().compute(images, Rows(images=noise(3, 1)))
        with pytest.raises(GankitError, match=r"those of the first set have shape \(3, 12, 12\)"):
            result(noise(3, 1)[:, 0], noise(3, 1))
        broken = noise(3, 1)
        broken[1, 0, 2, 2] = np.nan
        with pytest.raises(GankitError, match="image 1 of the second set has values that are NaN"):
            result(noise(3, 1), broken)

    def test_different_numbers_of_channels(self) -> None:
        with pytest.raises(GankitError, match=r"images of \[2, 3\] channels"):
            result(noise(3, 1, 2), noise(3, 1, 3))


def split(path: Path, name: str) -> Rows:
    with np.load(path) as file:
        images, labels = file[f"{name}_images"].astype(np.float32), file[f"{name}_labels"].ravel()
    return rows(images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2), labels)


@pytest.mark.parametrize(
    ("data", "first", "second", "exact", "near"),
    [
        ("breastmnist", "train", "test", 1, 20),
        ("breastmnist", "train", "val", 0, 6),
        ("breastmnist", "val", "test", 0, 2),
        ("retinamnist", "train", "test", 0, 0),
        ("retinamnist", "train", "val", 0, 0),
        ("retinamnist", "val", "test", 0, 0),
    ],
)
def test_real_splits(
    real_data: Callable[[str], Path], data: str, first: str, second: str, exact: int, near: int
) -> None:
    """What is known of the data sets: shared/data/README.md; exact pairs are counted among the near ones there."""
    path = real_data(f"{data}/{data}.npz")
    ours, others = split(path, first), split(path, second)
    found = Leakage().compute(others, ours)
    details = found.details
    assert details["exact_pairs"] == exact
    assert details["exact_pairs"] + details["near_pairs"] == near == len(details["pairs"])
    hit = {pair["fake"] for pair in details["pairs"]}
    assert found.values["leakage"] == pytest.approx(len(hit) / ours.count)
    if exact:
        twin = details["pairs"][0]
        assert twin["distance"] == 0
        assert ours.required("labels")[twin["fake"]] != others.required("labels")[twin["real"]]
        assert "carry different labels" in found.warnings[0]
