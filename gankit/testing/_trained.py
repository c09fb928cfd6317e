"""What the suites of parts that take part in a training share: they are trained in small, and replayed."""

import math
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from gankit.errors import GankitError
from gankit.experiments.experiment import Experiment, load
from gankit.registry import registry
from gankit.registry.wrapping import wrap
from gankit.testing._capture import assert_capturable
from gankit.testing._suite import Suite, assert_one_line
from gankit.training.data import TrainingData, prepare
from gankit.training.rehearsal import rehearse


class TrainedSuite(Suite):
    """Tests of a generator, a critic, a loss or an augment in a small training."""

    def partners(self) -> dict[str, Any]:
        """Tables of an experiment, by kind, in place of linear networks and the hinge loss."""
        return {}

    def training(self) -> tuple[Experiment, TrainingData]:
        """An experiment with the part and its partners, and data for it."""
        image = self.image
        known: dict[str, Any] = {"labels": np.arange(16) % image.classes} if image.classes else {}
        known["facts"] = {f"fact-{k}": np.random.default_rng(k).normal(size=16) for k in range(image.conditions)}
        images = np.random.default_rng(0).integers(0, 256, (16, *image.shape), np.uint8)
        conditional = bool(image.classes) or list(known["facts"])
        pixels = math.prod(image.shape)
        facts: dict[str, Any] = {"labels": True, "capturable": True}
        registry("generator").register("linear")(wrap("generator", _Linear(8, image.shape), latent_dim=8, **facts))
        registry("critic").register("linear")(wrap("critic", _Linear(pixels, (1,)), **facts))
        tables: dict[str, Any] = {
            "generator": "linear", "critic": "linear", "loss": {"name": "hinge"}, **self.partners(),
            self.kind: {**self.settings, **self.files, "name": named(self.kind, self.part)},
        }  # fmt: skip
        losses = tables.pop("loss")
        experiment = load({
            **tables, "losses": [{"name": "hinge"}, losses],
            "training": {"batch": 4, "critic_steps": 2, "device": "cpu"},
            "data": {"name": "eyes", "conditional": conditional, "held_out": 0.5},
            "evaluation": {"features": "pixels"},
        })  # fmt: skip
        return experiment, prepare(experiment.data, 0, wrap("dataset", images, **known))

    def test_can_be_trained_saved_exported_and_resumed(self) -> None:
        """Trainings rehearse this before they write anything, and refuse a part that cannot."""
        try:
            rehearse(*self.training())
        except GankitError as error:
            assert_one_line(error)
            pytest.fail(str(error))

    def test_can_be_replayed(self) -> None:
        """`capturable = True`: its turns compute the same once they are replayed, and stay on their device."""
        if not self.build().capturable:
            pytest.skip("it does not say that it can be captured, so that its turns run eagerly")
        assert_capturable(*self.training())


class _Linear(nn.Module):
    """One linear layer, as a generator or a critic; labels are ignored."""

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(size, math.prod(shape)), nn.Unflatten(1, shape))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        values: Tensor = self.layers(x)
        return values.tanh() if values.dim() == 4 else values


def named(kind: str, part: str | type) -> str:
    """The name of a part, registered here where it is a class."""
    if isinstance(part, str):
        return part
    registry(kind).register(f"{part.__name__} under test")(part)
    return f"{part.__name__} under test"
