"""The suite for metrics."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gankit.errors import GankitError
from gankit.interfaces import ImageSpec, Metric, Pool, Resampling, Rows
from gankit.testing._suite import Suite, assert_one_line

FIELDS = ("features", "logits", "images", "labels", "groups")  # ids are always known


class MetricTests(Suite):
    """Tests of a metric: give its class, or its registered name, as `part`.

    Attributes:
        real_count: number of real images that it is tried with.
        fake_count: number of generated ones.
    """

    kind = "metric"
    image: ClassVar[ImageSpec] = ImageSpec(3, 8, 8)
    real_count: ClassVar[int] = 48
    fake_count: ClassVar[int] = 36

    def rows(self, count: int, seed: int, *, shift: float = 0.0) -> Rows:
        """Some images with everything that a metric may need: features and logits are normal, groups hold two."""
        draw = np.random.default_rng(seed)
        fields: dict[str, NDArray[Any]] = {
            "features": (draw.normal(shift, 1, (count, 6)) * [1, 2, 0.5, 1, 1, 3]).astype(np.float32),
            "logits": draw.normal(0, 2, (count, 4)).astype(np.float32),
            "images": draw.integers(0, 256, (count, *self.image.shape), dtype=np.uint8),
            "labels": np.arange(count) % 3,
            "groups": np.arange(count) // 2 + 1000 * seed,
            "ids": np.arange(count),
        }
        return Rows(fields, count, class_names=("a", "b", "c"))

    def pool(self, real: int | None = None, fake: int | None = None) -> Pool:
        """Real and generated images, and training images beside them for metrics that need those."""
        training = self.rows(40, 3) if "training" in self.build().needs else None
        return Pool(self.rows(real or self.real_count, 1), self.rows(fake or self.fake_count, 2, shift=0.5), training)

    def fed(self, pool: Pool, size: int, metric: Metric | None = None, sides: str = "real fake training") -> Metric:
        """A metric that has seen a pool in batches of a size."""
        metric = metric or self.build()
        for side in sides.split():
            rows: Rows | None = getattr(pool, side)
            for start in range(0, rows.count if rows else 0, size):
                assert rows is not None
                batch = rows.batch(np.arange(start, min(start + size, rows.count)), side != "fake", side == "training")
                metric.update(batch)
        return metric

    def test_gives_finite_values_by_name(self) -> None:
        """`compute` gives one float a name, at the default settings too."""
        for metric in (self.build(), self._construct(self.given(None), self.files)):
            values = self.fed(self.pool(), 16, metric).compute()
            assert values, "compute gives no value"
            for name, value in values.items():
                assert isinstance(name, str)
                assert isinstance(value, float), f"{name} is {type(value).__name__}, not float"
                assert math.isfinite(value), f"{name} is {value}"
        assert self.build().better in ("lower", "higher", None)

    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_does_not_depend_on_the_batch_size(self, size: int) -> None:
        """A mean of the batches' values is not the value of the whole."""
        pool = self.pool()
        close(self.fed(pool, size).compute(), self.fed(pool, 16).compute(), f"in batches of {size} and of 16")

    def test_does_not_depend_on_which_side_comes_first(self) -> None:
        """Real and generated images may come in any order."""
        pool = self.pool()
        other = self.fed(pool, 16, sides="training fake real").compute()
        close(other, self.fed(pool, 16).compute(), "with the generated images first and last")

    def test_merges_what_several_processes_gathered(self) -> None:
        """Two halves of the images, merged, give what one pass gives; an empty one adds nothing."""
        pool = self.pool()
        whole = self.fed(pool, 16).compute()
        parts = [self.build(), self.build(), self.build()]
        for side in ("real", "fake", "training"):
            rows: Rows | None = getattr(pool, side)
            if rows is not None:
                half = rows.count // 3  # of unequal length
                for metric, places in zip(parts, (np.arange(half), np.arange(half, rows.count)), strict=False):
                    metric.update(rows.batch(places, side != "fake", side == "training"))
        first, second, empty = parts
        first.merge(empty)
        first.merge(second)
        close(first.compute(), whole, "merged and in one pass")

    def test_forgets_on_reset(self) -> None:
        """After `reset` it is as new."""
        metric = self.fed(self.pool(20, 20), 16)
        metric.reset()
        pool = self.pool()
        close(self.fed(pool, 16, metric).compute(), self.fed(pool, 16).compute(), "after reset and freshly built")

    def test_computes_again(self) -> None:
        """`compute` changes nothing that it has gathered, nor the arrays that it was given."""
        pool = self.pool()
        before = {name: values.copy() for name, values in pool.real.fields.items()}
        metric = self.fed(pool, 16)
        close(metric.compute(), metric.compute(), "computed twice")
        for name, values in pool.real.fields.items():
            assert np.array_equal(values, before[name]), f"the metric changes {name} in place"

    def test_leaves_torch_s_generator_alone(self) -> None:
        """Judging while training must not change the training: draw from a generator of its own."""
        pool = self.pool()
        state, numpy_state = torch.random.get_rng_state(), str(np.random.get_state())
        first = self.fed(pool, 16).compute()
        assert torch.equal(torch.random.get_rng_state(), state), "it draws from torch's own generator"
        assert str(np.random.get_state()) == numpy_state, "it draws from NumPy's own generator"
        close(self.fed(pool, 16).compute(), first, "computed twice from scratch")

    def test_says_what_is_missing(self) -> None:
        """Without a field that it needs it gives an error in one line, or values where it can do without."""
        batch = self.pool().real.batch(np.arange(8), True)
        for name in self.build().needs:
            if name not in FIELDS:
                continue
            nothing: dict[str, Any] = {name: None}
            metric, lacking = self.build(), dataclasses.replace(batch, **nothing)
            try:
                for side in (lacking, dataclasses.replace(lacking, real=False)):
                    metric.update(side)
                metric.compute()
            except GankitError as error:
                assert_one_line(error)
            except Exception as error:
                pytest.fail(f"it needs {name}; without: {error!r}. Read it by self.wanted(batch, {name!r})")

    def test_gives_values_or_an_error_for_few_images(self) -> None:
        """With one image on a side there is a float or an error in one line."""
        for real, fake in ((1, 5), (5, 1), (1, 1), (2, 2)):
            try:
                values = self.fed(self.pool(real, fake), 16).compute()
            except GankitError as error:
                assert_one_line(error)
            else:
                assert all(isinstance(value, float) for value in values.values())

    def test_says_which_values_use_fewer_images(self) -> None:
        """`counts`, `details` and `cautions` can be asked for after `compute`."""
        metric = self.fed(self.pool(), 16)
        values = metric.compute()
        for name, (n_real, n_fake) in metric.counts().items():
            assert name in values, f"counts names {name}, which is no value"
            assert 0 <= n_real <= self.real_count
            assert 0 <= n_fake <= self.fake_count
        assert isinstance(metric.details(), dict)
        for sentence in metric.cautions(values):
            assert sentence.strip(), "a caution says nothing"
            assert "\n" not in sentence

    def test_resamples_as_from_scratch(self) -> None:
        """Shared work between resamples changes no value: standard errors and real-against-real values stand on it."""
        pool = self.pool()
        own, scratch = self.build().resampling(pool), Resampling(self.build(), pool)
        draw = np.random.default_rng(0)
        some_real, some_fake = draw.permutation(pool.reals)[:30], draw.permutation(pool.fakes)[:30]
        mixed = draw.permutation(np.concatenate([pool.reals, pool.fakes]))
        for real, fake in ((pool.reals, pool.fakes), (some_real, some_fake), (mixed[:40], mixed[40:])):
            close(own.values(real, fake), scratch.values(real, fake), "resampled and from scratch", 1e-4)
        parts = [np.array([0, 1]), np.array([self.real_count + 2])]
        for got, expected in zip(own.left_out(parts), scratch.left_out(parts), strict=True):
            close(got, expected, "with some images left out, and from scratch", 1e-4)


def close(got: dict[str, Any], expected: dict[str, Any], when: str, tolerance: float = 1e-6) -> None:
    """Assert that values agree, up to rounding."""
    assert got.keys() == expected.keys(), f"names of values differ {when}"
    for name, value in expected.items():
        same = math.isclose(got[name], value, rel_tol=tolerance, abs_tol=tolerance) or (
            math.isnan(got[name]) and math.isnan(value)
        )
        assert same, f"{name} differs {when}: {got[name]} and {value}"
