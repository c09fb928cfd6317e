"""Networks as strangers write them, and trainings of them beside gankit's own parts."""

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


def labelled() -> gankit.Dataset:
    return gankit.wrap("dataset", IMAGES, labels=np.arange(24) % 3)  # type: ignore[no-any-return]


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
        data = labelled() if data is None else data
        folder = tmp_path / name
        try:
            return gankit.train(gankit.load("wgan-gp", *chosen, *overrides), folder, data=data)
        except gankit.GankitError as error:
            assert "\n" not in str(error)  # noqa: PT017 - raised anew below
            assert not folder.exists(), "a refusal has written something"
            raise

    return train


Trained = Callable[..., gankit.Run]


class Viewed(nn.Module):
    """Flattens with `view` after a convolution, as most tutorials do."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv, self.score = nn.Conv2d(3, width, 3, 2, 1), nn.Linear(width * 64, 1)
        self.register_buffer("five", torch.zeros(1, 1, 1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.score(self.conv(images).view(len(images), -1))
        return scores


class Painter(nn.Module):
    """A generator as strangers write it; `draw` is what a test changes."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.start, self.end, self.grow = nn.Linear(16, width * 16), nn.Conv2d(width, 3, 3, 1, 1), nn.Upsample(None, 4)

    def inner(self, z: Tensor) -> Tensor:
        return self.start(z).unflatten(1, (-1, 4, 4))  # type: ignore[no-any-return]

    def forward(self, z: Tensor) -> Any:
        return self.end(self.grow(self.inner(z))).tanh()


class Scoring(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(768, 1)

    def forward(self, images: Tensor) -> Any:
        return self.score(images.flatten(1))


class Running(gankit.Loss):
    """Keeps a running mean, as `hold` gives it."""

    hold: Callable[[float], Any] = float

    def __init__(self) -> None:
        self.gap = type(self).hold(0)

    def critic(self, turn: gankit.Turn) -> Tensor:
        self.gap = type(self).hold(0.9 * self.number() + 0.1 * turn.real_scores.mean().item())
        return self.number() * turn.fake_scores.mean()

    def number(self) -> float:
        return float(self.gap)

    def state_dict(self) -> dict[str, Any]:
        return {"gap": self.gap}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.gap = state["gap"]
