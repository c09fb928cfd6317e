"""Values of a generator while it trains, without standard errors and baselines."""

import dataclasses
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gankit import seeds
from gankit.evaluation import extraction
from gankit.evaluation.entries import free_name
from gankit.evaluation.extraction import extractor
from gankit.experiments.experiment import Evaluation
from gankit.interfaces import Dataset, Features, Metric, Result, Rows
from gankit.registry.wrapping import wrap


@final
class MetricsWhileTraining:
    """Evaluates a generator in training: metrics against a fixed subset of the reals, whose features are computed once.

    `reference` are the real images, and `training` the training images where they differ from these. `value_range` is
    black and white of reals and fakes, and `device` that of the features' network.

    Attributes:
        count: number of images to generate for an evaluation.
        better: "lower" or "higher" values of the first metric, which decides the best generator; None if neither.
    """

    def __init__(
        self,
        settings: Evaluation,
        reference: Dataset,
        value_range: tuple[float, float],
        training: Dataset | None = None,
        device: str = "auto",
    ) -> None:
        self.settings, self.value_range, self.device = settings, value_range, device
        self._reals = reference
        if settings.subset is not None and settings.subset < len(reference):
            # Chosen by a random key per image, not by one shuffle: most of them stay when images are added.
            sort_keys = [seeds.derive_seed(settings.seed, "evaluated subset", i) for i in range(len(reference))]
            self._reals = reference.subset(np.sort(np.argsort(sort_keys)[: settings.subset]))
        self.count = settings.count or len(self._reals)
        if settings.subset is not None:  # the subset also limits the generated images
            self.count = min(self.count, settings.subset)
        self._training = training
        self._metrics: list[Metric] = [part.build() for part in settings.metrics]
        self._needs = {need for metric in self._metrics for need in metric.needs}
        self.better = self._metrics[0].better

    @cached_property
    def _network(self) -> Features:
        return extractor(self.settings.features, self._reals.image.shape, self.device)[1]

    @cached_property
    def _real_rows(self) -> Rows:
        reals, training = self._rows(self._reals), self._training
        if training is None or "training" not in self._needs:
            return reals
        return dataclasses.replace(reals, training=self._rows(training))

    def values(self, fake: NDArray[Any], labels: NDArray[Any] | None) -> dict[str, float]:
        """The metrics' values of (count, c, h, w) generated images, in the settings' order; raises as `evaluate`."""
        reals = self._real_rows
        fakes = self._rows(wrap("dataset", fake, value_range=self.value_range), keep=False)
        fakes = dataclasses.replace(fakes, labels=labels, class_names=reals.class_names)
        values: dict[str, float] = {}
        for metric in self._metrics:
            for name, value in Result.of(metric, reals, fakes).values.items():
                values[free_name(name, values)] = value
        return values

    def _rows(self, images: Dataset, keep: bool = True) -> Rows:
        network = self._network  # made before the digest reads all images: it may be refused
        content = images.digest() if keep else None
        return extraction.rows(images, network, self._needs, content=content, quiet=True)
