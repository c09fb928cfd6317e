"""A study of augmentation: planted effects and leaks, controls, folds, others' images, mistakes, files."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections import defaultdict
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
from gankit.errors import BusyError, DataError, GankitError, PartError, RunError, SettingsError
from gankit.evaluation.design import visible_difference
from gankit.files import sole_writer
from gankit.images.pictures import save_image
from gankit.studies.augmentation import judging, sources
from gankit.studies.augmentation.contrasts import UNKNOWN, contrast, verdict
from gankit.studies.augmentation.endpoint import Endpoint
from gankit.studies.augmentation.estimators import FeatureLearner
from gankit.studies.augmentation.handover import class_folders
from gankit.studies.augmentation.learning import added_counts, training_set
from gankit.studies.augmentation.sources import leak
from gankit.studies.augmentation.study import AugmentationStudy
from gankit.studies.commands import own_options
from gankit.studies.jobs import Outcome
from gankit.studies.kinds import KINDS, Examples
from gankit.studies.reading import load_study
from gankit.studies.trainings import TIMED_STEPS, WARM_UP_STEPS

CLASSES = ["many", "few"]
COUNTS = (80, 40)
N = sum(COUNTS)
MANY = np.repeat([0, 1], (240, 160))
LARGE = {"images": None, "labels": MANY, "groups": np.arange(400) // 2, "severity": None}
Write = Callable[..., Path]


def draw_images(labels: Any, seed: int, strength: int = 12) -> Any:
    """(n, 8, 8) images of noise, of which a class brightens its half by a little."""
    random = np.random.default_rng(seed)
    images = random.normal(120, 40, (len(labels), 8, 8))
    images[np.asarray(labels) == 0, :, :4] += strength
    images[np.asarray(labels) == 1, :, 4:] += strength
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


LARGE["images"] = draw_images(MANY, 0)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """An npz file of 120 grey images of 8 x 8, 80 and 40 of two classes, two a patient."""

    def made(**more: Any) -> Path:
        labels = np.repeat([0, 1], COUNTS)
        arrays = {
            "images": draw_images(labels, 0), "labels": labels, "groups": np.arange(N) // 2, "class_names": CLASSES,
            "severity": np.arange(N) % 20 + 5.0 * labels, **more,
        }  # fmt: skip
        return save_arrays(tmp_path / f"data-{len(list(tmp_path.glob('*.npz')))}.npz", arrays)

    return made


def study(path: Path, *overrides: str) -> AugmentationStudy:
    small = [
        *small_networks(path), "augmentation.steps=3", "augmentation.batch=8", "augmentation.width=4",
        "augmentation.folds=2", "augmentation.generators=1", "augmentation.seeds=1", "augmentation.ratios=[1.0]",
    ]  # fmt: skip
    loaded = load_study("augmentation", "wgan-gp", *small, *overrides)
    assert isinstance(loaded, AugmentationStudy)
    return loaded


FAST = ["augmentation.estimator=LogisticRegression", "augmentation.options={C=0.1}", "augmentation.views=1"]
NO_CONTROLS = "augmentation.controls=[]"
FEW = 'augmentation.arms=["real", "weights", "synthetic"]'
OTHERS = ["augmentation.generator=false", *FAST]


def write_images(folder: Path, images: Any, labels: Any, names: list[str] = CLASSES) -> None:
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / names[label]).mkdir(parents=True, exist_ok=True)
        save_image(folder / names[label] / f"{place:05d}", image if image.ndim == 3 else image[None])


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


# Effects


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


def test_near_copies_are_a_leak_where_they_are_more_than_chance(write: Write) -> None:
    fold = study(write(), FEW).fold(1)
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


# Folds and arms


def test_no_group_is_in_two_parts_and_every_case_is_tested_once(write: Write) -> None:
    whole = study(write(), "augmentation.folds=3", "augmentation.repeats=2", "data.subset=30")
    assert [fold.number for fold in whole.folds] == [1, 2, 3, 4, 5, 6]
    for repeat in (1, 2):
        tested = np.concatenate([fold.places["test"] for fold in whole.folds if fold.repeat == repeat])
        assert sorted(tested) == list(range(N))
    assert not np.array_equal(whole.fold(1).places["test"], whole.fold(4).places["test"])
    for fold in whole.folds:
        groups = [set(np.unique(part // 2)) for part in fold.places.values()]
        assert len(set.union(*groups)) == sum(map(len, groups)) == N // 2
        assert len(fold.learn) == 30  # filters are for what is learnt from
        assert all(len(np.unique(part.labels)) == 2 for part in fold.parts.values())


def test_the_whole_study_with_its_own_generator(write: Write, tmp_path: Path) -> None:
    names = ["<b>many</b>", "few"]
    whole = study(write(class_names=names), 'augmentation.positive=["few"]', 'augmentation.ratios=[0.5, "fill"]')
    counted: list[int] = []
    inner = torch.optim.AdamW.step

    def counting(self: Any, *arguments: Any, **more: Any) -> Any:
        counted.append(1)
        return inner(self, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", counting)
        results = whole.run(tmp_path / "out", quiet=True)
    found, out = results.values, tmp_path / "out"
    trainings = [path.name for path in (out / "jobs").iterdir() if path.is_dir() and "images" not in path.name]
    assert len(trainings) == 2 * (5 + 2 * 3 * 2 + 1)  # thresholds share the trainings of classical
    assert len(counted) == 3 * len(trainings) + WARM_UP_STEPS + TIMED_STEPS
    assert found["verdict"]["word"] in ("helps", "hurts", "equivalent", "no evidence")
    assert set(found["arms"]) == {arm.name for arm in whole.arms()}
    assert {row["fold"] for row in found["primary"]["chosen"]} == {1, 2}
    added = json.loads((out / "jobs" / "fold-1-synthetic-fill-0-0" / "result.json").read_text())["result"]["added"]
    assert added == added_counts(whole.fold(1), "fill").sum() > 0
    run = gankit.open_run(out / "jobs" / "fold-1-images-generator-0" / "run")
    assert run.experiment.run is not None
    assert run.experiment.run.images == len(whole.fold(1).learn)
    page = results.report.read_text()
    assert "<b>many" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    for words in ("Flow of images", "Methods, to paste", "Negative control", "Positive control", "macro F1",
                  "sensitivity", "Images of generator for fold 1", "Copies and privacy"):  # fmt: skip
        assert words in page
    predictions = rows(out / "predictions.csv")
    assert len(predictions) == N * len(found["arms"])
    assert {row["variant"] for row in rows(out / "gains.csv")} == {variant.name for variant in whole.variants}
    for name in ("arms", "scores", "choices", "sources", "flow", "privacy"):
        assert r"\begin{tabular}" in (out / f"{name}.tex").read_text()
    assert [row["generator"] for row in rows(out / "privacy.csv")] == [f"fold-{k}-images-generator-0" for k in (1, 2)]
    assert (run.path / "card.md").is_file()
    assert len(rows(out / "flow.csv")) == 2
    again = whole.run(out, quiet=True).values
    assert again["primary"] == found["primary"]
    (out / "jobs" / "fold-1-real-0-0" / "outputs.npz").write_bytes(b"")
    with pytest.raises(RunError, match=r"fold-1-real-0-0/outputs\.npz is not what this job wrote"):
        whole.run(out, quiet=True)


@pytest.mark.parametrize(
    ("overrides", "score"),
    [
        pytest.param(
            ["augmentation.endpoint=presence", 'augmentation.positive=["few"]'], "sensitivity", marks=pytest.mark.slow
        ),
        (["augmentation.endpoint=severity", "augmentation.number=severity", "augmentation.options={alpha=10.0}",
          "augmentation.estimator=sklearn.linear_model.Ridge"], "mean absolute error"),
    ],
)  # fmt: skip
def test_other_endpoints(write: Write, tmp_path: Path, overrides: list[str], score: str) -> None:
    whole = study(write(), *FAST, "augmentation.margin=0.5", *overrides)
    found = whole.run(tmp_path / "out", quiet=True).values
    assert found["failures"] == {}
    assert all(score in entry["scores"] for entry in found["arms"].values())
    assert ("thresholds" in found["arms"]) == (whole.settings.endpoint == "presence")
    assert found["arms"]["real"]["gain"] < 0 or whole.settings.endpoint == "presence"


def test_a_network_learns_a_number(write: Write, tmp_path: Path) -> None:
    whole = study(write(), "augmentation.endpoint=severity", "augmentation.number=severity", NO_CONTROLS, FEW,
                  "augmentation.steps=30")  # fmt: skip
    found = whole.run(tmp_path / "out", quiet=True).values
    assert found["failures"] == {}
    assert all(-9 < entry["gain"] < -3 for entry in found["arms"].values())


def test_adjusted_decisions_find_the_rare_class(write: Write) -> None:
    whole = study(write())
    endpoint, part = Endpoint(whole), whole.fold(1).validation
    labels = np.asarray(part.labels)
    prior = np.log([0.9, 0.1])
    outputs = np.where(labels[:, None] == [[0, 1]], 1.0, 0.0) + prior
    assert endpoint.gain(part, outputs) == 0.5
    strength = endpoint.adjustment(part, outputs, prior)
    assert 0 < strength < 2
    assert endpoint.gain(part, outputs - strength * prior) == 1


def test_adjusted_decisions_are_judged_on_every_class(write: Write) -> None:
    """The halves are adjusted apart and judged together: a class with one patient is in one half alone."""
    whole = study(write())
    endpoint, data, learn = Endpoint(whole), whole.division.dataset, whole.fold(1).learn

    def gain(part: Any) -> float:
        outputs = np.tile([2.0, 0.0], (len(part), 1))  # all are called the first class
        return judging._adjust(endpoint, SimpleNamespace(validation=part, learn=learn), outputs, outputs)[0]

    assert gain(data.subset([*range(40), 80, 81])) == 0.5
    assert gain(data.subset([80, 81])) == -np.inf


def test_halves_for_adjusting_have_every_class(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, halves = study(write()), []
    endpoint, data, learn = Endpoint(whole), whole.division.dataset, whole.fold(1).learn
    part = data.subset([*range(8), 80, 81, 84, 85])  # patients 0 to 3, 40 and 42
    monkeypatch.setattr(endpoint, "adjustment", lambda part, outputs, prior, half=None: halves.append(half) or 0.0)
    judging._adjust(endpoint, SimpleNamespace(validation=part, learn=learn), np.zeros((12, 2)), np.zeros((12, 2)))
    labels = np.asarray(part.labels)
    assert [np.bincount(labels[half]).tolist() for half in halves if half is not None] == [[4, 2], [4, 2]]


def test_twins_of_filtered_images_are_not_learnt_from(write: Write) -> None:
    images = np.repeat(draw_images(np.repeat([0, 1], COUNTS)[::4], 0), 4, 0)  # every image four times, in two patients
    whole = study(write(images=images), FEW, "data.subset=10")
    twins = 0
    for fold in whole.folds:
        learnt = {image.tobytes() for image in np.asarray(fold.learn.images)}
        twins += sum(image.tobytes() in learnt for image in np.asarray(fold.test.images))
    assert twins > 0
    assert [note for note in whole.division.notes if note.startswith(f"{twins} test images, over all folds, ")]


def test_a_class_with_a_single_patient_to_test_is_told(write: Write) -> None:
    labels = np.repeat([0, 1], (80, 10))
    data = write(images=draw_images(labels, 0), labels=labels, groups=np.arange(90) // 2, severity=np.arange(90.0))
    notes = list(judging._single_groups(study(data, "augmentation.folds=5", NO_CONTROLS)))
    assert len(notes) == 1
    assert "a single group (patient) to test in fold-1, fold-2, fold-3 and 2 more" in notes[0]
    assert not list(judging._single_groups(study(write(), "augmentation.folds=5")))


def test_a_patient_changes_a_gain_by_a_step(write: Write) -> None:
    whole = study(write())
    part = study(write(), "augmentation.folds=5").fold(1).test
    counts = [len(np.unique(np.asarray(part.groups)[part.labels == label])) for label in (0, 1)]
    assert Endpoint(whole).patient_step(part) == pytest.approx(np.mean([1 / (2 * count) for count in counts]))


def test_generators_are_asked_for_classes_by_name_since_names_may_be_numbers(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, asked = study(write(class_names=["1", "2"]), FEW), []

    def sample(n: int, labels: Any, seed: int) -> Any:
        asked.extend(labels)
        return draw_images(np.zeros(n), seed % 99)[:, None]

    run = SimpleNamespace(class_names=["1", "2"], sample=sample)
    monkeypatch.setattr(sources, "train_or_resume", lambda *arguments, **more: run)
    monkeypatch.setattr(sources, "judge_privacy", lambda *arguments: {})
    made = sources.make_images(whole, 1, "generator", 0, tmp_path)
    assert [asked.count(name) for name in ("1", "2")] == made["by_class"]
    assert min(made["by_class"]) > 0


def test_copies_are_judged_beside_images_of_the_agreement_that_was_learnt_from(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Examples(draw_images(np.zeros(4), 1)[:, None], np.arange(4) % 2, np.zeros(4))
    monkeypatch.setattr(sources, "_from_generator", lambda *given: (None, made))
    monkeypatch.setattr(sources, "judge_privacy", lambda source, *sides: [part.agreement for part in sides])
    agreement = np.where(np.arange(N) % 5, 0.9, 0.5)
    for more, lowest in (([], 0.5), (["data.min_agreement=0.9"], 0.9)):
        whole = study(write(agreement=agreement), FEW, *more)
        judged = sources.make_images(whole, 1, "generator", 0, tmp_path)["privacy"]
        assert [values.min() for values in judged] == [lowest, lowest]


def test_folders_of_classes_have_names_of_their_own() -> None:
    assert class_folders(["a_b-2", "a_b", "a b"]) == ["a_b-2", "a_b", "a_b-2-2"]
    assert class_folders(["A", "a"]) == ["A", "a-1"]  # some file systems take "A" and "a" for one folder


def test_a_positive_control_that_hurts_shows_no_gain(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "contrast", lambda *arguments: dict.fromkeys(UNKNOWN, -0.1))
    outcomes = defaultdict(lambda: Outcome("", {}, None, 0.0, 1))
    notes = judging.judge(study(write()), outcomes, {}, [])["notes"]
    assert any(note.startswith("no gain of the positive control can be seen") for note in notes)


def test_an_estimator_that_cannot_judge_is_named(write: Write) -> None:
    whole = study(write(), *FAST[2:], "augmentation.estimator=KNeighborsClassifier",
                  "augmentation.options={n_neighbors=500}", 'augmentation.arms=["real", "synthetic"]')  # fmt: skip
    learner, fold = FeatureLearner(whole.settings, whole.fold(1).learn, 0), whole.fold(1)
    learner.fit(training_set(whole, fold, whole.variants[0], 0, None))
    with pytest.raises(PartError, match="KNeighborsClassifier cannot judge these images: Expected n_neighbors"):
        learner.apply(fold.test)


def test_verdicts_follow_the_rule() -> None:
    def word(value: float, half90: float, p: float, remedy: bool = True) -> str:
        entry = {"value": value, "low90": value - half90, "high90": value + half90, "p": p}
        return verdict(entry, 0.02, remedy)["word"]

    assert word(0.1, 0.05, 0.01) == "helps"
    assert word(-0.1, 0.05, 0.01) == "hurts"
    assert word(0.1, 0.12, 0.2) == "no evidence"
    assert word(0.005, 0.01, 0.2) == word(0.01, 0.005, 0.001) == "equivalent"
    assert word(0.1, 0.05, 0.01, remedy=False) == word(-0.1, 0.05, 0.01, remedy=False) == "no evidence"


def test_a_contrast_of_few_folds_knows_that_training_parts_overlap() -> None:
    folds = [np.full((2, 2), value) for value in (0.1, 0.2, 0.3)]
    found = contrast(folds, 0.5)
    half = 4.302653 * np.sqrt((1 / 3 + 1 / 2) * 0.01)  # Nadeau and Bengio, t of two degrees of freedom
    assert (found["low"], found["high"]) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-5)
    assert found["visible"] > half
    assert found["variances"] == pytest.approx({"folds": 0.01, "generators": 0, "classifiers": 0})
    assert contrast(folds, 0.5, patient_step=0.2) == found  # folds that differ say themselves how much
    assert contrast(folds[:1], 0.5)["value"] == pytest.approx(0.1)
    assert contrast(folds[:1], 0.5)["p"] is None
    assert contrast([], 0.5)["value"] is None
    uneven = contrast([np.array([[0.1, 0.1]]), np.array([[0.3, 0.3], [0.1, 0.1]])], 1.0)
    assert uneven["value"] == pytest.approx(0.15)


def test_folds_that_agree_by_chance_are_not_taken_for_certainty() -> None:
    """They spread as if one patient of one fold had been judged otherwise."""
    agreeing, otherwise = (contrast([np.full((2, 2), value) for value in (0.1, 0.1, last)], 0.5, patient_step=0.02)
                           for last in (0.1, 0.12))  # fmt: skip
    assert agreeing["value"] == pytest.approx(0.1)
    assert agreeing["high"] - agreeing["low"] == pytest.approx(otherwise["high"] - otherwise["low"])
    assert 0.001 < agreeing["p"] < 0.05
    alike = contrast([np.zeros((2, 2))] * 5, 0.25, patient_step=0.1)
    assert alike["low90"] < -0.02 < 0.02 < alike["high90"]  # nor for equivalence


def test_an_interval_is_never_narrower_than_that_of_the_patients() -> None:
    near = [np.full((1, 2), value) for value in (0.1, 0.101, 0.102)]
    found = contrast(near, 0.5, patient_variances=[0.01, 0.02, 0.03])
    half = 1.959964 * np.sqrt((1 / 3 + 1 / 2) * 0.02)
    assert (found["low"], found["high"]) == pytest.approx((0.101 - half, 0.101 + half), abs=1e-6)
    far = [np.full((1, 2), value) for value in (-0.4, 0.1, 0.6)]
    assert contrast(far, 0.5, patient_variances=[0.01, 0.02, 0.03]) == contrast(far, 0.5)


@pytest.mark.parametrize("endpoint", ["class", "presence", "severity"])
def test_gains_without_each_patient_are_those_of_all_others(write: Write, endpoint: str) -> None:
    settings = ['augmentation.positive=["few"]'] if endpoint == "presence" else []
    settings += ["augmentation.number=severity"] if endpoint == "severity" else []
    whole = study(write(), f"augmentation.endpoint={endpoint}", *settings)
    judge, part = Endpoint(whole), whole.fold(1).test
    outputs = np.random.default_rng(0).normal(size=(3, len(part), whole.outputs))
    groups = np.asarray(part.groups)
    expected = [np.mean([judge.gain(part, of_training, groups != group) for of_training in outputs])
                for group in np.unique(groups)]  # fmt: skip
    assert judge.left_out(part, outputs) == pytest.approx(np.array(expected))


@pytest.mark.parametrize(
    ("arms", "word"),
    [('"real"', "no evidence"), pytest.param('"real", "weights"', "helps", marks=pytest.mark.slow)],
)
def test_without_a_remedy_of_imbalance_nothing_helps(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arms: str, word: str
) -> None:
    great = {
        "value": 0.2,
        "low": 0.1,
        "high": 0.3,
        "low90": 0.11,
        "high90": 0.29,
        "p": 0.001,
        "visible": 0.1,
        "variances": None,
    }
    monkeypatch.setattr(judging, "contrast", lambda *arguments: great)
    whole = study(write(), *FAST, NO_CONTROLS, f'augmentation.arms=[{arms}, "synthetic"]')
    assert whole.run(tmp_path / "out", quiet=True).values["verdict"]["word"] == word


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
        assert "the contrast lacks 1 folds" in results.report.read_text()


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


# Mistakes


def test_keys_of_the_table_are_options_of_the_command() -> None:
    words = ["--folds", "3", "data.size=32", "--export-folds=a b", "--classical.rotate", "0"]
    assert own_options("augmentation", words) == [
        "augmentation.folds=3", "data.size=32", "augmentation.export_folds=a b", "augmentation.classical.rotate=0",
    ]  # fmt: skip
    with pytest.raises(SettingsError, match=r"--worker: the command has no such option, .*; did you mean 'workers'"):
        own_options("augmentation", ["--worker", "2"])
    with pytest.raises(SettingsError, match=r"--folds: a value is needed, as in --folds VALUE; it sets augmentation\."):
        own_options("augmentation", ["--folds"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["augmentation.endpoint=presence"], "augmentation.positive: the endpoint presence needs"),
        (["augmentation.endpoint=severity"], "augmentation.number: the endpoint severity needs"),
        (["augmentation.generator=false"], "^overrides: augmentation.arms: generated images need a source"),
        (['augmentation.arms=["real"]'], "augmentation.arms: generated images need a source"),
        (['augmentation.arms=["synthetic"]'], "augmentation.arms: no baseline"),
        (["augmentation.ratios=[]"], "augmentation.ratios: "),
        (["augmentation.strengths=[0.3333333,0.33333334]"], "augmentation.strengths: .*name each only once"),
        (['augmentation.positive=["few", "few"]'], "augmentation.positive: .*name each only once"),
        (['augmentation.others={copies={images="x"}}'], "'copies' is a source or an arm of the study's own"),
        (['augmentation.others={only={images="x"}}'], "'only' is a source or an arm of the study's own"),
        (["augmentation.others={x={}}"], "either images or command is needed"),
        (["augmentation.network=resnet81"], "torchvision has no network 'resnet81'"),
        (['data.conditional=["severity"]'], "data.conditional: the study conditions its generator"),
    ],
)
def test_settings_that_do_not_fit(write: Write, overrides: list[str], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as found:
        study(write(), *overrides)
    assert len(str(found.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("more", "overrides", "words"),
    [
        ({"labels": None, "class_names": None}, [], "the data have no labels of two classes or more"),
        ({"labels": np.zeros(N, int), "class_names": ["one"]}, [], "the data have no labels of two classes or more"),
        ({"groups": np.zeros(N, int)}, [], r"all 120 images are of 1 group \(patient\)"),
        ({"groups": np.repeat(range(6), 20)}, [], r"class 'few' is in 2 groups \(patients\), and 4 are needed"),
        ({"groups": None, "labels": np.repeat([0, 1], (117, 3))}, [], "class 'few' is in 3 images, and 4 are needed"),
        ({}, ["augmentation.endpoint=severity", "augmentation.number=sevrity"], "did you mean 'severity'"),
        ({"severity": np.full(N, np.nan)}, ["augmentation.endpoint=severity", "augmentation.number=severity"],
         "severity has missing values"),
        ({}, ["data.min_agreement=0.6"], "the data set does not record how many raters agreed"),
        ({"agreement": np.where(np.arange(N) < 3, np.nan, 1)}, ["data.min_agreement=0.6"], "NaN|no ratings|agreement"),
        ({}, ['augmentation.positive=["fw"]'], "npz has no class 'fw'; did you mean 'few'"),
        ({}, ['augmentation.positive=["many", "few"]'], "every class is positive"),
        ({}, ["augmentation.estimator=LogisticRegresion"], "has no classifier 'LogisticRegresion'; did you mean"),
        ({}, ["augmentation.estimator=json.JSONDecoder"], "json.JSONDecoder is no estimator of scikit-learn"),
        ({}, ["augmentation.estimator=nowhere.Forest"], "nowhere.Forest cannot be imported"),
        ({}, ["augmentation.estimator=.Forest"], ".Forest cannot be imported"),
        ({}, ["augmentation.estimator=SVC", 'augmentation.options={decision_function_shape="ovo"}'],
         "SVC is not a classifier with predict_proba, or decision_function by class"),
        ({}, [*FAST, "augmentation.options={D=1}"], "augmentation.options: LogisticRegression cannot be made"),
        ({}, ["augmentation.estimator=KNeighborsClassifier"], "KNeighborsClassifier takes no weights of images"),
        ({}, ['augmentation.others={x={command="none.py"}}'], "there is no file none.py"),
        ({}, ["augmentation.ratios=[1.0, 0.001]"], r"augmentation\.ratios: 0\.001 adds no image to any class"),
        ({"labels": np.repeat([0, 1], N // 2), "groups": None},
         [NO_CONTROLS, FEW, 'augmentation.ratios=["fill"]', "augmentation.validation=3"],
         r"augmentation\.ratios: nothing is added in fold-1, fold-2, whose classes are equally frequent"),
        ({}, ["generator.norm=none"], "uses labels in its normalisation"),
        ({}, ["augmentation.network=squeezenet1_1"], r"augmentation\.network: .* set augmentation\.input_size=224"),
    ],
)  # fmt: skip
def test_data_that_do_not_fit(
    write: Write, tmp_path: Path, more: dict[str, Any], overrides: list[str], words: str
) -> None:
    with pytest.raises(GankitError, match=words) as found:
        study(write(**more), *overrides).run(tmp_path / "out", quiet=True)
    assert len(str(found.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("setting", ["validation", "reserve"])
def test_parts_to_choose_on_are_fewer_where_no_class_has_so_many_cases(write: Write, setting: str) -> None:
    labels = np.repeat([0, 1], 10)
    path = write(images=draw_images(labels, 0), labels=labels, groups=None, severity=None)
    for fold in study(path, f"augmentation.{setting}=40").folds:
        assert all(len(np.unique(labels[places])) == 2 for places in fold.places.values())


def test_folders_of_others_that_do_not_serve(write: Write, tmp_path: Path) -> None:
    folds = tmp_path / "folds"
    whole = study(write(), *OTHERS, FEW, f'augmentation.others={{x={{images="{folds}"}}}}')
    labels = np.repeat([0, 1], 60)

    def refused(words: str) -> None:
        with pytest.raises(GankitError, match=words):
            whole.run(tmp_path / "out", quiet=True)
        assert not (tmp_path / "out").exists()

    refused("no generated images for fold-1, fold-2: put them into FOLD/generated/CLASS/")
    write_images(folds / "fold-1" / "generated", draw_images(labels, 1), labels)
    refused("no generated images for fold-2: put them")
    second = folds / "fold-2" / "generated"
    write_images(second, np.zeros((120, 9, 8), np.uint8), labels)
    refused(r"images are uint8 of 1 x 9 x 8 \(channels, height, width\), and those of the study uint8 of 1 x 8 x 8")
    write_images(second, draw_images(labels, 1), labels)
    save_image(second / "few" / "00099", np.zeros((1, 9, 8), np.uint8))  # one among many
    refused("few/00099.png is 9 x 8 pixels")
    for path in second.glob("few/*.png"):
        path.unlink()
    refused("0 images of 'few', and")
    write_images(second, draw_images(labels, 1), labels, ["fw", "few"])
    refused("the study has no class 'fw'; name the folders many, few")


@pytest.mark.parametrize("changed", ["images of others", "an image", "a label", "a number"])
def test_a_study_does_not_go_on_with_other_images(write: Write, tmp_path: Path, changed: str) -> None:
    """Its jobs have judged the ones that were there."""
    labels, severity = np.repeat([0, 1], COUNTS), np.arange(N) % 20.0
    path, folds = tmp_path / "data.npz", tmp_path / "folds"
    arrays = {"images": draw_images(labels, 0), "labels": labels, "class_names": CLASSES, "severity": severity}

    def whole() -> AugmentationStudy:
        save_arrays(path, arrays)
        return study(path, *OTHERS[:1], NO_CONTROLS, f'augmentation.others={{x={{images="{folds}"}}}}',
                     'augmentation.arms=["real", "synthetic"]', "augmentation.endpoint=severity",
                     "augmentation.number=severity", "augmentation.estimator=Ridge")  # fmt: skip

    def write_folds() -> None:
        for number in (1, 2):
            folder = folds / f"fold-{number}" / "generated"
            write_images(folder, draw_images(labels[20:], 1), labels[20:])
            files = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.png"))
            (folder / "labels.csv").write_text("file,class,severity\n" + "".join(
                f"{file},{file.partition('/')[0]},3\n" for file in files))  # fmt: skip

    write_folds()
    found = whole().run(tmp_path / "out", quiet=True).values
    assert whole().run(tmp_path / "out", quiet=True).values == found
    what = "the data"
    if changed == "images of others":
        what = "images of x for fold-1"
        save_image(folds / "fold-1" / "generated" / "many" / "00003", np.zeros((1, 8, 8), np.uint8))
    elif changed == "an image":
        arrays["images"][0, 0, 0] ^= 1
    elif changed == "a label":
        arrays["labels"] = np.where(np.arange(N) == 3, 1, labels)
    else:
        severity[5] += 1
    with pytest.raises(RunError, match=f"out: {what} changed since this study began; put back what was there, or"):
        whole().run(tmp_path / "out", quiet=True)


def test_what_a_study_of_so_many_cases_can_see_is_in_the_units_of_its_endpoint(write: Write) -> None:
    labels = np.repeat([0, 1, 2], (60, 40, 20))
    path = write(images=draw_images(labels, 0), labels=labels, groups=None, class_names=["a", "b", "c"])

    def seen(*overrides: str) -> float | None:
        whole = study(path, *overrides)
        return Endpoint(whole).visible(whole.division.dataset)

    assert seen() == visible_difference([60, 40, 20], 2)
    assert seen("augmentation.endpoint=presence", 'augmentation.positive=["b", "c"]') == visible_difference([60, 60], 2)
    assert seen("augmentation.endpoint=severity", "augmentation.number=severity") is None


def test_a_folder_of_other_folds_is_refused(write: Write, tmp_path: Path) -> None:
    path, folds = write(), f"augmentation.export_folds={tmp_path / 'folds'}"
    with pytest.raises(RunError, match="no generated images for fold-1"):
        study(path, *OTHERS, FEW, folds).run(tmp_path / "out", quiet=True)
    with pytest.raises(RunError, match="fold-1 holds the fold of other data or settings; choose another folder"):
        study(path, *OTHERS, FEW, folds, "training.seed=5").run(tmp_path / "out", quiet=True)


def test_images_that_a_stopped_export_of_other_folds_left_are_not_handed_over(write: Write, tmp_path: Path) -> None:
    """They may be test images of the folds that are written now."""
    folds = f"augmentation.export_folds={tmp_path / 'folds'}"
    left = tmp_path / "folds" / "fold-1" / "train" / "many" / "000999.png"
    left.parent.mkdir(parents=True)
    left.touch()
    whole = study(write(), *OTHERS, FEW, folds)
    with pytest.raises(
        RunError, match=r"fold-1/train is not empty; and there is no train\.csv of what it holds: delete"
    ):
        whole.run(tmp_path / "out", quiet=True)
    assert left.exists()


def test_folds_that_another_process_writes_are_left_to_it(write: Write, tmp_path: Path) -> None:
    folds = f"augmentation.export_folds={tmp_path / 'folds'}"
    with sole_writer(tmp_path / "folds" / "fold-1"), pytest.raises(BusyError, match=r"fold-1: process .* is writing"):
        study(write(), *OTHERS, FEW, folds).run(tmp_path / "out", quiet=True)


def test_a_number_does_not_take_the_place_of_another_column(write: Write, tmp_path: Path) -> None:
    severity = ["augmentation.endpoint=severity", "augmentation.estimator=Ridge", "augmentation.options={}"]
    path = write(digest=np.arange(N) % 7.0)
    whole = study(path, *OTHERS, *severity, "augmentation.number=digest", 'augmentation.arms=["real", "synthetic"]',
                  f"augmentation.export_folds={tmp_path / 'folds'}")  # fmt: skip
    with pytest.raises(DataError, match=r"number: digest is another column of train\.csv, .* give the number another"):
        whole.run(tmp_path / "out", quiet=True)
    assert not (tmp_path / "folds").exists()


def test_a_study_that_needs_more_images_says_how_many(write: Write, tmp_path: Path) -> None:
    path, wanted = write(), []
    for ratio in (1.0, 2.0):
        folds = f"augmentation.export_folds={tmp_path / 'folds'}"
        whole = study(path, *OTHERS, FEW, folds, f"augmentation.ratios=[{ratio}]")
        with pytest.raises(RunError, match="no generated images for fold-1"):
            whole.run(tmp_path / "out", quiet=True)
        wanted.append([int(row["images"]) for row in rows(tmp_path / "folds" / "fold-1" / "wanted.csv")])
    assert wanted[1] == [2 * count for count in wanted[0]]


@pytest.mark.parametrize(("folds", "out"), [("o", "o"), ("o/folds", "o"), ("folds", "folds/fold-2")])
def test_folds_and_study_do_not_share_a_folder(folds: str, out: str, write: Write, tmp_path: Path) -> None:
    exported = f"augmentation.export_folds={tmp_path / folds}"
    with pytest.raises(RunError, match="overlap; choose one outside it"):
        study(write(), *OTHERS, FEW, exported).run(tmp_path / out, quiet=True)
    assert not (tmp_path / out).exists()
    assert not (tmp_path / folds).exists()


def test_float_images_are_not_handed_over(write: Write, tmp_path: Path) -> None:
    path = write(images=draw_images(np.repeat([0, 1], COUNTS), 0).astype(np.float32))
    with pytest.raises(DataError, match="images of float32 with 1 channels cannot be handed over as pictures"):
        study(path, "data.value_range=[0, 255]", *OTHERS, FEW, f"augmentation.export_folds={tmp_path}").run(
            tmp_path / "o"
        )


def test_the_packaged_study_is_valid() -> None:
    packaged = load_study("augmentation", None, "data.counts=[40, 20, 40]")
    assert isinstance(packaged, AugmentationStudy)
    assert len(packaged.folds) == 5
    assert packaged.generator_experiment(3).data.conditional is True


def test_every_arm_is_on_the_page() -> None:
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "augmentation-study.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"| `{kind}` |" not in page] == []
