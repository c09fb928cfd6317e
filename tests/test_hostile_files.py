"""A few of the experiment files, ratings and keys that `tests/reliability/experiments.py` tries by the thousand."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "reliability"))
from experiments import GOOD, outcome


@pytest.mark.parametrize(("kind", "count"), [("experiment", 120), ("rating", 80)])
def test_files_of_others_are_read_or_refused(
    kind: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = {number: outcome(kind, number, tmp_path) for number in range(1, count + 1)}
    assert {number: how for number, how in ended.items() if how[0] not in GOOD} == {}
    assert len(Counter(how for how, _ in ended.values())) > 1  # some are read, others refused
