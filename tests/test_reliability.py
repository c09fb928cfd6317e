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
import damaged, kills, writes
arguments = ["--recipes", "wgan-gp", "--results", sys.argv[1]]
for script, more in (
    (kills, ["--kinds", "write,two", "--count", "1"]), (writes, ["--count", "1"]),
    (damaged, ["--kinds", "resume", "--count", "1"]),
    (damaged, ["--kinds", "checkpoint,export,cache,forged checkpoint,forged export", "--count", "3"]),
):
    sys.argv = [script.__name__, *arguments, *more]
    try:
        script.main()
    except SystemExit:
        pass
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("results")
    done = processes.run(str(folder), code=SHORT, site=FOLDER)
    assert done.returncode == 0, done.stderr
    return {path.stem: json.loads(path.read_text()) for path in folder.iterdir()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each case is a forked process")
@pytest.mark.parametrize(("script", "count"), [("kills", 2), ("writes", 1)])
def test_faults_change_nothing(script: str, count: int, results: dict[str, Any]) -> None:
    assert results[script]["failed"] == {}
    assert len(results[script]["done"]) == count


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each case is a forked process")
def test_damage_is_noticed_and_forgery_does_no_harm(results: dict[str, Any]) -> None:
    kinds = {kind: entry for kind, entry in results["damaged"].items() if kind != "seed"}
    assert {kind: entry["done"] for kind, entry in kinds.items()} == {
        "resume": 1, "checkpoint": 3, "export": 3, "cache": 3, "forged checkpoint": 3, "forged export": 3
    }  # fmt: skip
    assert {kind: entry["to look at"] for kind, entry in kinds.items()} == {kind: {} for kind in kinds}
