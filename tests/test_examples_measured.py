"""The examples that compare and measure run, with small settings, and say what the pages need."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_scripts import EXAMPLES, LEVELS, NARROW, QUICK, Run, runner
from numpy.typing import NDArray
from PIL import Image

import gankit
from gankit.datasets._eyes.subjects import draw_subjects


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    yield from runner(monkeypatch, capsys)


@pytest.fixture
def eyes_of_noise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the place of the data set's images, all of which take ten seconds to render, a fifth as many."""

    def fewer(counts: tuple[int, ...], seed: int) -> dict[str, Any]:
        return draw_subjects([count // 5 for count in counts], seed)

    def noise(subjects: dict[str, Any], layout: Any, seed: int) -> NDArray[np.uint8]:
        shape = len(subjects["label"]), 3, layout.height, layout.width
        return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)

    monkeypatch.setenv("GANKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("gankit.datasets.eyes.draw_subjects", fewer)
    monkeypatch.setattr("gankit.datasets.eyes.render", noise)


def test_dcgan_beside_wgan_gp(run: Run, tmp_path: Path) -> None:
    small = [*QUICK, *NARROW, "training.tick_every=1", "evaluation.every=1"]
    printed = run("dcgan_or_wgan_gp.py", tmp_path, *small)
    assert "DCGAN: estimate" in printed
    assert "WGAN-GP: estimate" in printed
    with Image.open(tmp_path / "curves.png") as curves:
        assert curves.size == (900, 500)
    rows = {name: gankit.open_run(tmp_path / name).log for name in ("dcgan", "wgan-gp")}
    assert all(len(log) == 2 and "metrics" in log[0] for log in rows.values())
    assert "critic/gradient-penalty" in rows["wgan-gp"][0]
    assert "critic/gradient-penalty" not in rows["dcgan"][0]


def test_the_scopes_of_an_augment(run: Run, tmp_path: Path) -> None:
    printed = run("few_images_scopes.py", tmp_path, *QUICK, *NARROW)
    scopes = ["none", "critic", "critic-turn", "real"]
    assert [line.split()[0] for line in printed.splitlines()] == ["scope", *scopes]
    augments = [gankit.open_run(tmp_path / scope).experiment.augment for scope in scopes]
    assert [augment.scope if augment else "none" for augment in augments] == scopes
    with Image.open(tmp_path / "scopes.png") as picture:
        assert picture.size == (8 * (96 + 2) + 2, 4 * (96 + 2) + 2)


@pytest.mark.usefixtures("eyes_of_noise")
def test_a_table_of_what_diverged_goes_on_where_it_was(run: Run, arrays: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    small = [*NARROW, "training.batch=4", "training.critic_steps=1", "evaluation.subset=20"]
    given = [out, *small, "--npz", arrays, "--recipes", "wgan-gp", "dcgan", "--sides", 16, "--steps", 2, "--seeds", 1]
    first = run("no_divergence.py", *given)
    assert len(re.findall(r"^\| (?:wgan-gp|dcgan) \| (?:eyes|arrays) \| 16 \| 1 \| 2 \| 4 \| \d", first, re.M)) == 4
    kept = {path: path.read_bytes() for path in out.glob("*.json")}
    (broken,) = (path for path in kept if path.name.startswith("dcgan-eyes"))
    broken.unlink()
    assert run("no_divergence.py", *given).endswith(first[first.index("| recipe") :])
    assert json.loads(broken.read_text()) == json.loads(kept[broken])


@pytest.mark.slow
@pytest.mark.usefixtures("eyes_of_noise")
def test_a_lazy_penalty_goes_on_where_it_was(run: Run, arrays: Path, tmp_path: Path) -> None:
    features = "evaluation.features={name='pixels', side=4}"  # hundreds of images are held out
    quick = ["data.subset=24", "training.batch=4", features, *LEVELS]
    out = tmp_path / "lazy"
    given = ["lazy_penalty.py", out, *quick, "--npz", arrays, "--every", 1, 2, "--steps", 2, "--seeds", 1, "--jobs", 1]
    run(*given, "--rounds", 1)
    measured = json.loads((out / "costs.json").read_text())
    assert [len(values) for values in measured.values()] == [6, 6]
    assert min(*measured["1"], *measured["2"]) > 0
    (out / "costs.json").write_text('{"1": [3.0, 1.0, 1.0], "2": [1.5, 0.5, 0.9]}')
    printed = run(*given)
    assert "| 2 | 0.9000 | 0.50 (0.50 to 0.90) | 4 |" in printed
    for name in ("eyes", "arrays"):
        assert re.search(rf"^{name}: \d+ held-out images, by seed, and as many generated ones$", printed, re.MULTILINE)
        lazy = out / f"{name}-every-2-0"
        assert {path.name for path in lazy.glob("judged-*")} >= {"judged-2.json", "judged-4.json"}
        assert gankit.open_run(lazy).steps == 4
        assert gankit.open_run(out / f"{name}-every-1-0").steps == 2
        whole = gankit.train(gankit.load(lazy), tmp_path / name)  # never stopped
        assert (lazy / "generator.safetensors").read_bytes() == whole.exported.read_bytes()
    rows = [line for line in printed.splitlines() if line.startswith("| every = ")]
    assert [row.split(" | ")[:2] for row in rows] == 2 * [
        ["| every = 1", "2"], ["| every = 2, equal steps", "2"], ["| every = 2, equal time", "4"],
    ]  # fmt: skip
    assert len(re.findall(r"^\| [12] \| 0\.\d+ \|$", printed, re.MULTILINE)) == 4  # how far slopes are off
    with Image.open(out / "samples.png") as picture:
        assert picture.size == (10 * (64 + 2) + 2, 2 * (64 + 2) + 2)
    written = (lazy / "log.jsonl").read_bytes()
    assert run(*given) == printed
    assert (lazy / "log.jsonl").read_bytes() == written


@pytest.mark.slow
def test_bf16_beside_float32(run: Run, tmp_path: Path) -> None:
    quick = ["data.counts=[12, 8, 10]", "data.subset=24", "training.batch=4", "training.tick_every=1"]
    narrow = ["generator={name='resnet', width=4}", "critic={name='resnet', width=4}"]
    small = [*quick, "evaluation.every=1", *narrow]
    given = ["bf16_curve.py", tmp_path, *small, "--steps", 2, "--seeds", 1, "--rounds", 1, "--jobs", 1]
    printed = run(*given)
    for name in ("narrow", "width 64"):
        assert re.search(rf"^\| {name} \| [\d.]+ \| [\d.]+ \| [\d.]+ \(", printed, re.MULTILINE)
    ends = re.findall(r"^\| (float32|bf16) \| [\d.]+ \| [\d.]+ \|$", printed, re.MULTILINE)
    assert ends == ["float32", "bf16"]
    for precision in ("float32", "bf16"):
        assert gankit.open_run(tmp_path / f"{precision}-0").experiment.training.precision == precision
    with Image.open(tmp_path / "curves.png") as curves:
        assert curves.size == (900, 360)
    assert run(*given) == printed


@pytest.mark.usefixtures("eyes_of_noise")
def test_a_penalty_in_bf16_beside_float64(run: Run) -> None:
    printed = run("bf16_gradients.py", "--turns", 1, "--steps", 1, "--networks", "16x16, width 16")
    rows = [[float(cell) for cell in row.split("|")[3:-1]] for row in printed.splitlines()[1:]]
    assert len(rows) == 3
    for _, float32, scores, everything, *_ in rows:
        assert float32 < 1e-3 < scores < 0.1
        assert 1e-3 < everything < 0.1


@pytest.mark.slow
def test_what_conditional_eyes_measure_as(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gankit.train(gankit.load("eyes", "data.conditional=false", "critic.class_head=false", "data.balance=0",
                             'losses=["wasserstein"]', *QUICK, *LEVELS), tmp_path / "plain")  # fmt: skip
    small = ["--count", 30, "--counts", 12, 8, 10]
    table = run("conditional_eyes.py", "eyes", "--beside", "plain", *small, "--picture", tmp_path / "rows.png")
    for row in (
        "eyes, asked for esotropia",
        "plain, without labels",
        "real normal",
        "real, all",
        "real exotropia, true deviation",
    ):
        counts = re.search(rf"^{row} +(\d+) ((?: +[\d.]+ \[-?[\d.]+, [\d.]+\]){{4}})$", table, re.MULTILINE)
        assert counts, row
        shares = [float(share) for share in re.findall(r"([\d.]+) \[", counts[2])]
        assert sum(shares) == pytest.approx(1, abs=0.03)
    value = r" +-?[\d.]+(?: \+- [\d.]+)? \(-?[\d.]+\)"
    assert len(re.findall(rf"^(?:eyes|plain), \w+ +30 +\d+(?:{value}){{3}} +\d+$", table, re.MULTILINE)) == 6
    with Image.open(tmp_path / "rows.png") as picture:
        assert picture.width > picture.height


@pytest.mark.slow
def test_the_table_of_the_eyes(run: Run) -> None:
    table = run("eyes_table.py")
    for count in ("1250", "451", "999"):
        assert count in table


@pytest.mark.slow
def test_the_tables_of_standard_errors(run: Run) -> None:
    tables = run("standard_errors.py", "--repeats", "3", "--errors", "2", "--sizes", "12", "16", "24")
    for title in ("256 features, one distribution", "by patient", "patients on both sides, exchanged whole"):
        assert title in tables
    assert "nan" not in tables


def test_intervals_of_paired_differences_where_there_is_none(run: Run) -> None:
    given = ["--cases", "60", "--seeds", "3", "5", "--per-group", "2", "--bootstraps", "10", "--draws", "100"]
    tables = run("interval_simulation.py", "--trials", "250", *given)
    assert tables.count("| exchangeable, seeds differ much | 60 | 2 | ") == 4
    assert "nan" not in tables
    worst = float(re.search(r"two seeds or more: ([\d.]+) %", tables)[1])  # type: ignore[index]
    assert worst <= 5 + 3 * 100 * (0.05 * 0.95 / 250) ** 0.5  # three standard errors of so few trials


def test_the_page_of_coverage_has_the_tables_of_its_data(run: Run) -> None:
    data = EXAMPLES.parent / "docs" / "measured" / "interval-coverage.json"
    page = data.with_suffix(".md").read_text()
    lines = run("interval_coverage.py", data, "--tables").splitlines()
    assert len(lines) > 100
    for line in lines:
        assert line.removeprefix("#") in page


@pytest.mark.slow
def test_the_simulation_of_coverage_goes_on_where_it_was_stopped(run: Run, tmp_path: Path) -> None:
    first, again = (run("interval_coverage.py", tmp_path / "found.json", "--trials", 1) for _ in range(2))
    assert first.count("\n### ") == 21
    assert again.splitlines()[:-1] == first.splitlines()[:-1]  # nothing is simulated twice; the last line is the time
    assert {entry["trials"] for entry in json.loads((tmp_path / "found.json").read_text()).values()} == {1}
