"""Files of an older gankit (0.1.0, before its modules moved): its run, checkpoint, statistics and studies go on."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gankit
from gankit.cli import main

MADE_BEFORE = Path(__file__).parent / "made_before"


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the old files, as the directory in which the process stands: their paths are relative."""
    folder = tmp_path / "before"
    shutil.copytree(MADE_BEFORE, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("gankit.training.evaluator.STATISTICS_BATCHES", 8)  # as then
    return folder


def near(images: Any, expected: Any) -> None:
    """Equal but for the rounding of another machine, which can move a pixel by one grey level."""
    assert images.dtype == expected.dtype
    assert images.shape == expected.shape
    assert np.abs(images.astype(int) - expected.astype(int)).max() <= 1


def test_an_old_run_is_sampled_and_resumed(before: Path) -> None:
    expected = np.load("expected/run.npz")
    run = gankit.open_run("run")
    assert run.steps == 4
    assert not run.finished
    near(run.sample(6), expected["before"])
    near(run.sample(4, labels="right", seed=3), expected["labelled"])
    with torch.no_grad():
        scores = run.critic(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]))
    np.testing.assert_allclose(scores.numpy(), expected["before_critic"], rtol=1e-4, atol=1e-5)
    resumed = gankit.resume("run")
    assert resumed.finished
    near(resumed.sample(6), expected["resumed"])
    influences = [row["label_influence"] for row in resumed.log]
    assert influences == [0.0, 0.25, 0.5, 0.75]


def test_an_old_statistics_file_is_judged_beside(before: Path) -> None:
    values = gankit.evaluate("images.npz", "statistics.npz", ["frechet"], {"name": "pixels", "side": 2})["metrics"]
    assert values["frechet"]["value"] == pytest.approx(0, abs=1e-6)


def test_an_old_metrics_file_is_compared(before: Path) -> None:
    metrics = ["frechet", "kid", "precision-recall", "variance-ratio", "memorisation"]
    new = gankit.evaluate("images.npz", gankit.open_run("run"), metrics, "pixels", permutations=9)
    # The key of a control's outcome was another one.
    old = json.loads(Path("metrics.json").read_text().replace('"as it must"', '"passed"'))
    assert gankit.compare(old, new).keys() == old["metrics"].keys()
    copied = new["protocol"]["warnings"].pop()  # which old evaluations did not look for
    assert "generated images equal a training image" in copied
    for entry in old["metrics"].values():
        del entry["real_vs_real"]  # the reals have groups, which it now knows
    # Roots of rounding errors of zero were part of it.
    error = old["metrics"]["frechet"].pop("standard_error")
    assert new["metrics"]["frechet"]["standard_error"] == pytest.approx(error, rel=2e-6)
    for key in ("protocol", "metrics"):
        close(new[key], old[key], key, rel=1e-9)


def go_on(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What the user types to finish a study that was stopped."""
    folder = f"study-{name}"
    monkeypatch.setattr(sys, "argv", ["gankit", "study", name, f"{folder}/study.toml", "--out", folder])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (0, None)


def close(value: Any, expected: Any, place: str, rel: float = 2e-3) -> None:
    """Equal structure and text; numbers but for the rounding of another machine."""
    if isinstance(expected, dict):
        assert isinstance(value, dict)
        assert value.keys() >= expected.keys() - NOT_COMPARED, place
        for key in expected:
            if key not in NOT_COMPARED:
                close(value[key], expected[key], f"{place}.{key}", rel)
    elif isinstance(expected, list):
        assert len(value) == len(expected), place
        for number, (one, other) in enumerate(zip(value, expected, strict=True)):
            close(one, other, f"{place}[{number}]", rel)
    elif isinstance(expected, float):
        assert value == pytest.approx(expected, rel=rel, abs=rel), place
    else:
        assert value == expected, place


NOT_COMPARED = {
    *("seconds", "command", "versions", "weights"),
    *("intervals", "independent", "low", "high", "cases_error"),  # they know more sources of errors than they did
    "data",  # now named with its path
}


def read(path: Path) -> Any:
    def number(text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            return text

    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: number(text) for name, text in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ["agreement", "classifier"])
def test_an_old_study_is_resumed_and_gives_its_tables(
    before: Path, monkeypatch: pytest.MonkeyPatch, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = Path(f"study-{name}/jobs")
    finished = {path: path.stat().st_mtime_ns for path in jobs.glob("*/result.json")}
    go_on(monkeypatch, name)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished  # nothing is done twice
    assert set(jobs.glob("*/result.json")) > set(finished)
    expected = sorted(Path(f"expected/{name}").iterdir())
    assert expected
    for path in expected:
        new = Path(f"study-{name}") / path.name
        close(read(new), read(path), path.name)
