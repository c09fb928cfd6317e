"""Networks, losses and augments as strangers write them: they train, or one line says what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gankit

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 3, 16, 16), dtype=np.uint8)
FEW = [
    "data.size=16", "training.batch=4", "training.generator_batch=4", "training.critic_steps=1", "training.threads=1",
    "training.steps=2", "training.tick_every=1", "evaluation.features=pixels", "generator.width=4", "critic.width=4",
]  # fmt: skip


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., gankit.Run]:
    """Trains strangers' parts, given by kind, beside gankit's own; a refusal must leave nothing behind."""

    def train(*overrides: str, data: Any = None, name: str = "run", **parts: Any) -> gankit.Run:
        chosen = [text for text in FEW if text.partition(".")[0] not in parts]
        for kind, part in parts.items():
            if kind != "loss":
                getattr(gankit, f"{kind}s").register("mine")(part)
                chosen.append(f"{kind}.name=mine")
        if "loss" in parts:
            gankit.losses.register("mine")(parts["loss"])
            chosen.append('losses=["wasserstein", "mine"]')
        data = gankit.wrap("dataset", IMAGES, labels=np.arange(24) % 3) if data is None else data
        folder = tmp_path / name
        try:
            return gankit.train(gankit.load("wgan-gp", *chosen, *overrides), folder, data=data)
        except gankit.GankitError as error:
            assert "\n" not in str(error)  # noqa: PT017 - raised anew below
            assert not folder.exists(), "a refusal has written something"
            raise

    return train


Trained = Callable[..., gankit.Run]


# Memory format


class Viewed(nn.Module):
    """Flattens with `view` after a convolution, as most tutorials do."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv, self.score = nn.Conv2d(3, width, 3, 2, 1), nn.Linear(width * 64, 1)
        self.register_buffer("five", torch.zeros(1, 1, 1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.score(self.conv(images).view(len(images), -1))
        return scores


def test_a_critic_that_flattens_with_view_trains(trained: Trained) -> None:
    assert trained(critic=gankit.wrap("critic", Viewed)).finished


def test_a_thin_strided_convolution_trains(trained: Trained) -> None:
    layers = nn.Conv2d(3, 8, 1, stride=2), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 8)
    assert trained('losses=["hinge"]', critic=gankit.wrap("critic", nn.Sequential(*layers))).finished


def test_an_augment_that_uses_view_trains_beside_own_networks(trained: Trained) -> None:
    augment = gankit.wrap("augment", lambda images: images.view(len(images), -1).view(images.shape) * 0.5)
    assert trained(augment=augment).finished
