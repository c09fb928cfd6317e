"""Evaluations of a folder for each fold: one table, a mean and its interval, copies, mistakes."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gankit
from gankit.cli import app
from gankit.errors import DataError, GankitError
from gankit.evaluation.folds import _mean_with_interval, evaluate_folds, fold_folders

METRICS = ["kid", "variance-ratio"]


def write_images(folder: Path, numbers: Any, level: int) -> None:
    folder.mkdir(parents=True)
    for number in numbers:
        pixels = np.random.default_rng(int(number) + level).integers(level, level + 60, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """Three folds as the study exports them; each leaves out 6 of 18 images, and has 8 generated ones."""
    folder = tmp_path / "folds"
    for fold in range(3):
        learnt = [number for number in range(18) if number % 3 != fold]
        write_images(folder / f"fold-{fold + 1}" / "train" / "left", learnt, 50)
        write_images(folder / f"fold-{fold + 1}" / "generated" / "left", range(8), 60 + fold)
        lines = [f"train/left/{number}.png,,{number:032x},left,{number}" for number in learnt]
        (folder / f"fold-{fold + 1}" / "train.csv").write_text("\n".join(["file,name,digest,class,group", *lines]))
    return folder


def test_each_fold_is_evaluated_as_it_would_be_alone(exported: Path) -> None:
    found = evaluate_folds(exported, None, METRICS, "pixels")
    fold = exported / "fold-2"
    alone = gankit.evaluate(fold / "generated", fold / "train", METRICS, "pixels", training=fold / "train")
    assert list(found["folds"]) == ["fold-1", "fold-2", "fold-3"]
    assert found["folds"]["fold-2"]["metrics"] == alone["metrics"]
    values = [one["metrics"]["kid"]["value"] for one in found["folds"].values()]
    mean = found["mean"]["kid"]
    assert mean["value"] == pytest.approx(np.mean(values))
    # Student's quantile for 2 degrees of freedom; 1 / folds, and 6 images left out beside 12 learnt from
    half = 4.30265 * np.std(values, ddof=1) * math.sqrt(1 / 3 + 6 / 12)
    assert (mean["low"], mean["high"]) == pytest.approx((np.mean(values) - half, np.mean(values) + half), rel=1e-4)
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["fold", "fold-1", "fold-2", "fold-3", "mean"]
    assert lines[6].startswith("95 % interval")
    assert any(line.startswith("real: what each fold's generator has learnt from") for line in lines)


def test_folds_of_one_value_have_no_interval() -> None:
    assert _mean_with_interval([1.0, 1.0, 1.0], 0.5) == {"value": 1, "low": None, "high": None, "folds": 3}


def test_copies_of_a_folds_training_images_are_told_beside_other_real_images(exported: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "others", range(40, 52), 50)
    for number in (0, 3):
        path = Path("left", f"{number}.png")
        shutil.copy(exported / "fold-2" / "train" / path, exported / "fold-2" / "generated" / path)
    found = evaluate_folds(exported, tmp_path / "others", METRICS, "pixels")
    assert {one["protocol"]["real"] for one in found["folds"].values()} == {str(tmp_path / "others")}
    assert [one["protocol"]["copies"]["exact"] for one in found["folds"].values()] == [0, 2, 0]
    assert "training image" in str(found)
    assert "has learnt from" not in str(found)


def test_the_command_writes_one_table(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*words: object) -> str:
        app(["evaluate", str(exported), "--features", "pixels", "--metrics", "kid", *map(str, words)],
            standalone_mode=False)  # fmt: skip
        return capsys.readouterr().out

    files = {suffix: exported.parent / f"table.{suffix}" for suffix in ("json", "csv", "tex")}
    shown = call("--out", files["json"], "--csv", files["csv"], "--tex", files["tex"])
    assert f"written to {files['tex']}" in shown
    stored = json.loads(files["json"].read_text())
    with open(files["csv"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["fold"] for row in rows] == ["fold-1", "fold-2", "fold-3", "mean"]
    assert float(rows[0]["value"]) == stored["folds"]["fold-1"]["metrics"]["kid"]["value"]
    assert float(rows[3]["high"]) == stored["mean"]["kid"]["high"]
    assert "fold-3 & 8 & 12 &" in files["tex"].read_text()
    assert f"the file that was there is now {exported.parent / 'table-1.json'}" in call("--out", files["json"])
    assert json.loads((exported.parent / "table-1.json").read_text()) == stored
    with pytest.raises(GankitError, match="each fold has training images of its own: leave it out"):
        call("--training", exported)


def test_folders_that_are_no_folds(exported: Path, tmp_path: Path) -> None:
    shutil.rmtree(exported / "fold-3" / "generated")
    (exported / "fold-2" / "generated" / "left").rename(exported / "away")
    with pytest.raises(DataError, match="no generated images for fold-2, fold-3: put them into FOLD/generated/CLASS/"):
        evaluate_folds(exported)
    (exported / "fold-2" / "train.csv").write_text("file,name,digest,class,group\n")
    for name in ("fold-2", "fold-3"):
        write_images(exported / name / "generated" / "left", [1], 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gankit.evaluation.folds.evaluate", None)  # nothing is evaluated before
        with pytest.raises(DataError, match=r"fold-2.train\.csv has a header and no rows"):
            evaluate_folds(exported)
    (exported / "fold-2" / "train.csv").unlink()
    with pytest.raises(DataError, match=r"fold-2.train\.csv"):  # left out of the mean in silence it would mislead
        evaluate_folds(exported)
    (exported / "fold-10").touch()
    assert [path.name for path in fold_folders(exported)] == ["fold-1", "fold-2", "fold-3"]
    (tmp_path / "classes" / "fold-1").mkdir(parents=True)
    assert fold_folders(tmp_path / "classes") == []  # names of classes
    assert fold_folders(f'{{name = "npz", path = "{"a" * 300}"}}') == []  # a table may be too long for a name
    assert fold_folders(np.zeros(3)) == fold_folders("none") == fold_folders(tmp_path) == []
    for name in ("fold-2", "fold-3"):
        shutil.rmtree(exported / name)
    with pytest.raises(DataError, match="1 fold; give the folder of two or more"):
        evaluate_folds(exported)
