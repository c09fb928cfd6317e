"""The study of a classifier as a command: its files, its page, and mistakes."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import classifier_data
import numpy as np
import pytest
from classifier_data import COUNTS, THREE, N, Write, run_study, study
from small_studies import small_networks

from gankit.cli import app
from gankit.errors import DataError, GankitError, RunError, SettingsError
from gankit.studies.classifier import study as classifier
from gankit.studies.classifier.arms import ARMS
from gankit.studies.classifier.training import load_outputs
from gankit.studies.fitting import Classical
from gankit.studies.reading import load_study

write = classifier_data.write


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["classifier.network=resnet81"], r"classifier.network: torchvision has no network 'resnet81'; did you mean"),
        (
            ["classifier.network=resnet18", "classifier.weights=none.pth"],
            "there is no file none.pth; weights are never",
        ),
        (["classifier.weights=none.pth"], "classifier.weights: they are for networks of torchvision"),
        (["classifier.step=3"], "classifier.step: there is no such setting; did you mean 'steps'"),
        (['classifier.arms=["real", "real"]'], "classifier.arms: name each only once"),
        (["training.max_minutes=3"], "training.max_minutes: a training of a study runs to its end"),
        (['data.conditional=["severity"]'], "data.conditional: a generator for a classifier is conditioned on classes"),
    ],
)
def test_settings_that_do_not_fit(write: Write, overrides: list[str], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as found:
        study(write(), *overrides)
    assert len(str(found.value).splitlines()) == 1
    assert str(found.value).startswith("override '")


@pytest.mark.parametrize(
    ("more", "overrides", "words"),
    [
        ({"labels": None, "class_names": None}, [], "the data have no labels of two classes or more"),
        ({"groups": np.repeat([0, 1, 2], COUNTS)}, [], r"class 'many' is in 1 group \(patients\) of npz"),
        ({"groups": np.where(np.arange(N) < 60, 0, 1 + np.arange(N) % 2)}, [], "class 'many' is in 1 group"),
        ({}, ["classifier.regression=sevrity"], "no number 'sevrity' for each image; did you mean 'severity'"),
        ({"severity": np.full(N, np.nan)}, ["classifier.regression=severity"], "severity has missing values"),
        ({}, ['classifier.synthetic_classes=["fewer"]'], "npz has no class 'fewer'; did you mean 'few'"),
        ({}, ['classifier.groupings={x=["a"]}'], "classifier.groupings.x: npz has no class 'a'"),
        ({}, ['classifier.groupings={x=["many", "few", "some"]}'], "every class is positive"),
        ({}, ["data.split=train"], "data.split: there is no split 'train' in this data set; known: all"),
        ({}, ["data.min_agreement=0.6"], "the data set does not record how many raters agreed"),
        (
            {"agreement": np.repeat([1, 0.5, 1], COUNTS)},
            ["data.min_agreement=0.6"],
            "filters leave no image of 'few' to learn from; loosen them",
        ),
    ],
)
def test_data_that_do_not_fit(
    write: Write, tmp_path: Path, more: dict[str, Any], overrides: list[str], words: str
) -> None:
    with pytest.raises(DataError, match=words) as found:
        run_study(study(write(**more), *overrides), tmp_path / "out", quiet=True)
    assert len(str(found.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_two_groups_are_two_folds(write: Write) -> None:
    parts = study(write(groups=np.arange(N) % 2)).split
    assert (len(parts.train), len(parts.test)) == (60, 60)
    assert parts.words.startswith("one of 2 folds is the test part")
    # Three groups that lack a class each: one alone on a side never has all.
    groups = np.repeat(list("acabbc"), (30, 30, 10, 10, 20, 20))
    with pytest.raises(DataError, match="no fold of 3 has every class on both sides; set fewer folds"):
        study(write(groups=groups)).split  # noqa: B018


def test_generators_that_cannot_learn_classes_are_refused_first(write: Write, tmp_path: Path) -> None:
    with pytest.raises(GankitError, match="uses labels in its normalisation"):
        run_study(study(write(), "generator.norm=none"), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


# The command


def test_the_command(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["<b>many</b>", "few", "some"]
    small = study(write(class_names=names), THREE, "classifier.steps=3", "classifier.calibration=true",
                  "classifier.regression=severity", 'classifier.groupings={rare=["few"]}')  # fmt: skip
    (tmp_path / "study.toml").write_text(small.toml())
    arguments = ["study", "classifier", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out")]
    app(arguments, standalone_mode=False)
    printed, told = capsys.readouterr()
    estimate = r"^2 generators of 2 steps at [\d.e-]+ s and 8 classifiers of 3 steps at [\d.e-]+ s: about \d+ s of work"
    assert re.search(estimate, told, re.MULTILINE)
    assert re.search(r"^synthetic +less classical +[+-]\d\.\d{3} \[", printed, re.MULTILINE)
    assert f"report: {tmp_path / 'out' / 'report.html'}" in printed
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>many" not in page
    assert "&lt;b&gt;many&lt;/b&gt;" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    for words in (
        "Presence of rare",
        "A number: severity",
        "Brier score",
        "Generated images of few",
        "Methods, to paste",
        "Copies and privacy",
        "Flow of images",
    ):
        assert words in page
    latex = ["scores", "differences", "recalls", "regression", "flow", "effort", "privacy", "confusion-real"]
    assert all(r"\begin{tabular}" in (tmp_path / "out" / f"{name}.tex").read_text() for name in latex)
    assert "<b>many" in (tmp_path / "out" / "flow.csv").read_text()
    assert [row["generator"] for row in table(tmp_path / "out" / "privacy.csv")] == ["generator-0", "generator-1"]
    said = re.sub(r"<[^>]+>", " ", page.partition("<body>")[2]).lower()
    assert not re.search(r"\b(significant\w*|helps|hurts|better|worse|proves?|equivalent|no evidence)\b", said)
    rows = table(tmp_path / "out" / "results.csv")
    assert {row["seed"] for row in rows} == {"0", "1"}
    assert {row["arm"] for row in rows} == {*small.settings.arms, "regression"}
    predictions = table(tmp_path / "out" / "predictions.csv")
    assert len(predictions) == 24 * 3 * 2
    matrix = table(tmp_path / "out" / "confusion-real.csv")
    assert [row["true"] for row in matrix] == names
    assert sum(float(row[name]) for row in matrix for name in names) == 24
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["protocol"]["command"].startswith("gankit study classifier ")
    assert {"gankit", "torch", "scikit-learn"} <= set(written["protocol"]["versions"])
    shutil.rmtree(tmp_path / "out" / "jobs" / "real-1")  # the same command does what is missing, and no more
    app(arguments, standalone_mode=False)
    assert re.search(
        r"^1 classifier of 3 steps at [\d.e-]+ s: about \d+ s of work", capsys.readouterr().err, re.MULTILINE
    )
    app(arguments, standalone_mode=False)
    assert " of work" not in capsys.readouterr().err  # nothing is left to do
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["differences"] == written["differences"]


def table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("lost", [True, False])
def test_outputs_that_were_lost_or_changed_are_named(tmp_path: Path, lost: bool) -> None:
    job = tmp_path / "jobs" / "real-0"
    job.mkdir(parents=True)
    np.save(job / "logits.npy", np.zeros((1, 2)))
    digest = hashlib.sha256((job / "logits.npy").read_bytes()).hexdigest()
    (job / "result.json").write_text(json.dumps({"files": {"logits.npy": digest}}))
    assert load_outputs(tmp_path, "real", [0]).shape == (1, 1, 2)
    np.save(job / "logits.npy", np.ones((1, 2)))
    if lost:
        (job / "logits.npy").unlink()
    with pytest.raises(RunError, match=r"is not what this job wrote: delete .*real-0 to do it again"):
        load_outputs(tmp_path, "real", [0])


def test_every_arm_is_on_the_page() -> None:
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "classifier-study.md").read_text(encoding="utf-8")
    assert [arm for arm in ARMS if f"| `{arm}` |" not in page] == []


def test_a_study_runs_from_python_as_the_page_says(write: Write, tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "classifier-study.md").read_text(encoding="utf-8")
    assert "`run_classifier_study` and `load_classifier_study`" in page
    small = [*small_networks(write()), "classifier.steps=2", "classifier.arms=[real]", "classifier.seeds=1"]
    loaded = classifier.load_classifier_study("wgan-gp", *small, "classifier.groupings={}")
    found = classifier.run_classifier_study(loaded, tmp_path / "out", quiet=True)
    assert found["arms"].keys() == {"real"}


def test_the_number_of_the_packaged_study_can_be_taken_away() -> None:
    assert load_study("classifier", None).settings.regression == "deviation"
    assert load_study("classifier", None, "classifier.regression=none").settings.regression is None


def test_what_the_packaged_study_says_of_the_eyes_does_not_reach_other_data() -> None:
    own = ["data.name=npz", "data.path=x.npz"]
    for overrides in (own, ['data={name="npz", path="x.npz"}']):
        settings = load_study("classifier", None, *overrides).settings
        assert (settings.groupings, settings.regression, settings.classical) == ({}, None, Classical())
        assert settings.steps == load_study("classifier").settings.steps == 800
    kept = ['classifier.groupings.ill=["b"]', "classifier.regression=age"]
    settings = load_study("classifier", None, *kept, *own).settings
    assert (settings.groupings, settings.regression) == ({"ill": ["b"]}, "age")
    assert load_study("classifier", None, "data.counts=[20, 20, 20]").settings.regression == "deviation"


def test_the_packaged_study_is_valid() -> None:
    packaged = load_study("classifier", None, "data.counts=[20, 10, 20]")
    parts = packaged.split
    assert parts.train.class_names[parts.rarest] == "esotropia"
    assert packaged.generator_experiment(3).training.seed == 3
    assert packaged.generator_experiment(3).data.conditional is True


@pytest.mark.slow
@pytest.mark.parametrize("place", ["bccd_cells/bccd_cells_64.npz", "breastmnist/breastmnist.npz"])
def test_real_images(place: str, real_data: Callable[[str], Path], tmp_path: Path) -> None:
    path = real_data(place)
    small = study(path, "data.size=16", 'classifier.arms=["real", "classical"]', "classifier.steps=40",
                  "classifier.seeds=1")  # fmt: skip
    found = run_study(small, tmp_path / "out", quiet=True)
    groups = found["protocol"]["groups"]["test"]
    if "bccd" in place:
        assert groups > 30
        assert found["arms"]["real"]["balanced accuracy"]["value"] > 0.6
    else:
        assert groups is None
        assert found["protocol"]["notes"][0] == (
            "1 test images are identical to training images, 1 of them with another label"
        )
    assert any("one seed" in note for note in found["protocol"]["notes"])
