"""A third study, one module of a distribution of its own: listed, documented, described to editors, run and resumed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from distributions import Environment, Project, wheels

ROOT = Path(__file__).parents[1]
SMALL = [
    "data.size=16", "data.counts=[12,8,10]", "generator.width=4", "generator.latent_dim=4",
    "critic.width=4", "training.steps=3", "training.batch=4", "training.critic_steps=1",
    "training.checkpoint_every=1", "training.tick_every=1", "evaluation.features=pixels",
]  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the study of the documentation as a plug-in."""
    folder = tmp_path_factory.mktemp("study")
    code = (ROOT / "examples" / "own_study.py").read_text(encoding="utf-8")
    source = Project("Seed-Studies", {"studies.seeds": "Seeds"}, code).write(folder)
    environment = Environment(folder / "environment")
    environment.install(*wheels([source], folder / "wheels"))
    return environment


def test_it_is_listed_helped_and_described(installed: Environment) -> None:
    listed, helped, schema, refused = installed.several(
        ["list", "study"], ["study", "--help"], ["schema", "--study", "seeds"], ["study", "seed"]
    )
    assert listed.rows["seeds"].split() == ["seeds", "study", "seed-studies"]
    assert re.search(r"^  seeds +A study of the distribution seed-studies\.$", helped.out, re.MULTILINE)
    properties = json.loads(schema.out)["properties"]["study"]["properties"]
    assert properties["count"] == {**properties["count"], "default": 2, "minimum": 2}
    assert "there is no study named 'seed'; did you mean 'seeds'?" in refused.line


def test_it_is_on_the_generated_pages(installed: Environment) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import generate; print(*dict(generate.pages()).values())"
    text = installed.python(code, ROOT / "docs").out
    assert "## `gankit study seeds` { #study-seeds }" in text
    assert "For [`gankit study seeds`](command-line.md#study-seeds)." in text
    assert "| `count` | whole number | `2` | at least 2 | trainings. |" in text
    assert "How far apart trainings end up when only their seed differs." in text


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_it_is_run_and_resumed(workers: int, installed: Environment, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["study", "seeds", "wgan-gp", *SMALL, "--out", out, "--workers", workers]
    first = installed.gankit(*command)
    assert first.code == 0, first
    assert "2 trainings of 3 steps at " in first.err
    assert f"report: {out / 'report.html'}" in first.out
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "trained with the seed 1" in page
    assert "gankit study seed-studies:seeds" in page
    results = [out / "jobs" / f"seed-{seed}" / "result.json" for seed in (0, 1)]
    before = [json.loads(path.read_text())["result"] for path in results]
    assert before[0] != before[1]
    untouched = results[0].stat().st_mtime_ns
    results[1].unlink()
    run_folder = results[1].parent / "run"
    for path in run_folder.glob("*.safetensors"):
        path.unlink()
    newest = sorted((run_folder / "checkpoints").iterdir())[-1]
    shutil.rmtree(newest) if newest.is_dir() else newest.unlink()
    again = installed.gankit("study", "seeds", out / "study.toml", "--out", out, "--workers", workers)
    assert again.code == 0, again
    assert [json.loads(path.read_text())["result"] for path in results] == before
    assert results[0].stat().st_mtime_ns == untouched
    other = installed.gankit(*command, "study.count=3")
    assert "holds a study of other settings (study.count was 2, is 3)" in other.line
