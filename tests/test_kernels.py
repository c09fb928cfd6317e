"""How many operations layers and augments take, since each is a kernel on a GPU; and that they compute the same."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from operations import Operations
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

import gankit
from gankit.augments import diffaugment
from gankit.interfaces import ImageSpec, Side
from gankit.nn import layer_norm, modes
from gankit.nn.layers import Norm, ResampledConv2d, fuse_resampling, with_spectral_norm
from gankit.training.data import prepare
from gankit.training.log import TickLog
from gankit.training.step import Stepper


def operations(work: Callable[[], object]) -> list[str]:
    with Operations() as done:
        work()
    return done.names


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU."""
    monkeypatch.setattr(modes, "FEW_KERNEL_DEVICES", {"cpu"})


# --- DiffAugment ----------------------------------------------------------------------------------------------------


def plain_color(images: Tensor) -> Tensor:
    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(len(images), 1, 1, 1) * (high - low) + low

    images = images + uniform(-0.5, 0.5)
    if images.shape[1] > 1:
        images = torch.lerp(images.mean(1, keepdim=True), images, uniform(0.0, 2.0))
    return torch.lerp(images.mean((1, 2, 3), keepdim=True), images, uniform(0.5, 1.5))


def plain_translation(images: Tensor) -> Tensor:
    n, _, height, width = images.shape
    most = [int(0.125 * size + 0.5) for size in (height, width)]
    shifts = torch.cat([torch.randint(-m, m + 1, (n, 1)) for m in most], 1).tolist()
    padded = F.pad(images, (most[1], most[1], most[0], most[0]))
    return torch.stack([
        image[:, most[0] - down : most[0] - down + height, most[1] - right : most[1] - right + width]
        for image, (down, right) in zip(padded, shifts, strict=True)
    ])  # fmt: skip


def plain_cutout(images: Tensor) -> Tensor:
    n, *_, height, width = images.shape
    mask = torch.ones(n, 1, height, width, dtype=torch.bool)
    boxes = []
    for size in (height, width):
        length = int(0.5 * size + 0.5)
        starts = torch.randint(0, size + 1 - length % 2, (n,)) - length // 2
        boxes.append([slice(max(start, 0), start + length) for start in starts.tolist()])
    for one, rows, columns in zip(mask, *boxes, strict=True):
        one[:, rows, columns] = False
    return images * mask


PLAIN = {"color": plain_color, "translation": plain_translation, "cutout": plain_cutout}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("shape", [(5, 3, 16, 24), (4, 1, 9, 7), (2, 3, 3, 2)])
def test_diffaugment_computes_bitwise_what_is_written_plainly(name: str, shape: tuple[int, ...]) -> None:
    """Images, and gradients of them and of these, from the same draws."""
    made = []
    for change in (PLAIN[name], diffaugment.OPERATIONS[name]):
        torch.manual_seed(0)
        images, weights = torch.randn(shape).requires_grad_(), torch.randn(shape)
        torch.manual_seed(1)
        result = change(images)
        (first,) = torch.autograd.grad(result.square(), images, weights, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(3), images, weights)
        made.append([result, first, second, torch.rand(2)])
    for plain, ours in zip(*made, strict=True):
        assert torch.equal(plain, ours)


def test_diffaugment_takes_few_operations_there_and_back() -> None:
    images = torch.randn(4, 3, 16, 16, requires_grad=True)
    counts, back = {}, {}
    for name, change in diffaugment.OPERATIONS.items():
        counts[name] = len(operations(lambda change=change: change(images)))
        result = change(images)
        weights = torch.ones_like(result)
        back[name] = operations(lambda result=result, weights=weights: torch.autograd.grad(result, images, weights))
    assert counts == {"color": 9, "translation": 8, "cutout": 12}
    assert back["translation"] == ["neg", "sub", "constant_pad_nd", "gather"]  # adding by index is sorted on a GPU


# --- normalisation --------------------------------------------------------------------------------------------------


def test_batch_normalisation_is_one_operation_beside_its_counter() -> None:
    x = torch.randn(4, 6, 5, 5)
    plain, by_class = Norm("batch", 6), Norm("batch", 6, ImageSpec(3, 8, 8, classes=3))
    assert operations(lambda: plain(x)) == ["add_", "native_batch_norm"]
    labels = torch.tensor([0, 1, 2, 0])
    assert operations(lambda: by_class(x, labels)) == [
        "add_", "native_batch_norm", "embedding", "embedding", "addcmul",
    ]  # fmt: skip


def spectral_networks() -> list[nn.Module]:
    """torch's, and gankit's with its state."""
    networks = []
    for norm in (lambda network: [spectral_norm(layer) for layer in network], with_spectral_norm):
        torch.manual_seed(0)
        networks.append(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1), nn.Linear(2, 5)).double())
        norm(networks[-1])
    networks[1].load_state_dict(networks[0].state_dict())  # checkpoints of torch's fit
    return networks


def spectral_steps(network: nn.Module, order: int = 2) -> list[Tensor]:
    """What three passes give, with derivatives, and the state after them."""
    torch.manual_seed(1)
    found: list[Tensor] = []
    for _ in range(3):
        x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
        y = network[2](network[1](network[0](x).tanh()).mean((2, 3)).tanh())
        latest = [y]
        for _ in range(order):
            total = sum((each * (1 + each).tanh()).sum() for each in latest)
            latest = list(torch.autograd.grad(total, [x, *network.parameters()], create_graph=True))  # type: ignore[arg-type]
            found += latest
    return [*found, *network.state_dict().values()]


def test_spectral_normalisation_is_torchs_through_two_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    torchs, ours = spectral_networks()
    expected = spectral_steps(torchs)
    for a, b in zip(expected, spectral_steps(ours), strict=True):
        assert torch.equal(a, b)  # on a CPU
    monkeypatch.setattr(modes, "FEW_KERNEL_DEVICES", {"cpu"})
    for a, b in zip(expected, spectral_steps(spectral_networks()[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("few")
def test_spectral_normalisation_takes_few_operations_there_and_back() -> None:
    layers = [spectral_norm(nn.Linear(4, 3)), nn.Linear(4, 3)]
    with_spectral_norm(layers[1])
    given, there, back = torch.ones(3, 4), [], []
    for layer in layers:
        there.append(operations(lambda layer=layer: layer.weight))
        weight = layer.weight
        with Operations() as done:
            weight.backward(given)
        back.append(done.names)
    assert [len(names) for names in there] == [13, 11]
    assert [len(names) for names in back] == [9, 4]


@pytest.mark.usefixtures("few")
def test_a_weight_of_zeros_has_a_norm() -> None:
    layer = nn.Linear(4, 3)
    nn.init.zeros_(layer.weight)
    with_spectral_norm(layer)
    assert layer.weight.isfinite().all()


# --- convolutions ---------------------------------------------------------------------------------------------------


def test_a_kernel_fused_with_resampling_takes_few_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    expected = fuse_resampling(weight)
    monkeypatch.setattr(modes, "FEW_KERNEL_DEVICES", {"cpu"})
    torch.testing.assert_close(fuse_resampling(weight), expected, rtol=1e-12, atol=1e-12)
    assert operations(lambda: fuse_resampling(weight)) == ["constant_pad_nd", "avg_pool2d"]


def turn(side: Side, recipe: str, *overrides: str) -> Operations:
    """The operations of a turn."""
    small = ["training.batch=3", "training.generator_batch=3", "training.device=cpu", "generator.width=4"]
    experiment = gankit.load(recipe, *small, "critic.width=4", *overrides)
    images = gankit.wrap("dataset", np.random.default_rng(0).integers(0, 256, (9, 3, 16, 16), np.uint8))
    of = Stepper(experiment, prepare(experiment.data, 0, images), TickLog(Path("unused"), False))
    of.advance()
    frozen: Any = of.frozen_critic() if side == "generator" else contextlib.nullcontext()
    with frozen, Operations() as done:
        of.update(side, 3, 1)
    return done


@pytest.mark.parametrize("side", ["critic", "generator"])
def test_in_bf16_weights_are_cast_once_a_turn_and_convolutions_stay_cheap(side: Side) -> None:
    settings = ["data.size=16", 'losses=["wasserstein","gradient-penalty"]', "critic.flat_blocks=1"]
    plain, rounded = (turn(side, "wgan-gp", *settings, f"training.precision={p}") for p in ("float32", "bf16"))
    convolutions = ["convolution", "convolution_backward"]
    counts = [Counter(names) for names in (plain.names, rounded.names)]
    assert [counts[0][name] for name in convolutions] == [counts[1][name] for name in convolutions]
    assert counts[0]["constant_pad_nd"] >= counts[1]["constant_pad_nd"]
    network = gankit.load("wgan-gp", "critic.width=4", "generator.width=4", "critic.flat_blocks=1")
    image = ImageSpec(3, 16, 16)
    kernels = 0
    for part in (network.critic, network.generator):
        modules = part.part.build(image).modules()
        kernels += sum(isinstance(module, nn.Conv2d) for module in modules)
    cast = [shape for shape in rounded.casts if len(shape) == 4 and shape[0] <= 4 and shape[2] <= 4 and shape[1] <= 4]
    assert len(cast) == kernels


@pytest.mark.usefixtures("few")
def test_layer_normalisation_changes_no_layout_and_does_no_more_on_whole_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a whole turn of the critic, its penalty included; the small operations, on numbers by channel, are more."""
    counts = []
    for own in (False, True):
        monkeypatch.setattr(layer_norm, "few_kernels", lambda device, own=own: own)
        widths = [f"{kind}.widths=[4,4,4]" for kind in ("generator", "critic")]
        done = turn("critic", "wgan-gp-64", "data.size=16", *widths)
        maps = 3 * 4 * 4 * 4  # those of 4x4, of three samples
        counts.append(Counter(name for name, size in zip(done.names, done.sizes, strict=True) if size >= maps))
    torchs, ours = counts
    assert ours["native_group_norm_backward"] == 0 < torchs["native_group_norm_backward"]
    assert ours.total() <= 1.1 * torchs.total()
    assert ours["clone"] <= torchs["clone"]


@pytest.mark.usefixtures("few")
def test_a_resampled_convolution_is_the_plain_one_with_few_kernels_too() -> None:
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for resample in ("up", "down"):
        plain, fused = (ResampledConv2d(3, 4, 3, resample, fused=fused).double() for fused in (False, True))
        fused.load_state_dict(plain.state_dict())
        torch.testing.assert_close(fused(x), plain(x))
