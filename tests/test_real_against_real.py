"""Real images against real ones: what a perfect generator reaches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from simulated_pools import Array, Mean, patients, rows, untold

from gankit.evaluation.extraction import as_part
from gankit.evaluation.uncertainty import real_against_real
from gankit.interfaces import Pool, Resampling


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


def test_perfect_images_look_as_real_as_real_ones_with_patients() -> None:
    """A generator that draws new patients is no better than real images, by real-real beside fake-real."""
    random = np.random.default_rng(1)
    real, groups = patients(random, 40, 25, 8)
    fake = patients(random, 40, 1, 8)[0]
    pool = Pool(rows(real, groups), rows(fake))
    found = real_against_real(as_part("metric", "frechet").build().resampling(pool), {"frechet": 0.0}, 0)["frechet"]
    assert 0.6 < found["value"] / found["fake_value_at_n"] < 1.7
