"""Conformance suites that plug-in authors inherit: a class of two lines tests a part as gankit tests its own.

    import gankit.testing
    from my_package import MyCritic

    class TestMyCritic(gankit.testing.CriticTests):
        part = MyCritic

pytest then runs every test of the suite on the part. `suites` makes such classes for all registered parts of a
distribution; `isolated_registry` forgets the parts that a test registers. Needs pytest (`pip install pytest`).
"""

import pkgutil
from collections.abc import Mapping
from typing import Any

import pytest

# Before they are imported, so that a failure shows the values.
pytest.register_assert_rewrite(*(f"{__name__}.{file.name}" for file in pkgutil.iter_modules(__path__)))

from gankit.registry import registry  # noqa: E402
from gankit.registry.plugins import PART_KINDS, normalise_name  # noqa: E402
from gankit.testing._augments import AugmentTests  # noqa: E402
from gankit.testing._datasets import DatasetTests  # noqa: E402
from gankit.testing._features import FeaturesTests  # noqa: E402
from gankit.testing._losses import LossTests  # noqa: E402
from gankit.testing._metrics import MetricTests  # noqa: E402
from gankit.testing._networks import CriticTests, GeneratorTests  # noqa: E402
from gankit.testing._suite import Suite, isolated_registry  # noqa: E402

__all__ = [
    "AugmentTests", "CriticTests", "DatasetTests", "FeaturesTests", "GeneratorTests", "LossTests", "MetricTests",
    "isolated_registry", "suites",
]  # fmt: skip

SUITES: dict[str, type[Suite]] = {
    suite.kind: suite
    for suite in (GeneratorTests, CriticTests, LossTests, AugmentTests, MetricTests, FeaturesTests, DatasetTests)
}


def suites(distribution: str, **changes: Mapping[str, Any]) -> dict[str, type[Suite]]:
    """A test class for every part that a distribution has registered by now, so that no list needs to be kept.

    In a test file, `globals().update(gankit.testing.suites("my-package"))` tests them all.

    Args:
        distribution: the distribution that registers the parts, for example "gankit".
        changes: attributes and methods of single test classes, by their names: a loss `margin` is tested by
            `TestMarginLoss`, and `TestMarginLoss={"settings": {"margin": 0.5}}` changes its settings.

    Raises:
        ValueError: a change names no class.
    """
    classes: dict[str, type[Suite]] = {}
    for kind in PART_KINDS:
        for row in registry(kind).list():
            if row.distribution == normalise_name(distribution):
                words = [*row.name.rpartition(":")[2].split("-"), kind]
                name = "Test" + "".join(word.capitalize() for word in words)
                classes[name] = type(name, (SUITES[kind],), {"part": row.name, **changes.get(name, {})})
    if unknown := changes.keys() - classes.keys():
        raise ValueError(f"no part is tested by {', '.join(sorted(unknown))}; there are {', '.join(classes)}")
    return classes
