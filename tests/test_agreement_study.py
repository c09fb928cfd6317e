"""The study of rater agreement: the command, resuming, planted effects, its tables, and bad input."""

from __future__ import annotations

import copy
import csv
import dataclasses
import functools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import gankit
from gankit.cli import main
from gankit.errors import DataError, GankitError, RunError, SettingsError
from gankit.evaluation.design import wilson
from gankit.evaluation.latex import tabular
from gankit.interfaces import Metric
from gankit.report.pages import render
from gankit.runs.run import Run, open_run
from gankit.studies.agreement import study as agreement
from gankit.studies.agreement.arms import CONTROLS, arm_at
from gankit.studies.agreement.conclusions import conclusions, difference_from_reals
from gankit.studies.agreement.contrasts import contrast
from gankit.studies.agreement.findings import ROWS, Count, Findings, Spread, Trial, Where
from gankit.studies.agreement.judging import Estimator
from gankit.studies.agreement.report import read_pictures, warnings_of
from gankit.studies.agreement.study import Agreement
from gankit.studies.agreement.tables import EQUAL, rows, table1, table2
from gankit.studies.jobs import Outcome
from gankit.studies.reading import load_study
from gankit.training.data import prepare

NETWORKS = [
    "generator.widths=[4,4]", "generator.latent_dim=4", "critic.widths=[4,4]", "training.batch=4",
    "training.critic_steps=1", "training.steps=3", "training.tick_every=1", "training.sample_every=3",
    "training.checkpoint_every=1", "evaluation.features=pixels",
]  # fmt: skip


@pytest.fixture(scope="module")
def votes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 pictures of 8x8 in two classes, one with a name that pages must escape, and ten raters' votes."""
    folder = tmp_path_factory.mktemp("votes")
    draw = np.random.default_rng(0)
    classes = ("left", "<b>right</b> & co_1")
    lines = ["file,label," + ",".join(f"vote_{rater}" for rater in range(1, 11))]
    for number in range(60):
        label = number % 2
        picture = draw.integers(0, 60, (8, 8, 3), dtype=np.uint8)
        picture[:, 4 * label : 4 * label + 4] += 150
        Image.fromarray(picture).save(folder / f"{number}.png")
        agreeing = 10 if number % 3 else draw.integers(1, 7)
        calls = [classes[label if rater < agreeing else 1 - label] for rater in range(10)]
        lines.append(",".join([f"{number}.png", classes[label], *calls]))
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def words(votes: Path) -> list[str]:
    """Overrides of the packaged study for a study of this folder with tiny networks."""
    return [
        "data.name=folder", f"data.path={votes}", "data.size=8", "data.flip=false", *NETWORKS,
        "study.thresholds=[0,0.8]", "study.seeds_at_ends=1", "study.drawn=12", "study.kept=3", "study.warm_start=2",
        'study.scopes=["critic"]',
    ]  # fmt: skip


def load(file: Path | None, *overrides: str) -> Agreement:
    study = load_study("agreement", file, *overrides)
    assert isinstance(study, Agreement)
    return study


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gankit", "study", "agreement", *arguments])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


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


# ---- planted effects, with a generator that draws what it was trained on --------------------------------------------


def spreads(agreement_: NDArray[np.float64], wider: bool) -> NDArray[np.float64]:
    """How much images vary, by the agreement on them."""
    return np.where(agreement_ < 0.8, 40.0 if wider else 15.0, 15.0)


def squares(spread: NDArray[np.float64], draw: np.random.Generator) -> NDArray[np.uint8]:
    """Grey images of 4x4 squares, 8x8 pixels, that vary as told."""
    values = 128 + spread[:, None, None, None] * draw.normal(size=(len(spread), 1, 4, 4))
    return values.clip(0, 255).astype(np.uint8).repeat(2, 2).repeat(2, 3)


def perfect(real: Callable[..., Run], wider: bool) -> Callable[..., Run]:
    """Trainings whose generator draws new images of the distribution that it was trained on."""

    def trained(experiment: gankit.Experiment, folder: Path) -> Run:
        run = real(experiment, folder)
        known = prepare(experiment.data, experiment.training.seed).dataset.agreement
        assert known is not None

        def sample(n: int, labels: object = None, seed: int = 0) -> NDArray[np.uint8]:
            draw = np.random.default_rng([seed, len(known)])
            return squares(spreads(draw.choice(known, n), wider), draw)

        run.sample = sample  # type: ignore[method-assign]
        return run

    return trained


def altered(findings: Findings, alter: Callable[[Trial, dict[str, Any]], None]) -> Findings:
    """Findings of which each training's result was altered."""
    trials = []
    for trial in findings.trials:
        result = copy.deepcopy(trial.outcome.result)
        alter(trial, result)
        trials.append(dataclasses.replace(trial, outcome=dataclasses.replace(trial.outcome, result=result)))
    return dataclasses.replace(findings, trials=trials)


def planted_study(wider: bool, folder: Path) -> Findings:
    """A study of 500 images, of which half have an agreement of .9, the others of .4; these vary more if told so."""
    known, path = np.tile([0.9, 0.4], 250), folder / "planted.npz"
    np.savez(path, images=squares(spreads(known, wider), np.random.default_rng(1)), agreement=known)
    overrides = [
        "data.name=npz", f"data.path={path}", "data.flip=false", "data.size=8", "data.held_out=0.5",
        "generator.name=dcgan", "generator.width=2", "generator.latent_dim=2", "critic.widths=[2,2]", "augment=none",
        "study.scopes=[]", "study.thresholds=[0,0.8]", "study.seeds_at_ends=3", "study.drawn=100", "study.kept=10",
        "study.warm_start=0", "training.steps=1", "training.batch=4", "training.critic_steps=1",
        "evaluation.features={name='pixels',side=4}",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "train_or_resume", perfect(agreement.train_or_resume, wider))
        # Errors from ten groups of images: to leave out each image would take most of the time.
        patch.setattr("gankit.evaluation.uncertainty.MOST_LEFT_OUT_SINGLY", 10)
        patch.setattr(Metric, "jackknife_groups", 10)
        return load(None, *overrides).run(folder / "study", quiet=True).values


@pytest.fixture(scope="module")
def effect(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """A study in which higher agreement truly means a narrower distribution, and every generator is perfect."""
    return planted_study(True, tmp_path_factory.mktemp("effect"))


def test_the_tables_tell_a_planted_effect(effect: Findings) -> None:
    estimates = effect
    everything, chosen, control = arm_at(0.0), arm_at(0.8), arm_at(0.8, "random-subset")
    own, held_out, same = Where("drawn", "all"), Where("equal", "held-out"), Where("equal", "held-out-same")
    # A narrower distribution is nearer to its own images, and so are reals; but it is farther from all images.
    for arm, real_arm in ((everything, 0.0), (chosen, 0.8)):
        value, real = estimates.estimate(arm, own), estimates.between_reals(arm_at(real_arm), own)
        assert value is not None
        assert real is not None
        assert real["mean"] == pytest.approx(value.value, rel=0.25)
        assert (value.seeds, value.n_fake) == (3, 100)
    verdicts = {
        (name, where): difference.verdict
        for name, first in (("all", everything), ("random", control))
        for where in (own, held_out, same)
        if (difference := contrast(estimates, [(first, chosen)], where, same_reals=where != own))
    }
    assert verdicts == {
        ("all", own): "lower", ("all", held_out): "higher", ("all", same): "lower",
        ("random", own): "lower", ("random", held_out): "higher", ("random", same): "lower",
    }  # fmt: skip
    answers = [conclusion.answer for conclusion in conclusions(estimates)]
    # KID beside own images is 0 for every perfect generator, and of these few pixels hardly sees how much they vary.
    ends = "by FD (pixels), cannot be told by KID"
    assert answers[:4] == [f"yes {ends}", f"no, it rises {ends}", f"no, it is farther {ends}", f"yes {ends}"]
    assert answers[4].startswith("no, it goes the other way")
    assert answers[5] == "cannot be told: it falls, but so may 10 drawn at random"
    page = (estimates.trials[0].folder.parents[1] / "report.html").read_text()
    texts = page.split("<h3>")[1:7]
    assert "Between real images the same value goes from" in texts[0]
    assert all("Perfect networks would get" in text for text in texts[2:4])
    assert "Cannot be told: it falls, but so may 10 drawn at random." in texts[5]
    header, *lines = table2(estimates)
    narrow = dict(zip(header, next(row for row in lines if row[0] == "All" and row[2] == "FD (pixels)"), strict=True))
    assert float(narrow["All(SR:0)"]) > 2 * float(narrow["SR:80"])
    assert float(narrow["All(SR:0) real-real"]) > 2 * float(narrow["SR:80 real-real"])
    assert table1(estimates)[1:] == [["None", *2 * [str(len(estimates.images.full))], "250"],
                                     ["80", *2 * [str(estimates.images.counts(0.8)[0])],
                                      str(len(estimates.images.held_out_at(0.8)))]]  # fmt: skip


def test_with_one_seed_nothing_is_concluded(effect: Findings) -> None:
    first = [trial for trial in effect.trials if trial.seed == 0]
    answers = conclusions(dataclasses.replace(effect, trials=first))
    assert [conclusion.answer for conclusion in answers] == ["cannot be told"] * 6
    for conclusion in answers:
        differences = conclusion.facts.get("differences") or {"": conclusion.facts["difference"]}
        assert not any(difference.whole for difference in differences.values())


def test_the_rise_of_the_top_is_told_from_that_of_chance(effect: Findings) -> None:
    def answer(extra: float, chance: tuple[float, float, float] = (0, 0, 0)) -> str:
        def alter(trial: Trial, result: dict[str, Any]) -> None:
            if trial.arm.threshold:
                result["drawn"]["top"]["frechet"]["value"] += extra
                result["chance"]["frechet"]["mean"] += chance[trial.seed]

        answers = conclusions(altered(effect, alter))
        return next(found.answer for found in answers if found.question == "kept" and found.facts["row"] == "top")

    assert answer(0.0).startswith("no, it goes the other way by")
    assert answer(0.06) == "cannot be told"
    assert answer(1.0) == "yes"
    assert answer(1.0, (1.0, 1.0, 1.0)) == "cannot be told: it rises, but so may 10 drawn at random"
    assert answer(0.06, (1.0, 1.0, 1.0)) == "no, by less than 10 drawn at random"


def test_what_random_images_do_has_an_error_too(effect: Findings) -> None:
    """Where the random images of one training are far from those of another, their mean alone tells little."""

    def alter(trial: Trial, result: dict[str, Any]) -> None:
        if trial.arm == arm_at(0.8):
            result["drawn"]["top"]["frechet"]["value"] += 1.0
            result["chance"]["frechet"]["mean"] += (-3.0, 0.0, 3.0)[trial.seed]

    findings, where, arms = altered(effect, alter), Where("drawn", "top"), [arm_at(0.0), arm_at(0.8)]
    kept = next(found for found in conclusions(findings) if found.facts.get("row") == "top")
    assert kept.answer == "cannot be told: it rises, but so may 10 drawn at random"
    # The excess of each training by hand: what a two-way layout of three arms and three seeds leaves of it
    by_arm = [[trial for trial in findings.trials if trial.arm == arm] for arm in findings.arms()]
    values, chances = (
        np.array([[read(trial.outcome.result) for trial in trials] for trials in by_arm])
        for read in (lambda result: result["drawn"]["top"]["frechet"]["value"],
                     lambda result: result["chance"]["frechet"]["mean"])
    )  # fmt: skip
    excesses = values - chances
    left = excesses - excesses.mean(0) - excesses.mean(1, keepdims=True) + excesses.mean()
    errors = [findings.estimate(arm, where).real_error for arm in arms]  # type: ignore[union-attr]
    half = 2.7764451051977987 * np.sqrt((left**2).sum() / 4 * 2 / 3 + np.sum(np.square(errors)))  # 4 degrees of freedom
    first, second = (excesses[findings.arms().index(arm)].mean() for arm in arms)
    excess = kept.facts["excess"]
    assert (excess.value, excess.high - excess.value) == pytest.approx((second - first, half))
    # A mean over trainings, in standard deviations of a draw of one of them
    sds = [np.mean([trial.outcome.result["chance"]["frechet"]["sd"] ** 2
                    for trial in findings.trials if trial.arm == arm]) ** 0.5 for arm in arms]  # fmt: skip
    assert [findings.deviation(arm, "top") for arm in arms] == pytest.approx([first / sds[0], second / sds[1]])


def test_what_is_unknown_does_not_count_as_nothing(effect: Findings) -> None:
    where, pair = Where("equal", "held-out"), [(arm_at(0.0), arm_at(0.8))]

    def without(key: str, seeds: set[int]) -> Findings:
        def alter(trial: Trial, result: dict[str, Any]) -> None:
            if trial.seed in seeds:
                result["equal"]["held-out"]["frechet"][key] = None

        return altered(effect, alter)

    def spread(findings: Findings) -> Spread:
        found = findings.spread(where)
        assert found is not None
        return found

    known = [trial.outcome.result["equal"]["held-out"]["frechet"]["fake_variance"] for trial in effect.trials]
    of_first_seed = [value for value, trial in zip(known, effect.trials, strict=True) if trial.seed == 0]
    assert spread(without("fake_variance", {1, 2})).sampling == pytest.approx(np.mean(of_first_seed) ** 0.5)
    nothing = without("fake_variance", {0, 1, 2})
    assert spread(nothing).sampling is None
    row = next(row for row in rows(nothing) if row.images == EQUAL and row.reference == "held-out images")
    assert row.between == f"{spread(nothing).total:.2g}"
    once = dataclasses.replace(nothing, trials=[trial for trial in nothing.trials if trial.seed == 0])
    for findings in (once, without("real_influences", {0, 1, 2})):
        found = contrast(findings, pair, where, same_reals=True)
        assert found is not None
        assert (found.low, found.high, found.verdict) == (-np.inf, np.inf, "cannot be told")
        page = render(
            "gankit.studies", "agreement/conclusions.html.j2", findings=findings, conclusions=conclusions(findings),
            settings=findings.study.settings, images=findings.images, reals=findings.reals, measurement=None,
            trained=findings.arms(), headings={0.0: "All", 0.8: "SR:80"}, controls=CONTROLS,
        )  # fmt: skip
        assert f"a change of {found.value:+.3g} (its error is unknown)." in page


def test_scopes_of_one_training_each_are_compared_by_the_spread_of_their_pairs(effect: Findings) -> None:
    """What trainings of another scope differ by is not taken for known: arms and seeds may interact there."""
    extra, where, others = {0.0: 40.0, 0.8: 60.0}, Where("equal", "held-out"), []
    for trial in effect.trials:
        if trial.seed == 0 and not trial.arm.control:
            result = copy.deepcopy(trial.outcome.result)
            result["equal"]["held-out"]["frechet"]["value"] += extra[trial.arm.threshold]
            arm = arm_at(trial.arm.threshold, scope="critic-turn")
            outcome = dataclasses.replace(trial.outcome, result=result)
            others.append(dataclasses.replace(trial, arm=arm, outcome=outcome))
    findings = dataclasses.replace(effect, trials=[*effect.trials, *others])
    pairs = list(zip(findings.arms_of(), findings.arms_of(scope="critic-turn"), strict=True))
    found = contrast(findings, pairs, where, same_reals=True)
    assert found is not None
    half = 12.706204736 * 10  # Student's, 1 degree of freedom; the real images move both values alike
    assert (found.low, found.high) == pytest.approx((50 - half, 50 + half))
    assert found.by_pairs
    assert found.verdict == "cannot be told"


def test_intervals_of_shares_know_how_trainings_differ(effect: Findings, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = {arm_at(0.0): (10, 50, 90), arm_at(0.8): (20, 60, 100), arm_at(0.8, "random-subset"): (0, 40, 80)}
    monkeypatch.setattr(
        Findings, "measured_by_training", lambda self, arm, row: [Count(hits, 100, 100) for hits in shares[arm]]
    )
    assert effect.spread_of_shares("all") == pytest.approx((0.16, 6))
    low, high = effect.share_interval(arm_at(0.0), "all")
    half = 2.446911851 * np.sqrt(0.16 / 3)
    n = 1.959963985**2 * 0.25 / half**2  # as many independent images have that half-width
    assert (low, high) == pytest.approx(wilson(n / 2, n))
    assert high - low > 5 * np.diff(wilson(150, 300))[0]  # what the images alone would make of it


def test_real_images_of_one_patient_count_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    held_out, arm = SimpleNamespace(groups=np.arange(100) // 5), arm_at(0.0)
    images: Any = SimpleNamespace(held_out=held_out, held_out_of=lambda arm: np.arange(100), thresholds=[0.0])
    study: Any = SimpleNamespace(images=images)
    trials = [Trial(arm, seed, Path(), Outcome("", {}, None, 0.0, 1)) for seed in range(3)]
    measured = {"all": [Count(hits, 50, 50) for hits in (10, 12, 14)], None: [Count(40, 80, 100)]}
    monkeypatch.setattr(Findings, "measured_by_training", lambda self, arm, row: measured[row])
    findings = Findings(study, trials, {})
    assert findings.independent_reals(arm) == 16
    assert findings.share_interval(arm, None) == wilson(8, 16)
    (part,) = difference_from_reals(findings, "all").facts["parts"]
    (low, high), (real_low, real_high) = findings.share_interval(arm, "all"), wilson(8, 16)
    expected = -0.26 - np.hypot(0.24 - low, real_high - 0.5), -0.26 + np.hypot(high - 0.24, 0.5 - real_low)
    assert part["ends"] == pytest.approx(expected)  # of both shares' intervals


def test_shares_of_none_and_all_differ_by_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    images: Any = SimpleNamespace(held_out=SimpleNamespace(groups=None), thresholds=[0.0])
    trials = [Trial(arm_at(0.0), seed, Path(), Outcome("", {}, None, 0.0, 1)) for seed in range(2)]
    monkeypatch.setattr(
        Findings, "measured_by_training", lambda self, arm, row: [Count(0, 2, 2)] * 2 if row else [Count(2, 2, 2)]
    )
    found = difference_from_reals(Findings(SimpleNamespace(images=images), trials, {}), "all")  # type: ignore[arg-type]
    assert found.facts["parts"][0]["change"] == -1
    assert found.answer == "yes"
    assert -0.5 < found.facts["parts"][0]["ends"][1] < 0


def beyond_sampling(spread: Spread) -> float:
    """The standard deviation between trainings that the sampling of images does not explain."""
    assert spread.sampling is not None
    return float(np.sqrt(max(spread.total**2 - spread.sampling**2, 0.0)))


@pytest.mark.slow
def test_without_an_effect_none_is_told(tmp_path: Path) -> None:
    estimates = planted_study(False, tmp_path)
    assert [conclusion.answer for conclusion in conclusions(estimates)] == ["cannot be told"] * 6
    # Sampling explains all of the spread between generators that differ in nothing else.
    spread = estimates.spread(Where("equal", "held-out", "kid"))
    assert spread is not None
    assert spread.freedom == 6
    assert beyond_sampling(spread) < spread.total
    assert not [text for text in warnings_of(estimates) if "trained once" in text]


def test_differences_follow_from_seeds_and_sampling(effect: Findings) -> None:
    estimates = effect
    where = Where("equal", "held-out")
    values = {
        arm: np.array([
            trial.outcome.result["equal"]["held-out"]["frechet"]["value"]
            for trial in estimates.trials if trial.arm == arm
        ])
        for arm in estimates.arms()
    }  # fmt: skip
    sampling, moved = (
        {
            arm: np.mean(
                [trial.outcome.result["equal"]["held-out"]["frechet"][key]
                 for trial in estimates.trials if trial.arm == arm], axis=0
            )
            for arm in estimates.arms()
        }
        for key in ("fake_variance", "real_influences")
    )  # fmt: skip
    first, second = arm_at(0.0), arm_at(0.8)
    pooled = np.mean([found.var(ddof=1) for found in values.values()])
    # What an additive model of three arms and three seeds leaves, fitted by least squares.
    design = np.array([[1, a == 1, a == 2, s == 1, s == 2] for a in range(3) for s in range(3)], dtype=float)
    _, squares, *_ = np.linalg.lstsq(design, np.concatenate(list(values.values())), rcond=None)
    # The same real images: what they make of both values cancels as far as they move both alike.
    reals = np.sum((moved[second] - moved[first]) ** 2)
    half = 2.7764451051977987 * np.sqrt(squares[0] / 4 * 2 / 3 + reals)  # Student's, 4 degrees of freedom
    found = contrast(estimates, [(first, second)], where, same_reals=True)
    assert found is not None
    assert found.value == pytest.approx(values[second].mean() - values[first].mean())
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half))
    assert found.matched == 3
    spread = estimates.spread(where)
    assert spread is not None
    assert spread.total == pytest.approx(np.sqrt(pooled))
    everything = np.mean(list(sampling.values()))
    assert beyond_sampling(spread) == pytest.approx(np.sqrt(max(pooled - everything, 0)))


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
        (["training.start_from=x"], "study agreement/eyes:13: study.warm_start: training.start_from names a run"),
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
        ({}, "study.thresholds: npz knows no raters' agreement, so there is nothing to choose images by"),
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
    assert "npz knows no raters' agreement" in said


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
