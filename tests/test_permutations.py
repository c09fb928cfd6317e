"""P-values, judged by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from simulated_pools import Array, Draw, patients, rows, untold

import gankit
from gankit.evaluation.extraction import as_part
from gankit.evaluation.uncertainty import p_values
from gankit.interfaces import Metric, Pool, Resampling, Rows


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
