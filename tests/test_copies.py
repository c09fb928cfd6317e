"""Copies of training images are found in every evaluation, whatever its metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gankit


def noise(n: int, seed: int, spread: float = 20) -> np.ndarray:
    draw = np.random.default_rng(seed).normal(120, spread, (n, 1, 8, 8))
    return np.clip(np.rint(draw), 0, 255).astype(np.uint8)


def evaluate(fake: Any, real: Any, **more: Any) -> Any:
    return gankit.evaluate(fake, real, ["variance-ratio"], "pixels", **more)["protocol"]


def said(protocol: Any, words: str) -> list[str]:
    return [warning for warning in protocol["warnings"] if words in warning]


@pytest.mark.parametrize("mirrored", [False, True])
def test_few_exact_copies_are_reported_by_themselves(mirrored: bool) -> None:
    training, held_out, fake = noise(200, 0), noise(100, 1), noise(100, 2)
    fake[[7, 30]] = training[[3, 90]][..., :: -1 if mirrored else 1]
    protocol = evaluate(fake, held_out, training=training)
    assert protocol["copies"] == {"exact": 2, "near": 0, "near_expected": 0.0}
    (warning,) = said(protocol, "generated images")
    assert warning == (
        "2 of 100 generated images equal a training image or its mirror image pixel by pixel (2.0%): "
        "image 7 copies 3"
    )  # fmt: skip


def test_real_images_that_the_generator_was_trained_on_are_reported() -> None:
    training = noise(200, 0)
    protocol = evaluate(noise(100, 2), np.concatenate([noise(50, 1), training[:30]]), training=training)
    (warning,) = said(protocol, "real images equal")
    assert warning.startswith("30 of 80 real images equal a training image or its mirror image: beside them")
    assert not said(evaluate(noise(100, 2), noise(50, 1), training=training), "real images equal")


def test_real_images_that_the_generator_was_trained_on_hide_no_near_copy() -> None:
    training, fake = noise(200, 0), noise(100, 2)
    fake[7] = training[3] + np.random.default_rng(3).integers(-2, 3, (1, 8, 8))
    protocol = evaluate(fake, np.concatenate([noise(50, 1), training[:30]]), training=training)
    assert protocol["copies"] == {"exact": 0, "near": 1, "near_expected": 0.0}
    assert said(protocol, "1 of 100 generated images are near copies of a training image")


def test_a_single_copy_with_noise_of_two_grey_levels_is_reported() -> None:
    training, held_out, fake = noise(200, 0), noise(100, 1), noise(100, 2)
    fake[7] = training[3] + np.random.default_rng(3).integers(-2, 3, (1, 8, 8))
    protocol = evaluate(fake, held_out, training=training)
    assert protocol["copies"] == {"exact": 0, "near": 1, "near_expected": 0.0}
    assert said(protocol, "1 of 100 generated images are near copies of a training image")
    assert said(protocol, "image 7 copies 3")


def test_images_that_copy_nothing_are_not_reported() -> None:
    for training in (None, noise(200, 0)):
        protocol = evaluate(noise(100, 2), noise(100, 1), training=training)
        assert protocol["copies"] == {"exact": 0, "near": 0, "near_expected": 0.0}
        assert not said(protocol, "generated images")


def test_where_new_images_are_as_near_by_nature_only_exact_copies_are_reported() -> None:
    """Hardly any contrast: every image is near every other one."""
    training, held_out, fake = (noise(60, seed, spread=1) for seed in range(3))
    protocol = evaluate(fake, held_out, training=training)
    assert protocol["copies"] == {"exact": 0, "near": 60, "near_expected": 1.0}
    assert not said(protocol, "near copies")
    fake[0] = training[0]
    (warning,) = said(evaluate(fake, held_out, training=training), "1 of 60 generated images equal a training image")
    assert warning.endswith("image 0 copies 0")  # and no later one that is only near


def test_exact_copies_hide_no_near_copies() -> None:
    """Held-out images are near in 10 %, as are generated ones but for 6 of the 50 that are no exact copies."""
    training, held_out, fake = noise(100, 0), noise(100, 1), noise(100, 2)
    change = np.random.default_rng(3).integers(-2, 3, (1, 8, 8))
    held_out[:10], fake[:50], fake[50:56] = training[:10] + change, training[:50], training[50:56] + change
    protocol = evaluate(fake, held_out, training=training)
    assert protocol["copies"] == {"exact": 50, "near": 6, "near_expected": 0.1}
    (warning,) = said(protocol, "near copies")
    assert warning.startswith("6 of 50 other generated images are near copies of a training image")
    assert "(12.0%; 10.0% of new real images): image 50 copies 50" in warning


def test_without_training_images_copies_of_the_reals_are_reported_and_no_real_image_copies_itself() -> None:
    real, fake = noise(100, 0), noise(50, 1)
    fake[5] = real[5]
    protocol = evaluate(fake, real)
    assert protocol["copies"] == {"exact": 1, "near": 0, "near_expected": 0.0}
    assert said(protocol, "1 of 50 generated images equal a real image")
    beside_training = evaluate(fake, real, training=real)
    assert said(beside_training, "1 of 50 generated images equal a training image")
    assert said(beside_training, "the reference is the training images")
    assert not said(beside_training, "no training images were given")


def test_files_are_named(tmp_path: Any) -> None:
    from PIL import Image

    for name, images in (("training", noise(12, 0)), ("fake", noise(12, 1))):
        (tmp_path / name).mkdir()
        for place, image in enumerate(noise(1, 9) if name == "fake" else images):
            Image.fromarray(image[0]).save(tmp_path / name / f"{name}-{place}.png")
    for place in range(4):
        source = tmp_path / "training" / f"training-{place}.png"
        (tmp_path / "fake" / f"copy-{place}.png").write_bytes(source.read_bytes())
    protocol = evaluate(tmp_path / "fake", noise(12, 5), training=tmp_path / "training")
    assert said(protocol, "4 of 5 generated images equal a training image")
    assert said(protocol, "image copy-0.png copies training-0.png")


def test_images_that_cannot_be_compared_are_said_so() -> None:
    training = np.random.default_rng(0).integers(0, 256, (20, 4, 8, 8), dtype=np.uint8)
    protocol = evaluate(noise(20, 1).repeat(3, 1), noise(20, 2).repeat(3, 1), training=training)
    assert protocol["copies"] == {}
    assert said(protocol, "copies of a training image are not looked for")
