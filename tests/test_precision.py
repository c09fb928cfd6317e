"""Training in bf16: one-step gradients, with penalties and of penalties alone, beside those of float32."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gankit
from gankit.interfaces import Loss, Side, Turn
from gankit.nn.modes import bfloat16
from gankit.training.start import load_networks
from gankit.training.step import Stepper
from gankit.training.trainer import Trainer

Small = Callable[..., list[str]]
pytestmark = pytest.mark.cpu  # a GPU rounds float32 to TF32 in convolutions

BATCH = 16
RECIPES = {
    "wasserstein": ['losses=["wasserstein", "gradient-penalty"]'],
    "hinge": ['losses=["hinge"]', "critic.spectral=true"],
    "r1": ['losses=["non-saturating", "r1"]'],
    "r1 and r2": ['losses=["relativistic", "r1", "r2"]'],
    "augmented": ['losses=["wasserstein", "gradient-penalty"]', "augment.name=diffaugment"],
    "classes": ['losses=["hinge", "r1"]', "data.conditional=true"],
}
# Of the norm of the difference over the norm, and of the cosine from 1. A bfloat16 has 8 bits: each operation is off by
# up to 1 part in 256. The generator's gradient runs through both networks, each there and back.
TOLERANCES: dict[Side, tuple[float, float]] = {"critic": (0.04, 0.001), "generator": (0.15, 0.01)}


def updates(small: Small, folder: Path, precision: str, *settings: str) -> Stepper:
    wide = ["generator.width=16", "critic.width=16", f"training.batch={BATCH}", f"training.generator_batch={BATCH}"]
    experiment = gankit.load("wgan-gp", *small(*wide, *settings, f"training.precision={precision}"))
    return Trainer(experiment, folder, None).stepper


def gradients(of: Stepper, side: Side, state: dict[str, Any]) -> Tensor:
    """All gradients of one update of one side, from the networks of the state."""
    load_networks(of, copy.deepcopy(state), Path("state"))
    network = of.generator if side == "generator" else of.critic
    with of.frozen_critic() if side == "generator" else contextlib.nullcontext():
        of.update(side, BATCH, 7)
    assert {parameter.grad.dtype for parameter in network.parameters() if parameter.grad is not None} == {of.like.dtype}
    # One that has no part in a penalty is without gradient, or has zeros.
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
    return torch.cat([gradient.double().flatten() for gradient in found])


def differences(found: Tensor, reference: Tensor) -> tuple[float, float]:
    """Norm of the difference over the reference's norm, and 1 less the cosine between the two."""
    cosine = torch.nn.functional.cosine_similarity(found, reference, dim=0)
    return float((found - reference).norm() / reference.norm()), float(1 - cosine)


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(recipe, marks=[pytest.mark.slow] * (recipe in ("r1", "augmented", "wasserstein")))
        for recipe in RECIPES
    ],
)
def test_one_step_gradients_are_those_of_float32_within_bf16_rounding(
    recipe: str, small: Small, tmp_path: Path
) -> None:
    begun = updates(small, tmp_path, "float32", *RECIPES[recipe])
    for _ in range(3):  # past the initial zeros
        begun.advance()
    state = copy.deepcopy(begun.state_dict())
    found = {precision: updates(small, tmp_path, precision, *RECIPES[recipe]) for precision in ("float64", "bf16")}
    for side, (norm, cosine) in TOLERANCES.items():
        reference = gradients(begun, side, state)
        exact, rounded = (gradients(each, side, state) for each in found.values())
        assert differences(reference, exact)[0] < 1e-3
        off = differences(rounded, reference)
        assert off[0] < norm
        assert off[1] < cosine
        assert off[0] > 1e-3  # it was not float32 that ran


def test_bf16_within_an_autocast_of_the_calling_program_follows_the_weights() -> None:
    layer, x = torch.nn.Linear(2, 1, bias=False), torch.ones(1, 2)
    values = []
    with torch.autocast("cpu", enabled=False):
        for weight in (1.0, 2.0):
            torch.nn.init.constant_(layer.weight, weight)
            with bfloat16(torch.device("cpu"), True):
                values.append(layer(x).item())
    assert values == [2.0, 4.0]


class GeneratorAlone(Loss):
    """Nothing for the critic, whose update is then that of the penalty beside it."""

    def generator(self, turn: Turn) -> Tensor:
        return -turn.fake_scores.mean()


def penalty_alone(name: str, precision: str, small: Small, folder: Path) -> tuple[Tensor, float]:
    """The critic's gradients of one update by a penalty alone, beside fakes drawn in bf16, and its value."""
    losses = f'losses=["generator-alone", {{name="{name}", weight=1.0}}]'
    of = updates(small, folder, precision, losses)
    plain = of.turn

    def beside_rounded_fakes(*given: Any) -> Turn:
        turn = plain(*given)
        with torch.autocast("cpu", torch.bfloat16):
            assert turn.fake.dtype == torch.bfloat16  # drawn here, and kept
        return turn

    of.turn = beside_rounded_fakes  # type: ignore[method-assign,assignment]
    return gradients(of, "critic", of.state_dict()), of.log.means()[f"critic/{name}"]


@pytest.mark.parametrize("name", ["gradient-penalty", "r1", "r2"])
def test_a_penalty_is_that_of_float32_within_bf16_rounding(name: str, small: Small, tmp_path: Path) -> None:
    gankit.losses.register("generator-alone")(GeneratorAlone)
    expected, value = penalty_alone(name, "float32", small, tmp_path)
    found, rounded = penalty_alone(name, "bf16", small, tmp_path)
    assert rounded == pytest.approx(value, rel=0.05)
    off = differences(found, expected)
    assert 1e-3 < off[0] < TOLERANCES["critic"][0]
    assert off[1] < TOLERANCES["critic"][1]


def test_every_layer_of_the_critic_is_in_bf16_within_a_penalty_too(small: Small, tmp_path: Path) -> None:
    of = updates(small, tmp_path, "bf16", 'losses=["wasserstein", "gradient-penalty"]')
    seen: list[torch.dtype] = []
    layers = [module for module in of.critic.modules() if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear))]
    for layer in layers:
        layer.register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    of.update("critic", BATCH, 0)
    assert seen == [torch.bfloat16] * (2 * len(layers))
