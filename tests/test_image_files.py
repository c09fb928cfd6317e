"""A short form of tests/reliability/image_files.py: damaged and hostile files end in one line, and soon."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "reliability"))
import image_files as files

FEW = {"picture": 120, "npz": 50, "csv": 40, "statistics": 50}


@pytest.mark.parametrize("kind", FEW)
def test_files_that_are_damaged_or_hostile(kind: str) -> None:
    ended = {number: files.outcome(kind, number) for number in range(FEW[kind])}
    assert {number: how for number, how in ended.items() if how not in files.GOOD} == {}
    assert set(ended.values()) == set(files.GOOD)


def test_a_file_depends_on_its_number_alone(tmp_path: Path) -> None:
    for kind in FEW:
        made = {files.make(kind, 7, tmp_path).read_bytes() for _ in range(2)}
        assert len(made) == 1


def test_counting_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []

    def count(kind: str, numbers: list[int]) -> dict[str, list[int]]:
        asked.append(numbers)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return {"read": numbers[:-1], "slow": numbers[-1:]}

    monkeypatch.setattr(files, "COUNTS", {"npz": 5})
    monkeypatch.setattr(files, "SHARE", 3)
    monkeypatch.setattr(files, "count", count)
    with pytest.raises(KeyboardInterrupt):
        files.main(tmp_path / "a.json")
    files.main(tmp_path / "a.json")
    assert asked == [[0, 1, 2], [3, 4], [3, 4]]
    counted = json.loads((tmp_path / "a.json").read_text())
    assert counted["npz"] == {"done": 5, "outcomes": {"read": 3, "slow": 2}, "to look at": {"slow": [2, 4]}}


@pytest.mark.slow
def test_thousands_of_files(tmp_path: Path) -> None:
    pytest.importorskip("gankit_dicom")
    files.main(tmp_path / "counted.json")
    counted = json.loads((tmp_path / "counted.json").read_text())
    assert {kind: set(counted[kind]["outcomes"]) - set(files.GOOD) for kind in files.COUNTS} == {
        kind: set() for kind in files.COUNTS
    }
