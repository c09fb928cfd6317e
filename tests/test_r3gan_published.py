"""`r3gan` and its losses beside the authors' code, for equal weights, in float64.

Where a clone of github.com/brownvc/R3GAN is here: `R3GAN=CLONE pytest tests/test_r3gan_published.py`. What differs:
their images have no tanh, and their generator takes zeros for what is beyond a border; here ours does so too.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from packaging import version
from torch import Tensor, nn
from torch.nn import functional as F

import gankit
from gankit.interfaces import ImageSpec, Turn
from gankit.losses.r1 import R1
from gankit.losses.r2 import R2
from gankit.losses.relativistic import Relativistic

CLONE = os.environ.get("R3GAN")
pytestmark = pytest.mark.skipif(not CLONE, reason="R3GAN names no clone of brownvc/R3GAN")
IMAGES = [ImageSpec(3, 32, 32), ImageSpec(3, 64, 64, classes=3)]
WIDTHS, DIM, N = [24, 24, 16, 16, 8], 6, 5
Pair = tuple[nn.Module, nn.Module]


@pytest.fixture(autouse=True, scope="module")
def theirs() -> Iterator[Any]:
    """Their modules, computing in float64 what they ask to have in float32."""
    names = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.syspath_prepend(CLONE)
        patch.setitem(sys.modules, "pkg_resources", SimpleNamespace(parse_version=version.parse))  # often not here
        patch.setattr(torch, "float32", torch.float64)
        torch.set_default_dtype(torch.float64)
        yield SimpleNamespace(
            networks=importlib.import_module("R3GAN.Networks"), trainer=importlib.import_module("R3GAN.Trainer"),
            resamplers=importlib.import_module("R3GAN.Resamplers"),
        )  # fmt: skip
        torch.set_default_dtype(torch.float)
    for name in set(sys.modules) - names:
        if name.partition(".")[0] in ("R3GAN", "torch_utils", "dnnlib"):
            del sys.modules[name]


def our_name(name: str, first: int) -> str:
    """The name of one of their weights in our networks; blocks follow the transition of a stage, or come first."""
    found = re.fullmatch(r"MainLayers\.(\d+)\.Layers\.(\d+)\.(\w+?)(\d?)(?:\.(Layer\.weight|weight|Bias))?", name)
    if not found:
        name = re.sub(r"(Aggregation|Extraction)Layer\.Layer", "conv", name)
        return name.replace("EmbeddingLayer", "embedding.table")
    stage, place, layer, number, rest = found.groups()
    if number:
        part = ["expand", "mix", "contract"][int(number) - 1]
        return f"stages.{stage}.{int(place) - first}.{part}.{'bias' if rest == 'Bias' else 'weight'}"
    if layer == "Basis":
        return "basis"
    return "linear.weight" if rest == "weight" else f"transitions.{int(stage) - first}.weight"


def renamed(tensors: dict[str, Tensor], first: int) -> dict[str, Tensor]:
    """Their tensors under our names, in our shapes."""
    made = {our_name(name, first): tensor for name, tensor in tensors.items() if not name.endswith("Kernel")}
    made["basis"] = made["basis"].reshape(-1, *made["basis"].shape[-2:])
    if "embedding.table.weight" in made:
        made["embedding.table.weight"] = made["embedding.table.weight"].T
    return made


def pair(theirs: Any, kind: str, image: ImageSpec) -> Pair:
    """Theirs with drawn weights, and ours with the same."""
    widths = WIDTHS[: 4 if image.height == 32 else 5]
    generator = kind == "generator"
    shared = {"BlocksPerStage": [2] * len(widths), "ExpansionFactor": 2}
    if image.classes:
        embedded = DIM if generator else widths[0]
        shared |= {"ConditionDimension": image.classes, "ConditionEmbeddingDimension": embedded}
    groups = [2 * width // 8 for width in widths]
    their = (
        theirs.networks.Generator(DIM, widths, groups, **shared)
        if generator
        else theirs.networks.Discriminator(widths[::-1], groups[::-1], **shared)
    )
    with torch.no_grad():
        for parameter in their.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.3)
    settings = {"latent_dim": DIM} if generator else {}
    ordered = widths if generator else widths[::-1]
    ours = gankit.build(kind, "r3gan", image, widths=ordered, group_width=8, **settings)
    ours.load_state_dict(renamed(their.state_dict(), int(generator)))
    return their, ours


@pytest.fixture(params=IMAGES, ids=str)
def image(request: pytest.FixtureRequest) -> ImageSpec:
    found: ImageSpec = request.param
    return found


@pytest.fixture
def generators(theirs: Any, image: ImageSpec, monkeypatch: pytest.MonkeyPatch) -> Pair:
    torch.manual_seed(1)
    up = theirs.resamplers.InterpolativeUpsampler([1, 2, 1])
    monkeypatch.setattr("gankit.generators.r3gan.F", SimpleNamespace(interpolate=lambda x, **_: up(x)))
    return pair(theirs, "generator", image)


@pytest.fixture
def critics(theirs: Any, image: ImageSpec) -> Pair:
    torch.manual_seed(2)
    return pair(theirs, "critic", image)


def labelled(image: ImageSpec) -> tuple[Tensor | None, Tensor | None]:
    """Classes, and the same as their networks take them."""
    if not image.classes:
        return None, None
    labels = torch.arange(N) % image.classes
    return labels, torch.eye(image.classes)[labels]


def assert_alike(found: Tensor, expected: Tensor, scale: float | None = None) -> None:
    """Up to rounding in float64, of values of the given size."""
    assert found.dtype == torch.float64
    scale = float(expected.detach().abs().max()) if scale is None else scale
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10 * scale)


def assert_gradients_alike(their: nn.Module, ours: nn.Module, first: int) -> None:
    """Of every weight."""
    expected = renamed({name: p.grad for name, p in their.named_parameters() if p.grad is not None}, first)
    found = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    assert set(found) == set(expected) == {name for name, _ in ours.named_parameters()}
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in found.items():
        assert_alike(gradient, expected[name], scale)


def test_up_sampling_is_theirs_but_for_the_border(theirs: Any) -> None:
    x = torch.randn(2, 3, 5, 6)
    found, expected = (
        F.interpolate(x, scale_factor=2, mode="bilinear"),
        theirs.resamplers.InterpolativeUpsampler([1, 2, 1])(x),
    )
    assert_alike(found[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1])
    assert not torch.allclose(found, expected)


def test_images_are_theirs_through_tanh(generators: Pair, image: ImageSpec) -> None:
    their, ours = generators
    labels, c = labelled(image)
    z = torch.randn(N, DIM)
    expected, found = their(z, c).tanh(), ours(z, labels)
    assert_alike(found, expected)
    weights = torch.randn_like(found)
    for images in (expected, found):
        (images * weights).sum().backward()
    assert_gradients_alike(their, ours, 1)


def test_scores_are_theirs(critics: Pair, image: ImageSpec) -> None:
    their, ours = critics
    labels, c = labelled(image)
    images = torch.randn(N, *image.shape, requires_grad=True)
    expected, found = their(images, c), ours(images, labels)
    assert_alike(found, expected)
    slopes = [torch.autograd.grad(scores.sum(), images)[0] for scores in (expected, found)]
    assert_alike(slopes[1], slopes[0])


class WithTanh(nn.Module):
    """Their generator, with the end of ours."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, c: Tensor | None) -> Tensor:
        images: Tensor = self.generator(z, c).tanh()
        return images


def test_the_gradients_of_both_updates_are_theirs(
    theirs: Any, generators: Pair, critics: Pair, image: ImageSpec
) -> None:
    """Relativistic for both; R1 and R2 with one gamma for the critic."""
    (their_g, our_g), (their_d, our_d) = generators, critics
    training = theirs.trainer.AdversarialTraining(WithTanh(their_g), their_d)
    labels, c = labelled(image)
    z, real, gamma = torch.randn(N, DIM), torch.rand(N, *image.shape) * 2 - 1, 0.7

    def turn(side: Any) -> Turn:
        return Turn(side, our_g, our_d, real=lambda: real, labels=labels, latents=z, step=0, random=None)  # type: ignore[arg-type]

    training.AccumulateDiscriminatorGradients(z, real, c, gamma)
    given = turn("critic")
    (Relativistic().critic(given) + gamma * (R1().critic(given) + R2().critic(given))).backward()
    assert_gradients_alike(their_d, our_d, 0)
    training.AccumulateGeneratorGradients(z, real, c)
    Relativistic().generator(turn("generator")).backward()
    assert_gradients_alike(their_g, our_g, 1)
