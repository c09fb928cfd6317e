"""A study of a classifier: planted data, chance data, groups, equal steps, resume, failures."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import classifier_data
import numpy as np
import pytest
import torch
from classifier_data import REAL, THREE, N, Write, run_study, study

import gankit
from gankit.errors import DataError, PartError, RunError, SettingsError
from gankit.runs import checkpoint
from gankit.runs.classifiers import FILE
from gankit.studies import fitting
from gankit.studies.classifier import study as classifier
from gankit.studies.classifier.arms import ARMS
from gankit.studies.classifier.data import check_apart
from gankit.studies.classifier.report import notes
from gankit.studies.classifier.study import load_classifier
from gankit.studies.classifier.training import added_labels, training_set
from gankit.studies.fitting import TIMED_STEPS, WARM_UP_STEPS

write = classifier_data.write


def test_planted_classes_are_found(write: Write, tmp_path: Path) -> None:
    overrides = [REAL, 'classifier.groupings={rare=["few"]}', "classifier.regression=severity", "classifier.steps=120"]
    found = run_study(study(write(), *overrides), tmp_path / "out", quiet=True)
    real = found["arms"]["real"]
    for score in ("balanced accuracy", "macro F1", "AUC"):
        assert real[score]["value"] > 0.95
        assert 0 <= real[score]["low"] <= real[score]["value"] <= real[score]["high"] <= 1
    rare = real["groupings"]["rare"]
    assert rare["sensitivity"]["value"] > 0.9
    assert rare["specificity"]["value"] > 0.95
    assert rare["sensitivity"]["n"] == 4
    assert rare["sensitivity"]["low"] < 0.6  # of four cases in two groups hardly anything is known
    assert np.array(real["confusion"]).sum() == 24
    regression = found["regression"]
    error = regression["mean absolute error"]["value"]
    assert error < 0.8 * regression["mean absolute error of the training mean"]
    correlation = regression["correlation"]
    assert min(correlation["by_seed"]) > 0.4
    assert correlation["low"] < min(correlation["by_seed"])  # two seeds tell little of a third one


def test_chance_stays_at_chance(write: Write, tmp_path: Path) -> None:
    """Images that say nothing of the label: intervals of areas and recalls hold what a coin would give."""
    overrides = ['classifier.arms=["oversampling", "real"]', "classifier.folds=2"]
    found = run_study(study(write(planted=False), *overrides), tmp_path / "out", quiet=True)
    for arm in found["arms"].values():
        assert arm["balanced accuracy"]["low"] < 1 / 3 < arm["balanced accuracy"]["high"]
        assert arm["AUC"]["low"] < 0.5 < arm["AUC"]["high"]
        assert arm["balanced accuracy"]["value"] < 0.55
    for row in found["differences"]:
        assert row["low"] <= 0 <= row["high"]


def test_no_group_is_on_both_sides_whatever_the_seed(write: Write) -> None:
    path = write()
    tests = set()
    for seed in range(5):
        parts = study(path, f"training.seed={seed}", "data.subset=80").split
        assert parts.train.groups is not None
        assert parts.test.groups is not None
        assert not set(parts.train.groups) & set(parts.test.groups)
        assert len(parts.train) == 80  # the filters of the data table are for the training part
        assert np.bincount(parts.test.labels).tolist() == [12, 4, 8]
        tests.add(tuple(parts.test_indices))
    assert len(tests) > 1
    same = [tuple(study(path, "classifier.steps=7").split.test_indices) for _ in range(2)]
    assert same[0] == same[1]


def test_parts_that_share_are_refused(write: Write) -> None:
    dataset = gankit.build("dataset", "npz", path=str(write()))
    everything = np.arange(N)
    with pytest.raises(DataError, match="30 cases are in the training and in the test part"):
        check_apart(dataset, everything[:60], everything[30:])
    with pytest.raises(
        DataError, match=r"60 groups \(patients\) are in the training and in the test part, for example 0"
    ):
        check_apart(dataset, everything[::2], everything[1::2])
    with pytest.raises(DataError, match="the test part has no case of 'many'"):
        check_apart(dataset, everything[:100], everything[100:])


def test_named_splits(write: Write, tmp_path: Path) -> None:
    whole = np.load(write())
    arrays: dict[str, Any] = {"class_names": whole["class_names"]}
    for name, places in (("train", np.arange(0, N, 2)), ("val", np.arange(1, N, 4)), ("test", np.arange(3, N, 4))):
        arrays |= {f"{name}_images": whole["images"][places], f"{name}_labels": whole["labels"][places]}
    arrays["test_images"][0] = arrays["train_images"][0]
    arrays["test_images"][1] = arrays["train_images"][50]  # of another class
    arrays["test_images"][-1] = arrays["train_images"][59] = arrays["train_images"][1]  # once of another class
    path = tmp_path / "splits.npz"
    np.savez(path, **arrays)
    named = study(path)
    assert (len(named.split.train), len(named.split.test)) == (60, 30)
    assert notes(named)[0] == "3 test images are identical to training images, 2 of them with another label"
    assert notes(named)[1].startswith("only 5 test cases of few")
    parts = study(path, "classifier.test_split=val").split
    assert (parts.test_indices == np.arange(60, 90)).all()
    parts = study(path, "data.split=all").split
    assert (len(parts.train), len(parts.test)) == (96, 24)
    with pytest.raises(
        DataError, match=r"classifier\.test_split: there is no split 'tset' in this data set; known: train"
    ):
        study(path, "classifier.test_split=tset").split  # noqa: B018


TRIED = WARM_UP_STEPS + TIMED_STEPS  # steps that an estimate throws away

ALL = 'classifier.arms=["real", "oversampling", "classical", "synthetic", "classical-synthetic", "copies"]'


def test_copies_are_judged_beside_images_of_the_agreement_that_was_learnt_from(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SimpleNamespace(steps=1)
    monkeypatch.setattr(classifier, "train_or_resume", lambda *given, **more: run)
    monkeypatch.setattr(classifier, "judge_privacy", lambda source, *sides: [part.agreement for part in sides])
    agreement = np.where(np.arange(N) % 5, 0.9, 0.5)
    for more, lowest in (([], 0.5), (["data.min_agreement=0.9"], 0.9)):
        judged = study(write(agreement=agreement), THREE, *more)._train_generator(0, tmp_path)["privacy"]
        assert [values.min() for values in judged] == [lowest, lowest]


def test_every_arm_takes_as_many_steps_and_differs_in_its_images_alone(write: Write, tmp_path: Path) -> None:
    small = study(write(), ALL, "classifier.steps=8", "classifier.checkpoint_every=3")
    counted: dict[str, int] = {}
    inner = torch.optim.AdamW.step

    def counting(self: Any, *arguments: Any, **more: Any) -> Any:
        counted["steps"] = counted.get("steps", 0) + 1
        return inner(self, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", counting)
        found = run_study(small, tmp_path / "out", quiet=True)
    assert counted["steps"] == 6 * 2 * 8 + TRIED
    assert {arm: entry["steps"] for arm, entry in found["arms"].items()} == {arm: [8, 8] for arm in found["arms"]}
    added = {arm: entry["added"] for arm, entry in found["arms"].items()}
    assert added == {
        "real": 0,
        "oversampling": 0,
        "classical": 0,
        "synthetic": 32,
        "classical-synthetic": 32,
        "copies": 32,
    }
    logits = {arm: np.load(tmp_path / "out" / "jobs" / f"{arm}-0" / "logits.npy") for arm in added}
    assert len({values.tobytes() for values in logits.values()}) == 6
    assert found["failures"] == {}
    compared = {(row["arm"], row["against"]) for row in found["differences"]}
    assert compared == {
        (arm, against) for against in ("real", "classical") for arm in added if arm not in (against, "real")
    }
    # The generator saw the training part alone.
    run = gankit.open_run(tmp_path / "out" / "jobs" / "generator-0" / "run")
    assert run.experiment.run is not None
    assert run.experiment.run.images == 96
    assert run.experiment.run.label_counts == [48, 16, 32]


def test_what_arms_learn_from(write: Write, tmp_path: Path) -> None:
    whole = study(write(), ALL)
    parts = whole.split
    real = training_set(whole, ARMS["real"])
    assert (len(real.images), real.weights, real.classical, real.balanced) == (96, None, None, False)
    order = training_set(whole, ARMS["oversampling"]).order(0)
    labels = np.asarray(parts.train.labels)
    drawn = np.bincount(labels[np.concatenate([order.batch(i, 16) for i in range(400)])]) / 6400
    assert drawn == pytest.approx([1 / 3] * 3, abs=0.02)
    weights = training_set(whole, ARMS["classical"]).weights
    assert weights is not None
    assert weights.tolist() == pytest.approx([96 / (3 * n) for n in (48, 16, 32)])
    copies = training_set(whole, ARMS["copies"])
    assert copies.targets[96:].tolist() == [1] * 32
    few = parts.train.images[labels == 1].astype(float)
    nearest = [np.abs(few - image).mean((1, 2, 3)).min() for image in copies.images[96:].astype(float)]
    assert 1 < max(nearest) < 8  # 2 % of 255, in each pixel
    enough = study(write(), ALL, "classifier.synthetic_fill=0.1")
    assert len(training_set(enough, ARMS["synthetic"], 0, tmp_path).images) == 96
    half = study(write(), "classifier.synthetic_fill=0.5", 'classifier.synthetic_classes=["some", "few"]')
    assert added_labels(half).tolist() == [1] * 8  # 32 of 48 are more than half


def test_a_killed_study_repeats_nothing(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = study(
        write(), 'classifier.arms=["real", "classical"]', "classifier.steps=9", "classifier.checkpoint_every=4"
    )
    whole = run_study(small, tmp_path / "whole", quiet=True)
    inner, calls = fitting.augment, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == TRIED + 7:  # in the first training with augmentation, after the checkpoint at step 4
            raise KeyboardInterrupt
        return inner(*arguments)

    monkeypatch.setattr(fitting, "augment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_study(small, tmp_path / "parts", quiet=True)
    done = tmp_path / "parts" / "jobs" / "real-0" / "result.json"
    before = done.stat().st_mtime_ns
    found = run_study(small, tmp_path / "parts", quiet=True)
    assert done.stat().st_mtime_ns == before
    assert len(calls) == 2 * TRIED + 7 + 5 + 9  # steps 4 to 8 of the first seed, all of the second
    result = json.loads((tmp_path / "parts" / "jobs" / "classical-0" / "result.json").read_text())["result"]
    assert result["resumed_at"] == 4
    for name in ("classical-0", "classical-1", "real-1"):
        ended, straight = ((tmp_path / each / "jobs" / name / FILE).read_bytes() for each in ("parts", "whole"))
        assert ended == straight
    assert found["differences"] == whole["differences"]
    run_study(small, tmp_path / "parts", quiet=True)
    assert len(calls) == 2 * TRIED + 21
    with pytest.raises(RunError, match=r"holds a study of other settings \(classifier.steps was 9, is 10\)"):
        run_study(study(write(), 'classifier.arms=["real", "classical"]', "classifier.steps=10",
                                   "classifier.checkpoint_every=4"), tmp_path / "parts", quiet=True)  # fmt: skip


def test_an_arm_whose_generator_fails_is_marked(write: Write, tmp_path: Path) -> None:
    small = study(write(), 'classifier.arms=["real", "synthetic"]', "classifier.steps=2", "classifier.generators=1",
                  "training.generator_lr=0.9", "training.critic_lr=0.9", "training.steps=40",
                  "training.optimizer=SGD")  # fmt: skip
    results = small.run(tmp_path / "out", quiet=True)
    found = results.values
    assert list(found["arms"]) == ["real"]
    assert found["differences"] == []
    assert list(found["failures"]) == ["generator-0", "synthetic-0", "synthetic-1"]
    assert "diverged" in found["failures"]["generator-0"]
    assert "generator-0 has failed" in found["failures"]["synthetic-0"]
    assert results.failures.startswith("3 of 5 jobs failed and are marked in the report (generator-0: ")
    assert "synthetic-1: generator-0 has failed" in results.report.read_text()
    assert any("1 generator for 2 seeds" in note for note in found["protocol"]["notes"])


def test_a_classifier_that_diverges_is_marked(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "gankit.studies.classifier.training.apply", lambda network, test: np.full((len(test), 3), np.nan)
    )
    small = study(write(), REAL, "classifier.steps=1", "classifier.seeds=1", "classifier.regression=severity")
    results = small.run(tmp_path / "out", quiet=True)
    assert results.values["failures"] == dict.fromkeys(
        ("real-0", "regression-0"), "the classifier diverged: lower classifier.lr"
    )
    assert "NaN" not in (tmp_path / "out" / "metrics.json").read_text()


def test_a_study_of_which_every_arm_fails_is_reported(write: Write, tmp_path: Path) -> None:
    small = study(write(), REAL, "classifier.steps=2", "classifier.seeds=1")
    job = tmp_path / "out" / "jobs" / "real-0"
    job.mkdir(parents=True)
    (job / "result.json").write_text('{"failure": "it diverged", "seconds": 1.0, "threads": 1}')
    (tmp_path / "out" / "study.toml").write_text(small.toml())
    results = small.run(tmp_path / "out", quiet=True)
    assert results.values["arms"] == {}
    assert "1 of 1 jobs failed and are marked in the report (real-0: it diverged)" in results.report.read_text()


def test_seeds_beyond_the_largest_one_are_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"training.seed: 2 seeds from \d+ on exceed 2\^63 - 1; take a lower one"):
        study(write(), REAL, f"training.seed={2**63 - 1}").run(tmp_path / "out", quiet=True)
    assert not list((tmp_path / "out").glob("jobs/*"))


def test_it_is_said_when_nothing_is_added(write: Write, tmp_path: Path) -> None:
    small = study(write(), 'classifier.arms=["copies"]', "classifier.steps=1", "classifier.synthetic_fill=0.1")
    found = run_study(small, tmp_path / "out", quiet=True)
    assert found["arms"]["copies"]["added"] == 0
    assert any(note.startswith("nothing is added in any arm") for note in found["protocol"]["notes"])


@pytest.mark.cpu
def test_a_classifier_can_be_loaded(write: Write, tmp_path: Path) -> None:
    run_study(study(write(), REAL, "classifier.seeds=1"), tmp_path / "out", quiet=True)
    parts = study(write(), REAL).split
    loaded = load_classifier(tmp_path / "out")
    assert loaded.class_names == ("many", "few", "some")
    images = torch.from_numpy(parts.test.images.astype(np.float32))
    logits = loaded(images / 127.5 - 1)
    assert logits.shape == (24, 3)
    kept = np.load(tmp_path / "out" / "jobs" / "real-0" / "logits.npy")
    assert logits.numpy() == pytest.approx(kept, abs=1e-4)
    assert load_classifier(tmp_path / "out" / FILE, grey_levels=True)(images).numpy() == pytest.approx(kept, abs=1e-4)
    with pytest.raises(PartError, match=r"was trained on images of \(3, 8, 8\)"):
        loaded(torch.zeros(1, 3, 16, 16))
    with pytest.raises(RunError, match="there is no classifier here"):
        load_classifier(tmp_path)
    checkpoint.export(tmp_path / "other.safetensors", torch.nn.Linear(2, 2), {"kind": "generator"})
    with pytest.raises(RunError, match="holds no classifier"):
        load_classifier(tmp_path / "other.safetensors")
