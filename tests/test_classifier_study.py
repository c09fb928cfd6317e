"""A study of a classifier: planted data, chance data, groups, equal steps, resume, refusals, files."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_studies import save_arrays, small_networks

import gankit
from gankit.cli import app
from gankit.errors import DataError, GankitError, PartError, RunError, SettingsError
from gankit.runs import checkpoint
from gankit.runs.classifiers import FILE, SmallNetwork, TorchvisionNetwork, load_weights, make_network
from gankit.studies import fitting
from gankit.studies.classifier import study as classifier
from gankit.studies.classifier.arms import ARMS
from gankit.studies.classifier.data import check_apart, data_notes
from gankit.studies.classifier.study import ClassifierStudy, load_classifier
from gankit.studies.classifier.training import added_labels, load_outputs, training_set
from gankit.studies.fitting import Classical, TrainingSet, apply, augment, batch_images, fit
from gankit.studies.reading import load_study
from gankit.studies.trainings import TIMED_STEPS, WARM_UP_STEPS

N, CLASSES = 120, 3
COUNTS = (60, 20, 40)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """An npz file of 120 colour images of 8 x 8 in three classes of 60, 20 and 40, two a patient."""

    def made(planted: bool = True, **more: Any) -> Path:
        draw = np.random.default_rng(0)
        labels = np.repeat(np.arange(CLASSES), COUNTS)
        images = draw.integers(0, 120, (N, 8, 8, 3), dtype=np.uint8)
        severity = draw.integers(0, 31, N)
        if planted:  # a class is a bright channel, severity brightens all of them
            images[np.arange(N), :, :, labels] += 100
            images += severity[:, None, None, None].astype(np.uint8)
        arrays = {
            "images": images, "labels": labels, "groups": np.arange(N) // 2, "class_names": ["many", "few", "some"],
            "severity": severity, **more,
        }  # fmt: skip
        return save_arrays(tmp_path / f"data-{planted}-{len(more)}.npz", arrays)

    return made


def study(path: Path, *overrides: str) -> ClassifierStudy:
    small = [
        *small_networks(path), "classifier.steps=60", "classifier.batch=16", "classifier.width=8",
        "classifier.seeds=2", "classifier.groupings={}",
    ]  # fmt: skip
    loaded = load_study("classifier", "wgan-gp", *small, *overrides)
    assert isinstance(loaded, ClassifierStudy)
    return loaded


def run_study(whole: ClassifierStudy, out: Path, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = whole.run(out, **options).values
    return found


REAL = 'classifier.arms=["real"]'


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
    parts = study(path).split
    assert (len(parts.train), len(parts.test)) == (60, 30)
    assert data_notes(parts)[0] == "3 test images are identical to training images, 2 of them with another label"
    assert data_notes(parts)[1].startswith("only 5 test cases of few")
    parts = study(path, "classifier.test_split=val").split
    assert (parts.test_indices == np.arange(60, 90)).all()
    parts = study(path, "data.split=all").split
    assert (len(parts.train), len(parts.test)) == (96, 24)
    with pytest.raises(
        DataError, match=r"classifier\.test_split: there is no split 'tset' in this data set; known: train"
    ):
        study(path, "classifier.test_split=tset").split  # noqa: B018


TRIED = WARM_UP_STEPS + TIMED_STEPS  # steps that an estimate throws away
THREE = 'classifier.arms=["real", "classical", "synthetic"]'
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


@pytest.mark.parametrize("shape", [(1, 5, 9), (3, 32, 32), (7, 64, 20), (2, 1, 1)])
def test_the_small_network_takes_any_images(shape: tuple[int, int, int]) -> None:
    network = SmallNetwork(gankit.ImageSpec(*shape), 4, width=4)
    assert network(torch.zeros(2, *shape)).shape == (2, 4)


def test_networks_of_torchvision(tmp_path: Path, write: Write) -> None:
    def squeezenet(image: gankit.ImageSpec, input_size: int | None = None) -> torch.nn.Module:
        return make_network(image, 3, "squeezenet1_1", 16, input_size)

    assert squeezenet(gankit.ImageSpec(1, 32, 32))(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
    with pytest.raises(PartError, match="squeezenet1_1 sees grey or colour images, not 2 channels"):
        squeezenet(gankit.ImageSpec(2, 32, 32))
    with pytest.raises(PartError, match=r"cannot take images of 8 x 8 .* set classifier.input_size=224"):
        squeezenet(gankit.ImageSpec(3, 8, 8))
    assert squeezenet(gankit.ImageSpec(3, 8, 8), 32)(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    # Weights of a network of other classes: all but the head are taken.
    from torchvision import models

    published, path = models.squeezenet1_1(weights=None, num_classes=10), tmp_path / "weights.pth"
    torch.save(published.state_dict(), path)
    started = study(write(), "data.size=32", "classifier.network=squeezenet1_1", f"classifier.weights={path}")
    network = started.settings.new_network(started.split.train.image, 3)
    assert isinstance(network, TorchvisionNetwork)
    assert torch.equal(next(network.network.parameters()), next(published.parameters()))
    with pytest.raises(PartError, match=r"weights.pth is not of alexnet: .* name the network that it belongs to"):
        load_weights(models.alexnet(weights=None, num_classes=3), path, "alexnet")
    torch.save([1, 2], path)
    with pytest.raises(PartError, match=r"weights.pth is not of squeezenet1_1: 0 of its 52 tensors are there"):
        load_weights(published, path, "squeezenet1_1")
    path.write_bytes(b"no weights")
    with pytest.raises(PartError, match=r"weights\.pth cannot be read"):
        started.settings.new_network(started.split.train.image, 3)


def test_augmentation_keeps_what_it_should() -> None:
    images = torch.rand(6, 3, 10, 14) * 2 - 1
    still = Classical(shift=0, rotate=0, scale=0, brightness=0, contrast=0)
    assert torch.allclose(augment(images, still, torch.Generator()), images, atol=1e-5)
    flat = torch.full((64, 1, 9, 9), 0.2)
    moved = augment(flat, Classical(brightness=0.1, contrast=0.5), torch.Generator().manual_seed(0))
    assert moved.std((1, 2, 3)).max() < 1e-5  # what comes in from outside repeats the edge
    assert 0.0 < moved.min() < 0.1
    assert 0.3 < moved.max() < 0.4001  # a tenth of the range of 2, either way
    # A dot moves by at most the shift, and stays whole.
    dots = torch.full((200, 1, 21, 21), -1.0)
    dots[:, :, 10, 10] = 1
    shifted = augment(dots, still.model_copy(update={"shift": 0.2}), torch.Generator().manual_seed(0))
    where = shifted.flatten(1).argmax(1)
    rows, columns = where // 21 - 10, where % 21 - 10
    assert rows.abs().max() == columns.abs().max() == 4
    # A quarter turn turns a bar.
    bars = torch.full((400, 1, 21, 21), -1.0)
    bars[:, :, 10] = 1
    turned = augment(bars, still.model_copy(update={"rotate": 90.0}), torch.Generator().manual_seed(0))
    upright = ((turned[:, 0, :, 10] + 1) / 2).sum(1)
    assert upright.max() > 19
    assert upright.min() < 2


def test_mirror_images_come_from_the_data_set(write: Write) -> None:
    """Data whose labels depend on the side are never mirrored."""
    images = np.zeros((1, 3, 8, 8), np.uint8)
    images[..., :4] = 200
    seen = {}
    for keeps in ("true", "false"):
        whole = study(write(), f"data.mirror_keeps_label={keeps}", REAL)
        lesson = training_set(whole, ARMS["classical"])
        still = Classical(flip=True, shift=0, rotate=0, scale=0, brightness=0, contrast=0)
        lesson = TrainingSet(np.repeat(images, 4, 0), lesson.targets[:4], lesson.dataset, classical=still)
        batches = [batch_images(lesson, np.arange(4), 0, step, torch.device("cpu")) for step in range(8)]
        seen[keeps] = {bool(image[0, 0, 0] > 0) for batch in batches for image in batch}
    assert seen == {"true": {True, False}, "false": {True}}


# Mistakes


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


def test_outputs_do_not_depend_on_the_batch(write: Write, tmp_path: Path) -> None:
    whole = study(write(), REAL, "classifier.steps=3")
    parts = whole.split
    network = SmallNetwork(parts.train.image, 3, width=4)
    done = fit(network, training_set(whole, ARMS["real"]), whole.settings, 0, tmp_path)
    assert (done["steps"], done["resumed_at"], len(done["losses"])) == (3, 0, 3)
    one = np.concatenate([apply(network, parts.test.subset([i])) for i in range(5)])
    assert apply(network, parts.test)[:5] == pytest.approx(one, abs=1e-5)
