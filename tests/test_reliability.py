"""A few of the kills, failed writes and damaged files that `tests/reliability` tries by the hundred."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import processes
import pytest

pytestmark = pytest.mark.timeout(900)  # most of a minute of one core, which others may use too
FOLDER = Path(__file__).parent / "reliability"
SHORT = """
import sys
import commands, damaged, kills, writes
results, kinds = sys.argv[1:]
arguments = ["--recipes", "wgan-gp", "--results", results]
for script, more in (
    (kills, ["--kinds", kinds, "--count", "1"]), (writes, ["--count", "1"]),
    (commands, ["--kinds", "sample", "--count", "1"]),
    (damaged, ["--kinds", "resume", "--count", "1"]),
    (damaged, ["--kinds", "checkpoint,export,cache,forged checkpoint,forged export", "--count", "3"]),
):
    sys.argv = [script.__name__, *arguments, *more]
    try:
        script.main()
    except SystemExit:
        pass
"""


@pytest.fixture(scope="module", params=["again", pytest.param("write,two,again", marks=pytest.mark.slow)])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each script found, with these kinds of kills."""
    folder = tmp_path_factory.mktemp("results")
    done = processes.run(str(folder), request.param, code=SHORT, site=FOLDER)
    assert done.returncode == 0, done.stderr
    return {"kinds": request.param, **{path.stem: json.loads(path.read_text()) for path in folder.iterdir()}}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each case is a forked process")
def test_faults_change_nothing(results: dict[str, Any]) -> None:
    for script, count in ("kills", len(results["kinds"].split(","))), ("writes", 1), ("commands", 2):
        assert results[script]["failed"] == {}
        assert len(results[script]["done"]) == count


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each case is a forked process")
def test_damage_is_noticed_and_forgery_does_no_harm(results: dict[str, Any]) -> None:
    kinds = {kind: entry for kind, entry in results["damaged"].items() if kind != "seed"}
    assert {kind: entry["done"] for kind, entry in kinds.items()} == {
        "resume": 1, "checkpoint": 3, "export": 3, "cache": 3, "forged checkpoint": 3, "forged export": 3
    }  # fmt: skip
    assert {kind: entry["to look at"] for kind, entry in kinds.items()} == {kind: {} for kind in kinds}
