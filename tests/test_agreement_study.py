"""The study of rater agreement: the command, resuming, its pieces, and bad input."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import agreement_data
import numpy as np
import pytest
from agreement_data import NETWORKS, load, read_rows, run_command

import gankit
from gankit.errors import DataError, GankitError, RunError, SettingsError
from gankit.evaluation.latex import tabular
from gankit.runs.run import Run, open_run
from gankit.studies.agreement import study as agreement
from gankit.studies.agreement.arms import arm_at
from gankit.studies.agreement.findings import ROWS, Findings
from gankit.studies.agreement.judging import Estimator
from gankit.studies.agreement.report import read_pictures
from gankit.studies.reading import load_study
from gankit.training.data import prepare

votes = agreement_data.votes
words = agreement_data.words

FILES = (
    "trainings.csv", "table1.csv", "table2.csv", "table1.tex", "table2.tex", "table2-controls.tex", "privacy.csv",
    "privacy.tex",
)  # fmt: skip


@pytest.fixture(scope="module")
def done(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that the command made in one go."""
    folder = tmp_path_factory.mktemp("study") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        assert run_command(patch, *words, "--out", str(folder)) == 0
    return folder


@pytest.mark.parametrize("scopes", [["none", "critic"], ["critic", "none"], ["none"]])
def test_only_trainings_without_the_augment_start_without_it(
    scopes: list[str], words: list[str], tmp_path: Path
) -> None:
    study = load(None, *words, f"study.scopes={json.dumps(scopes)}")
    starts, *_ = study.work(tmp_path)
    augments = {}
    for job in starts.jobs:
        assert isinstance(job.run, functools.partial)
        augments[job.name] = study.experiment_of(*job.run.args).augment
    assert augments.pop("warm-start-seed0-none") is None
    assert [augment.scope for augment in augments.values() if augment] == [s for s in scopes if s != "none"]


def test_the_command_writes_a_report_tables_and_run_folders(done: Path) -> None:
    assert {path.name for path in done.iterdir()} == {"study.toml", "inputs.txt", "jobs", "report.html", *FILES}
    names = {path.name for path in (done / "jobs").iterdir() if path.is_dir()}
    assert names == {"warm-start-seed0", "reals", "sr0-seed0", "sr80-seed0", "sr80-random-subset-seed0"}
    for name in names - {"warm-start-seed0", "reals"}:
        run = open_run(done / "jobs" / name / "run")
        assert run.finished
        assert run.experiment.training.start_from == str(done / "jobs" / "warm-start-seed0" / "run")
        order = read_rows(done / "jobs" / name / "ranking.csv")
        scores = [float(row[2]) for row in order[1:]]
        assert scores == sorted(scores, reverse=True)
        assert sorted(int(row[1]) for row in order[1:]) == list(range(12))
    rows = read_rows(done / "table1.csv")
    assert rows[0] == ["SR", "<b>right</b> & co_1", "left", "all", "held out"]
    assert [row[0] for row in rows[1:]] == ["None", "80"]
    counted = [gankit.load(done / "jobs" / name / "run").run for name in ("sr0-seed0", "sr80-seed0")]
    assert [row[1:3] for row in rows[1:]] == [list(map(str, record.label_counts)) for record in counted if record]
    rows = read_rows(done / "table2.csv")
    assert [row[0] for row in rows[1:4]] == ["All", "Top 3", "Bot 3"]
    assert [row[4] for row in rows[1:4]] == ["12", "3", "3"]
    assert {row[2] for row in rows[1:]} == {"FD (pixels)", "KID", "precision", "recall"}
    facts: Any = SimpleNamespace(reals={"features": "timm", "protocol": {"network": "resnet18.a1_in1k"}})
    assert Findings.metric_name(facts, "frechet") == "FD (timm resnet18.a1_in1k)"
    assert any(row[:2] == ["Equal n", "random subset"] and row[3] == "held-out images" for row in rows)
    numbers = [text for row in rows[1:] for text in row[4:] if text]
    assert len(numbers) > 100
    assert all(np.isfinite(float(text)) for text in numbers)


@pytest.mark.parametrize("start", [0, 2])
def test_held_out_images_differ_from_what_a_generator_saw_in_nothing_else(
    start: int, words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    study = load(None, *words, f"study.warm_start={start}")
    judged = []
    for name in ("train_or_resume", "finished_run"):
        monkeypatch.setattr(agreement, name, lambda *given: SimpleNamespace(steps=3, path=tmp_path))
    monkeypatch.setattr(study, "judging", SimpleNamespace(run=lambda *given: {}))
    monkeypatch.setattr(agreement, "judge_privacy", lambda run, *sides: judged.append(sides) or {})
    whole = study.images.full, study.images.held_out
    *_, trainings = study.work(tmp_path)
    for job in trainings.jobs:
        job.run(tmp_path / job.name)
        arm, seed = study._arms_and_seeds()[job.name]
        training, held_out = judged.pop()
        agreed = arm.threshold and not arm.control
        if start:
            assert (training, held_out) == whole
            continue
        assert len(training) == len(study.images.training_of(arm, seed))
        assert len(held_out) < len(whole[1]) if agreed else len(held_out) == len(whole[1])
        if agreed:
            assert min(part.agreement.min() for part in (training, held_out)) >= 0.8
    assert len(trainings.jobs) == 3


def test_the_report_stands_alone_and_escapes(done: Path) -> None:
    page = (done / "report.html").read_text()
    assert "&lt;b&gt;right&lt;/b&gt; &amp; co_1" in page
    assert "<b>right" not in page
    assert all(value.startswith("data:image/png;base64,") for value in re.findall(r'src="([^"]{0,30})', page))
    assert not re.findall(r"<(?:link|script)", page)
    for text in ("cannot fill them", "every arm was trained once", "gankit study agreement", "@media print",
                 "Cannot be told", "random subset", "held-out images", "Copies and privacy"):  # fmt: skip
        assert text in page, text
    rates, weight = "0.0002 to 0.0001 over the first 2", "weight 10 to 5 over the first 3"
    average = "0 to 0.9 over the first 2"
    for text in (f"{rates} generator updates and 0.0005", f"({weight} ", f"averaged with {average} generator updates:"):
        assert text in page, text
    assert "Errata" not in page
    assert r"\textless{}b\textgreater{}right\textless{}/b\textgreater{} \& co\_1" in (done / "table1.tex").read_text()


def test_a_killed_study_goes_on_and_repeats_nothing(
    done: Path, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = tmp_path / "killed", agreement.train_or_resume

    def killed(experiment: gankit.Experiment, run: Path) -> Run:
        if run.parent.name != "sr80-seed0":
            return real(experiment, run)

        def kill(row: dict[str, Any]) -> None:
            if row["step"] == 2:
                raise KeyboardInterrupt

        return gankit.train(experiment, run, on_tick=kill)

    with monkeypatch.context() as patch:
        patch.setattr(agreement, "train_or_resume", killed)
        assert run_command(patch, *words, "--out", str(folder)) == 130
    assert open_run(folder / "jobs" / "sr80-seed0" / "run").steps == 1  # its newest checkpoint
    finished = {path: path.stat().st_mtime_ns for path in folder.rglob("result.json")}
    assert {path.parent.name for path in finished} == {"warm-start-seed0", "reals", "sr0-seed0"}
    went_on: list[str] = []
    monkeypatch.setattr(
        agreement, "train_or_resume", lambda *given: (went_on.append(given[1].parent.name), real(*given))[1]
    )
    assert run_command(monkeypatch, *words, "--out", str(folder)) == 0
    assert went_on == ["sr80-seed0", "sr80-random-subset-seed0"]
    assert all(path.stat().st_mtime_ns == then for path, then in finished.items())
    for name in FILES:
        assert (folder / name).read_bytes() == (done / name).read_bytes(), name


def test_a_finished_study_is_only_reported_again(
    done: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: (done / name).read_bytes() for name in FILES}
    monkeypatch.setattr(agreement, "train_or_resume", lambda *_: pytest.fail("nothing is left to train"))
    assert run_command(monkeypatch, str(done / "study.toml"), "--out", str(done)) == 0
    assert {name: (done / name).read_bytes() for name in FILES} == before
    assert run_command(monkeypatch, *words, "study.kept=4", "--out", str(done)) == 2
    assert "holds a study of other settings (study.kept was 3, is 4); choose another --out" in capsys.readouterr().err


def let_diverge(monkeypatch: pytest.MonkeyPatch, job: str) -> None:
    """The job's training ends with the error of one that diverged; others train."""
    real = agreement.train_or_resume

    def diverging(experiment: gankit.Experiment, run: Path) -> Run:
        if run.parent.name == job:
            raise RunError(f"{run}: the training diverged by step 2")
        return real(experiment, run)

    monkeypatch.setattr(agreement, "train_or_resume", diverging)


def test_a_training_that_diverges_is_marked(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    let_diverge(monkeypatch, "sr80-seed0")
    assert run_command(monkeypatch, *words, "study.warm_start=0", "--out", str(tmp_path / "s")) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("gankit: 1 of 4 jobs failed and are marked in the report (sr80-seed0: ")
    rows = read_rows(tmp_path / "s" / "table2.csv")
    marked = dict(zip(rows[0], rows[1], strict=True))
    assert [marked[f"SR:80{what}"] for what in ("", " error", " trainings", " failed")] == ["", "", "0", "1"]
    assert " & failed & " in (tmp_path / "s" / "table2.tex").read_text()
    page = (tmp_path / "s" / "report.html").read_text()
    assert "<td>failed</td>" in page
    assert "SR:80: failed" in page  # in the place of its grids
    assert page.count("There is no value of SR:80.") == 6
    assert "there is nothing to compare" not in page
    assert page.count("the training diverged by step 2") == 2  # at the top, and beside its folder


@pytest.mark.slow
def test_a_failed_warm_start_costs_the_trainings_of_its_seed(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_diverge(monkeypatch, "warm-start-seed1")
    results = load(None, *words, "study.seeds=2", "study.controls=[]").run(tmp_path / "s", quiet=True)
    failures = {name: outcome.failure for name, outcome in results.outcomes.items() if outcome.failure}
    assert set(failures) == {"warm-start-seed1", "sr0-seed1", "sr80-seed1"}
    assert failures["sr0-seed1"] == "warm-start-seed1 has failed, and this training needs its run"


# ---- pieces ---------------------------------------------------------------------------------------------------------


def test_the_packaged_study_has_the_arms_that_it_says() -> None:
    study = load(None, "data.counts=[125,45,100]", "data.size=16", "generator.widths=[8,8,8]",
                 "critic.widths=[8,8,8]")  # fmt: skip
    images, arms = study.images, study.arms()
    seeds = {arm.name: study.seeds_of(arm) for arm in arms}
    assert seeds == {
        "sr0": [0, 1, 2], "sr60": [0], "sr70": [0], "sr80": [0, 1, 2], "sr60-random-subset": [0],
        "sr70-random-subset": [0], "sr80-random-subset": [0, 1, 2], "sr0-critic-turn": [0], "sr60-critic-turn": [0],
        "sr70-critic-turn": [0], "sr80-critic-turn": [0], "sr0-none": [0], "sr60-none": [0], "sr70-none": [0],
        "sr80-none": [0],
    }  # fmt: skip
    digests, control = set(), arm_at(0.8, "random-subset")
    for arm, seed in [*((arm, 0) for arm in arms), (control, 1)]:
        experiment = study.experiment_of(arm, seed)
        data = prepare(experiment.data, experiment.training.seed)
        assert data.held_out is not None
        digests.add(data.held_out.dataset.digest())
        assert data.dataset.digest() == images.full.subset(images.training_of(arm, seed)).digest()
        assert (experiment.augment.scope if experiment.augment else "none") == (arm.scope or "critic")
    jobs = [job.name for work in study.work(Path("jobs")) for job in work.jobs]
    warm = ["warm-start-seed0", "warm-start-seed1", "warm-start-seed2", "warm-start-seed0-none"]  # the last: no augment
    assert [name for name in jobs if name.startswith("warm")] == warm
    assert len(digests) == 1  # the same images are held out of every training
    assert not np.array_equal(
        images.training_of(control, 0), images.training_of(control, 1)
    )  # each seed has a subset of its own
    assert images.equal_n == len(images.held_out_at(0.8)) < len(images.held_out)


def test_the_estimator_is_tried_on_reals_of_the_same_size() -> None:
    study = load(None, "data.counts=[60,20,50]", "data.size=32")
    assert study.measurement is not None
    estimator = Estimator(study.measurement, 10.0, study.images.held_out)
    assert estimator.useful
    assert estimator.trial["n"] == len(study.images.held_out)
    assert estimator.trial["median_error"] < 8
    assert estimator.trial["sensitivity"] + estimator.trial["specificity"] > 1.3
    counts = estimator.count(np.zeros((3, 3, 32, 32), np.uint8))
    assert counts == {"n": 3, "measured": 0, "strabismic": 0}
    assert load(None, "data.name=npz", "data.path=x.npz").measurement is None


def test_what_counts_as_positive_is_the_data_sets_to_say() -> None:
    def limit(*overrides: str) -> float | None:
        return load(None, *overrides).settings.measured_limit

    assert limit() == gankit.datasets.get("eyes").measurement.limit == 10
    assert limit("study.measured_limit=12") == limit("study.strabismic=12") == 12  # as files of gankit 0.1 say it
    assert limit("data.name=npz", "data.path=x.npz", "study.strabismic=12") is None  # nothing is measured


def test_a_folder_that_an_older_gankit_began_is_this_study(tmp_path: Path) -> None:
    text = load(None).toml()
    assert "measured_limit = 10.0" in text
    (tmp_path / "study.toml").write_text(text.replace("measured_limit", "strabismic"))
    with pytest.raises(RunError, match=r"other settings \(study.kept was 10, is 5\)"):  # and nothing else differs
        load(None, "study.kept=5").run(tmp_path)


def test_groups_give_standard_errors_by_group(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (40, 8, 8, 3), dtype=np.uint8)
    path = tmp_path / "g.npz"
    np.savez(path, images=images, agreement=np.ones(40), groups=np.arange(40) // 4)
    judge = load(None, "data.name=npz", f"data.path={path}", "data.size=8", "data.flip=false", *NETWORKS).judging
    assert len(np.unique(judge.full.groups)) == 8
    assert set(judge.full.groups).isdisjoint(judge.held_out.groups)


def test_tex_says_every_character_as_it_stands() -> None:
    lines = tabular(["a_b", "50 %"], [("", [["x & y", "3 ± 1"], ["{\\}^~#$", "<"]])]).splitlines()
    assert lines[0] == r"\begin{tabular}{lr}"
    assert lines[2] == r"a\_b & 50 \% \\"
    assert lines[4] == r"x \& y & 3 $\pm$ 1 \\"
    assert lines[5] == r"\{\textbackslash{}\}\textasciicircum{}\textasciitilde{}\#\$ & \textless{} \\"


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["study.threshold=[1]"], "override 'study.threshold=[1]': study.threshold: there is no such setting; did you"),
        (["study.thresholds=[0.8,0.6]"], "study.thresholds: each threshold must be above the one before"),
        (["study.thresholds=[0.66666666,0.66666667]"], "study.thresholds: each threshold must be above the one before"),
        (["study.thresholds=[80]"], "study.thresholds.0: input should be less than or equal to 1"),
        (["study.kept=60"], "the best and the worst 60 of 100 overlap; draw more or keep fewer"),
        (['study.scopes=["critic","critic"]'], "study.scopes: name each only once; these are ['critic', 'critic']"),
        (["data.held_out=0"], "data.held_out: a study judges against images kept from training"),
        (["data.min_agreement=0.7"], "data.min_agreement: study.thresholds decides this in a study"),
        (["data.subset=70"], "data.subset: study.controls decides this in a study"),
        (["data.subset_seed=7"], "data.subset_seed: study.controls decides this in a study"),
        (["training.max_minutes=3"], "training.max_minutes: a training of a study runs to its end"),
        (
            ["training.start_from=x"],
            "study agreement/eyes:13: study.warm_start: training.start_from already names a run",
        ),
        (["augment=none"], "study agreement/eyes:12: study.scopes: there is no augment whose scope could vary"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_their_place(overrides: list[str], told: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(told)):
        load(None, *overrides)


def test_recipes_and_tables_given_by_a_name_are_read_as_elsewhere(tmp_path: Path) -> None:
    assert load_study("agreement", "demo", "training.max_minutes=none").experiment.evaluation.count == 500
    other = load_study("agreement", "demo", "training.max_minutes=none", "data.name=npz", "data.path=x.npz")
    assert other.experiment.evaluation.count is None  # what a recipe says of its own data, as for `gankit.load`
    (tmp_path / "study.toml").write_text('data = "eyes"\n')
    assert load_study("agreement", tmp_path / "study.toml").experiment.data.held_out == 0.2


def test_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[data]\nname = "eyes"\nheld_out = 0.2\n\n[study]\nkept = 5\ndrawn = "many"\n')
    with pytest.raises(SettingsError, match=re.escape("mine.toml:7: study.drawn: a whole number is needed")):
        load(path)
    with pytest.raises(SettingsError, match="there is no such experiment file"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({}, "study.thresholds: npz has no raters' agreement to choose images by"),
        ({"agreement": np.where(np.arange(60) % 2 == 0, 0.9, 0.3)}, "0.8 leaves no training image of class 1 (of 24)"),
        ({"agreement": np.where(np.arange(60) < 6, 0.9, 0.3)}, "0.8 leaves 5 training images of npz; at least 10"),
        ({"agreement": np.full(60, 0.3)}, "0.8 leaves 0 training images of npz"),
    ],
)
def test_images_that_do_not_serve_are_refused_before_anything_is_written(
    facts: dict[str, Any], told: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, images=np.zeros((60, 8, 8, 3), np.uint8), labels=np.arange(60) % 2, **facts)
    study = load(None, "data.name=npz", f"data.path={path}", "data.size=8", *NETWORKS, "study.thresholds=[0,0.8]")
    with pytest.raises(DataError, match=re.escape(told)):
        study.run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_alone_are_told_in_one_line(
    real_data: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    path = real_data("retinamnist/retinamnist.npz")
    code = run_command(monkeypatch, "data.name=npz", f"data.path={path}", "--out", str(tmp_path / "out"))
    said = capsys.readouterr().err
    assert code == 2
    assert said.count("\n") == 1
    assert "npz has no raters' agreement" in said


def test_a_folder_that_holds_something_else_is_left_alone(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(GankitError, match="is not empty; it holds no study"):
        load(None, *words).run(tmp_path, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_picture_that_was_lost_is_named(tmp_path: Path) -> None:
    files = {f"{row}.png": "0" * 64 for row in ROWS}
    (tmp_path / "result.json").write_text(json.dumps({"files": files}))
    with pytest.raises(RunError, match=r"all\.png is not what this job wrote: delete"):
        read_pictures(SimpleNamespace(folder=tmp_path))  # type: ignore[arg-type]
