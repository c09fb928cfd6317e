"""Any metric within each class: as intra-FID of Miyato and Koyama 2018, arXiv 1802.05637, section 4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from gankit.interfaces import Metric, Pool, Resampling, Result, Rows
from gankit.metrics import get
from gankit.metrics._by_class import ByClass


@final
class IntraClass(Metric):
    """A metric within each class, and its unweighted mean: rare classes count as much as common ones.

    Generated images are compared with real ones of their own class only, so that a generator that ignores its labels,
    or collapses within one class, is found out. Classes are matched by name where both sides have class names, else by
    number. Those that one side lacks, or that have too few images for the metric, are left out of the mean and named
    in the warnings.

    Args:
        metric: what to compute within each class; only its first value is used.
    """

    def __init__(self, *, metric: Metric = "frechet") -> None:  # type: ignore[assignment]
        # The registry passes a metric that is already built; a direct call may leave the default, a name.
        self.metric: Metric = get(metric)() if isinstance(metric, str) else metric
        self.needs = tuple(dict.fromkeys((*self.metric.needs, "labels")))
        self.better = self.metric.better

    def compute(self, real: Rows, fake: Rows) -> Result:
        """"... within classes", the unweighted mean of the metric's first value, and "... of CLASS" for each class.

        Details: "classes", what the metric adds to each class's value, where it adds anything.

        Raises:
            GankitError: no labels, labels that are no classes, or no class with enough images on both sides.
        """  # fmt: skip
        return ByClass(self, self.metric, Pool(real, fake), share=False).whole()

    def warnings(self, real_vs_real: Mapping[str, float]) -> list[str]:
        """What the metric says of each class's real-against-real value."""
        warnings = []
        for value_name, value in real_vs_real.items():
            name, of_class, key = value_name.partition(" of ")
            if of_class:
                warnings += [f"class {key}: {warning}" for warning in self.metric.warnings({name: value})]
        return warnings

    def resampling(self, pool: Pool) -> Resampling:
        """Values within each class from the metric's own resampling of that class."""
        return ByClass(self, self.metric, pool)
