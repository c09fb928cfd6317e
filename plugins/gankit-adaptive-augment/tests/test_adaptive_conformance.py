"""The augment passes gankit's suite for augments."""

import gankit.testing
import pytest

from gankit_adaptive_augment import AdaptiveAugment, Transforms


class TestSign(gankit.testing.AugmentTests):
    part = AdaptiveAugment
    settings = {"start": 0.5}  # noqa: RUF012


@pytest.mark.slow
class TestHeldOut(gankit.testing.AugmentTests):
    part = AdaptiveAugment
    settings = {"start": 0.5, "rule": "held-out", "inner": {"name": "diffaugment", "policy": ["color"]}}  # noqa: RUF012


class TestTransforms(gankit.testing.AugmentTests):
    part = Transforms
