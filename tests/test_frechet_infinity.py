"""The extrapolated Frechet distance: against a truth in closed form, its refusal, and what it does not depend on."""

from __future__ import annotations

import numpy as np
import pytest

import gankit
from gankit import GankitError, build
from gankit.interfaces import Rows
from gankit.metrics.frechet import frechet_distance


def value(real: np.ndarray, fake: np.ndarray, **settings: int) -> float:
    result = build("metric", "frechet-infinity", **settings).compute(Rows(features=real), Rows(features=fake))
    found: float = result.values["frechet-infinity"]
    assert result.counts["frechet-infinity"] == (min(len(real), len(fake)),) * 2
    return found


def test_it_is_nearer_to_the_truth_than_the_plain_value() -> None:
    """Equal distributions, shifted by 1 in one dimension: the truth is 1, and the plain value is above."""
    errors = []
    for seed in range(8):
        draw = np.random.default_rng(seed)
        real, fake = draw.normal(size=(400, 30)), draw.normal(size=(400, 30))
        fake[:, 0] += 1
        errors.append((frechet_distance(real, fake) - 1, value(real, fake) - 1))
    plain, infinite = np.array(errors).T
    assert plain.mean() > 0.7
    assert abs(infinite.mean()) < 0.35
    assert infinite.std() < 0.5


def test_equal_sets_are_at_zero_and_a_shift_at_its_square() -> None:
    """Halves of one set are drawn alike from equal sets: every value of the line is that of the whole."""
    real = np.random.default_rng(0).normal(size=(64, 2))
    assert value(real, real) == 0
    many = np.random.default_rng(0).normal(size=(8000, 2))
    assert value(many, many + 3) == pytest.approx(18, abs=0.6)  # other rows are drawn from other content


def test_rows_on_both_sides_do_not_bend_the_line() -> None:
    """A half of each side are the same rows: the truth is 0, and the bias of every size is in proportion to 1 / n."""
    found = []
    for seed in range(8):
        draw = np.random.default_rng(seed)
        shared, *own = draw.normal(size=(3, 200, 20))
        found.append(value(*(np.concatenate([shared, rows]) for rows in own)))
    assert abs(np.mean(found)) < 0.1


def test_order_does_not_matter() -> None:
    draw = np.random.default_rng(0)
    real, fake = draw.normal(size=(90, 10)), draw.normal(size=(70, 10)) * 1.2
    assert value(real[::-1], draw.permutation(fake)) == pytest.approx(value(real, fake), rel=1e-9)


def test_too_few_images_are_refused() -> None:
    rows = np.random.default_rng(0).normal(size=(59, 30))
    with pytest.raises(GankitError, match=r"at least 60 images of each side, twice the 30 dimensions.*there are 59"):
        value(rows, np.concatenate([rows, rows]))
    with pytest.raises(GankitError, match="generated images: 1 row; at least 4 are needed"):
        value(rows, rows[:1])
    with pytest.raises(GankitError, match="real images: 3 rows; at least 4 are needed"):  # half of 3 has no covariance
        value(rows[:3, :1], rows[:, :1])
    assert np.isfinite(value(rows[:4, :1], rows[:, :1]))
    with pytest.raises(GankitError, match="points"):
        build("metric", "frechet-infinity", points=2)


def test_an_evaluation_gives_it_with_its_error() -> None:
    draw = np.random.default_rng(0)
    sets = [np.clip(draw.normal(120, 30, (n, 1, 2, 2)), 0, 255).astype(np.uint8) for n in (60, 50)]
    report = gankit.evaluate(sets[0], sets[1], ["frechet-infinity"], {"name": "pixels", "side": 2})
    entry = report["metrics"]["frechet-infinity"]
    assert entry["standard_error"] > 0
    assert entry["real_vs_real"]["n"] == 25
