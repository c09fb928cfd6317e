"""A rating page of a run of one step, and its key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gankit
from gankit.ranking import write_page
from gankit.ranking.key import Key, read_key

CLASSES = ["left </script><b>", 'right, "it\'s"', "up & down"]
SEED = 918273645


def trained(folder: Path, data: Path, *more: str) -> gankit.Run:
    """A run of one step."""
    small = ["data.name=npz", f"data.path={data}", "generator.width=4", "generator.latent_dim=6", "critic.width=4",
             "critic.flat_blocks=1", "training.steps=1", "training.batch=4", "training.generator_batch=4",
             "training.critic_steps=1", *more]  # fmt: skip
    return gankit.train(gankit.load("wgan-gp", *small), folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> gankit.Run:
    """On three classes whose names a page must escape, in a folder whose name a page must not tell."""
    folder = tmp_path_factory.mktemp("runs")
    draw = np.random.default_rng(0)
    np.savez(folder / "d.npz", images=draw.integers(0, 255, (42, 3, 8, 8), dtype=np.uint8),
             labels=np.arange(42) % 3, class_names=np.array(CLASSES))  # fmt: skip
    return trained(folder / "telltale-run", folder / "d.npz", "data.conditional=true", "data.held_out=0.3")


@pytest.fixture(scope="module")
def page(run: gankit.Run) -> Path:
    """Five drawn images and three real ones."""
    return write_page(run, run.path / "rating", 5, seed=SEED, real=3)


def key_of(page: Path) -> Key:
    return read_key(page.parent / "key.json", Key)[0]
