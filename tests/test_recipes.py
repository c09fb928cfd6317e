"""Recipes at their full size, and the demo as a whole: minutes on two cores, so run by hand (`make test-slow`)."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gankit
from gankit.datasets.eyes import estimate_deviation
from gankit.experiments.recipe_files import fixed_recipe_names


@pytest.mark.slow
@pytest.mark.parametrize("recipe", fixed_recipe_names())
def test_every_recipe_trains_at_full_width(recipe: str, tmp_path: Path) -> None:
    experiment = gankit.load(
        recipe, "data.counts=[20, 20, 20]", "training.steps=2", "training.batch=8", "training.generator_batch=8"
    )
    run = gankit.train(experiment, tmp_path / "run")
    assert run.finished
    assert run.sample(2).shape[0] == 2


@pytest.mark.slow
def test_the_demo_makes_eyes_in_time(tmp_path: Path) -> None:
    """Eyes that the geometric estimator finds in most samples, within the ten minutes that the demo may take."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "gankit", "demo", "--out", str(tmp_path / "demo")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 600
    run = gankit.open_run(tmp_path / "demo")
    assert run.finished
    assert run.log[-1]["seconds"] < 7 * 60
    found = np.isfinite(estimate_deviation(run.sample(500)))
    assert found.mean() > 0.7
    untrained = np.random.default_rng(0).integers(0, 255, (100, 3, 32, 32), dtype=np.uint8)
    assert np.isfinite(estimate_deviation(untrained)).mean() < 0.1
