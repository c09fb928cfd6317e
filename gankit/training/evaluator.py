"""The generator's values while it trains, and whether it is the best so far."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, final

from gankit.evaluation.while_training import InTraining
from gankit.experiments.experiment import Experiment
from gankit.interfaces import Generator
from gankit.training.data import TrainingData
from gankit.training.sampler import Sampler


@final
class Evaluator:
    """Evaluates generators as `evaluation` says, beside the held-out images where there are any.

    Args:
        experiment: the run's.
        data: the images.
        sampler: draws from the generators.
    """

    def __init__(self, experiment: Experiment, data: TrainingData, sampler: Sampler) -> None:
        self._settings, self._training = experiment.evaluation, experiment.training
        self._data, self._sampler = data, sampler

    @cached_property
    def _metrics(self) -> InTraining:
        dataset, held_out = self._data.dataset, self._data.held_out
        reals, training = (dataset, None) if held_out is None else (held_out.dataset, dataset)
        return InTraining(self._settings, reals, self._data.value_range, training, self._training.device)

    def is_due(self, step: int) -> bool:
        """Whether the generator is evaluated after this many steps: at every so many ticks, and at the last step."""
        every = self._settings.every * self._training.tick_every
        return every > 0 and (step % every == 0 or step == self._training.steps)

    def values(self, generator: Generator) -> dict[str, float]:
        """The metrics' values by name, in the order of the experiment.

        Args:
            generator: to sample from, as of `Sampler.generator`.

        Raises:
            GankitError: the features or metrics cannot judge these images.
        """
        count, seed = self._metrics.count, self._settings.seed
        labels = self._sampler.draw_labels(count, seed)
        images = self._sampler.draw(generator, count, seed, labels)
        return self._metrics.values(images, None if labels is None else labels.numpy())

    def improves(self, values: dict[str, float], best: dict[str, Any] | None) -> bool:
        """Whether these values are to be kept as the best; only the first of them counts.

        Args:
            values: from `values`.
            best: of the best generator so far, with its "value"; None where none was kept.
        """
        value, better = next(iter(values.values())), self._metrics.better
        if not self._settings.keep_best or better is None or not math.isfinite(value):
            return False
        return best is None or (value < best["value"] if better == "lower" else value > best["value"])
