"""Judging a generator while it trains: bare values, without what a published number needs."""

from __future__ import annotations

from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from gankit import seeds
from gankit.evaluation import extraction
from gankit.evaluation.extraction import extractor
from gankit.evaluation.sources import ImageSet, dataset_set
from gankit.evaluation.uncertainty import free_name, gathered
from gankit.experiments.experiment import Evaluation
from gankit.interfaces import Dataset, Features, Pool, Rows


@final
class InTraining:
    """Bare values while a generator trains: on a fixed subset of the reals, whose features are computed once.

    Args:
        settings: the experiment's evaluation.
        reference: the real images.
        value_range: black and white of reals and fakes.
        training: the training images, where the reference is another set.
        device: of the features' network.
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
        reals = dataset_set(reference, "real")
        if settings.subset is not None and settings.subset < reals.count:
            order = np.argsort([seeds.derive_seed(settings.seed, "evaluated subset", i) for i in range(reals.count)])
            reals = reals.subset(np.sort(order[: settings.subset]))
        self.count = settings.count or reals.count
        if settings.subset is not None:
            self.count = min(self.count, settings.subset)
        self._reals = reals
        self._trained = None if training is None else dataset_set(training, "training")
        self._training_rows: Rows | None = None
        self._network: Features | None = None
        self._rows: Rows | None = None

    def values(self, fake: NDArray[Any], labels: NDArray[Any] | None) -> dict[str, float]:
        """The metrics' values of (count, c, h, w) generated images, in the order of the settings.

        Raises:
            GankitError: as `evaluate`.
        """
        needs = {need for each in self.settings.metrics for need in each.build().needs}
        if self._network is None or self._rows is None:
            _, self._network = extractor(self.settings.features, self._reals.shape, self.device)
            self._rows = extraction.rows(self._reals, self._network, needs, quiet=True)
            if self._trained is not None and "training" in needs:
                self._training_rows = extraction.rows(self._trained, self._network, needs, quiet=True)
        fakes = ImageSet(
            "fake", len(fake), fake.shape[1:], self.value_range, fake.__getitem__, lambda: "",
            labels, None, self._reals.class_names,
        )  # fmt: skip
        judged = extraction.rows(fakes, self._network, needs, quiet=True, cached=False)
        pool = Pool(self._rows, judged, self._training_rows)
        values: dict[str, float] = {}
        for each in self.settings.metrics:
            for name, value in gathered(each, pool).compute().items():
                values[free_name(name, values)] = value
        return values

    @property
    def better(self) -> Literal["lower", "higher"] | None:
        """Whether a lower or higher first value is better, or None where neither is."""
        return None if not self.settings.metrics else self.settings.metrics[0].build().better
