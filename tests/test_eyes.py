"""The data set `eyes`: counts, optics, layouts, mirror, determinism and the estimator against the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from gankit.datasets._eyes.layouts import layout_of
from gankit.datasets._eyes.optics import eye_positions
from gankit.datasets._eyes.raters import RaterModel, agreement, call
from gankit.datasets._eyes.render import render
from gankit.datasets._eyes.subjects import draw_subjects
from gankit.datasets.eyes import Eyes, estimate_deviation
from gankit.errors import DataError

PAPER = np.array([[1250, 1175, 1067, 938], [451, 412, 367, 316], [999, 959, 886, 784]])
SMALL = (40, 24, 36)
FEW = (20, 12, 18)  # where images are rendered
LAYOUTS = [(64, 64), (32, 32), (64, 128), (128, 128)]
WIDE, LARGE = (pytest.param(size, marks=pytest.mark.slow) for size in LAYOUTS[2:])  # many pixels to render


def counts(rates: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """(3 classes, 4) images kept with no threshold and at a selection rate of at least 0.6, 0.7 and 0.8."""
    # Rates are tenths: half a tenth below each threshold is safe from rounding.
    above = rates[:, None] > np.array([-1.0, 0.55, 0.65, 0.75])
    return np.stack([np.count_nonzero(above[labels == c], axis=0) for c in range(3)])


def errors(eyes: Eyes, images: NDArray[Any]) -> tuple[float, float]:
    """Median absolute error in prism dioptres and share of abstentions."""
    found = estimate_deviation(images)
    return float(np.nanmedian(np.abs(found - eyes.deviation))), float(np.isnan(found).mean())


def test_the_default_panel_gives_the_papers_table() -> None:
    eyes = Eyes()
    table = counts(eyes.agreement, eyes.labels)
    assert np.array_equal(table[:, 0], PAPER[:, 0])
    assert np.abs(table / PAPER - 1).max() <= 0.05


def test_panels_scatter_round_the_fitted_table() -> None:
    subjects = draw_subjects((1250, 451, 999), 0)
    tables = [counts(agreement(call(subjects, 0, p), subjects["label"]), subjects["label"]) for p in range(40)]
    mean = np.mean(tables, axis=0)
    fitted = np.array([[1164, 1092, 936], [402, 375, 319], [962, 908, 778]])
    assert np.abs(mean[:, 1:] / fitted - 1).max() < 0.03
    assert np.std(tables, axis=0)[:, 1:].min() > 3


def test_raters_without_noise_call_by_their_criterion() -> None:
    subjects = draw_subjects((30, 30, 30), 1)
    sharp = RaterModel(criterion=7.0, criterion_sd=0.0, bias=0.0, bias_sd=0.0, noise=0.0, noise_slope=0.0, lapse=0.0)
    calls = call(subjects, 1, 0, sharp)
    deviation = subjects["deviation"][:, None]
    assert np.array_equal(calls, np.broadcast_to(np.where(deviation > 7, 0, np.where(deviation < -7, 1, 2)), (90, 10)))


def test_truth_is_known_without_pixels_and_labels_follow_the_deviation() -> None:
    eyes = Eyes(counts=SMALL)
    assert len(eyes) == 100
    assert "images" not in vars(eyes)
    assert np.array_equal(np.bincount(eyes.labels), SMALL)
    assert (eyes.deviation[eyes.labels == 0] >= 4).all()
    assert (eyes.deviation[eyes.labels == 1] <= -4).all()
    assert set(np.unique(eyes.laterality)) == {0, 1}
    assert eyes.hirschberg_ratio.min() >= 15
    assert eyes.hirschberg_ratio.max() <= 24
    assert eyes.calls.shape == (100, 10)
    assert np.allclose(eyes.agreement, (eyes.calls == eyes.labels[:, None]).mean(axis=1))
    assert {"deviation", "kappa", "gaze_h", "yaw", "agreement", "calls", "ita"} <= set(eyes.facts)
    assert all(len(values) == 100 for values in eyes.facts.values())
    assert "images" not in vars(eyes)


def test_the_reflex_obeys_hirschberg() -> None:
    subjects = draw_subjects((50, 50, 50), 0)
    rows = np.arange(150)
    for name in ("gaze_h", "gaze_v", "yaw", "pupil_nasal", "pupil_up"):
        subjects[name] = np.zeros(150)
    theta, limbus, pupil, reflex = eye_positions(subjects)
    turned, fixing = subjects["laterality"], 1 - subjects["laterality"]
    assert np.allclose(theta[rows, fixing], subjects["kappa"])
    more = theta[rows, turned] - theta[rows, fixing]
    assert np.allclose(100 * np.tan(np.radians(more)), subjects["deviation"])
    limbus, pupil, reflex = limbus[0], pupil[0], reflex[0]
    assert np.allclose(limbus, 10.9 * np.sin(np.radians(theta)))
    moved = (pupil - reflex) / np.sin(np.radians(theta))
    assert np.allclose(100 / moved, subjects["hirschberg_ratio"][:, None])
    # Exotropia: the iris goes to the temple, its reflex to the nose.
    exo = subjects["label"] == 0
    assert (limbus[rows, turned] > limbus[rows, fixing])[exo].all()
    nasal = limbus - reflex
    assert (nasal[rows, turned] > nasal[rows, fixing])[exo].all()


def test_fewer_images_are_a_part_of_more() -> None:
    few, more = draw_subjects((6, 4, 5), 3), draw_subjects((9, 8, 7), 3)
    places = {(c, i): row for row, (c, i) in enumerate(zip(more["label"], more["index"], strict=True))}
    pick = [places[c, i] for c, i in zip(few["label"], few["index"], strict=True)]
    for name, values in few.items():
        assert np.array_equal(values, more[name][pick]), name
    layout = layout_of(32, 32)
    assert np.array_equal(render(few, layout, 3), render(more, layout, 3)[pick])


def test_seeds_decide_and_threads_do_not() -> None:
    subjects, layout = draw_subjects((20, 20, 20), 0), layout_of(32, 32)
    assert np.array_equal(render(subjects, layout, 0, threads=1), render(subjects, layout, 0, threads=3))
    assert not np.array_equal(Eyes(counts=SMALL).deviation, Eyes(counts=SMALL, seed=1).deviation)
    assert np.array_equal(Eyes(counts=SMALL).deviation, Eyes(counts=SMALL, panel=1).deviation)
    assert not np.array_equal(Eyes(counts=SMALL).calls, Eyes(counts=SMALL, panel=1).calls)


@pytest.mark.parametrize("size", [None, *LAYOUTS, (32, 64)])
def test_images_have_the_declared_form(size: tuple[int, int] | None) -> None:
    eyes = Eyes(size, counts=(3, 2, 2))
    height, width = size or (64, 64)
    assert eyes.image.shape == (3, height, width)
    assert eyes.images.shape == (7, 3, height, width)
    assert eyes.images.dtype == np.uint8
    assert eyes.images.std() > 15


@pytest.mark.parametrize("size", [(64, 48), (63, 63), (128, 64), (8, 8), (33, 66)])
def test_other_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=rf"{size[0]} high and {size[1]} wide"):
        Eyes(size)


def test_an_empty_class_is_allowed() -> None:
    eyes = Eyes((32, 32), counts=(2, 0, 1))
    assert eyes.images.shape == (3, 3, 32, 32)
    assert Eyes((32, 32), counts=(0, 0, 0)).images.shape == (0, 3, 32, 32)


@pytest.mark.parametrize("size", [(64, 64), WIDE])
def test_the_mirror_keeps_the_deviation_and_exchanges_the_eyes(size: tuple[int, int]) -> None:
    eyes = Eyes(size, counts=FEW)
    mirrored = eyes.mirror(eyes.images)
    assert np.array_equal(eyes.mirror(mirrored), eyes.images)
    assert np.array_equal(eyes.mirror(torch.from_numpy(np.array(eyes.images))).numpy(), mirrored)
    plain, seen = estimate_deviation(eyes.images), estimate_deviation(mirrored)
    assert np.nanmedian(np.abs(plain - seen)) < 0.5
    if size[0] == size[1]:
        flipped = estimate_deviation(eyes.images[..., ::-1])
        # Angle kappa, too, then points to the nose: a straight pair looks esotropic.
        assert np.nanmean(flipped[eyes.labels == 0]) < -20
        half = size[0] // 2
        assert np.array_equal(mirrored[..., :half, :], eyes.images[..., half:, ::-1])


@pytest.mark.parametrize("size", [(64, 64), (32, 32), WIDE, LARGE, (32, 64)])
def test_the_estimator_finds_the_truth(size: tuple[int, int]) -> None:
    eyes = Eyes(size, counts=FEW)
    error, abstained = errors(eyes, eyes.images)
    assert error < (6.5 if size == (32, 64) else 4.5)
    assert abstained < 0.1


def test_the_estimator_bears_blur_and_noise() -> None:
    eyes = Eyes(counts=FEW)
    soft = gaussian_filter(eyes.images.astype(np.float32), (0, 0, 1, 1))
    grainy = eyes.images + np.random.default_rng(0).normal(0, 10, eyes.images.shape)
    for images in (soft, grainy):
        error, abstained = errors(eyes, images)
        assert error < 4.5
        assert abstained < 0.1


@pytest.mark.parametrize("size", [(64, 64), (64, 128)])
def test_the_estimator_abstains_without_eyes(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    assert np.isnan(estimate_deviation(np.full((2, 3, *size), 128, dtype=np.uint8))).all()
    assert np.isnan(estimate_deviation(random.integers(0, 256, (60, 3, *size)))).mean() > 0.9
    assert estimate_deviation(np.empty((0, 3, *size), dtype=np.uint8)).shape == (0,)


def test_the_estimator_refuses_other_forms() -> None:
    with pytest.raises(DataError, match="shape"):
        estimate_deviation(np.zeros((2, 1, 64, 64)))
    with pytest.raises(DataError, match="not strip"):
        estimate_deviation(np.zeros((2, 3, 64, 64)), layout="strip")
