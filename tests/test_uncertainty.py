"""What belongs to values, judged by simulation: p-values, standard errors, and real images against real ones."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

import gankit
from gankit import GankitError
from gankit.evaluation.design import wilson
from gankit.evaluation.entries import evaluate_metric
from gankit.evaluation.extraction import as_part
from gankit.evaluation.uncertainty import (
    influences,
    p_values,
    real_against_real,
    standard_errors,
    variances_of,
)
from gankit.interfaces import Metric, Pool, Resampling, Result, Rows
from gankit.metrics.kid import kernel_distance

Array = NDArray[Any]
Draw = Callable[[np.random.Generator], Pool]


def rows(features: Array, groups: Array | None = None) -> Rows:
    return Rows(features=features, groups=groups, ids=np.arange(len(features)))


def patients(random: np.random.Generator, count: int, images: int, dim: int) -> tuple[Array, Array]:
    """Features of images that are alike within a patient, and whose they are, in no order."""
    alike = np.repeat(random.normal(size=(count, dim)), images, axis=0)
    features, groups = alike + 0.3 * random.normal(size=alike.shape), np.repeat(np.arange(count), images)
    order = random.permutation(len(groups))
    return features[order], groups[order]


def untold(pool: Pool) -> Pool:
    """The same images, and nobody knows whose they are."""
    return Pool(rows(pool.real.required("features")), rows(pool.fake.required("features")))


def p_of(name: str, pool: Pool, permutations: int = 39, seed: int = 0) -> dict[str, float]:
    better = as_part("metric", name).build().better
    assert better is not None
    found = p_values(as_part("metric", name), pool, better, permutations, seed)
    return {key: entry["p_value"]["value"] for key, entry in found.items()}


def simulated(name: str, draw: Draw, repeats: int, permutations: int = 39) -> dict[str, Array]:
    found: dict[str, list[float]] = {}
    for repeat in range(repeats):
        pool = draw(np.random.default_rng(repeat))
        for key, p in p_of(name, pool, permutations, repeat).items():
            found.setdefault(key, []).append(p)
    return {key: np.array(values) for key, values in found.items()}


SHARE = pytest.mark.parametrize("share", [0.4, pytest.param(1.0, marks=pytest.mark.slow)])
"""Of the repeats of a simulation."""


def assert_uniform(p: Array, permutations: int = 39) -> None:
    """On 1 / (N + 1), 2 / (N + 1), ..., 1: chi-square over ten equal cells."""
    steps = np.rint(p * (permutations + 1)).astype(int)
    assert p == pytest.approx(steps / (permutations + 1))
    assert steps.min() >= 1
    counts = np.bincount((steps - 1) * 10 // (permutations + 1), minlength=10)
    assert stats.chisquare(counts).pvalue > 0.01


def assert_valid(p: Array, permutations: int = 39) -> None:
    """No more small ones than chance allows; ties make fewer."""
    assert p.min() >= 1 / (permutations + 1)
    for level in (0.025, 0.05, 0.1, 0.25, 0.5):
        count = int((p <= level + 1e-9).sum())
        assert stats.binom.sf(count - 1, len(p), level) > 0.005


class TestPermutations:
    @pytest.mark.parametrize(("name", "n", "m"), [("kid", 10, 10), ("kid", 8, 14), ("frechet", 10, 10)])
    @SHARE
    def test_uniform_where_the_distributions_are_equal(self, name: str, n: int, m: int, share: float) -> None:
        found = simulated(
            name, lambda draw: Pool(rows(draw.normal(size=(n, 3))), rows(draw.normal(size=(m, 3)))), int(300 * share)
        )
        assert_uniform(found[name])
        assert found[name].min() == 1 / 40

    @SHARE
    def test_shares_are_tied_often_and_their_p_values_too_large_rather_than_too_small(self, share: float) -> None:
        found = simulated(
            "precision-recall", lambda draw: Pool(rows(draw.normal(size=(40, 3))), rows(draw.normal(size=(40, 3)))),
            int(200 * share),
        )  # fmt: skip
        for p in found.values():
            assert_valid(p)
        assert_uniform(found["density"])  # seldom tied

    @pytest.mark.parametrize("name", ["frechet", "kid"])
    @SHARE
    def test_uniform_below_the_number_of_dimensions(self, name: str, share: float) -> None:
        found = simulated(
            name, lambda draw: Pool(rows(draw.normal(size=(9, 20))), rows(draw.normal(size=(9, 20)))), int(200 * share)
        )
        assert_uniform(found[name])

    @pytest.mark.parametrize("name", ["frechet", "kid", "precision-recall"])
    def test_smallest_under_a_clear_alternative(self, name: str) -> None:
        random = np.random.default_rng(0)
        pool = Pool(rows(random.normal(size=(30, 4))), rows(random.normal(size=(30, 4)) + 3))
        assert set(p_of(name, pool, 99).values()) == {0.01}

    def test_a_better_value_than_chance_s_is_no_small_p(self) -> None:
        """One-sided: generated images that are copies of the reals are nearer than chance makes them."""
        real = np.random.default_rng(0).normal(size=(30, 4))
        pool = Pool(rows(real), rows(real))
        assert p_of("frechet", pool, 99)["frechet"] == 1
        assert p_of("kid", pool, 99)["kid"] == 1
        assert p_of("precision-recall", pool, 99)["precision"] == 1

    @SHARE
    def test_whole_patients_are_exchanged_where_both_sides_have_them(self, share: float) -> None:
        def draw(random: np.random.Generator) -> Pool:
            return Pool(rows(*patients(random, 8, 4, 3)), rows(*patients(random, 8, 4, 3)))

        whole = simulated("kid", draw, int(300 * share))["kid"]
        assert_uniform(whole)
        # The fault that this avoids: singly exchanged, images of patients make two sets of one kind look unlike.
        singly = simulated("kid", lambda random: untold(draw(random)), int(100 * share))["kid"]
        assert (singly <= 0.05).mean() > 0.5
        assert stats.kstest(singly, "uniform").pvalue < 1e-6

    @SHARE
    def test_one_image_a_patient_takes_part_where_only_one_side_has_patients(self, share: float) -> None:
        def draw(random: np.random.Generator) -> Pool:
            return Pool(rows(*patients(random, 10, 4, 3)), rows(random.normal(size=(12, 3)) * math.hypot(1, 0.3)))

        assert_uniform(simulated("kid", draw, int(300 * share))["kid"])
        singly = simulated("kid", lambda random: untold(draw(random)), 100)["kid"]
        assert (singly <= 0.05).mean() > 0.1

    @pytest.mark.parametrize("side", ["real", "fake"])
    def test_which_images_take_part(self, side: str) -> None:
        seen: list[set[int]] = []

        @gankit.metrics.register("pool-spy")
        class Spy(Metric):
            needs = ("features",)
            better = "lower"

            def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
                return {"pool-spy": 0.0}

            def resampling(self, pool: Pool) -> Resampling:
                chosen = pool.real if side == "real" else pool.fake
                seen.append(set(chosen.required("ids").tolist()))
                assert len(np.unique(chosen.required("groups"))) == chosen.count
                return Resampling(self, pool)

        groups = np.random.default_rng(0).permutation(np.repeat(np.arange(7), 5))
        told, other = rows(np.zeros((35, 1)), groups), rows(np.zeros((12, 1)))
        pool = Pool(told, other) if side == "real" else Pool(other, told)
        entries = [p_values(as_part("metric", "pool-spy"), pool, "lower", 1, seed) for seed in range(80)]
        of_side = {
            (entry["pool-spy"]["p_value"]["n_real"], entry["pool-spy"]["p_value"]["n_fake"]) for entry in entries
        }
        assert of_side == {(7, 12) if side == "real" else (12, 7)}
        assert set.union(*seen) == set(range(35))  # any image of a patient may be the one
        assert all(len(ids) == 7 for ids in seen)

    def test_ties_count_as_chance_s(self) -> None:
        equal = Pool(rows(np.ones((6, 2))), rows(np.ones((9, 2))))
        assert p_of("frechet", equal) == {"frechet": 1}
        assert p_of("kid", equal) == {"kid": 1}
        # Two values only: of the divisions of 2 + 2 images, a third is as extreme as the observed one.
        two = Pool(rows(np.zeros((2, 1))), rows(np.ones((2, 1))))
        assert p_of("kid", two, 2999)["kid"] == pytest.approx(1 / 3, abs=0.03)
        assert p_of("frechet", two, 2999)["frechet"] == pytest.approx(1 / 3, abs=0.03)

    def test_the_order_of_images_does_not_turn_ties_into_differences(self) -> None:
        """Divisions that only swap copies give sums in another order: equal but for rounding."""
        random = np.random.default_rng(1)
        real, fake = (
            np.repeat(random.normal(size=(1, 30)), 5, axis=0),
            np.repeat(random.normal(size=(1, 30)), 5, axis=0),
        )
        p = p_of("kid", Pool(rows(real), rows(fake)), 1999)["kid"]
        assert p == pytest.approx(2 / math.comb(10, 5), abs=0.006)
        assert p > 1 / 2000

    def test_deterministic_under_a_seed(self) -> None:
        random = np.random.default_rng(3)
        pool = Pool(rows(*patients(random, 10, 2, 3)), rows(random.normal(size=(15, 3))))
        state = np.random.get_state()[1].copy()
        first, again = (p_of("frechet", pool, 199, seed=5) for _ in range(2))
        assert first == again
        assert len({p_of("frechet", pool, 199, seed)["frechet"] for seed in range(5)}) > 1
        np.testing.assert_array_equal(np.random.get_state()[1], state)


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


class TestRealAgainstReal:
    def floor(self, pool: Pool, seed: int) -> float:
        resampling = as_part("metric", "kid").build().resampling(pool)
        found = real_against_real(resampling, resampling.whole().values, seed)["kid"]
        assert found["n"] == 12
        return float(found["value"])

    def test_a_seed_decides_and_order_matters_in_detail_only(self) -> None:
        random = np.random.default_rng(0)
        real, fake = random.normal(size=(24, 3)) * [1, 2, 3], random.normal(size=(30, 3))
        pools = [Pool(rows(real[order]), rows(fake)) for order in (np.arange(24), random.permutation(24))]
        assert self.floor(pools[0], 1) == self.floor(pools[0], 1)
        assert self.floor(pools[0], 1) != self.floor(pools[1], 1)
        first, second = (np.array([self.floor(pool, seed) for seed in range(150)]) for pool in pools)
        assert stats.ks_2samp(first, second).pvalue > 0.05
        assert first.mean() == pytest.approx(second.mean(), abs=3 * math.hypot(first.std(), second.std()) / 150**0.5)

    def test_it_is_what_a_perfect_generator_reaches(self) -> None:
        """The Frechet distance is nearly all bias here, and the floor has as much as the fakes' value at its n."""
        floors, fakes = [], []
        for seed in range(60):
            real, fake = np.random.default_rng(seed).normal(size=(2, 40, 20))
            pool = Pool(rows(real), rows(fake))
            resampling = as_part("metric", "frechet").build().resampling(pool)
            values = resampling.values(pool.real_places, pool.fake_places)
            beside = real_against_real(resampling, values, seed)["frechet"]
            assert beside["n"] == 20
            floors.append(beside["value"])
            fakes.append(beside["fake_value_at_n"])
            assert values["frechet"] < beside["value"]  # of fewer images, hence of more bias
        differences = np.subtract(fakes, floors)
        assert abs(differences.mean()) < 3 * differences.std(ddof=1) / math.sqrt(60)
        assert np.mean(floors) > 10 * differences.std()

    def test_parts_of_patients_are_as_unlike_as_two_samples(self) -> None:
        """Halves that share patients would look more alike than two samples are."""
        told, alone = [], []
        for seed in range(60):
            random = np.random.default_rng(seed)
            pool = Pool(rows(*patients(random, 12, 4, 3)), rows(random.normal(size=(24, 3))))
            for given, found in ((pool, told), (untold(pool), alone)):
                resampling = as_part("metric", "variance-ratio").build().resampling(given)
                beside = real_against_real(resampling, {"variance-ratio": 1.0}, seed)["variance-ratio"]
                found.append(abs(math.log(beside["value"])))
        assert np.mean(told) > np.mean(alone)


def noise(n: int, seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (n, 1, 8, 8), dtype=np.uint8)


class Mean(Metric):
    """The mean of the first generated feature."""

    def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
        return {"mean": float(fake.required("features")[:, 0].mean())}


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


def test_one_image_of_each_patient_plays_the_generator_beside_all_images_of_the_other_half() -> None:
    seen: list[tuple[set[int], set[int]]] = []

    class Spy(Resampling):
        def values(self, real: Array, fake: Array) -> dict[str, float]:
            groups = self.pool.real.required("groups")
            assert (len(real), len(fake)) == (50, 10)
            if fake.max() < len(groups):
                seen.append((set(groups[real].tolist()), set(groups[fake].tolist())))
            return {"mean": 0.0}

    random = np.random.default_rng(0)
    real, groups = patients(random, 20, 50, 2)
    pool = Pool(rows(real, groups), rows(random.normal(size=(50, 2))))
    found = real_against_real(Spy(Mean(), pool), {"mean": 0.0}, 0)
    assert found["mean"]["n"] == 10
    assert len(seen) == 10
    for one, other in seen:
        assert not one & other  # twenty patients of one size: halves of ten
        assert len(one) >= 8
        assert len(other) == 10


def test_with_patients_a_worse_generator_is_worse_than_the_reals_and_a_perfect_one_is_not() -> None:
    """Were the part in the generator's place four alike images a patient, it would look worse than a bad generator."""
    gaps: dict[float, list[float]] = {0.0: [], 0.35: []}
    for seed in range(30):
        random = np.random.default_rng(seed)
        real, groups = patients(random, 25, 4, 16)
        for shift, found in gaps.items():
            pool = Pool(rows(real, groups), rows(patients(random, 100, 1, 16)[0] + shift))
            beside = real_against_real(as_part("metric", "kid").build().resampling(pool), {"kid": 0.0}, seed)["kid"]
            found.append(beside["fake_value_at_n"] - beside["value"])
    perfect, worse = (np.array(found) for found in gaps.values())
    assert abs(perfect.mean()) < 3 * perfect.std() / 30**0.5
    assert worse.mean() > 5 * worse.std() / 30**0.5


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


def test_perfect_images_look_as_real_as_real_ones_with_patients() -> None:
    """A generator that draws new patients is no better than real images, by real-real beside fake-real."""
    random = np.random.default_rng(1)
    real, groups = patients(random, 40, 25, 8)
    fake = patients(random, 40, 1, 8)[0]
    pool = Pool(rows(real, groups), rows(fake))
    found = real_against_real(as_part("metric", "frechet").build().resampling(pool), {"frechet": 0.0}, 0)["frechet"]
    assert 0.6 < found["value"] / found["fake_value_at_n"] < 1.7


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


def script() -> ModuleType:
    path = Path(__file__).parents[1] / "examples" / "standard_errors.py"
    spec = importlib.util.spec_from_file_location("standard_errors_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_population_values_of_the_script() -> None:
    """Its formulas, beside unbiased means over repeats and the value of very many images."""
    example = script()
    case = example.Case(6, 50, scale=0.5, shift=0.4, metrics=("kid", "variance-ratio"))
    truth, found = case.population(), example.simulate(case, 300, 0)
    values = found["kid"].values
    assert values.mean() == pytest.approx(truth["kid"], abs=3 * values.std() / math.sqrt(300))
    many = example.Case(6, 100_000, scale=0.5, shift=0.4, metrics=("frechet", "variance-ratio")).pool(0, 0)
    for name in ("frechet", "variance-ratio"):
        value = Result.of(as_part("metric", name).build(), many.real, many.fake).values[name]
        assert value == pytest.approx(truth[name], rel=0.03)
    assert example.Case(6, 50).population() == {"frechet": 0, "kid": pytest.approx(0), "variance-ratio": 1}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_the_page_on_standard_errors_says() -> None:
    """docs/measured/standard-errors.md, at fewer repeats of some of its sizes."""
    example = script()
    for n in (25, 100):
        for scale, shift in ((1.0, 0.0), (0.5, 0.1**0.5)):
            case = example.Case(64, n, scale, shift, metrics=("frechet", "kid", "precision-recall", "variance-ratio"))
            found, truth = example.simulate(case, 150, 60), case.population()
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
        example.simulate(example.Case(64, 100, images=4, told=told, metrics=("variance-ratio",)), 150, 0)
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
        case = example.Case(8, 40, images=images, told=known, metrics=("frechet", "kid"))
        for p in example.chances(case, both, 200).values():
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
