"""The suite for metrics."""

import copy
import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from gankit.errors import GankitError
from gankit.interfaces import ImageSpec, Metric, Pool, Resampling, Result, Rows
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

    def rows(self, count: int, seed: int, *, shift: float = 0.0, training: Rows | None = None) -> Rows:
        """Some images with everything that a metric may need: features and logits are normal, groups hold two."""
        draw = np.random.default_rng(seed)
        return Rows(
            features=(draw.normal(shift, 1, (count, 6)) * [1, 2, 0.5, 1, 1, 3]).astype(np.float32),
            logits=draw.normal(0, 2, (count, 4)).astype(np.float32),
            images=draw.integers(0, 256, (count, *self.image.shape), dtype=np.uint8),
            labels=np.arange(count) % 3,
            groups=np.arange(count) // 2 + 1000 * seed,
            ids=np.arange(count),
            class_names=("a", "b", "c"),
            training=training,
        )

    def pool(self, real: int | None = None, fake: int | None = None) -> Pool:
        """Real and generated images, and training images beside them for metrics that need those."""
        training = self.rows(40, 3) if "training" in self.build().needs else None
        reals = self.rows(real or self.real_count, 1, training=training)
        return Pool(reals, self.rows(fake or self.fake_count, 2, shift=0.5))

    def compute(self, pool: Pool, metric: Metric | None = None) -> Result:
        """The metric's result for all images of a pool."""
        return Result.of(metric or self.build(), pool.real, pool.fake)

    def test_gives_finite_values_by_name(self) -> None:
        """`compute` gives one float a name, at the default settings too."""
        for metric in (self.build(), self._construct(self.given(None), self.files)):
            values = self.compute(self.pool(), metric).values
            assert values, "compute gives no value"
            for name, value in values.items():
                assert isinstance(name, str)
                assert isinstance(value, float), f"{name} is {type(value).__name__}, not float"
                assert math.isfinite(value), f"{name} is {value}"
        assert self.build().better in ("lower", "higher", None)

    def test_does_not_depend_on_the_order_of_images(self) -> None:
        """Sets have no order: other places of the same images change no value."""
        pool, draw = self.pool(), np.random.default_rng(0)
        real, fake = (rows.take(draw.permutation(rows.count)) for rows in (pool.real, pool.fake))
        close(self.compute(Pool(real, fake)).values, self.compute(pool).values, "with the images in another order")

    def test_remembers_nothing(self) -> None:
        """What was computed before changes no value, and no array that it was given."""
        pool, metric = self.pool(), self.build()
        before = copy.deepcopy(pool)
        self.compute(self.pool(20, 20), metric)
        values = self.compute(pool, metric).values
        for field in FIELDS:
            for rows, old in ((pool.real, before.real), (pool.fake, before.fake)):
                unchanged = np.array_equal(rows.required(field), old.required(field))
                assert unchanged, f"the metric changes {field} in place"
        close(values, self.compute(pool).values, "after other images, and freshly built")

    def test_leaves_torch_s_generator_alone(self) -> None:
        """Evaluating while training must not change the training: draw from a generator of its own."""
        pool = self.pool()
        state, numpy_state = torch.random.get_rng_state(), str(np.random.get_state())
        first = self.compute(pool).values
        assert torch.equal(torch.random.get_rng_state(), state), "it draws from torch's own generator"
        assert str(np.random.get_state()) == numpy_state, "it draws from NumPy's own generator"
        close(self.compute(pool).values, first, "computed twice from scratch")

    def test_says_what_is_missing(self) -> None:
        """Without an array that it needs it gives an error in one line, or values where it can do without."""
        pool = self.pool(8, 8)
        for name in self.build().needs:
            if name not in FIELDS:
                continue
            nothing: dict[str, Any] = {name: None}
            lacking = (dataclasses.replace(rows, **nothing) for rows in (pool.real, pool.fake))
            try:
                self.build().compute(*lacking)
            except GankitError as error:
                assert_one_line(error)
            except Exception as error:
                pytest.fail(f"it needs {name}; without: {error!r}. Read it by real.required({name!r})")

    def test_gives_values_or_an_error_for_few_images(self) -> None:
        """With one image on a side there is a float or an error in one line."""
        for real, fake in ((1, 5), (5, 1), (1, 1), (2, 2)):
            pool, metric = self.pool(real, fake), self.build()
            try:
                metric.compute(pool.real, pool.fake)
            except GankitError as error:
                assert_one_line(error)
            else:
                assert all(isinstance(value, float) for value in self.compute(pool, metric).values.values())

    def test_says_which_values_use_fewer_images(self) -> None:
        """Counts are of values that are there and of images that are there; details and warnings can be stored."""
        metric = self.build()
        result = self.compute(self.pool(), metric)
        for name, (n_real, n_fake) in result.counts.items():
            assert name in result.values, f"counts names {name}, which is not a value"
            assert 0 <= n_real <= self.real_count
            assert 0 <= n_fake <= self.fake_count
        json.dumps(dict(result.details))
        for sentence in [*result.warnings, *metric.warnings(result.values), *metric.warnings({})]:
            assert sentence.strip(), "a warning says nothing"
            assert "\n" not in sentence

    def test_resamples_as_from_scratch(self) -> None:
        """Shared work between resamples changes no value: standard errors and real-against-real values stand on it."""
        pool, metric = self.pool(), self.build()
        shared, scratch = metric.resampling(pool), Resampling(metric, pool)
        close(shared.whole().values, scratch.whole().values, "of the whole pool resampled and from scratch")
        draw = np.random.default_rng(0)
        some_real, some_fake = draw.permutation(pool.real_places)[:30], draw.permutation(pool.fake_places)[:30]
        mixed = draw.permutation(np.concatenate([pool.real_places, pool.fake_places]))
        for real, fake in ((pool.real_places, pool.fake_places), (some_real, some_fake), (mixed[:40], mixed[40:])):
            close(shared.values(real, fake), scratch.values(real, fake), "resampled and from scratch", 1e-4)
        parts = [np.array([0, 1]), np.array([self.real_count + 2])]
        for got, expected in zip(shared.values_without(parts), scratch.values_without(parts), strict=True):
            close(got, expected, "with some images left out, and from scratch", 1e-4)


def close(got: Mapping[str, float], expected: Mapping[str, float], when: str, tolerance: float = 1e-6) -> None:
    """Assert that values agree, up to rounding."""
    assert got == pytest.approx(expected, rel=tolerance, abs=tolerance, nan_ok=True), f"values differ {when}"
