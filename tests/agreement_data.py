"""Pictures with raters' votes, and small studies of agreement on them."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gankit.cli import main
from gankit.studies.agreement.study import Agreement
from gankit.studies.reading import load_study

NETWORKS = [
    "generator.widths=[4,4]", "generator.latent_dim=4", "critic.widths=[4,4]", "training.batch=4",
    "training.critic_steps=1", "training.steps=3", "training.tick_every=1", "training.sample_every=3",
    "training.checkpoint_every=1", "evaluation.features=pixels",
]  # fmt: skip


@pytest.fixture(scope="module")
def votes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 pictures of 8x8 in two classes, one with a name that pages must escape, and ten raters' votes."""
    folder = tmp_path_factory.mktemp("votes")
    draw = np.random.default_rng(0)
    classes = ("left", "<b>right</b> & co_1")
    lines = ["file,label," + ",".join(f"vote_{rater}" for rater in range(1, 11))]
    for number in range(60):
        label = number % 2
        picture = draw.integers(0, 60, (8, 8, 3), dtype=np.uint8)
        picture[:, 4 * label : 4 * label + 4] += 150
        Image.fromarray(picture).save(folder / f"{number}.png")
        agreeing = 10 if number % 3 else draw.integers(1, 7)
        calls = [classes[label if rater < agreeing else 1 - label] for rater in range(10)]
        lines.append(",".join([f"{number}.png", classes[label], *calls]))
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def words(votes: Path) -> list[str]:
    """Overrides of the packaged study for a study of this folder with tiny networks."""
    return [
        "data.name=folder", f"data.path={votes}", "data.size=8", "data.flip=false", *NETWORKS,
        "study.thresholds=[0,0.8]", "study.seeds_at_ends=1", "study.drawn=12", "study.kept=3", "study.warm_start=2",
        'study.scopes=["critic"]', "training.generator_lr={start=2e-4, end=1e-4, steps=2}",
        "training.averaging={start=0, end=0.9, steps=2}", "losses.gradient-penalty.weight={start=10, end=5, steps=3}",
    ]  # fmt: skip


def load(file: Path | None, *overrides: str) -> Agreement:
    study = load_study("agreement", file, *overrides)
    assert isinstance(study, Agreement)
    return study


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gankit", "study", "agreement", *arguments])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))
