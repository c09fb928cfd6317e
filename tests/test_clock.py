"""A clock that is set forward and back while gankit works: durations, locks, limits and the cache do not follow it."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tqdm.std

import gankit
from gankit.cache import ABANDONED, cache_folder, stored
from gankit.errors import BusyError
from gankit.files import sole_writer

YEAR = 365 * 86400.0
Small = Callable[..., list[str]]


@pytest.fixture
def jumping_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of day jumps by years, forward and back in turn, whenever somebody looks."""
    jumps = itertools.cycle([time.time() + years * YEAR for years in (0, 3, -2, 9, -20)])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    monkeypatch.setattr(tqdm.std, "time", time.time)


@pytest.mark.usefixtures("jumping_clock")
def test_a_training_does_not_follow_the_clock(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("training.max_minutes=10")), tmp_path / "run")
    assert run.finished
    seconds = [row["seconds"] for row in run.log]
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] <= seconds[-1] < 600
    assert all(row["images_per_second"] > 0 for row in run.log)
    said = capsys.readouterr()
    assert not re.search(r"\d+ (hours|days)|-\d+:|\d{3,}:\d\d", said.out + said.err)


@pytest.mark.usefixtures("jumping_clock")
def test_a_lock_is_held_whatever_the_time(tmp_path: Path) -> None:
    with (
        sole_writer(tmp_path / "run"),
        pytest.raises(BusyError, match="is writing here"),
        sole_writer(tmp_path / "run"),
    ):
        pass
    with sole_writer(tmp_path / "run"):
        pass


def test_files_of_the_future_do_not_push_new_ones_out_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("GANKIT_CACHE_GB", str(2.5 * 4096e-9))
    folder, array = cache_folder() / "features", np.zeros(1000, np.float32)
    for key in ("a", "b", "c"):
        stored(key, lambda: array, "features")
        os.utime(folder / f"{key}.npy", (time.time() + YEAR,) * 2)  # then the clock was set back
    for key in ("d", "e"):
        stored(key, lambda: array, "features")
    (folder / "left.tmp").write_bytes(b"x")
    os.utime(folder / "left.tmp", (time.time() + 2 * ABANDONED,) * 2)
    stored("f", lambda: array, "features")
    assert {path.name for path in folder.iterdir()} == {"e.npy", "f.npy"}
