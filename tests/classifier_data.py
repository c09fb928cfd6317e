"""Images with planted classes, and small studies of a classifier on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_studies import save_arrays, small_networks

from gankit.studies.classifier.study import ClassifierStudy
from gankit.studies.reading import load_study

N, CLASSES = 120, 3
COUNTS = (60, 20, 40)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """An npz file of 120 colour images of 8 x 8 in three classes of 60, 20 and 40, two a patient."""

    def made(planted: bool = True, **more: Any) -> Path:
        draw = np.random.default_rng(0)
        labels = np.repeat(np.arange(CLASSES), COUNTS)
        images = draw.integers(0, 120, (N, 8, 8, 3), dtype=np.uint8)
        severity = draw.integers(0, 31, N)
        if planted:  # a class is a bright channel, severity brightens all of them
            images[np.arange(N), :, :, labels] += 100
            images += severity[:, None, None, None].astype(np.uint8)
        arrays = {
            "images": images, "labels": labels, "groups": np.arange(N) // 2, "class_names": ["many", "few", "some"],
            "severity": severity, **more,
        }  # fmt: skip
        return save_arrays(tmp_path / f"data-{planted}-{len(more)}.npz", arrays)

    return made


def study(path: Path, *overrides: str) -> ClassifierStudy:
    small = [
        *small_networks(path), "classifier.steps=60", "classifier.batch=16", "classifier.width=8",
        "classifier.seeds=2", "classifier.groupings={}",
    ]  # fmt: skip
    loaded = load_study("classifier", "wgan-gp", *small, *overrides)
    assert isinstance(loaded, ClassifierStudy)
    return loaded


def run_study(whole: ClassifierStudy, out: Path, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = whole.run(out, **options).values
    return found


REAL = 'classifier.arms=["real"]'

THREE = 'classifier.arms=["real", "classical", "synthetic"]'
