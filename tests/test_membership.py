"""Membership attacks: what tells training images from held-out ones, by patient, beside their controls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import gankit
from gankit.evaluation.design import Estimate, VariancePart, wilson
from gankit.evaluation.membership import attack


def noise(n: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed).normal(120, 30, (n, 1, 8, 8))
    return np.clip(np.rint(draw), 0, 255).astype(np.uint8)


def evaluate(fake: Any, held_out: Any, training: Any) -> Any:
    return gankit.evaluate(fake, held_out, ["memorisation"], "pixels", training=training)


def test_copies_of_training_images_give_the_training_set_away() -> None:
    training, held_out = noise(80, 0), noise(60, 1)
    near = np.clip(training[:60].astype(int) + np.random.default_rng(2).integers(-9, 10, (60, 1, 8, 8)), 0, 255)
    report = evaluate(near.astype(np.uint8), held_out, training)
    found = report["protocol"]["membership"]["generator"]
    assert found["low"] > 0.7
    assert found["area"] > found["control"]
    (warning,) = [text for text in report["protocol"]["warnings"] if "can be told from held-out ones" in text]
    assert "distance to the nearest generated image" in warning
    assert "membership attack by distance to the nearest generated image: area 0." in repr(report)


def test_new_images_give_nothing_away() -> None:
    report = evaluate(noise(60, 2), noise(60, 1), noise(80, 0))
    found = report["protocol"]["membership"]["generator"]
    assert found["low"] < 0.5 < found["high"]
    assert not [text for text in report["protocol"]["warnings"] if "can be told from held-out ones" in text]
    assert set(report["protocol"]["membership"]) == {"generator"}  # there is no critic


@pytest.mark.parametrize(("control", "warns"), [(0.65, True), (0.75, False)])
def test_an_attack_is_told_only_above_its_control(control: float, warns: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"area": 0.7, "low": 0.6, "high": 0.8, "control": control, "members": 80, "others": 60}
    monkeypatch.setattr("gankit.evaluation.membership.attack", lambda *given: found)
    report = evaluate(noise(60, 2), noise(60, 1), noise(80, 0))
    assert any("can be told from held-out ones" in text for text in report["protocol"]["warnings"]) == warns


def test_without_held_out_images_there_is_no_attack() -> None:
    assert "membership" not in evaluate(noise(60, 2), noise(60, 1), None)["protocol"]


def test_the_area_is_that_of_scikit_learn_and_its_interval_that_of_patients() -> None:
    draw = np.random.default_rng(0)
    members, others = draw.normal(0.5, 1, 60), draw.normal(0, 1, 40)
    found = attack(members, others, None, None)
    assert found is not None
    assert found["area"] == pytest.approx(roc_auc_score([1] * 60 + [0] * 40, [*members, *others]))
    by_patient = attack(members.repeat(4), others.repeat(4), np.arange(60).repeat(4), np.arange(40).repeat(4))
    assert by_patient is not None
    assert by_patient["area"] == pytest.approx(found["area"])
    assert (by_patient["low"], by_patient["high"]) == pytest.approx((found["low"], found["high"]), abs=1e-9)
    assert by_patient["control"] == pytest.approx(found["control"])  # divides the same patients
    assert attack(members[:3], others, None, None) is None


def test_the_interval_is_of_the_error_of_delong_also_with_ties() -> None:
    draw = np.random.default_rng(1)
    for members, others in (draw.normal(0.6, 1, (2, 30)), np.round(draw.normal(0.6, 1, (2, 30)))):
        above = (members[:, None] > others) + 0.5 * (members[:, None] == others)
        of_sides = {f"{axis}": VariancePart(float(above.mean(axis).var(ddof=1)) / 30, 29) for axis in (0, 1)}
        found = attack(members, others, None, None)
        assert found is not None
        expected = Estimate(float(above.mean()), of_sides).share_interval(30)
        assert (found["low"], found["high"]) == pytest.approx(expected)
    tied = attack(np.ones(10), np.ones(6), None, None)
    assert tied is not None
    assert (tied["area"], tied["low"], tied["high"]) == (0.5, *wilson(3, 6))


def test_an_attack_covers_and_its_control_holds_where_there_is_nothing_to_tell() -> None:
    covered, flagged = [], []
    for seed in range(60):
        draw = np.random.default_rng(seed)
        patients = draw.normal(size=50).repeat(3) + 0.3 * draw.normal(size=150)  # three alike images of each
        groups = np.arange(50).repeat(3)
        found = attack(patients[:90], patients[90:], groups[:90], groups[90:])
        assert found is not None
        assert (found["members"], found["others"]) == (30, 20)
        covered.append(found["low"] <= 0.5 <= found["high"])
        flagged.append(found["low"] > 0.5 and found["area"] > found["control"])
    assert np.mean(covered) > 0.88
    assert np.mean(flagged) < 0.1


def test_a_critic_scores_classes_by_their_names(small: Callable[..., list[str]], tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("data.conditional=true")), tmp_path / "run")
    images = np.random.default_rng(3).integers(0, 256, (12, 3, 8, 8), dtype=np.uint8)

    def critic_of(labels: list[int], *names: str) -> Any:
        others = gankit.wrap("dataset", images, labels=np.array(labels), class_names=names)
        return gankit.evaluate(run, others, ["memorisation"], "pixels")["protocol"]["membership"].get("critic")

    assert critic_of([0, 1] * 6, "0", "1") == critic_of([1, 0] * 6, "1", "0") is not None
    assert critic_of([0, 1, 2] * 4, "0", "1", "2") is None  # a class that the critic does not know
