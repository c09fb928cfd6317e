"""A study of augmentation: planted effects and leaks, controls, programs of others, failures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import augmentation_data
import numpy as np
import pytest
from augmentation_data import (
    CLASSES,
    COUNTS,
    FAST,
    FEW,
    LARGE,
    NO_CONTROLS,
    OTHERS,
    Write,
    draw_images,
    rows,
    study,
    write_images,
)

import gankit
from gankit.cli import app
from gankit.errors import PartError, RunError
from gankit.studies.augmentation import sources
from gankit.studies.augmentation.sources import leak
from gankit.studies.augmentation.study import AugmentationStudy
from gankit.studies.kinds import KINDS
from gankit.studies.reading import load_study

write = augmentation_data.write


def test_a_planted_effect_is_found_and_controls_come_out_as_they_must(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The study waits for images of another program, which here knows the truth."""
    folds = tmp_path / "folds"
    overrides = [*OTHERS, FEW, f"augmentation.export_folds={folds}", "data.subset=16", "augmentation.folds=5",
                 "augmentation.repeats=2", "augmentation.ratios=[16.0]"]  # fmt: skip
    whole = study(write(**LARGE), *overrides)
    (tmp_path / "study.toml").write_text(whole.toml())
    arguments = ["study", "augmentation", str(tmp_path / "study.toml"), "--export-folds", str(folds)]
    arguments += ["--out", str(tmp_path / "out")]
    with pytest.raises(RunError, match=r"no generated images for fold-1, fold-2, fold-3 and 7 more: put them into"):
        app(arguments, standalone_mode=False)
    assert not (tmp_path / "out").exists()
    for fold in whole.folds:
        folder = folds / fold.name
        listed = rows(folder / "train.csv")
        assert len(listed) == len(fold.learn) == len(list(folder.glob("train/*/*.png")))
        assert fold.learn.groups is not None
        assert {row["group"] for row in listed} == set(map(str, fold.learn.groups))
        wanted = {row["class"]: int(row["images"]) for row in rows(folder / "wanted.csv")}
        labels = np.repeat([0, 1], [wanted[name] for name in CLASSES])
        write_images(folder / "generated", draw_images(labels, 100 + fold.number), labels)
    app(arguments, standalone_mode=False)
    printed = capsys.readouterr().out
    assert printed.startswith("helps: best synthetic arm less best baseline +0.")
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["primary"]["low"] > 0.02
    assert found["controls"]["copies"]["low"] < 0.02
    assert found["controls"]["held-out"]["value"] > found["controls"]["copies"]["value"]
    assert not any("leak" in note for note in found["notes"])
    assert found["arms"]["synthetic-exported"]["p_holm"] >= found["arms"]["synthetic-exported"]["p"]


def test_images_without_information_do_not_help(write: Write, tmp_path: Path) -> None:
    folds = tmp_path / "folds"
    whole = study(write(), *OTHERS, FEW, NO_CONTROLS, "augmentation.folds=4",
                  f'augmentation.others={{noise={{images="{folds}"}}}}')  # fmt: skip
    for fold in whole.folds:
        labels = np.random.default_rng(fold.number).integers(0, 2, 200)
        write_images(folds / fold.name / "generated", draw_images(labels, 7, strength=0), labels)
    found = whole.run(tmp_path / "out", quiet=True).values
    assert found["verdict"]["word"] != "helps"


@pytest.mark.slow
def test_a_folder_that_copies_the_built_in_arm_gives_the_same_numbers(write: Write, tmp_path: Path) -> None:
    path, arms = write(), 'augmentation.arms=["real", "weights", "synthetic", "classical-synthetic"]'
    built_in = study(path, arms, NO_CONTROLS, 'augmentation.ratios=[0.5, "fill"]')
    found = built_in.run(tmp_path / "built-in", quiet=True).values
    for fold in built_in.folds:
        with np.load(tmp_path / "built-in" / "jobs" / f"{fold.name}-images-generator-0" / "images.npz") as file:
            write_images(tmp_path / "copy" / fold.name / "generated", file["images"], file["labels"])
    other = study(path, arms, NO_CONTROLS, "augmentation.ratios=[0.5, \"fill\"]", "augmentation.generator=false",
                  f'augmentation.others={{copy={{images="{tmp_path / "copy"}"}}}}')  # fmt: skip
    copied = other.run(tmp_path / "other", quiet=True).values
    assert copied["primary"]["value"] == found["primary"]["value"]
    for kind in ("synthetic", "classical-synthetic"):
        first, second = found["arms"][kind], copied["arms"][f"{kind}-copy"]
        assert first["scores"] == second["scores"]
        assert (first["gain"], first["p"]) == (second["gain"], second["p"])


# Leaks


def test_a_planted_leak_is_caught_and_gives_no_verdict(write: Write, tmp_path: Path) -> None:
    path, folds = write(), tmp_path / "folds"
    whole = study(path, *OTHERS, FEW, NO_CONTROLS, f'augmentation.others={{leaky={{images="{folds}"}}}}')
    for fold in whole.folds:
        labels = np.repeat([0, 1], 60)
        images = draw_images(labels, 50 + fold.number)[:, None]
        if fold.number == 2:
            seen = np.asarray(fold.test.images)[:3].astype(int)
            images[:2] = seen[:2]
            images[2] = np.clip(seen[2] + 1, 0, 255)  # a near copy
        write_images(folds / fold.name / "generated", images, labels)
    results = whole.run(tmp_path / "out", quiet=True)
    (alarm,) = [note for note in results.values["notes"] if note.startswith("leak")]
    assert (
        "images of leaky for fold 2 show 3 images of the validation or the test part (2 pairs are identical)" in alarm
    )
    assert results.values["verdict"] == {"word": "no evidence", "why": "too few folds have both sides"}
    assert alarm in results.report.read_text().replace("&#39;", "'")


def with_likenesses(fold: Any, levels: int) -> Any:
    """A fold whose training images are like those of its test part, all pixels so many grey levels apart."""
    test = np.asarray(fold.test.images).astype(int)
    alike = np.where(test < 128, test + levels, test - levels).astype(np.uint8)
    return dataclasses.replace(fold, learn=gankit.wrap("dataset", alike, labels=fold.test.labels))


def test_near_copies_are_a_leak_where_they_are_more_than_chance(write: Write) -> None:
    fold = with_likenesses(study(write(), FEW).fold(1), 10)
    test = np.asarray(fold.test.images).astype(int)
    fresh = draw_images(np.zeros(100), 9)[:, None]
    near = np.clip(test[:20] + 1, 0, 255).astype(np.uint8)
    found = leak(fold, np.concatenate([fresh, near[..., ::-1]]))  # mirrored ones too
    assert (found["alarm"], found["leaked"], found["exact"]) == (True, 20, 0)
    unnoticed = leak(fold, np.concatenate([fresh, near[:1]]))
    assert (unnoticed["alarm"], unnoticed["leaked"]) == (False, 1)
    for count in (0, 1):  # the most that pass, and one more, of as many images
        planted = unnoticed["unnoticed"] + count
        assert leak(fold, np.concatenate([fresh[: 101 - planted], near[:planted]]))["alarm"] == bool(count)


@pytest.mark.parametrize(("levels", "alarm"), [(2, False), (23, False), (25, True)])
def test_one_near_copy_is_a_leak_where_training_images_are_far(write: Write, levels: int, alarm: bool) -> None:
    fold = study(write(), FEW).fold(1)
    copied = np.clip(np.asarray(fold.test.images)[:1].astype(int) + 1, 0, 255).astype(np.uint8)
    images = np.concatenate([draw_images(np.zeros(100), 9)[:, None], copied[..., ::-1]])
    assert leak(with_likenesses(fold, levels), images)["alarm"] == alarm
    assert not leak(with_likenesses(fold, levels), images[:100])["alarm"]


def test_the_alarm_says_how_many_near_copies_pass_where_images_repeat(write: Write) -> None:
    """As in BreastMNIST, where one image in 26 is a near copy of one that another split holds."""
    fold = study(write(), FEW).fold(1)
    images = draw_images(np.zeros(100), 9)[:, None]
    before = leak(fold, images)["unnoticed"]
    learn, test = np.asarray(fold.learn.images).copy(), np.asarray(fold.test.images)
    learn[:20] = np.clip(test[:20].astype(int) + 1, 0, 255)
    repeated = gankit.wrap("dataset", learn, labels=fold.learn.labels)
    after = leak(dataclasses.replace(fold, learn=repeated), images)["unnoticed"]
    assert after > before + 5


def test_near_copies_are_compared_with_equal_chances(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training images, which could copy the same judging images, are the measure: parts of these could copy fewer."""
    fold, tables = study(write(), FEW).fold(1), []

    def test_table(counts: list[list[int]], alternative: str) -> Any:
        tables.append(counts)
        return SimpleNamespace(pvalue=1.0)

    monkeypatch.setattr(sources.stats, "fisher_exact", test_table)
    leak(fold, draw_images(np.zeros(30), 9)[:, None])
    assert np.sum(tables[0], axis=1).tolist() == [30, len(fold.learn)]


def test_what_training_and_test_share_is_no_leak(write: Write) -> None:
    labels = np.repeat([0, 1], COUNTS)
    images = np.repeat(draw_images(labels[::4], 0), 4, 0)  # every image four times, in two patients
    fold = study(write(images=images), FEW).fold(1)
    assert not leak(fold, np.asarray(fold.learn.images))["alarm"]
    assert not leak(fold, draw_images(np.zeros(50), 9)[:, None])["alarm"]


def test_a_copy_of_an_image_that_equals_its_mirror_image_counts_once(write: Write) -> None:
    images = draw_images(np.repeat([0, 1], COUNTS), 0)
    fold = study(write(images=np.maximum(images, images[..., ::-1])), FEW).fold(1)
    found = leak(fold, np.asarray(fold.test.images)[:1])
    assert (found["exact"], len(found["pairs"])) == (1, 1)


# Programs of others, and failures


PROGRAM = """import csv, pathlib, shutil, sys
fold, out = map(pathlib.Path, sys.argv[1:])
if "fold-2" in str(fold) and {fails}:
    raise SystemExit("no memory")
for row in csv.DictReader(open(fold / "wanted.csv")):
    (out / row["class"]).mkdir(parents=True)
    files = sorted((fold / "train" / row["class"]).iterdir())
    for number in range(int(row["images"])):
        shutil.copy(files[number % len(files)], out / row["class"] / f"{{number}}.png")
"""


@pytest.mark.parametrize("fails", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_program_is_run_for_each_fold(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    program = tmp_path / "make.py"
    program.write_text(PROGRAM.format(fails=fails))
    whole = study(write(), *OTHERS, FEW, NO_CONTROLS, f'augmentation.others={{copycat={{command="{program}"}}}}')
    monkeypatch.setenv("GANKIT_TRUST", "")
    with pytest.raises(PartError, match=r"augmentation\.others\.copycat\.command: .*make\.py holds a program"):
        whole.run(tmp_path / "out", quiet=True)
    monkeypatch.setenv("GANKIT_TRUST", str(program))
    results = whole.run(tmp_path / "out", quiet=True)
    entry = results.values["arms"]["synthetic-copycat"]
    assert entry["missing"] == fails
    if fails:
        assert "make.py ended with 1: no memory" in results.failures
        assert any("incomplete, so not chosen: synthetic-copycat-1.0 in fold 2" in n for n in results.values["notes"])
        assert "the contrast lacks 1 fold," in results.report.read_text()


def test_what_a_stopped_program_made_is_not_kept_and_its_fold_is_no_dead_end(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, folder = tmp_path / "make.py", tmp_path / "job"
    program.write_text(PROGRAM.format(fails=False))
    monkeypatch.setenv("GANKIT_TRUST", str(program))
    whole = study(write(), *OTHERS, FEW, NO_CONTROLS, f'augmentation.others={{copycat={{command="{program}"}}}}')
    sources._run_program(whole, whole.fold(1), "copycat", folder)
    images = sorted((folder / "generated").rglob("*.png"))
    (folder / "made.txt").unlink()  # as of a program that was stopped, beside an export that was
    (folder / "generated" / "many" / "half.png").touch()
    (folder / "train.csv").rename(folder / "train" / ".train.csv")
    sources._run_program(whole, whole.fold(1), "copycat", folder)
    assert sorted((folder / "generated").rglob("*.png")) == images
    assert {path.name for path in folder.iterdir()} == {
        "train", "train.csv", "wanted.csv", "generated", "program.txt", "made.txt"
    }  # fmt: skip
    assert {path.name for path in (folder / "train").iterdir()} == set(CLASSES)


def test_a_generator_that_diverges_in_a_fold_is_marked(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = sources.train_or_resume

    def diverges(experiment: Any, folder: Path, data: Any = None) -> Any:
        if "fold-2" in str(folder):
            raise RunError("the training diverged")
        return inner(experiment, folder, data)

    monkeypatch.setattr(sources, "train_or_resume", diverges)
    results = study(write(), *FAST, FEW, NO_CONTROLS).run(tmp_path / "out", quiet=True)
    assert results.values["primary"]["missing"] == 1
    assert results.values["verdict"]["word"] == "no evidence"
    page = results.report.read_text()
    assert "the training diverged" in page
    assert "<td>failed</td>" in page


def test_the_packaged_study_is_valid() -> None:
    packaged = load_study("augmentation", None, "data.counts=[40, 20, 40]")
    assert isinstance(packaged, AugmentationStudy)
    assert len(packaged.folds) == 5
    assert packaged.generator_experiment(3).data.conditional is True


def test_every_arm_is_on_the_page() -> None:
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "augmentation-study.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"| `{kind}` |" not in page] == []
