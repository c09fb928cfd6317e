"""A short form of the long training of `tests/reliability/soak.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "reliability"))
from soak import soak


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_a_training_leaves_no_file_open_and_keeps_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soak.fixed_work", lambda: 1.0)  # nor is the time of a step judged in so few
    values = soak(100, tmp_path)["values"]
    assert values["open files"] <= 0  # earlier tests may have left some, which are closed meanwhile
    assert values["memory"] < 1.02
