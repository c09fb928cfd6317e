"""A few of the files, overrides, ratings and settings that `tests/reliability/experiments.py` tries by the thousand."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "reliability"))
import page
from experiments import GOOD, outcome


@pytest.mark.parametrize(("kind", "count"), [("experiment", 50), ("rating", 40), ("setting", 12)])
def test_files_of_others_are_read_or_refused(
    kind: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = {number: outcome(kind, number, tmp_path) for number in range(1, count + 1)}
    assert {number: how for number, how in ended.items() if how[0] not in GOOD} == {}
    assert len(Counter(how for how, _ in ended.values())) > 1  # some are read, others refused


def test_the_page_has_a_row_for_each_result_that_is_there(tmp_path: Path) -> None:
    results = {
        "kills": {
            "seed": 0,
            "done": {},
            "failed": {},
            "counts": {"dcgan write: same": 3, "dcgan two: same": 4},
            "kills": {"dcgan write": 5, "dcgan two": 6},
            "finished": ["dcgan write"],
        },
        "image_files": {"seed": 0, "npz": {"done": 5, "outcomes": {"read": 2, "refused": 3}, "to look at": {}}},
        "experiments": {"what": "experiment files", "seed": 0, "tried": 9, "outcomes": {"read": 8, "traceback": 1}},
        "soak": {"what": "steps", "seed": 0, "tried": 2, "outcomes": {"within bounds": 2}, "values": {"open files": 0}},
    }
    for name, found in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    text = page.render(tmp_path)
    assert "| 3 | 3 same |" in text
    assert "| 4 | 4 same |" in text
    assert "A kill at every change was tried for (number of changes): dcgan (5)." in text
    assert "| npz files | 5 | 2 read, 3 refused |" in text
    assert "| experiment files | 9 | **1 traceback**, 8 read |" in text
    assert "; time: beside work that stays the same): open files +0" in text
    assert page.render(page.RESULTS).count("\n| ") >= 1 + len(list(page.RESULTS.glob("*.json")))
