"""A newcomer's first hour, in small: README's commands on a folder of photographs, and two studies."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path

import first_hour
import pytest

import gankit
from gankit import cli

FROM_CHECK = """\
data folder: 36 images of 48 x 48 pixels (height x width), resized to 32 x 32, colour, 8 bits
  classes: disc: 12, ring: 12, square: 12 (column `diagnosis`); data.conditional=true gives them to the networks
  patients: 18, with 2 images each (column `patient`)
"""


STAGES = [
    "check", "train", "resume", "sample", "evaluate", "report", "rank", "study classifier", "study agreement",
]  # fmt: skip


@pytest.mark.parametrize("stages", [7, pytest.param(len(STAGES), marks=pytest.mark.slow)])
def test_from_photographs_to_both_studies(
    stages: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    codes: list[int] = []

    def run(words: list[str], interrupt: Path | None) -> str:
        monkeypatch.setattr(sys, "argv", ["gankit", *words])
        before = signal.signal(signal.SIGINT, lambda *_: None)  # one that comes too late must not end the tests
        try:
            with first_hour.interrupted(interrupt, lambda: os.kill(os.getpid(), signal.SIGINT)):
                cli.main()
            codes.append(0)
        except SystemExit as stop:
            codes.append(int(stop.code or 0))
        finally:
            signal.signal(signal.SIGINT, before)
        shown = capsys.readouterr()
        return shown.out + shown.err

    printed, steps = {}, []
    for name, _, text in itertools.islice(first_hour.first_hour(run, small=True), stages):
        printed[name] = text
        if name in ("train", "resume"):
            steps.append(gankit.open_run("runs/mine").steps)
    assert list(printed) == STAGES[:stages]
    assert printed["check"].startswith(FROM_CHECK)
    assert [code for name, code in zip(printed, codes, strict=True) if name != "train"] == [0] * (stages - 1)
    assert codes[1] != 0
    assert "go on with: gankit resume runs/mine" in printed["train"]
    assert 0 < steps[0] < steps[1] == 20
    assert "36 images (disc: 12, ring: 12, square: 12) of 18 patients" in printed["train"]
    assert "FD (pixels)" in printed["evaluate"]
    assert json.loads(Path("runs/mine/metrics.json").read_text())["metrics"]
    assert sorted(path.name for path in Path("runs/mine").glob("*.html")) == ["report.html"]
    for folder in ("drawn", "runs/mine/ranked-critic-0"):
        assert list(Path(folder).glob("*.csv")), folder
    for name in ("classifier", "agreement")[: stages - 7]:
        page = Path(f"runs/study-{name}/report.html").read_text(encoding="utf-8")
        assert "exotropia" not in page
        assert "Errata" not in page
