"""Planted effects in the study of agreement, with a generator that draws what it was trained on."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from agreement_data import load
from numpy.typing import NDArray

import gankit
from gankit.evaluation.design import wilson
from gankit.interfaces import Metric
from gankit.report.pages import render
from gankit.runs.run import Run
from gankit.studies.agreement import study as agreement
from gankit.studies.agreement.arms import CONTROLS, arm_at
from gankit.studies.agreement.conclusions import conclusions, difference_from_reals
from gankit.studies.agreement.contrasts import contrast
from gankit.studies.agreement.findings import Count, Findings, Spread, Trial, Where
from gankit.studies.agreement.report import warnings_of
from gankit.studies.agreement.tables import EQUAL, rows, table1, table2
from gankit.studies.jobs import Outcome
from gankit.training.data import prepare


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

    def never_differ(trial: Trial, result: dict[str, Any]) -> None:
        of = result["equal"]["held-out"]["frechet"]
        influences = np.zeros_like(of["real_influences"]).tolist()
        of |= {"value": 1 + trial.arm.threshold, "fake_variance": 0.0, "real_influences": influences}

    for findings in (once, without("real_influences", {0, 1, 2}), altered(effect, never_differ)):
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
