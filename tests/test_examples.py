"""Every example runs, with small settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gankit
from gankit import checkpoint

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = [
    "data.counts=[12, 8, 10]", "generator.width=4", "critic.width=4", "training.steps=2", "training.batch=4",
    "training.generator_batch=4", "training.critic_steps=1",
]  # fmt: skip


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / script), *arguments], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", ["train_and_sample.py", "own_loss.py"])
def test_scripts_that_train(script: str, tmp_path: Path) -> None:
    run(script, str(tmp_path / "run"), *SMALL)
    # A run with a loss of the script's own opens only where the script has registered it.
    restored = checkpoint.restore(tmp_path / "run" / "checkpoints")
    assert restored is not None
    assert restored[0] == 2


def test_the_table_of_the_eyes() -> None:
    table = run("eyes_table.py")
    for count in ("1250", "451", "999"):
        assert count in table


def test_a_metric_of_one_s_own(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 200, (24, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "real.npz", images=grey)
    np.savez(tmp_path / "fake.npz", images=grey + np.uint8(20))
    table = run("own_metric.py", str(tmp_path / "fake.npz"), str(tmp_path / "real.npz"))
    assert "brightness" in table
    assert "20 +-" in table


def test_the_tables_of_standard_errors() -> None:
    tables = run("standard_errors.py", "--repeats", "3", "--errors", "2", "--sizes", "12", "16", "24")
    for title in ("256 features, one distribution", "by patient", "patients on both sides, exchanged whole"):
        assert title in tables
    assert "nan" not in tables


def test_the_experiment_file_is_valid() -> None:
    experiment = gankit.load(EXAMPLES / "few_images.toml")
    assert experiment.losses[1].name == "gradient-penalty"
    assert experiment.training.critic_steps == 3


def test_no_example_is_forgotten() -> None:
    tested = {
        "train_and_sample.py",
        "own_loss.py",
        "eyes_table.py",
        "few_images.toml",
        "own_metric.py",
        "standard_errors.py",
    }
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".toml")} == tested
