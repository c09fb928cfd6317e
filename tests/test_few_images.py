"""The program that measures recipes on few images: what it trains, in small, and the page that it writes."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gankit
import gankit.testing

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import few_images
import few_images_page
import few_images_peers
import speed_peers


def test_the_most_images_come_first_and_others_start_from_the_set_before_theirs() -> None:
    places = [("eyes", 128), ("cells", 64)]
    cells = list(few_images.plain_cells(places, ["300", "1000", "all"], ["wgan-gp-64", "r3gan", "torch-mimicry"], 1))
    assert [cell.number for cell in cells[::5]] == ["all", "1000", "300"]
    assert [(cell.who, cell.side) for cell in cells[:5]] == [
        ("r3gan", 128), ("torch-mimicry", 128), ("wgan-gp-64", 64), ("r3gan", 64), ("torch-mimicry", 64),
    ]  # fmt: skip
    more = list(few_images.more_cells(cells, places))
    assert {cell.who for cell in more} == {"r3gan", "wgan-gp-64"}
    assert {cell.number for cell in more if cell.kind == "classes"} == {"all"}
    (started,) = (cell for cell in more if cell.kind == "transfer")  # wgan-gp-64 has nothing of 128 pixels
    assert (started.name, started.start) == ("r3gan.cells-64.300.transfer.0", "r3gan.eyes-128.all.plain.0")
    assert len({cell.name for cell in [*cells, *more]}) == len(cells) + len(more)


def test_time_counts_over_all_starts(tmp_path: Path) -> None:
    (tmp_path / few_images_peers.CLOCK).write_text("40.0")
    with few_images_peers.clock(tmp_path) as seconds:
        assert 40 <= seconds() < 41
    assert 40 <= float((tmp_path / few_images_peers.CLOCK).read_text()) < 41


@pytest.mark.slow
def test_it_runs_in_small_and_keeps_what_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [f"{kind}.{width}" for kind in ("generator", "critic") for width in ("widths=none", "width=4")]
    smoke = ["--smoke", "--out", str(tmp_path), *small]
    with gankit.testing.isolated_registry():
        found = few_images.main(smoke)
        said = capsys.readouterr().out
        assert "6 trainings of 1e-05 minutes, 6 to do: about" in said
        assert "6 of 6 trainings, all done" in said
        by_name = {row["name"]: row for row in found["rows"]}
        failed = [name for name, row in by_name.items() if row["failure"]]
        assert failed == ["StyleGAN2-ADA.eyes-32.30.plain.0"]
        assert "--stylegan" in by_name[failed[0]]["failure"]
        good = [row for name, row in by_name.items() if name not in failed]
        assert {row["kind"] for row in good} == set(few_images.KINDS)
        assert {row["images"] for row in good} == {30}
        assert all(row["samples"] == 27 and row["kid"]["value"] > 0 and row["steps"] >= 1 for row in good)
        assert all(0 <= row["confirmed_reals"] <= 1 for row in good if row["kind"] == "classes")
        runs = {path: path.read_bytes() for path in tmp_path.rglob("log.jsonl")}
        assert few_images.main(smoke) == found
        assert {path: path.read_bytes() for path in tmp_path.rglob("log.jsonl")} == runs
        with pytest.raises(SystemExit):
            few_images.main([*smoke, "critic.flat_blocks=0"])
    said = capsys.readouterr()
    assert "6 trainings of 1e-05 minutes, 0 to do" in said.out
    assert "has trainings of other minutes or settings: choose another --out" in said.err
    assert json.loads((tmp_path / "few-images.json").read_text()) == found
    page = (tmp_path / "few-images.md").read_text()
    assert page == few_images_page.page(found)
    for text in ("no record", "## With classes", "## Started from another set", "**failed**", "## Failed"):
        assert text in page
    with Image.open(tmp_path / "few-images-eyes-32-30.png") as picture:
        assert picture.width > 11 * picture.height > 0


def plan(minutes: float, clone: Path | None = None) -> few_images.Plan:
    return few_images.Plan(minutes, Path(), clone, None, ())


def test_an_interrupted_training_goes_on_in_the_time_that_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_images, "steps_in", lambda *_: 3)
    cell, tiny = few_images.Cell("resnet-small", "eyes", 28, "30"), ("data.counts=[30,30,30]", "training.batch=2")
    begun, more = (dataclasses.replace(plan(minutes), overrides=tiny) for minutes in (1e-9, 10))
    assert few_images.train_recipe(cell, begun, tmp_path).steps == 1
    assert few_images.train_recipe(cell, begun, tmp_path).steps == 1  # no time is left
    run = few_images.train_recipe(cell, more, tmp_path)
    assert run.steps == 3
    assert 9 < run.experiment.training.max_minutes < 10


def test_stylegan_runs_in_its_clone_until_the_time_is_over(tmp_path: Path) -> None:
    clone, folder = tmp_path / "clone", tmp_path / "job"
    clone.mkdir()
    folder.mkdir()
    (clone / "train.py").write_text(
        "import pathlib, sys, time\n"
        "said = dict(word[2:].split('=') for word in sys.argv[1:])\n"
        "assert len(list(pathlib.Path(said['data']).iterdir())) == 5 and said['gamma'] == '0.0064'\n"
        "(pathlib.Path(said['outdir']) / '0').mkdir(parents=True)\n"
        "(pathlib.Path(said['outdir']) / '0' / 'network-snapshot-000004.pkl').touch()\n"
        "time.sleep(100)\n"
    )
    (clone / "gen_images.py").write_text(
        "import pathlib, sys\n"
        "from PIL import Image\n"
        "said = dict(word[2:].split('=') for word in sys.argv[1:])\n"
        "assert said['seeds'] == '0-2' and said['network'].endswith('000004.pkl')\n"
        "pathlib.Path(said['outdir']).mkdir()\n"
        "for seed in range(3): Image.new('L', (32, 32), seed).save(f\"{said['outdir']}/seed{seed:04}.png\")\n"
    )
    reals, cell = (
        gankit.wrap("dataset", np.zeros((5, 1, 32, 32), np.uint8)),
        few_images.Cell("StyleGAN2-ADA", "x", 32, "5"),
    )
    samples, shown = few_images_peers.train(cell, plan(0.05, clone), folder, reals, 3)
    assert (samples.shape, shown) == ((3, 1, 32, 32), 4)
    assert samples[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert float((folder / few_images_peers.CLOCK).read_text()) >= 3


@pytest.mark.skipif(not speed_peers.FOLDER.is_dir(), reason="make .bench/.installed installs the peers")
def test_torch_mimicry_trains_and_goes_on(tmp_path: Path) -> None:
    reals, cell = (
        gankit.wrap("dataset", np.zeros((2, 1, 32, 32), np.uint8)),
        few_images.Cell("torch-mimicry", "x", 32, "2"),
    )
    samples, steps = few_images_peers.train(cell, plan(1e-3), tmp_path, reals, 3)
    assert (samples.shape, samples.dtype, steps) == ((3, 1, 32, 32), np.uint8, 1)
    (tmp_path / few_images_peers.CLOCK).write_text("0")
    assert few_images_peers.train(cell, plan(1e-3), tmp_path, reals, 3)[1] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sets", "cells:64"], "no file cells*.npz there"),
        (["--sets", "eyes"], "invalid place value"),
        (["--recipes", "no-such", "--sets", "eyes:32"], "register('no-such')"),
        (["--recipes", "demo", "--sets", "eyes:64"], "none of them is made for these sizes"),
        (["--stylegan", "x", "--minutes", "9", "--limit", "9"], "give more than --minutes"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with gankit.testing.isolated_registry(), pytest.raises(SystemExit):
        few_images.main(["--out", str(tmp_path), "--data", str(tmp_path), *arguments])
    assert said in capsys.readouterr().err


def entry(value: float) -> dict[str, Any]:
    return {"value": value, "error": 0.01, "floor": 0.001}


def row(who: str, kid: float, **more: Any) -> dict[str, Any]:
    values = {name: entry(kid) for name in few_images_page.VALUES}
    facts = {"images": 100, "steps": 10, "seconds": 60.0, "features": "pixels", "failure": None}
    cell = {"who": who, "data": "eyes", "side": 32, "number": "100", "kind": "plain", "seed": 0, "start": ""}
    return {**cell, "name": f"{who}-{more.get('kind', 'plain')}", **facts, **values, **more}


def test_the_page_ranks_by_kid_and_joins_seeds() -> None:
    rows = [
        row("b", 0.2), row("a", 0.1), row("a", 0.3, seed=1), row("c", 0.0, failure="it broke"),
        row("a", 0.05, kind="transfer", start="b-plain"),
        row("a", 0.1, kind="classes", confirmed=0.8, confirmed_reals=0.9), row("b", 0, kind="classes", failure="no"),
    ]  # fmt: skip
    machine = {"device": "a card", "torch": "2"}
    text = few_images_page.page({"smoke": False, "minutes": 6, "machine": machine, "left": 3, "rows": rows})
    table = [line for line in text.splitlines() if line.startswith(("| a ", "| b ", "| c ", "| *b"))]
    assert [line.split(" | ")[0] for line in table[:4]] == ["| *between reals*", "| b", "| a", "| c"]
    assert "0.200 ± 0.100" in table[2]
    assert "**failed**" in table[3]
    assert "from above: a, b." in text
    assert "| a | eyes 32 | 100 | 0.80 | 0.90 | 0.100 ± 0.010 |" in text
    assert "| a | eyes 32 | 100 | eyes 32 | 0.100 ± 0.010 | 0.050 ± 0.010 |" in text
    assert "| b | eyes 32 | **failed** |" in text
    assert "it broke" in text
    assert "says little" not in text


def test_the_page_is_that_of_the_record() -> None:
    record = json.loads(few_images_page.PAGE.with_suffix(".json").read_text())
    assert few_images_page.PAGE.read_text() == few_images_page.page(record)
