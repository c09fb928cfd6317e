"""Folds and arms of a study of augmentation, and what its intervals and verdicts know."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import augmentation_data
import numpy as np
import pytest
import torch
from augmentation_data import COUNTS, FAST, FEW, NO_CONTROLS, N, Write, draw_images, rows, study

import gankit
from gankit.errors import PartError, RunError
from gankit.studies.augmentation import judging, sources
from gankit.studies.augmentation.contrasts import UNKNOWN, contrast, verdict
from gankit.studies.augmentation.endpoint import Endpoint
from gankit.studies.augmentation.estimators import FeatureLearner
from gankit.studies.augmentation.handover import class_folders
from gankit.studies.augmentation.learning import added_counts, training_set
from gankit.studies.augmentation.study import AugmentationStudy
from gankit.studies.fitting import TIMED_STEPS, WARM_UP_STEPS
from gankit.studies.jobs import Outcome
from gankit.studies.kinds import Examples

write = augmentation_data.write


def judged(whole: AugmentationStudy) -> dict[str, Any]:
    """The findings of a study whose jobs found nothing."""
    return judging.judge(whole, defaultdict(lambda: Outcome("", {}, None, 0.0, 1)), {}, [])


def notes_of(whole: AugmentationStudy) -> list[str]:
    """The notes of such a study."""
    notes: list[str] = judged(whole)["notes"]
    return notes


def test_no_group_is_in_two_parts_and_every_case_is_tested_once(write: Write) -> None:
    whole = study(write(), "augmentation.folds=3", "augmentation.repeats=2", "data.subset=30")
    assert [fold.number for fold in whole.folds] == [1, 2, 3, 4, 5, 6]
    for of_repeat in (whole.folds[:3], whole.folds[3:]):
        tested = np.concatenate([fold.places["test"] for fold in of_repeat])
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
    assert [note for note in notes_of(whole) if note.startswith(f"{twins} test images, over all folds, ")]


def test_a_class_with_a_single_patient_to_test_is_told(write: Write) -> None:
    labels = np.repeat([0, 1], (80, 10))
    data = write(images=draw_images(labels, 0), labels=labels, groups=np.arange(90) // 2, severity=np.arange(90.0))
    told = "a class has a single group (patient) to test in fold-1, fold-2, fold-3 and 2 more"
    assert [note for note in notes_of(study(data, "augmentation.folds=5", NO_CONTROLS)) if note.startswith(told)]
    assert not [note for note in notes_of(study(write(), "augmentation.folds=5")) if "single" in note]


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
    assert any(note.startswith("no gain of the positive control can be seen") for note in notes_of(study(write())))


def test_an_arm_that_cannot_differ_counts_as_a_comparison_without_a_p_value(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = study(write())
    first, second, *others = (arm.name for arm in whole.arms())
    p_values: dict[str, float | None] = {first: None, second: 0.01, **dict.fromkeys(others, 0.9)}
    found = {name: {"p": p, "chosen": [{}, {}]} for name, p in p_values.items()}
    monkeypatch.setattr(judging.Comparison, "of_arm", lambda self, arm: found[arm.name])
    arms = judged(whole)["arms"]
    assert arms[first]["p_holm"] is None
    assert arms[second]["p_holm"] == pytest.approx(0.01 * len(p_values))


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


def test_nothing_is_concluded_from_folds_that_neither_differ_nor_have_a_patient_step() -> None:
    """As of a number that both sides predict alike in every fold."""
    for value in (0.0, 0.1):
        found = contrast([np.full((1, 2), value)] * 4, 1 / 3, [0.0] * 4)
        assert found["value"] == pytest.approx(value)
        assert {found[key] for key in found.keys() - {"value"}} == {None}
        told = verdict({**found, "chosen": [{}] * 4}, 0.02, has_remedy=True)
        assert told == {"word": "no evidence", "why": "the folds hardly differ, so its error is unknown"}
    single = {**contrast([np.full((1, 2), 0.1)], 1 / 3), "chosen": [{}]}
    assert verdict(single, 0.02, has_remedy=True)["why"] == "too few folds have both sides"


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
