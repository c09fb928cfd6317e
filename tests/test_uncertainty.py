"""Standard errors, judged by simulation, and p-values of what cannot be tested."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from simulated_pools import Array, Draw, Mean, patients, rows, untold

import gankit
from gankit import GankitError
from gankit.evaluation.design import wilson
from gankit.evaluation.entries import evaluate_metric
from gankit.evaluation.extraction import as_part
from gankit.evaluation.uncertainty import influences, p_values, standard_errors, variances_of
from gankit.interfaces import Metric, Pool, Resampling, Result, Rows
from gankit.metrics.kid import kernel_distance

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import standard_errors as simulated


def spread(name: str, draw: Draw, repeats: int, errors: int) -> dict[str, tuple[Array, Array]]:
    """Values in so many repeats, and the standard errors of the first ones."""
    values: dict[str, list[float]] = {}
    found: dict[str, list[float]] = {}
    for repeat in range(repeats):
        pool = draw(np.random.default_rng(repeat))
        resampling = as_part("metric", name).build().resampling(pool)
        of_pool = resampling.values(pool.real_places, pool.fake_places)
        for key, value in of_pool.items():
            values.setdefault(key, []).append(value)
        if repeat < errors:
            for key, error in standard_errors(resampling, of_pool).items():
                assert error is not None
                found.setdefault(key, []).append(error)
    return {key: (np.array(values[key]), np.array(found[key])) for key in values}


def coverage(values: Array, errors: Array, truth: float) -> float:
    return float((np.abs(values[: len(errors)] - truth) <= 1.96 * errors).mean())


class TestStandardErrors:
    @pytest.mark.parametrize("scale", [1.0, 0.5])
    @pytest.mark.parametrize(("name", "repeats", "errors"), [("kid", 400, 400), ("frechet", 300, 30)])
    def test_coverage_of_the_expected_value(self, name: str, repeats: int, errors: int, scale: float) -> None:
        roots = np.arange(1, 9) ** -0.6

        def draw(random: np.random.Generator) -> Pool:
            real, fake = random.normal(size=(2, 60, 8)) * roots
            return Pool(rows(real), rows((1 - scale) + math.sqrt(scale) * fake))

        values, found = spread(name, draw, repeats, errors)[name]
        assert coverage(values, found, values.mean()) >= 0.9
        assert 0.9 < found.mean() / values.std(ddof=1) < 2
        if scale == 1:
            # Conservative, where both sides have one distribution.
            assert found.mean() > 1.1 * values.std(ddof=1)
            # Bias is no part of an error: the population value is 0 for both.
            assert coverage(values, found, 0) < 0.5 if name == "frechet" else coverage(values, found, 0) > 0.94

    def test_by_patient_where_images_of_patients_are_alike(self) -> None:
        def draw(random: np.random.Generator) -> Pool:
            return Pool(rows(*patients(random, 25, 4, 4)), rows(random.normal(size=(100, 4))))

        values, by_patient = spread("variance-ratio", draw, 300, 100)["variance-ratio"]
        _, by_image = spread("variance-ratio", lambda random: untold(draw(random)), 100, 100)["variance-ratio"]
        true = values.std(ddof=1)
        assert 0.8 < by_patient.mean() / true < 1.3
        assert by_image.mean() / true < 0.75

    def test_kid_s_closed_form_is_for_independent_images(self) -> None:
        random = np.random.default_rng(0)
        (real, groups), fake = patients(random, 10, 3, 4), random.normal(size=(20, 4))
        metric, value = as_part("metric", "kid").build(), {"kid": 0.0}

        def error(pool: Pool) -> float:
            found = standard_errors(metric.resampling(pool), value)["kid"]
            assert found is not None
            return found

        assert error(Pool(rows(real), rows(fake))) == pytest.approx(kernel_distance(real, fake)[1])
        fake_groups = np.arange(20) // 2
        for pool, units_ in (
            (Pool(rows(real, groups), rows(fake)), (groups, np.arange(20))),
            (Pool(rows(real), rows(fake, fake_groups)), (np.arange(30), fake_groups)),
        ):
            left = [
                [kernel_distance(real[units_[0] != name], fake)[0] for name in np.unique(units_[0])],
                [kernel_distance(real, fake[units_[1] != name])[0] for name in np.unique(units_[1])],
            ]
            variance = sum((len(values) - 1) * np.var(values) for values in left)
            assert error(pool) == pytest.approx(math.sqrt(variance))

    def test_many_groups_are_left_out_in_fifty_parts(self) -> None:
        random = np.random.default_rng(0)
        features, groups = patients(random, 201, 2, 2)
        pool = Pool(rows(features, groups), rows(random.normal(size=(5, 2))))
        parts: list[Any] = []

        class Spy(Resampling):
            def values_without(self, given: Any) -> Any:
                parts.extend(given)
                return super().values_without(given)

        found = influences(Spy(as_part("metric", "variance-ratio").build(), pool), "real", {"variance-ratio": 0.0})
        assert len(parts) == 50
        of_patients = [set(groups[places].tolist()) for places in parts]
        assert sum(map(len, of_patients)) == len(set.union(*of_patients)) == 201
        assert {len(names) for names in of_patients} == {4, 5}
        assert found["variance-ratio"] is not None

    @pytest.mark.parametrize("fails", [False, True])
    def test_a_value_that_a_leave_out_cannot_give_has_no_error(self, fails: bool) -> None:
        class Wavering(Metric):
            """One value needs the image that holds the largest feature; the other needs none."""

            def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
                column = real.required("features")[:, 0]
                if column.max() < 9:
                    if fails:
                        raise GankitError("no large feature")
                    return {"mean": float(column.mean())}
                return {"mean": float(column.mean()), "large": float(column.max())}

        features = np.arange(10.0)[:, None]
        pool = Pool(rows(features), rows(features))
        errors = standard_errors(Resampling(Wavering(), pool), {"mean": 4.5, "large": 9.0})
        assert errors["large"] is None
        if fails:
            assert errors["mean"] is None
        else:
            assert errors["mean"] == pytest.approx(features.std(ddof=1) / math.sqrt(10))

    def test_a_single_patient_or_two_images_tell_no_error(self) -> None:
        random = np.random.default_rng(0)
        for pool in (
            Pool(rows(random.normal(size=(8, 2)), np.zeros(8, int)), rows(random.normal(size=(8, 2)))),
            Pool(rows(random.normal(size=(8, 2))), rows(random.normal(size=(2, 2)))),
        ):
            entries, _ = evaluate_metric(as_part("metric", "frechet"), pool, 0)
            assert entries["frechet"]["standard_error"] is None


def noise(n: int, seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (n, 1, 8, 8), dtype=np.uint8)


def test_patients_of_unlike_numbers_of_images_weigh_as_they_must() -> None:
    """For a mean, the jackknife of parts of unlike sizes has a closed form in the means of the parts."""
    random = np.random.default_rng(0)
    sizes = np.array([55, 5, 9, 1, 20, 10])
    groups = np.repeat(np.arange(len(sizes)), sizes)
    features = random.normal(size=(len(groups), 1)) + random.normal(size=len(sizes))[groups, None]
    pool = Pool(rows(random.normal(size=(5, 1))), rows(features, groups))
    mean = float(features.mean())
    found = variances_of(influences(Resampling(Mean(), pool), "fake", {"mean": mean}))["mean"]
    of_parts = np.array([features[groups == group].mean() for group in range(len(sizes))])
    assert found == pytest.approx(float(((of_parts - mean) ** 2 / (len(groups) / sizes - 1)).mean()))


@pytest.mark.parametrize("shifts", [(0.7, -0.7), pytest.param((0.7, 0.7), marks=pytest.mark.slow)])
def test_the_error_of_a_difference_knows_that_both_values_share_their_reals(
    shifts: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generators that err in opposite directions: reals that move one value up move the other one down."""
    monkeypatch.setattr("gankit.evaluation.entries.real_against_real", lambda *given: {})  # to save time
    differences, errors, independent = [], [], []
    for seed in range(40):
        random = np.random.default_rng(seed)
        real = rows(random.normal(size=(40, 16)))
        entries = [
            evaluate_metric(as_part("metric", "kid"), Pool(real, rows(random.normal(size=(200, 16)) + shift)), seed)[0]
            for shift in shifts
        ]
        one, other = ({"protocol": {"real_content": "same"}, "metrics": entry} for entry in entries)
        compared = gankit.compare(one, other)["kid"]
        differences.append(compared["difference"])
        errors.append(compared["standard_error"])
        independent.append(math.hypot(*(entry["kid"]["standard_error"] for entry in entries)))
    true = float(np.std(differences, ddof=1))
    assert 0.85 < np.mean(errors) / true < 1.25
    covered = np.abs(np.array(differences) - np.mean(differences)) < 1.96 * np.array(errors)
    assert covered.mean() > 0.9
    if shifts[0] != shifts[1]:
        assert np.mean(independent) < 0.9 * np.mean(errors)


def test_the_error_of_a_difference_is_an_upper_bound_where_files_do_not_say_what_the_reals_do() -> None:
    entry = {"value": 1.0, "standard_error": 0.3, "n_real": 9, "n_fake": 9, "metric": {"name": "kid"}}
    same, others = ({"protocol": {"real_content": content}, "metrics": {"kid": entry}} for content in "ab")
    assert gankit.compare(same, same)["kid"]["standard_error"] == pytest.approx(0.6)
    assert gankit.compare(same, others, force=True)["kid"]["standard_error"] == pytest.approx(0.3 * math.sqrt(2))


def test_groups_of_unlike_sizes_are_not_exchanged_whole() -> None:
    random = np.random.default_rng(0)
    many, few = patients(random, 12, 6, 2), patients(random, 20, 2, 2)
    found = p_values(as_part("metric", "frechet"), Pool(rows(*many), rows(*few)), "lower", 9, 0)["frechet"]["p_value"]
    assert (found["n_real"], found["n_fake"]) == (12, 20)  # one image of each
    alike = p_values(as_part("metric", "frechet"), Pool(rows(*many), rows(*patients(random, 8, 6, 2))), "lower", 9, 0)
    assert (alike["frechet"]["p_value"]["n_real"], alike["frechet"]["p_value"]["n_fake"]) == (72, 48)


@pytest.mark.parametrize("name", ["frechet", "kid", "precision-recall"])
def test_a_test_that_cannot_be_made_costs_no_evaluation(name: str) -> None:
    random = np.random.default_rng(0)
    pool = Pool(rows(random.normal(size=(40, 2)), np.zeros(40, int)), rows(random.normal(size=(6, 2))))
    entries, warnings = evaluate_metric(as_part("metric", name), pool, 0, 19)
    entry = next(iter(entries.values()))
    assert "p_value" not in entry
    assert math.isfinite(entry["value"])
    assert any("no p-value" in warning for warning in warnings)


def test_a_value_that_nothing_changes_has_no_error_that_can_be_told() -> None:
    """Sets far apart: every precision is 0, of all images and without any."""
    random = np.random.default_rng(0)
    real, fake = random.normal(size=(30, 2)), random.normal(size=(30, 2)) + 100
    entries, _ = evaluate_metric(as_part("metric", "precision-recall"), Pool(rows(real), rows(fake)), 0)
    assert entries["precision"]["value"] == 0
    assert entries["precision"]["standard_error"] is None


def test_the_k_of_the_whole_is_kept_when_images_are_left_out() -> None:
    random = np.random.default_rng(0)
    pool = Pool(rows(random.normal(size=(41, 3))), rows(random.normal(size=(41, 3))))
    resampling = as_part("metric", "precision-recall").build().resampling(pool)
    fixed = as_part("metric", {"name": "precision-recall", "k": 4}).build().resampling(pool)
    parts = [pool.real_places[:3], pool.fake_places[5:9]]
    assert resampling.values_without(parts) == fixed.values_without(parts)
    assert resampling.values(pool.real_places[3:], pool.fake_places) != fixed.values(
        pool.real_places[3:], pool.fake_places
    )


def test_metrics_that_clash_get_numbers() -> None:
    metrics = ["kid", "kid", {"name": "precision-recall", "k": 2}, {"name": "precision-recall", "k": 3}, "kid"]
    report = gankit.evaluate(noise(30, 0), noise(30, 1), metrics, {"name": "pixels", "side": 2}, permutations=9)
    found = report["metrics"]
    shares = ["precision", "recall", "density", "coverage"]
    assert list(found) == ["kid", "kid-2", *shares, *(f"{name}-2" for name in shares), "kid-3"]
    assert found["kid"] == found["kid-2"] == found["kid-3"]
    assert found["precision"]["metric"]["k"] == 2
    assert found["precision-2"]["metric"]["k"] == 3
    assert found["precision-2"]["value"] >= found["precision"]["value"]


def test_population_values_of_the_script() -> None:
    """Its formulas, beside unbiased means over repeats and the value of very many images."""
    case = simulated.Case(6, 50, scale=0.5, shift=0.4, metrics=("kid", "variance-ratio"))
    truth, found = case.population(), simulated.simulate(case, 300, 0)
    values = found["kid"].values
    assert values.mean() == pytest.approx(truth["kid"], abs=3 * values.std() / math.sqrt(300))
    many = simulated.Case(6, 100_000, scale=0.5, shift=0.4, metrics=("frechet", "variance-ratio")).pool(0, 0)
    for name in ("frechet", "variance-ratio"):
        value = Result.of(as_part("metric", name).build(), many.real, many.fake).values[name]
        assert value == pytest.approx(truth[name], rel=0.03)
    assert simulated.Case(6, 50).population() == {"frechet": 0, "kid": pytest.approx(0), "variance-ratio": 1}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_the_page_on_standard_errors_says() -> None:
    """docs/measured/standard-errors.md, at fewer repeats of some of its sizes."""
    for n in (25, 100):
        for scale, shift in ((1.0, 0.0), (0.5, 0.1**0.5)):
            case = simulated.Case(64, n, scale, shift, metrics=("frechet", "kid", "precision-recall", "variance-ratio"))
            found, truth = simulated.simulate(case, 150, 60), case.population()
            for name in ("frechet", "kid", "variance-ratio"):
                assert found[name].coverage(found[name].expected) >= 0.87
                assert 0.8 < found[name].ratio < 2.5
            if scale == 1:
                for name in ("precision", "recall", "density", "coverage"):
                    assert found[name].coverage(found[name].expected) >= 0.85
            assert found["frechet"].coverage(truth["frechet"]) == 0
            assert found["frechet"].expected > truth["frechet"] + 5
            assert found["kid"].coverage(truth["kid"]) >= 0.87
            noise_ = found["kid"].values.std() / math.sqrt(150)
            assert found["kid"].expected == pytest.approx(truth["kid"], abs=3.5 * noise_)
    told, alone = (
        simulated.simulate(simulated.Case(64, 100, images=4, told=told, metrics=("variance-ratio",)), 150, 0)
        for told in (True, False)
    )
    assert told["variance-ratio"].ratio > 0.8
    assert alone["variance-ratio"].ratio < 0.75
    valid = (0.01, 0.09)
    for images, known, both, (low, high) in (
        (1, True, False, valid),
        (4, True, True, valid),
        (4, False, True, (0.3, 1)),
        (4, True, False, valid),
        (4, False, False, (0.1, 1)),
    ):
        case = simulated.Case(8, 40, images=images, told=known, metrics=("frechet", "kid"))
        for p in simulated.chances(case, both, 200).values():
            assert low <= (p <= 0.05 + 1e-9).mean() <= high
            assert p.min() >= 1 / 40


def test_wilson_against_closed_form_values() -> None:
    # k = 0: [0, z^2 / (n + z^2)]; k = n: [n / (n + z^2), 1]; the half-widths are those of Wilson's formula at p = 0.8.
    z2 = stats.norm.ppf(0.975) ** 2
    assert wilson(0, 10) == pytest.approx((0, z2 / (10 + z2)))
    assert wilson(10, 10) == pytest.approx((10 / (10 + z2), 1))
    assert wilson(0, 0) == (0, 1)
    for n, half in ((100, 0.078), (200, 0.055), (400, 0.039), (600, 0.032)):
        low, high = wilson(0.8 * n, n)
        assert (high - low) / 2 == pytest.approx(half, abs=5e-4)
    for k, n in ((3, 17), (42, 49), (1, 2), (0, 5), (5, 5), (37, 400)):
        expected = stats.binomtest(k, n).proportion_ci(method="wilson")
        assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_value_that_is_not_a_number_has_no_p_value_and_one_by_chance_counts_as_worse() -> None:
    @gankit.metrics.register("sometimes-a-number")
    class Sometimes(Metric):
        better = "lower"

        def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
            observed = real.required("features").sum() == 0.0
            return {"never": np.nan, "observed": 1.0 if observed else np.nan}

    pool = Pool(rows(np.zeros((6, 2))), rows(np.ones((6, 2))))
    assert p_values(as_part("metric", "sometimes-a-number"), pool, "lower", 9, 0) == {
        "observed": {"p_value": {"value": 1.0, "permutations": 9, "n_real": 6, "n_fake": 6}}
    }
