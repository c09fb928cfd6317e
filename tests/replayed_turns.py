"""Steps of small trainings whose turns can be recorded and replayed."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gankit
from gankit.interfaces import Augment, Loss, Turn
from gankit.training.data import prepare
from gankit.training.log import TickLog
from gankit.training.step import Stepper

SMALL = ["training.batch=3", "training.generator_batch=3", "training.critic_steps=2", "training.device=cpu"]
RESNET = ["generator.width=4", "generator.latent_dim=6", "critic.width=4", "critic.flat_blocks=1"]
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 3, 8, 8), np.uint8)
STEPS = 5


def stepper(recipe: str, *overrides: str) -> Stepper:
    experiment = gankit.load(gankit.load(recipe), *SMALL, *overrides)
    facts = {"a": np.linspace(0, 1, 24)}
    images = gankit.wrap("dataset", IMAGES, labels=np.arange(24) % 3, facts=facts)
    return Stepper(experiment, prepare(experiment.data, 0, images), TickLog(Path("unused"), False))


def state(of: Stepper) -> list[Any]:
    """All that a resumed training needs, and the means of the log."""
    values: list[Any] = []

    def gather(value: Any) -> None:
        if isinstance(value, dict):
            for item in value.values():
                gather(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                gather(item)
        else:
            values.append(value.numpy().tobytes() if isinstance(value, Tensor) else value)

    gather(of.state_dict())
    return [*values, of.log.means()]


def advanced(of: Stepper, steps: int = STEPS) -> list[Any]:
    for _ in range(steps):
        of.advance()
    return state(of)


class Scored(Augment):
    """Looks after a step at what the turn computed, at what it did not, and draws."""

    capturable = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sum", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        return images + torch.rand(len(images), 1, 1, 1, device=images.device) * 0.1

    def after_step(self, turn: Turn) -> None:
        with torch.no_grad():
            self.sum += turn.real_scores.mean() + turn.held_out_scores.mean() + torch.rand(()) + np.random.random()
            turn.log("sum", self.sum.clone())


PYTHON: dict[Any, Callable[[], float]] = {
    "draws by NumPy": np.random.random,
    "as many draws by NumPy as its state holds": lambda: float(np.random.random(312).mean()),
    "draws by Python": random.random,
}


class Drawing(Loss):
    """Draws, logs and fails as told."""

    capturable = True
    fault: Any = None

    def critic(self, turn: Turn) -> Tensor:
        drawn = turn.random.uniform(len(turn.real)).mean()
        drawn = drawn + torch.rand((), device=None if self.fault == "a draw on the host" else drawn.device)
        turn.log("drawn", drawn)
        value = drawn * turn.real_scores.square().mean()
        if self.fault == "reads back":
            value.item()
        elif self.fault == "picks by a mask":
            value = value + turn.real_scores[turn.real_scores > 0].sum()
        elif self.fault == "repeats":
            value = value * torch.ones(1).repeat_interleave(torch.ones(1, dtype=torch.int64)).to(value)
        elif self.fault == "solves":
            value = value * torch.linalg.inv(torch.eye(2)).trace()
        elif self.fault == "a number":
            value = value * torch.tensor(1.0, device=value.device)
        elif self.fault == "an index of numbers":
            value = value + turn.real_scores[[0]].sum()
        elif self.fault == "no deterministic form":
            warnings.warn("put_ does not have a deterministic implementation, but ...", stacklevel=1)
        elif self.fault in PYTHON:
            value = value * (1 + PYTHON[self.fault]())
        elif self.fault == "depends on the step":
            value = value * (1 + turn.step)
        return value


@pytest.fixture
def strangers() -> None:
    gankit.augments.register("scored")(Scored)
    gankit.losses.register("drawing")(Drawing)


LOOKS_AFTER = ["augment.name=scored", "data.held_out=0.3", 'losses=["hinge","drawing"]', *RESNET]
