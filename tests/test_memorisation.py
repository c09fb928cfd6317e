"""Copies of training images, against brute force: controls, levels of its tests, groups."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from brute_force import VALUES, Array, brute_force, distance, known, result, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from gankit import GankitError
from gankit.interfaces import Pool, Resampling, Rows
from gankit.metrics.memorisation import Memorisation, _beyond_chance


@pytest.mark.parametrize("case", ["separate", "leave-one-out", "groups", "many"])
def test_equals_brute_force(case: str) -> None:
    n, d = (420, 3) if case == "many" else (40, 5)
    real, fake, training = rows(n, d, 1), rows(25, d, 2) * 0.7, rows(60, d, 3)
    real[7], fake[3] = real[11], real[20]
    groups = np.arange(n) // 4 if case == "groups" else None
    apart = training if case in ("separate", "many") else None
    metric = result(real, fake, apart, groups)
    assert metric.values == pytest.approx(brute_force(real, fake, apart, groups), abs=1e-14)
    details = metric.details
    assert details["held_out"] == ("leave-one-out" if apart is None else "separate")
    expected = {"separate": 1 / 41, "leave-one-out": 2 / 42, "groups": 2 / 42, "many": 4 / 421}[case]
    assert details["expected_near_copies"] == pytest.approx(expected)
    assert metric.counts == ({} if apart is None else dict.fromkeys(VALUES[2:], (60, 25)))


def test_pairs_are_the_closest_of_different_generated_images() -> None:
    real, fake = rows(30, 4, 1), rows(20, 4, 2)
    fake[13] = real[5]
    metric = result(real, fake)
    lines = [(min(distance(x, y) for y in real), i) for i, x in enumerate(fake)]
    pairs = metric.details["pairs"]
    assert [(pair["distance"], pair["fake"]) for pair in pairs] == sorted(lines)[:8]
    assert pairs[0] == {"fake": 13, "real": 5, "distance": 0.0}
    assert all(distance(fake[pair["fake"]], real[pair["real"]]) == pair["distance"] for pair in pairs)
    assert type(pairs[0]["fake"]) is int


def test_the_four_controls_come_in_order() -> None:
    """Exact copies, near copies of few images, held-out reals, unrelated images: notes, section 6."""
    training, held = rows(200, seed=1), rows(150, seed=2)
    sets = {
        "copies": training[:100],
        "near copies": training[np.arange(100) % 2] + 1e-3 * rows(100, seed=3),
        "held out": rows(100, seed=4),
        "unrelated": rows(100, seed=5) + 4,
    }
    for apart in (training, None):
        values, said = {}, {}
        for name, fake in sets.items():
            metric = result(training if apart is None else held, fake, apart)
            values[name] = metric.values
            said[name] = metric.warnings
            assert all(control["passed"] for control in metric.details["controls"].values())
        column = {key: [values[name][key] for name in sets] for key in VALUES}
        assert column["memorisation"][:2] == [1, 1]
        assert 0.4 < column["memorisation"][2] < 0.6
        assert column["memorisation"][3] < 0.01
        assert column["near-copies"][:2] == [1, 1]
        assert column["near-copies"][2] < 0.06
        assert column["near-copies"][3] == 0
        assert column["authenticity"][:2] == [0, 0]
        assert 0.5 < column["authenticity"][2] < column["authenticity"][3] == 1
        assert column["memorisation distance"][0] == 0
        assert column["memorisation distance"][1] < 1e-6 < 0.1 < column["memorisation distance"][2]
        assert len(said["copies"]) == len(said["near copies"]) == 2
        assert "nearer to training images" in said["copies"][0]
        assert "100.0% of generated images are near copies" in said["copies"][1]
        assert said["held out"] == said["unrelated"] == []


def test_copies_of_two_of_two_hundred_are_seen_the_right_way_round() -> None:
    """Minimum over training images, mean over generated ones; the reverse gives nearly 1 (notes, section 7)."""
    real = rows(200, 64, 1)
    fake = real[np.arange(100) % 2] + 1e-6 * rows(100, 64, 2)
    value = result(real, fake).values["memorisation distance"]
    assert 0 < value < 1e-11
    assert result(fake, real).values["memorisation distance"] > 0.3


def test_angles_do_not_see_length_or_sign() -> None:
    real = rows(50, 8, 1)
    assert result(real, -3 * real[:20]).values["memorisation distance"] == pytest.approx(0, abs=1e-30)
    assert result(real, 2.0 * real[:20]).values["memorisation distance"] == pytest.approx(0, abs=1e-30)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(("n", "d"), [(30, 2), (30, 32), pytest.param(200, 8, marks=pytest.mark.slow)])
def test_new_images_are_at_chance(apart: bool, n: int, d: int) -> None:
    """The rank statistic of images as new as held-out ones: mean 0.5, near copies at the share that is stated."""
    values, said, wrong, count = [], 0, 0, 150
    for seed in range(count):
        draw = np.random.default_rng(seed)
        metric = result(*(draw.normal(size=(n, d)) for _ in range(3 if apart else 2)))
        values.append(list(metric.values.values())[:2])
        said += sum("beyond chance" in text for text in metric.warnings)
        wrong += not all(control["passed"] for control in metric.details["controls"].values())
    mean, error = np.mean(values, 0), np.std(values, 0, ddof=1) / math.sqrt(count)
    # Of n leave-one-out distances each is to one image less, which gives generated images 1 / (4 n) more.
    assert abs(mean[0] - 0.5 - (0 if apart else 1 / (4 * n))) < 3.5 * error[0]
    assert abs(mean[1] - metric.details["expected_near_copies"]) < 3.5 * error[1]
    assert said <= 4  # of 300 values, 0.3 expected: 5 or more have a chance of 2e-5
    assert wrong <= 3


def test_the_bounds_hold_their_level() -> None:
    """4000 draws of uniform ranks at the level 0.001, and the number of near copies that is just beyond it."""
    draw, beyond = np.random.default_rng(0), np.zeros(2)
    for _ in range(4000):
        held, shown = np.sort(draw.random(60)), draw.random(40)
        share = 1 - np.searchsorted(held, shown).mean() / 60
        beyond += _beyond_chance(share, float((shown <= held[0]).mean()), 40, 60)
    assert (beyond <= 12).all()  # 4 expected
    # The 7 or the 8 nearest of all 100 images are generated ones.
    assert math.comb(40, 7) / math.comb(100, 7) > 0.001 > math.comb(40, 8) / math.comb(100, 8)
    assert _beyond_chance(0.5, 7 / 40, 40, 60) == (False, False)
    assert _beyond_chance(0.5, 8 / 40, 40, 60) == (False, True)


def test_whole_groups_are_left_out() -> None:
    """A patient's other images, all alike, are no held-out images."""
    patients = np.repeat(rows(60, seed=1), 5, axis=0)
    real, groups = patients + 0.01 * rows(300, seed=2), np.repeat(np.arange(60), 5)
    fresh = rows(100, seed=3)
    alone, grouped = result(real, fresh), result(real, fresh, groups=groups)
    assert alone.values["memorisation"] == 0  # beside such a baseline no image is a copy
    assert 0.4 < grouped.values["memorisation"] < 0.6
    assert grouped.warnings == []
    copies = result(real, patients[:100] + 0.01 * rows(100, seed=4), groups=groups)
    assert copies.values["memorisation"] == 1
    assert len(copies.warnings) == 2


class TestControls:
    def test_features_that_tell_nothing(self) -> None:
        for training in (None, np.full((30, 4), 0.1)):
            metric = result(np.full((40, 4), 0.1), np.full((20, 4), 0.1), training)
            values = metric.values
            assert values == {
                "memorisation": 0.5,
                "near-copies": 1.0,
                "authenticity": 0.0,
                "memorisation distance": 0.0,
            }
            assert not metric.details["controls"]["copycat"]["passed"]
            assert "not told apart from new images (memorisation 0.50)" in metric.warnings[0]

    def test_too_few_images(self) -> None:
        metric = result(rows(4, seed=1), rows(3, seed=2))
        assert "copies would go unnoticed" in metric.warnings[0]

    def test_held_out_images_that_are_in_the_training_set(self) -> None:
        training, held = rows(200, seed=1), rows(100, seed=2)
        held[:20] = training[:20]
        metric = result(held, rows(50, seed=3), training)
        control = metric.details["controls"]["held-out reals"]
        assert control["near-copies"] > 0.1
        assert not control["passed"]
        assert "look for duplicates, or for one patient" in metric.warnings[0]

    def test_one_patient_on_both_sides(self) -> None:
        patients, groups = rows(60, seed=1), np.repeat(np.arange(60), 3)
        training = np.repeat(patients, 3, axis=0) + 0.1 * rows(180, seed=2)
        held, fake = patients + 0.1 * rows(60, seed=3), rows(50, seed=4)
        metric = result(held, fake, training, np.arange(60), groups)
        assert not metric.details["controls"]["held-out reals"]["passed"]
        fair = result(rows(60, seed=5), fake, training, np.arange(60), groups)
        assert fair.details["controls"]["held-out reals"]["passed"]

    def test_one_group_held_out(self) -> None:
        metric = result(rows(30, seed=1), rows(30, seed=2), rows(30, seed=3), np.zeros(30))
        control = {"memorisation": None, "near-copies": None, "passed": False}
        assert metric.details["controls"]["held-out reals"] == control
        assert any("of one group" in text for text in metric.warnings)


@pytest.mark.parametrize("offset", [0.0, 1000.0, 1e5])
def test_duplicates_are_at_exactly_zero(offset: float) -> None:
    real = (rows(120, 2048, 1) + offset).astype(np.float32)
    fake = np.concatenate([real[:30], (rows(20, 2048, 2) + offset).astype(np.float32)])
    metric = result(real, fake)
    values = metric.values
    assert [pair["distance"] for pair in metric.details["pairs"]] == [0.0] * 8
    assert values["authenticity"] == pytest.approx(0.4, abs=0.2)
    assert result(real, real).values["memorisation distance"] == 0.0
    assert values["near-copies"] >= 0.6


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_order_changes_nothing(data: st.DataObject) -> None:
    """On few whole numbers, so that most distances tie."""
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    apart, grouped = data.draw(st.booleans()), data.draw(st.booleans())
    sides = []
    for _ in range(3):
        n = data.draw(st.integers(6, 14))
        groups = np.arange(n) // 2 if grouped else None
        sides.append(known(draw.integers(-2, 3, (n, 2)).astype(np.float32), groups))
    mixed = [rows.take(draw.permutation(rows.count)) for rows in sides]
    for known_rows in (sides, mixed) if apart else ():
        known_rows[0] = dataclasses.replace(known_rows[0], training=known_rows[2])
    assert Memorisation().compute(*mixed[:2]) == Memorisation().compute(*sides[:2])


def pool(kind: str, n: int = 80, m: int = 60) -> Pool:
    draw = np.random.default_rng(5)

    if kind == "ties":
        real, fake = draw.integers(-2, 3, (n, 3)).astype(np.float32), draw.integers(-2, 3, (m, 3)).astype(np.float32)
    else:
        real, fake = draw.normal(size=(n, 6)), draw.normal(size=(m, 6)) * 0.8
        fake[: m // 2] = fake[0]  # a collapsed generator: lists of near ones hold copies alone
        if kind == "patients":  # one patient with more images than a list is long
            real[:50] = real[0] + 0.01 * draw.normal(size=(50, 6))
    groups = np.arange(n) // 3
    if kind == "patients":
        groups[:50] = 0
    training = known(draw.normal(size=(50, 6)), np.arange(50) // 3) if kind == "apart" else None
    return Pool(known(real, groups if kind in ("groups", "patients") else None, training), known(fake))


@pytest.mark.parametrize("kind", ["alone", "ties", "groups", "patients", "apart"])
def test_resampling_equals_fresh_metrics(kind: str) -> None:
    images = pool(kind)
    shared = Memorisation().resampling(images)
    fresh = Resampling(Memorisation(), images)
    draw = np.random.default_rng(0)
    reals, fakes = images.real_places, images.fake_places
    halves = draw.permutation(reals)
    mixed = draw.permutation(len(reals) + len(fakes))
    cases = [
        (reals, fakes),
        (draw.permutation(reals)[:-7], fakes[::2]),
        (halves[:40], halves[40:]),
        (mixed[:70], mixed[70:]),
        (np.setdiff1d(reals, np.arange(45)), fakes),
        (reals[::13], fakes[-3:]),
    ]
    for real, fake in cases:
        assert shared.values(real, fake) == fresh.values(real, fake)
    parts = [reals[:6], reals[::9], fakes[:1], fakes[5:40]]
    assert shared.values_without(parts) == fresh.values_without(parts)
    assert shared.standard_errors() is None


def test_left_out_equals_brute_force() -> None:
    images = pool("alone", 40, 20)
    images.fake.required("features")[:10] = rows(10, 6, seed=9)
    parts = [np.array([3]), np.arange(5, 15), images.fake_places[:4]]
    for part, values in zip(parts, Memorisation().resampling(images).values_without(parts), strict=True):
        real = np.delete(images.real.required("features"), part[part < 40], axis=0)
        fake = np.delete(images.fake.required("features"), part[part >= 40] - 40, axis=0)
        assert values == pytest.approx(brute_force(real, fake, None, None), abs=1e-14)


class TestErrors:
    def test_sides_without_images(self) -> None:
        with pytest.raises(GankitError, match="no generated images"):
            result(rows(5), rows(0))
        with pytest.raises(GankitError, match="no real images"):
            result(rows(0), rows(5), rows(5))
        with pytest.raises(GankitError, match="no training images"):
            result(rows(5), rows(5), rows(0))

    @pytest.mark.parametrize(
        ("real", "fake", "training", "groups", "message"),
        [
            (rows(1), rows(5), None, None, "1 training image"),
            (rows(5), rows(5), rows(1), None, "1 training image"),
            (rows(5), rows(5), None, np.zeros(5), "of one group"),
            (rows(5), rows(5, 3), None, None, "features of different lengths"),
            (rows(5), rows(5), rows(5, 3), None, "features of different lengths"),
            (rows(5) * np.nan, rows(5), None, None, "real images have values that are NaN"),
            (rows(5), rows(5) * np.inf, None, None, "generated images have values that are NaN or infinite"),
            (rows(5), rows(5), rows(5) * np.nan, None, "training images have values that are NaN"),
            (rows(5)[:, :0], rows(5)[:, :0], None, None, r"must be \(n, d\)"),
        ],
    )
    def test_refused(
        self, real: Array, fake: Array, training: Array | None, groups: Array | None, message: str
    ) -> None:
        with pytest.raises(GankitError, match=message) as error:
            result(real, fake, training, groups)
        assert "\n" not in str(error.value)

    def test_rows_that_do_not_fit(self) -> None:
        images = known(rows(3))
        with pytest.raises(GankitError, match="the training images have no features"):
            Memorisation().compute(dataclasses.replace(images, training=Rows(ids=np.arange(3))), images)
        with pytest.raises(GankitError, match="the real images have no ids"):
            Memorisation().compute(Rows(features=rows(3)), images)
        with pytest.raises(GankitError, match=r"features of the real images must be \(n, d\)"):
            result(np.zeros((3, 2, 2)), rows(3))

    def test_one_held_out_and_one_generated_image_are_enough(self) -> None:
        metric = result(rows(1, seed=1), rows(1, seed=2), rows(2, seed=3))
        assert metric.values["memorisation"] in (0.0, 1.0)
        assert metric.warnings

    @pytest.mark.parametrize("kind", ["alone", "apart"])
    def test_resampling_refuses_what_a_metric_refuses(self, kind: str) -> None:
        images = pool(kind)
        with pytest.raises(GankitError, match="no generated images"):
            Memorisation().resampling(images).values(images.real_places, np.zeros(0, np.int64))


def test_real_images(real_data: Callable[[str], Path]) -> None:
    """Pixels of breast ultrasound: a copycat is seen, the validation split is not called one."""
    with np.load(real_data("breastmnist/breastmnist.npz")) as file:
        train, val, test = (file[f"{split}_images"].reshape(-1, 784) / 255 for split in ("train", "val", "test"))
    new = result(test, val, train)
    values = new.values
    assert 0.4 < values["memorisation"] < 0.6
    assert values["near-copies"] < 0.05
    assert new.warnings == []
    copied = result(test, train[:78], train)
    assert copied.values["memorisation"] > 0.99
    assert len(copied.warnings) == 2


def test_real_images_of_groups(real_data: Callable[[str], Path]) -> None:
    """Crops of one photograph overlap: with groups they are no held-out images."""
    with np.load(real_data("bccd_cells/bccd_cells_64.npz")) as file:
        images, groups = file["images"][::2], file["groups"][::2]
    features = images.reshape(len(images), 16, 4, 16, 4, 3).mean((2, 4)).reshape(len(images), -1) / 255
    second = np.unique(groups, return_inverse=True)[1] % 4 == 0
    metric = result(features[~second], features[second], groups=groups[~second])
    assert 0.4 < metric.values["memorisation"] < 0.6
    assert metric.details["controls"]["copycat"]["passed"]
