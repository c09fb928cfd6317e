"""The Frechet distance as a metric: resamples, moments, and rows that are read in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
from frechet_rows import Array, moments, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from gankit import GankitError, build
from gankit.cache import row_blocks
from gankit.interfaces import Moments, Pool, Resampling, Rows
from gankit.metrics import _frechet_resampling
from gankit.metrics.frechet import Frechet, frechet_distance


class TestMetric:
    real, fake = rows(50, 30, 1), rows(33, 30, 2) * 2  # fewer than twice the dimension: computed from rows
    many_real, many_fake = rows(500, 30, 1) + 5, rows(400, 30, 2) * 2  # more: from moments

    def value(self, real: Array, fake: Array) -> float:
        return Frechet().compute(Rows(features=real), Rows(features=fake)).values["frechet"]

    def test_value(self) -> None:
        metric = build("metric", "frechet")
        assert metric.needs == ("features",)
        result = metric.compute(Rows(features=self.real), Rows(features=self.fake))
        assert result.values == {"frechet": frechet_distance(self.real, self.fake)}

    @pytest.mark.parametrize(("n", "m"), [(500, 400), (59, 60), (60, 59), (60, 60), (59, 59), (2, 400)])
    def test_moments_give_what_rows_give(self, n: int, m: int) -> None:
        real, fake = self.many_real[:n], self.many_fake[:m]
        assert self.value(real, fake) == pytest.approx(frechet_distance(real, fake), rel=1e-10)

    def test_an_offset_costs_no_digits_of_moments(self) -> None:
        whole = frechet_distance(self.many_real, self.many_fake)
        found = self.value(self.many_real + 1e6, self.many_fake + 1e6)
        assert found == pytest.approx(whole, rel=1e-8)  # sums of products instead of co-moments lose all of it

    @pytest.mark.parametrize("offset", [0.0, 1e4])
    def test_identical_sets_are_at_exactly_zero_in_any_order(self, offset: float) -> None:
        shuffled = np.random.default_rng(0).permutation(self.many_real)
        assert self.value(self.many_real + offset, self.many_real + offset) == 0
        assert self.value(self.many_real + offset, shuffled + offset) == 0

    def test_statistics_stand_for_rows(self) -> None:
        stored = Rows(statistics=Moments(500, *moments(self.many_real)))
        found = Frechet().compute(stored, Rows(features=self.fake)).values["frechet"]
        assert found == pytest.approx(frechet_distance(self.many_real, self.fake), rel=1e-9)
        broken = Rows(statistics=Moments(3, np.zeros(2), np.array([[1.0, 0.5], [0.4, 1.0]])))
        with pytest.raises(GankitError, match="not symmetric"):
            Frechet().compute(broken, Rows(features=self.fake[:, :2]))

    def test_few_images_are_warned_of(self) -> None:
        few = Frechet().compute(Rows(features=self.real[:20]), Rows(features=self.many_fake))
        assert "20 images in 30 dimensions" in few.warnings[0]
        many = Frechet().compute(Rows(features=self.many_real), Rows(features=self.many_fake))
        assert many.warnings == []

    @pytest.mark.parametrize("n", [20, 500])
    def test_errors(self, n: int) -> None:
        real = Rows(features=self.many_real[:n])
        for fake, message in (
            (Rows(), "the generated images have no features"),
            (Rows(features=self.fake[:0]), "0 rows"),
            (Rows(features=self.fake[:1]), "1 row;"),
            (Rows(features=self.fake[:, 1:]), "differ in dimension"),
            (Rows(features=np.full((2, 30), np.nan)), "NaN or infinite"),
            (Rows(features=self.fake[:, 0]), r"must be \(n, d\)"),
        ):
            with pytest.raises(GankitError, match=message):
                Frechet().compute(real, fake)
        with pytest.raises(GankitError, match="the real images have no features"):
            Frechet().compute(Rows(), real)


class TestMoments:
    x = rows(1000, 7, 3) * 3 + 10

    @pytest.mark.parametrize("size", [1, 7, 250, 4096])
    def test_blocks_of_any_size_give_mean_and_covariance(self, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gankit.interfaces.rows.row_blocks", lambda array: row_blocks(array, size))
        found = Moments.of(self.x)
        assert found.n == 1000
        np.testing.assert_allclose(found.mean, self.x.mean(0), rtol=1e-13)
        np.testing.assert_allclose(found.covariance, np.cov(self.x.T), rtol=1e-12, atol=1e-13)

    @pytest.mark.parametrize("mode", ["r", "c", "r+"])
    def test_memory_maps_and_their_slices(self, mode: Any, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", self.x)
        mapped = np.load(tmp_path / "x.npy", mmap_mode=mode)
        expected = self.x.copy()
        if mode != "r":
            mapped[3] = expected[3] = -5  # must survive the reading
        for part in (slice(None), slice(100, 900), slice(None, None, 3)):
            assert np.array_equal(np.concatenate(list(row_blocks(mapped[part], 64))), expected[part])
        np.testing.assert_array_equal(Moments.of(mapped).mean, Moments.of(expected).mean)
        np.testing.assert_array_equal(mapped, expected)

    def test_of_a_memory_map_few_rows_are_in_memory(self, tmp_path: Path) -> None:
        """200 MB of features in a file, in a process of its own."""
        code = """
import sys, numpy as np
from gankit.interfaces import Rows
from gankit.metrics.frechet import Frechet
def memory(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) / 1024
path, n, d = sys.argv[1], 200_000, 256
mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, d))
draw = np.random.default_rng(0)
for start in range(0, n, 50_000):
    mapped[start : start + 50_000] = draw.standard_normal((50_000, d), dtype=np.float32)
del mapped
x = np.load(path, mmap_mode="r")
Frechet().compute(Rows(features=x[:1000]), Rows(features=x[-1000:]))
open("/proc/self/clear_refs", "w").write("5")
before = memory("VmRSS")
value = Frechet().compute(Rows(features=x[: n // 2]), Rows(features=x[n // 2 :])).values["frechet"]
print(value, memory("VmHWM") - before)
"""
        done = processes.run(str(tmp_path / "x.npy"), code=code)
        assert done.returncode == 0, done.stderr
        value, growth = map(float, done.stdout.split())
        assert 0 < value < 1
        assert growth < 100

    def test_few_rows(self) -> None:
        with pytest.raises(GankitError, match="1 row of features; a covariance needs at least 2"):
            Moments.of(self.x[:1])


class TestParts:
    """Distances between parts of one pool, as standard errors, splits and permutations ask for them."""

    @pytest.mark.parametrize(("n", "m", "d"), [(30, 25, 50), (40, 45, 10), (60, 20, 30), (20, 60, 30), (9, 8, 4)])
    @pytest.mark.parametrize("size", [1, 4])
    @pytest.mark.parametrize(
        ("integral_from", "error"), [(_frechet_resampling.LARGEST_WITHOUT_INTEGRAL, 1e-9), (0, 1e-6)]
    )
    def test_parts_equal_the_distance_of_their_rows(
        self, n: int, m: int, d: int, size: int, integral_from: int, error: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_frechet_resampling, "LARGEST_WITHOUT_INTEGRAL", integral_from)
        x, y = rows(n, d, 1, decay=0.6) + 7, rows(m, d, 2, decay=0.6) * 1.3
        x[:, 0] *= 30  # as the brightness of pixels, beside all else that they show
        y[:, 0] *= 30
        pool = Pool(Rows(features=x.astype(np.float32)), Rows(features=y.astype(np.float32)))
        all_rows = np.vstack([x, y]).astype(np.float32)
        resampling = Frechet().resampling(pool)
        draw = np.random.default_rng(0)
        for _ in range(3):
            order = draw.permutation(n + m)
            one, other = order[: n // 2], order[n // 2 : n // 2 + max(2, m // 3)]
            truth = frechet_distance(all_rows[one], all_rows[other])
            assert resampling.values(one, other)["frechet"] == pytest.approx(truth, rel=1e-9)
        parts = [
            draw.choice(side, size, replace=False) for side in (pool.real_places, pool.fake_places) for _ in range(3)
        ]
        exact = Resampling(Frechet(), pool).values_without(parts)
        for found, expected in zip(resampling.values_without(parts), exact, strict=True):
            assert found["frechet"] == pytest.approx(expected["frechet"], rel=error)
        assert resampling.values_without([]) == []
        with pytest.raises(AssertionError, match="each part must be of one side"):
            resampling.values_without([np.array([0, n])])

    def test_small_eigenvalues_are_kept(self) -> None:
        draw, spread = np.random.default_rng(0), np.arange(1.0, 51) ** -2
        x, y = draw.normal(size=(30, 50)) * spread, (1.3 * draw.normal(size=(25, 50)) + 0.1) * spread
        pool = Pool(Rows(features=x), Rows(features=y))
        parts = [np.array([place]) for place in (*pool.real_places, *pool.fake_places)]
        exact = [found["frechet"] for found in Resampling(Frechet(), pool).values_without(parts)]
        found = [each["frechet"] for each in Frechet().resampling(pool).values_without(parts)]
        np.testing.assert_allclose(found, exact, rtol=1e-7)
        for side in (slice(30), slice(30, None)):
            assert np.std(found[side]) == pytest.approx(np.std(exact[side]), rel=1e-8)

    def test_dead_and_repeated_features(self) -> None:
        x, y = rows(40, 12, 1), rows(30, 12, 2)
        x[:, 3] = y[:, 3] = 2.0
        x[:, 5] = x[:, 4]
        y[:, 5] = y[:, 4]
        pool = Pool(Rows(features=x), Rows(features=y))
        parts = [pool.real_places[:6], pool.fake_places[:5]]
        exact = Resampling(Frechet(), pool).values_without(parts)
        for found, expected in zip(Frechet().resampling(pool).values_without(parts), exact, strict=True):
            assert found["frechet"] == pytest.approx(expected["frechet"], rel=1e-5)

    @settings(max_examples=40, deadline=None)
    @given(q=st.integers(1, 12), k=st.integers(1, 4), seed=st.integers(0, 2**32 - 1), decay=st.floats(0, 4))
    def test_traces_of_roots_without_rows(self, q: int, k: int, seed: int, decay: float) -> None:
        draw = np.random.default_rng(seed)
        full = draw.normal(size=(q + 6, q)) * np.arange(1, q + 1) ** -decay
        values, vectors = np.linalg.eigh(full.T @ full)
        truth = np.linalg.svd(full[k:], compute_uv=False).sum()
        assert _frechet_resampling.trace_roots(values, [(full @ vectors)[:k]])[0] == pytest.approx(truth, rel=1e-6)
