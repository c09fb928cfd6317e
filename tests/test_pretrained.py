"""The runs that come with gankit: they open by name, draw what is asked for, and stay as they are."""

from __future__ import annotations

import csv
import math
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from hatchling.builders.wheel import WheelBuilder

import gankit
from gankit import cli
from gankit.datasets.eyes import estimate_deviation
from gankit.errors import RunError
from gankit.report import write_report
from gankit.runs.run import PRETRAINED, pretrained_names

CHANCE_BELOW = 1e-3


@pytest.fixture
def eyes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gankit.Run:
    monkeypatch.chdir(tmp_path)
    return gankit.open_run("eyes")


def at_least(hits: int, n: int, share: float) -> float:
    """The chance of so many hits or more of n, each of this share."""
    return sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(hits, n + 1))


def test_a_run_of_the_package_draws_the_same_each_time(eyes: gankit.Run) -> None:
    assert eyes.packaged
    assert eyes.class_names == ["exotropia", "esotropia", "normal"]
    images = eyes.sample(4, labels="esotropia", seed=1)
    assert images.shape == (4, 3, 32, 32)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(gankit.open_run("eyes").sample(4, labels="esotropia", seed=1), images)
    assert not np.array_equal(eyes.sample(4, labels="exotropia", seed=1), images)
    assert not any(parameter.requires_grad for parameter in eyes.generator.parameters())
    assert all(torch.isfinite(parameter).all() for parameter in eyes.generator.parameters())


def test_classes_come_out_as_asked_for_more_often_than_by_chance(eyes: gankit.Run) -> None:
    """Chance is the share among pictures of all three classes; normal ones stand between the other two."""
    n = 200
    deviation = np.stack([estimate_deviation(eyes.sample(n, labels=label, seed=3)) for label in range(3)])
    assert np.isfinite(deviation).mean() > 0.7
    for label, hit in enumerate([deviation > 8, deviation < -8]):
        chance = hit.sum() / hit.size
        assert at_least(int(hit[label].sum()), n, chance) < CHANCE_BELOW, eyes.class_names[label]
    exotropia, esotropia, normal = np.nanmedian(deviation, axis=1)
    assert esotropia < -8
    assert exotropia > 8
    assert esotropia < normal < exotropia


def test_the_package_holds_at_most_three_megabytes_of_runs() -> None:
    assert pretrained_names() == ["eyes"]
    files = [path for path in PRETRAINED.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {path.name for path in files} == {"experiment.toml", "generator.safetensors"}
    assert sum(path.stat().st_size for path in files) <= 3e6


def test_the_wheel_holds_them(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(PRETRAINED.parents[2])).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        for name in ("experiment.toml", "generator.safetensors"):
            assert archive.read(f"gankit/runs/pretrained/eyes/{name}") == (PRETRAINED / "eyes" / name).read_bytes()
        sizes = [info.compress_size for info in archive.infolist() if "/pretrained/" in info.filename]
    assert sum(sizes) <= 3e6


def test_it_was_trained_by_the_recipe_of_its_name(eyes: gankit.Run) -> None:
    assert eyes.experiment.with_run(None) == gankit.load("eyes")
    record = tomllib.loads((PRETRAINED / "eyes" / "experiment.toml").read_text())["run"]
    assert record["images"] == 2700
    assert record["label_counts"] == [1250, 451, 999]


def test_the_command_line_draws_from_it(eyes: gankit.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gankit", "sample", "eyes", "--count", "3", "--label", "esotropia"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    with open("drawn-0/labels.csv", encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["esotropia"] * 3
    assert sorted(path.name for path in Path("drawn-0").iterdir())[:3] == ["00000.png", "00001.png", "00002.png"]
    assert not any(PRETRAINED.rglob("drawn*"))


def test_a_folder_comes_before_it(eyes: gankit.Run) -> None:
    folder = Path("eyes")
    folder.mkdir()
    with pytest.raises(RunError, match=r"eyes: there is no run here .*a run that comes with gankit has the same name"):
        gankit.open_run("eyes")
    for file in (PRETRAINED / "eyes").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    run = gankit.open_run("eyes")
    assert run.path == folder
    assert not run.packaged
    with pytest.raises(RunError, match="there is no run here"):
        gankit.open_run("nowhere")


def test_it_stays_as_it_is(eyes: gankit.Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in PRETRAINED.rglob("*")}
    with pytest.raises(RunError, match=r"resume: the run eyes comes with gankit, .* gankit train eyes --out runs/eyes"):
        gankit.resume("eyes")
    with pytest.raises(RunError, match="report: the run eyes comes with gankit"):
        write_report(eyes)
    with pytest.raises(RunError, match="critic: the run eyes comes with gankit"):
        _ = eyes.critic
    assert {path: path.stat().st_mtime_ns for path in PRETRAINED.rglob("*")} == before


def test_it_draws_within_seconds(eyes: gankit.Run) -> None:
    """Sixteen pictures from a fresh process take no data set and no cache."""
    done = processes.run("sample", "eyes", "--count", "16", "--label", "esotropia", "--out", "drawn")
    assert done.returncode == 0, done.stderr
    assert len(list(Path("drawn").glob("0*.png"))) == 16
