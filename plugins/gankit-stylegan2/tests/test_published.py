"""The networks and losses beside NVIDIA's published ones, for equal weights, in float64.

Where a clone of github.com/NVlabs/stylegan2-ada-pytorch is here: `STYLEGAN2_ADA=CLONE pytest tests/test_published.py`.
What differs is said in each test: their images have no tanh, their groups of the minibatch are not of neighbours, their
running mean of path lengths has moved before it is compared, and their critic maps classes by a network.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import types
import warnings

import pytest
import torch
from gankit.interfaces import ImageSpec, Turn
from gankit.losses.non_saturating import NonSaturating
from gankit.losses.r1 import R1
from torch import nn

from gankit_stylegan2 import PathLength, StyleGAN2Critic, StyleGAN2Generator
from gankit_stylegan2.layers import MinibatchStatistics
from gankit_stylegan2.path_length import path_lengths

CLONE = os.environ.get("STYLEGAN2_ADA")
pytestmark = pytest.mark.skipif(not CLONE, reason="STYLEGAN2_ADA names no clone of NVlabs/stylegan2-ada-pytorch")
IMAGES = [ImageSpec(3, 32, 32), ImageSpec(1, 64, 64), ImageSpec(1, 32, 32, classes=3), ImageSpec(3, 64, 64, classes=2)]
images_of = pytest.mark.parametrize("image", IMAGES, ids=str)
WIDTH, MOST, DIM, N = 4, 12, 10, 8

LAYERS = {
    r"mapping\.fc(\d+)": r"mapping_network.\1",
    r"mapping\.w_avg": "mean_style",
    r"synthesis\.b4\.const": "start",
    r"affine": "conv.style",
    r"noise_const": "noise.fixed",
    r"noise_strength": "noise.factor",
    r"b\d+\.fromrgb": "from_image",
    r"b4\.conv": "conv",
    r"b4\.fc": "hidden",
    r"b4\.out": "linear",
}
"""Their names and ours, apart from those of the levels."""


def our_name(name, size):
    """The name in our networks for images of a size of one of their weights."""
    for theirs, ours in LAYERS.items():
        name = re.sub(rf"\b{theirs}\b", ours, name)
    found = re.match(r"(synthesis\.)?b(\d+)\.(\w+)\.(.*)", name)
    if not found:
        return name
    level, (_, _, layer, rest) = int(found[2]).bit_length() - 3, found.groups()
    if not found[1]:
        place = size.bit_length() - 3 - level
        return f"blocks.{place}." + {"conv0": "conv1", "conv1": "conv2", "skip": "shortcut"}[layer] + f".{rest}"
    rest = re.sub("^weight", "conv.weight", rest)
    return f"to_image.{level}.{rest}" if layer == "torgb" else f"layers.{2 * level - (layer == 'conv0')}.{rest}"


def renamed(tensors, size):
    """Their tensors under our names; filters are left out, and what their networks do to labels."""
    return {
        our_name(name, size): tensor
        for name, tensor in tensors.items()
        if "resample_filter" not in name and "embed" not in name
    }


@pytest.fixture(autouse=True, scope="module")
def theirs():
    """Their modules, computing in float64 what they ask to have in float32."""
    names = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.syspath_prepend(CLONE)
        with contextlib.suppress(ImportError):
            importlib.import_module("distutils.util")
        for name in ("distutils", "distutils.util"):  # newer Pythons have none; a function of it is imported
            patch.setitem(sys.modules, name, sys.modules.get(name) or types.SimpleNamespace(strtobool=bool))
        modules = types.SimpleNamespace(
            **{name: importlib.import_module(f"training.{name}") for name in ("networks", "loss")}
        )
        patch.setattr(torch, "float32", torch.float64)
        torch.set_default_dtype(torch.float64)
        yield modules
        torch.set_default_dtype(torch.float)
    for name in set(sys.modules) - names:
        if name.partition(".")[0] in ("training", "torch_utils", "dnnlib"):
            del sys.modules[name]


def drawn(network):
    """Every weight that starts as zeros drawn, too."""
    with torch.no_grad():
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            if "resample_filter" not in name and tensor.min() == tensor.max():
                tensor.add_(torch.randn_like(tensor))
    return network


@pytest.fixture
def generators(theirs, image):
    """Theirs, and ours with its weights."""
    torch.manual_seed(1)
    their = drawn(
        theirs.networks.Generator(
            DIM, image.classes, DIM, image.height, image.channels, mapping_kwargs={"num_layers": 3},
            synthesis_kwargs={"channel_base": 64 * WIDTH, "channel_max": MOST},
        )
    )  # fmt: skip
    ours = StyleGAN2Generator(
        image, latent_dim=DIM, style_dim=DIM, mapping_layers=3, width=WIDTH, max_width=MOST, mixing=0.0
    )
    state = renamed(their.state_dict(), image.height)
    if image.classes:  # their linear map of one-hot classes has a bias; our table has its rows
        embed = their.mapping.embed
        state["embedding.table.weight"] = embed.weight.T * embed.weight_gain + embed.bias
    load(ours, state)
    for layer in ours.layers:  # they add 1e-8 to the squares of weights that are not yet over the root of the fan-in
        layer.conv.scale = 1.0
    return their, ours


@pytest.fixture
def critics(theirs, image):
    """Theirs, and ours with its weights."""
    torch.manual_seed(1)
    their = drawn(
        theirs.networks.Discriminator(
            image.classes, image.height, image.channels, channel_base=64 * WIDTH, channel_max=MOST
        )
    )
    ours = StyleGAN2Critic(image, width=WIDTH, max_width=MOST)
    state = renamed(their.state_dict(), image.height)
    if image.classes:
        # Theirs is a product of maps of the features and of the class, without a score that knows no class. At the
        # bias with which it starts, zero, it is one of our projections.
        out = their.b4.out
        out.requires_grad_(False).bias.zero_()
        rows = their.mapping(None, torch.eye(image.classes)).detach()
        state = {name: tensor for name, tensor in state.items() if not name.startswith("mapping")}
        state["projection.table.weight"] = rows @ out.weight * out.weight_gain
        state["linear.weight"], state["linear.bias"] = torch.zeros(1, MOST), torch.zeros(1)
    load(ours, {"statistics.running": torch.zeros(()), **state})
    return their, ours


def load(network, state):
    """Every weight of a network, and no others."""
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    network.load_state_dict({name: tensor.detach().reshape(shapes.get(name, ())) for name, tensor in state.items()})


def assert_alike(found, expected, scale=None):
    """Up to rounding in float64, of values of the given size."""
    assert found.dtype == torch.float64
    scale = float(expected.detach().abs().max()) if scale is None else scale
    torch.testing.assert_close(found, expected.reshape(found.shape), rtol=1e-9, atol=1e-10 * scale)


def assert_gradients_alike(ours, their, size):
    """Of all weights that both have; where ours has none, as of a bias that a penalty does not see, theirs is zero."""
    own = dict(ours.named_parameters())
    expected = renamed({name: p.grad for name, p in their.named_parameters() if p.grad is not None}, size)
    expected = {name: gradient for name, gradient in expected.items() if name in own}
    found = {name: p.grad for name, p in own.items() if p.grad is not None and p.grad.any()}
    only_ours = {"embedding.table.weight", "projection.table.weight", "linear.weight", "linear.bias"}
    assert set(found) - set(expected) <= only_ours
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    assert scale > 0
    for name, gradient in expected.items():
        assert_alike(found.get(name, torch.zeros_like(gradient)), gradient, scale)


def labelled(image, n=N):
    """Classes, and the same as their networks take them."""
    if not image.classes:
        return None, torch.zeros(n, 0)
    labels = torch.arange(n) % image.classes
    return labels, torch.eye(image.classes)[labels]


@images_of
@pytest.mark.parametrize("truncation", [1.0, 0.6])
def test_images_are_theirs_through_tanh(generators, image, truncation):
    """With the noise that is kept; and their gradients."""
    their, ours = (network.eval() for network in generators)
    labels, c = labelled(image)
    z = torch.randn(N, DIM, requires_grad=True)
    expected = their(z, c, truncation_psi=truncation, noise_mode="const").tanh()
    found = ours.truncated(truncation)(z, labels)
    assert_alike(found, expected)
    weights = torch.randn_like(found)
    slopes = []
    for images in (expected, found):
        z.grad = None
        (images * weights).sum().backward()
        slopes.append(z.grad)
    assert_alike(slopes[1], slopes[0])
    assert_gradients_alike(ours, their, image.height)
    if image.classes:
        embed = their.mapping.embed
        assert_alike(ours.embedding.table.weight.grad, embed.weight.grad.T / embed.weight_gain)


@images_of
def test_the_mean_style_follows_as_theirs(generators, image):
    """From one batch of training to the next."""
    their, ours = (network.train() for network in generators)
    labels, c = labelled(image)
    z = torch.randn(N, DIM)
    their.mapping(z, c)
    ours(z, labels)
    assert_alike(ours.mean_style, their.mapping.w_avg)


def neighbours(n, group=4):
    """Where our critic finds the samples that make a group of theirs."""
    return torch.arange(n).view(group, -1).T.flatten()


@images_of
def test_scores_and_their_penalty_are_theirs(theirs, critics, image):
    """In training, with neighbours where they take every second sample; the slopes at the images, too."""
    their, ours = critics
    labels, c = labelled(image)
    images = torch.randn(N, *image.shape, requires_grad=True)
    order = neighbours(N)
    expected, found = their(images, c)[order, 0], ours(images[order], None if labels is None else labels[order])
    assert_alike(found, expected)
    slopes = [torch.autograd.grad(scores.sum(), images, create_graph=True)[0] for scores in (expected, found)]
    assert_alike(slopes[1], slopes[0])
    for network, slope in zip((their, ours), slopes, strict=True):
        slope.square().sum().backward(inputs=[p for p in network.parameters() if p.requires_grad], retain_graph=True)
    assert_gradients_alike(ours, their, image.height)


@pytest.mark.parametrize(("n", "group"), [(8, 4), (6, 3), (12, 4), (4, 8), (3, 1)])
def test_statistics_of_a_minibatch_are_theirs(theirs, n, group):
    """Of neighbours, for theirs of samples as far apart as there are groups."""
    x = torch.randn(n, 5, 3, 3)
    order = neighbours(n, min(group, n))
    assert_alike(MinibatchStatistics(group)(x[order]), theirs.networks.MinibatchStdLayer(group)(x)[order])


class WithTanh(nn.Module):
    """Their synthesis, with the end of ours."""

    def __init__(self, synthesis):
        super().__init__()
        self.synthesis = synthesis

    def forward(self, ws):
        """Styles to images."""
        return self.synthesis(ws).tanh()


class Draws:
    """Draws of a turn from the generator of torch that theirs uses."""

    def normal(self, *shape):
        """Standard normal values."""
        return torch.randn(shape)


def turn(side, generator, critic, image, real, z):
    """A turn without an augment."""
    labels, _ = labelled(image, len(z))
    return Turn(side, generator, critic, real=lambda: real, labels=labels, latents=z, step=0, random=Draws(),
                critic_mixes=True)  # fmt: skip


@images_of
def test_losses_are_theirs(theirs, generators, critics, image):
    """Non-saturating for both networks, R1 with their gamma, the path length with fresh noise in every layer.

    Their path lengths are compared with a mean that has moved by this batch already, and is differentiated: here it
    does not move. Their critic sees groups of one sample.
    """
    (their_g, our_g), (their_d, our_d) = generators, critics
    their_d.b4.mbstd.group_size = our_d.statistics.group = 1
    loss = theirs.loss.StyleGAN2Loss(
        torch.device("cpu"), their_g.mapping, WithTanh(their_g.synthesis), their_d, style_mixing_prob=0, r1_gamma=3,
        pl_batch_shrink=1, pl_decay=0, pl_weight=2,
    )  # fmt: skip
    path_length = PathLength(rate=1.0)
    loss.pl_mean.fill_(0.3)
    path_length.mean_length.fill_(0.3)
    _, c = labelled(image)
    z, real = torch.randn(N, DIM), torch.rand(N, *image.shape) * 2 - 1
    cases = [
        ("Dmain", "critic", NonSaturating().critic, 1, (their_d, our_d)),
        ("Gmain", "generator", NonSaturating().generator, 1, (their_g, our_g)),
        ("Dreg", "critic", R1().critic, 3, (their_d, our_d)),
        ("Greg", "generator", path_length.generator, PathLength.default_weight, (their_g, our_g)),
    ]
    for phase, side, ours, weight, networks in cases:
        for network in (their_g, their_d, our_g, our_d):
            network.zero_grad()
        torch.manual_seed(2)
        loss.accumulate_gradients(phase, real, c, z, c, sync=True, gain=1)
        torch.manual_seed(2)
        (weight * ours(turn(side, our_g, our_d, image, real, z))).backward()
        assert_gradients_alike(*networks[::-1], image.height)


@pytest.mark.parametrize("image", IMAGES[:1], ids=str)
def test_the_mean_length_moves_as_theirs(theirs, generators, image):
    """By a hundredth of the way; their penalty already sees the moved mean, ours the one before."""
    their, ours = generators
    loss = theirs.loss.StyleGAN2Loss(
        torch.device("cpu"), their.mapping, WithTanh(their.synthesis), None, style_mixing_prob=0, pl_batch_shrink=1
    )
    z, path_length, reported = torch.randn(N, DIM), PathLength(), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs.loss.training_stats, "report", lambda name, value: reported.update({name: value}))
        torch.manual_seed(2)
        loss.accumulate_gradients("Greg", None, None, z, torch.zeros(N, 0), sync=True, gain=1)
    torch.manual_seed(2)
    lengths = path_lengths(ours, turn("generator", ours, None, image, None, z))
    torch.manual_seed(2)
    penalty = path_length.generator(turn("generator", ours, None, image, None, z))
    assert_alike(path_length.mean_length, loss.pl_mean)
    assert_alike(penalty, lengths.square().mean())
    assert_alike((lengths - path_length.mean_length).square(), reported["Loss/pl_penalty"])
