"""Images of a generator while it trains: for sample grids, exports and evaluations."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from numpy.typing import NDArray
from torch import Tensor

from gankit import seeds
from gankit.experiments.experiment import RunRecord
from gankit.images.pictures import grid_png
from gankit.interfaces import Generator, ImageSpec
from gankit.runs.generation import SAMPLE_BATCH, generate_pixels, settle_statistics
from gankit.runs.labels import draw_labels
from gankit.training.step import Stepper

GRID_ROWS, GRID_COLUMNS = 8, 8
STATISTICS_BATCHES = 8
MOST_CONDITIONS = 2048
"""Training images whose float conditions are kept, to draw conditions from."""


@final
class Sampler:
    """Draws from a generator as a run of it would.

    Args:
        stepper: has the generator.
        record: of the run.

    Attributes:
        conditions: (up to MOST_CONDITIONS, k) standardised conditions of training images, evenly picked; None without
            conditions.
    """

    def __init__(self, stepper: Stepper, record: RunRecord) -> None:
        self._stepper, self._record, self._seed = stepper, record, stepper.settings.seed
        self._image = ImageSpec(**record.image)
        labels = stepper.data.labels if self._image.conditions else None
        self.conditions = None if labels is None else labels[:: math.ceil(len(labels) / MOST_CONDITIONS)]

    def generator(self) -> Generator:
        """A copy of the generator to sample from: averaged weights, statistics settled for them, evaluation mode."""
        generator = self._stepper.averaged_generator()
        labels = self.draw_labels(STATISTICS_BATCHES * SAMPLE_BATCH, self._seed)
        settle_statistics(generator, generator.latent_dim, labels, self._seed, STATISTICS_BATCHES)
        return generator

    def draw_labels(self, n: int, seed: int) -> Tensor | None:
        """As `gankit.runs.labels.draw_labels`, of this run."""
        return draw_labels(n, self._record, self.conditions, seed)

    def draw(self, generator: Generator, n: int, seed: int, labels: Tensor | None) -> NDArray[Any]:
        """(n, channels, height, width) images in the data's type.

        Args:
            generator: from `generator`.
            n: how many.
            seed: of the latents.
            labels: None, (n,) int64 classes, or (n, k) standardised conditions.
        """
        latents = seeds.latents(seed, n, generator.latent_dim)
        return generate_pixels(generator, latents, labels, self._record.dtype, self._record.value_range)

    def grid_labels(self) -> Tensor | None:
        """Labels of the grid's images, the same in each row: the classes in turn, or by rising first condition."""
        rows = None
        if self._image.classes:
            rows = torch.arange(GRID_ROWS) % self._image.classes
        elif self.conditions is not None:
            ranks = torch.linspace(0, len(self.conditions) - 1, GRID_ROWS).long()
            rows = self.conditions[self.conditions[:, 0].argsort(stable=True)[ranks]]
        return None if rows is None else rows.repeat_interleave(GRID_COLUMNS, 0)

    def grid(self, generator: Generator) -> bytes:
        """A PNG file with images of the same latents and labels at every step."""
        images = self.draw(generator, GRID_ROWS * GRID_COLUMNS, self._seed, self.grid_labels())
        return grid_png(images, self._record.value_range, GRID_COLUMNS)
