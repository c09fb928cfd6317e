"""Images with a planted effect, and small studies of augmentation on them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_studies import save_arrays, small_networks

from gankit.images.pictures import save_image
from gankit.studies.augmentation.study import AugmentationStudy
from gankit.studies.reading import load_study

CLASSES = ["many", "few"]
COUNTS = (80, 40)
N = sum(COUNTS)
MANY = np.repeat([0, 1], (240, 160))
LARGE = {"images": None, "labels": MANY, "groups": np.arange(400) // 2, "severity": None}
Write = Callable[..., Path]


def draw_images(labels: Any, seed: int, strength: int = 12) -> Any:
    """(n, 8, 8) images of noise, of which a class brightens its half by a little."""
    random = np.random.default_rng(seed)
    images = random.normal(120, 40, (len(labels), 8, 8))
    images[np.asarray(labels) == 0, :, :4] += strength
    images[np.asarray(labels) == 1, :, 4:] += strength
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


LARGE["images"] = draw_images(MANY, 0)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """An npz file of 120 grey images of 8 x 8, 80 and 40 of two classes, two a patient."""

    def made(**more: Any) -> Path:
        labels = np.repeat([0, 1], COUNTS)
        arrays = {
            "images": draw_images(labels, 0), "labels": labels, "groups": np.arange(N) // 2, "class_names": CLASSES,
            "severity": np.arange(N) % 20 + 5.0 * labels, **more,
        }  # fmt: skip
        return save_arrays(tmp_path / f"data-{len(list(tmp_path.glob('*.npz')))}.npz", arrays)

    return made


def study(path: Path, *overrides: str) -> AugmentationStudy:
    small = [
        *small_networks(path), "augmentation.steps=3", "augmentation.batch=8", "augmentation.width=4",
        "augmentation.folds=2", "augmentation.generators=1", "augmentation.seeds=1", "augmentation.ratios=[1.0]",
    ]  # fmt: skip
    loaded = load_study("augmentation", "wgan-gp", *small, *overrides)
    assert isinstance(loaded, AugmentationStudy)
    return loaded


FAST = ["augmentation.estimator=LogisticRegression", "augmentation.options={C=0.1}", "augmentation.views=1"]
NO_CONTROLS = "augmentation.controls=[]"
FEW = 'augmentation.arms=["real", "weights", "synthetic"]'
OTHERS = ["augmentation.generator=false", *FAST]


def write_images(folder: Path, images: Any, labels: Any, names: list[str] = CLASSES) -> None:
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / names[label]).mkdir(parents=True, exist_ok=True)
        save_image(folder / names[label] / f"{place:05d}", image if image.ndim == 3 else image[None])


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))
