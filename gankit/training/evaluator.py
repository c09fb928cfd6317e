"""Samples and metrics of a generator while it trains, and whether it is the best so far."""

import math
from functools import cached_property
from typing import Any, final

import torch
from numpy.typing import NDArray
from torch import Tensor

from gankit import seeds
from gankit.evaluation.while_training import MetricsWhileTraining
from gankit.experiments.record import RunRecord
from gankit.images.pictures import grid_png
from gankit.interfaces import Generator
from gankit.runs.labels import draw_labels
from gankit.runs.networks import SAMPLE_BATCH, generate_pixels, recompute_norms
from gankit.training.step import Stepper

GRID_ROWS, GRID_COLUMNS = 8, 8
STATISTICS_BATCHES = 8
"""Batches from which the statistics of batch normalisation are computed."""
MAX_CONDITIONS = 2048
"""The float conditions of at most this many training images are kept, to draw from."""


@final
class Evaluator:
    """Generates images as the finished run will, and evaluates them by the experiment's `evaluation` settings.

    Attributes:
        conditions: (m, k) standardised conditions of training images, evenly picked, m at most MAX_CONDITIONS; None
            without conditions.
    """

    def __init__(self, stepper: Stepper, record: RunRecord) -> None:
        self._stepper, self._record = stepper, record
        self._training_settings, self._settings = stepper.settings, stepper.experiment.evaluation
        labels = stepper.data.labels if record.image["conditions"] else None
        self.conditions = None if labels is None else labels[:: math.ceil(len(labels) / MAX_CONDITIONS)]

    def sampling_copy(self) -> Generator:
        """A copy to sample from, in evaluation mode: averaged weights, and batch-norm statistics computed with them."""
        generator, seed = self._stepper.averaged_generator(), self._training_settings.seed
        labels = draw_labels(STATISTICS_BATCHES * SAMPLE_BATCH, self._record, self.conditions, seed)
        recompute_norms(generator, generator.latent_dim, labels, seed, STATISTICS_BATCHES)
        return generator

    def _draw(self, generator: Generator, n: int, seed: int, labels: Tensor | None) -> NDArray[Any]:
        latents = seeds.latents(seed, n, generator.latent_dim)
        return generate_pixels(generator, latents, labels, self._record.dtype, self._record.value_range, quiet=True)

    def grid_labels(self) -> Tensor | None:
        """(n,) classes or (n, k) conditions of the grid's n images, the same within a row; None without labels."""
        rows = None
        if classes := self._record.image["classes"]:
            rows = torch.arange(GRID_ROWS) % classes
        elif self.conditions is not None:
            by_first_condition = self.conditions[self.conditions[:, 0].argsort(stable=True)]
            rows = by_first_condition[torch.linspace(0, len(self.conditions) - 1, GRID_ROWS).long()]
        return None if rows is None else rows.repeat_interleave(GRID_COLUMNS, 0)

    def grid(self, generator: Generator) -> bytes:
        """A PNG file of images by a `sampling_copy`, with the same latents and labels at every step."""
        images = self._draw(generator, GRID_ROWS * GRID_COLUMNS, self._training_settings.seed, self.grid_labels())
        return grid_png(images, self._record.value_range, GRID_COLUMNS)

    @cached_property
    def _metrics(self) -> MetricsWhileTraining:
        dataset, held_out = self._stepper.data.dataset, self._stepper.data.held_out
        # Without held-out images the reals are the training images: given as both, each would be its own copy.
        reals, training_images = (dataset, None) if held_out is None else (held_out.dataset, dataset)
        features = self._settings.features or self._record.features
        return MetricsWhileTraining(
            self._settings.model_copy(update={"features": features}), reals, dataset.value_range, training_images,
            self._training_settings.device,
        )  # fmt: skip

    def is_due(self, step: int) -> bool:
        """Whether the generator is evaluated after this many steps: every `evaluation.every` ticks, and at the end."""
        every = self._settings.every * self._training_settings.tick_every
        return every > 0 and (step % every == 0 or step == self._training_settings.steps)

    def values(self, generator: Generator) -> dict[str, float]:
        """The metrics' values of a `sampling_copy`, by name, in the order of the experiment.

        The reals are the held-out images, or the training images where none are held out. Raises GankitError if the
        features or metrics cannot judge these images.
        """
        count, seed = self._metrics.count, self._settings.seed
        labels = draw_labels(count, self._record, self.conditions, seed)
        images = self._draw(generator, count, seed, labels)
        return self._metrics.values(images, None if labels is None else labels.numpy())

    def improves(self, values: dict[str, float], best: dict[str, Any] | None) -> bool:
        """Whether to keep the generator with these values as the best, by the first of them.

        `best` has the "value" of the best generator so far; None where none was kept.
        """
        value, better = next(iter(values.values())), self._metrics.better
        if not self._settings.keep_best or better is None or not math.isfinite(value):
            return False
        return best is None or (value < best["value"] if better == "lower" else value > best["value"])
