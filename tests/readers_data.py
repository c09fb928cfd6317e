"""Images for the study of readers, its set and key, and readers of known skill."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gankit.ranking.key import read_key
from gankit.studies.readers.blinding import SetKey
from gankit.studies.readers.study import ReadersStudy
from gankit.studies.reading import load_study
from gankit.studies.study import Results

CLASSES = ["left", "right"]
SMALL = ["readers.images=6", "readers.pairs=4", "readers.repeats=0.25"]


def arrays(path: Path, n: int, seed: int, size: int = 12, labels: bool = True) -> Path:
    random = np.random.default_rng(seed)
    known = {"labels": np.arange(n) % 2, "class_names": np.array(CLASSES)} if labels else {}
    np.savez(path, images=random.integers(0, 255, (n, size, size), dtype=np.uint8), **known)
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings that name 60 real images and as many generated ones."""
    folder = tmp_path_factory.mktemp("sources")
    real, gan = arrays(folder / "real.npz", 80, 0), arrays(folder / "telltale-gan.npz", 60, 1)
    return [f"readers.real={real}", f"readers.generated.gan={gan}"]


def study(*settings: str) -> ReadersStudy:
    loaded = load_study("readers", None, *settings)
    assert isinstance(loaded, ReadersStudy)
    return loaded


def run(out: Path, *settings: str) -> Results:
    return study(*settings).run(out, quiet=True)


def key_of(out: Path) -> SetKey:
    return read_key(out / "key.json", SetKey)[0]


@pytest.fixture
def fixed_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same images and the same order every time, so that simulated readers do the same."""
    monkeypatch.setattr("gankit.ranking.key.secrets.token_hex", lambda count: "7" * 2 * count)


class Simulated:
    """A reader of known skill: in standard deviations, real images look as much more real than generated ones."""

    def __init__(self, name: str, skill: float, seed: int, diagnoses: float = 0.8) -> None:
        self.name, self.skill, self.diagnoses, self.random = name, skill, diagnoses, np.random.default_rng(seed)

    def look(self, picture: Any) -> float:
        return float(self.random.normal(self.skill * (0.5 if picture.source == "real" else -0.5)))

    def answer(self, image: Any) -> dict[str, str]:
        looks = [self.look(picture) for picture in image.pictures]
        if image.is_pair:
            return {"call": "left" if looks[0] > looks[1] else "right"}
        right = self.random.random() < self.diagnoses
        label = image.pictures[0].label
        return {
            "score": str(1 + int(np.searchsorted([-1.2, -0.4, 0.4, 1.2], looks[0]))),
            "diagnosis": label if right else next(name for name in CLASSES if name != label),
            "call": "real" if looks[0] > 0 else "generated",
        }

    def answers(self, key: SetKey) -> dict[str, dict[str, str]]:
        return {image.id: self.answer(image) for image in key.images}


def save(out: Path, reader: str, answers: dict[str, dict[str, str]], key: str, name: str = "") -> Path:
    """A reader's file, as the page saves it."""
    path = out / "ratings" / f"{name or reader}.csv"
    fields = ["score", "diagnosis", "call"]
    lines = [[image, *(given.get(field, "") for field in fields), reader, key] for image, given in answers.items()]
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["image", *fields, "rater", "key"], *lines])
    return path
