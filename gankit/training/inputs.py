"""What a turn reads: images, labels, latents and random numbers, each a function of (seed, stream, number)."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gankit import seeds
from gankit.distributed import Shard
from gankit.experiments.experiment import Experiment
from gankit.interfaces import Side
from gankit.training.data import TrainingData
from gankit.training.pixels import on_device

SIDES: tuple[Side, Side] = ("critic", "generator")


@final
class Inputs:
    """The inputs of all turns of a training; images, latents and conditions have dtype and device of `like`.

    Attributes:
        loss_rng: makes the losses' random numbers.
    """

    def __init__(self, experiment: Experiment, data: TrainingData, like: Tensor, latent_dim: int) -> None:
        self._settings, self._flip = experiment.training, experiment.data.flip
        self._data, self._like, self._latent_dim = data, like, latent_dim
        self.loss_rng = torch.Generator(seeds.device_of_draws(like.device))
        seed, held_out = self._settings.seed, data.held_out
        self._labels = {"labels": self._on_device(data.labels)}
        self._labels["held_out_labels"] = self._on_device(held_out.labels) if held_out else None
        self._orders = {side: data.order(seed, f"{side} images") for side in SIDES}
        self._held_out_orders = {side: held_out.order(seed, f"{side} held-out") for side in SIDES} if held_out else {}

    def of(self, side: Side, shard: Shard, turn_number: int) -> dict[str, Callable[[], Tensor]]:
        """Functions that make the inputs of a turn of a side, by name, for this process's rows of a batch.

        "real": (n, c, h, w) images in [-1, 1]; "latents": (n, latent_dim); "labels": (n,) classes or (n, k)
        conditions, where there are any; "held_out" and "held_out_labels": the same of images that are held out.
        """
        data, held_out = self._data, self._data.held_out
        inputs: dict[str, Callable[[], Tensor]] = {
            "latents": lambda: self._draws(f"{side} latents", turn_number, shard, self._like).normal(
                shard.stop - shard.start, self._latent_dim
            )
        }
        order, names = self._orders[side], ("real", "labels")
        inputs |= self._images_and_labels(names, data, order, f"{side} reals", turn_number, shard)
        if held_out is not None:
            order, names = self._held_out_orders[side], ("held_out", "held_out_labels")
            inputs |= self._images_and_labels(names, held_out, order, f"{side} held-out", turn_number, shard)
        return inputs

    def _images_and_labels(
        self, names: tuple[str, str], data: TrainingData, order: seeds.Order, stream: str, turn: int, shard: Shard
    ) -> dict[str, Callable[[], Tensor]]:
        """Functions that make the images and labels of a turn, by these names; without labels, the images alone."""
        indices = order.batch(turn, shard.total)[shard.rows]

        def next_indices() -> NDArray[np.int64]:
            return order.batch(turn + 1, shard.total)[shard.rows]

        def images() -> Tensor:
            # Drawn in float32, so that the networks' type does not change which images are mirrored. With `data.flip`
            # the noise of `dequantise` is drawn after the mirroring, so it depends on that setting.
            draws = self._draws(stream, turn, shard, torch.empty(0, device=self._like.device))
            mirrored = draws.uniform(len(indices)) < 0.5 if self._flip else None
            batch = data.batch(indices, self._like, mirrored, next_indices)
            if self._settings.dequantise and data.dataset.dtype.kind == "u":  # floats have no grey levels
                low, high = data.dataset.value_range
                level_width = 2 / (high - low)
                batch = batch + (draws.uniform(*batch.shape).to(self._like) - 0.5) * level_width
            return batch

        inputs: dict[str, Callable[[], Tensor]] = {names[0]: images}
        if (labels := self._labels[names[1]]) is not None:
            inputs[names[1]] = lambda: labels[on_device(indices, labels.device)]
        return inputs

    def _on_device(self, labels: Tensor | None) -> Tensor | None:
        """(n,) classes or (n, k) conditions on the device, conditions in the type of the networks."""
        if labels is None:
            return None
        return labels.to(self._like if labels.is_floating_point() else self._like.device)

    def loss_draws(self, shard: Shard) -> seeds.TurnDraws:
        """The draws of the losses of a turn, from `loss_rng`, which `seed` has seeded."""
        return seeds.TurnDraws(self.loss_rng, self._like, (shard.start, shard.stop, shard.total))

    def seed(self, side: Side, turn_number: int) -> None:
        """Seed the losses' draws for a turn of a side."""
        self.loss_rng.manual_seed(seeds.derive_seed(self._settings.seed, f"{side} losses", turn_number))

    def _draws(self, stream: str, turn_number: int, shard: Shard, like: Tensor) -> seeds.TurnDraws:
        generator = seeds.generator(self._settings.seed, stream, turn_number, device=seeds.device_of_draws(like.device))
        return seeds.TurnDraws(generator, like, (shard.start, shard.stop, shard.total))
