"""The networks of R3GAN: the paper's parameter counts, initialisation, grouped convolutions, labels, refusals."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gankit
from gankit.errors import PartError
from gankit.interfaces import FeatureCritic, ImageSpec
from gankit.nn.bottleneck import Halving, InvertedBottleneck, group_count
from gankit.nn.double_backward import conv2d, leaky_relu
from gankit.nn.layers import set_influence
from gankit.registry import registry

IMAGENET = {"group_width": 32}


def parameters(kind: str, image: ImageSpec, **settings: Any) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in gankit.build(kind, "r3gan", image, **settings).parameters())


@pytest.mark.parametrize(
    ("image", "settings", "generator", "critic"),
    [
        (ImageSpec(3, 32, 32), {}, 20.73, 20.68),
        (ImageSpec(3, 32, 32, classes=10), {}, 20.78, 21.28),
        (ImageSpec(3, 64, 64), {}, 22.43, 22.38),
        (ImageSpec(3, 256, 256), {}, 23.06, 23.01),
        (ImageSpec(3, 32, 32, classes=1000), {"widths": [1536] * 4, **IMAGENET}, 82.91, 86.55),
        (ImageSpec(3, 64, 64, classes=1000), {"widths": [1536] * 5, **IMAGENET}, 103.57, 107.21),
    ],
    ids=["Stacked MNIST", "CIFAR-10", "FFHQ 64", "FFHQ 256", "ImageNet 32", "ImageNet 64"],
)
def test_parameter_counts_are_those_of_table_9(
    image: ImageSpec, settings: dict[str, Any], generator: float, critic: float
) -> None:
    counts = [parameters(kind, image, **{"width": 768, **settings}) for kind in ("generator", "critic")]
    assert [round(count / 1e6, 2) for count in counts] == [generator, critic]


@pytest.mark.parametrize("kind", ["generator", "critic"])
def test_the_default_count_is_that_of_the_docstring(kind: str) -> None:
    text = re.sub(r"\s+", " ", registry(kind).get("r3gan").__doc__ or "")
    assert f"it has {parameters(kind, ImageSpec(3, 32, 32)):,} parameters" in text


def test_a_block_starts_as_the_identity_and_keeps_the_variance_inside() -> None:
    """Fix-up: zeros in the last convolution, and L^(-1/4) on the two before it, of which there are L."""
    torch.manual_seed(0)
    block, x = InvertedBottleneck(64, 16, 2, 16), torch.randn(8, 64, 16, 16)
    assert torch.equal(block(x), x)
    inner = leaky_relu(block.mix(leaky_relu(block.expand(x), 0.2)), 0.2)
    assert inner[:, :, 1:-1, 1:-1].square().mean().item() == pytest.approx(16**-1, rel=0.1)


@pytest.mark.parametrize(("channels", "count"), [(1536, 96), (256, 16), (40, 2), (72, 4), (50, 2), (34, 2), (8, 1)])
def test_groups_have_sixteen_channels_or_the_next_number_that_divides(channels: int, count: int) -> None:
    assert group_count(channels, 16) == count


def test_images_start_as_a_mixture_of_maps() -> None:
    """Every block is the identity, so that images are up-sampled sums of the learned maps, of unit variance."""
    torch.manual_seed(0)
    generator = gankit.build("generator", "r3gan", ImageSpec(3, 4, 4))
    z = torch.randn(256, 64)
    maps = generator.linear(z)[:, :, None, None] * generator.basis
    torch.testing.assert_close(generator(z), F.conv2d(maps, generator.conv.weight).tanh())
    assert maps.square().mean().item() == pytest.approx(1, rel=0.2)


def test_the_head_of_the_critic_is_a_depthwise_convolution_and_a_linear_map() -> None:
    critic = gankit.build("critic", "r3gan", ImageSpec(3, 5, 6), width=8)
    assert isinstance(critic, FeatureCritic)
    images = torch.randn(3, 3, 5, 6)
    x = critic.stages[0](critic.conv(images))
    pooled = F.conv2d(x, critic.basis[:, None], groups=8).flatten(1)
    torch.testing.assert_close(critic.features(images), pooled)
    torch.testing.assert_close(critic(images), pooled @ critic.linear.weight[0])


@pytest.mark.parametrize("image", [ImageSpec(3, 16, 16, classes=3), ImageSpec(3, 16, 16, conditions=2)], ids=str)
def test_labels_act_by_embedding_and_projection(image: ImageSpec) -> None:
    torch.manual_seed(0)
    generator = gankit.build("generator", "r3gan", image, width=8, latent_dim=5)
    critic = gankit.build("critic", "r3gan", image, width=8)
    labels = torch.tensor([0, 2]) if image.classes else torch.tensor([[0.0, 1.0], [2.0, -1.0]])
    images = generator(torch.randn(1, 5).expand(2, -1), labels)
    assert not torch.allclose(images[0], images[1], atol=1e-3)
    features = critic.features(images)
    torch.testing.assert_close(critic(images, labels), (critic.embedding(labels) * critic.linear(features)).sum(1))
    for network, inputs in ((generator, torch.randn(2, 5)), (critic, images)):
        with pytest.raises(PartError, match="give it labels"):
            network(inputs)
        set_influence(network, 0.0)
        torch.testing.assert_close(network(inputs, labels), network(inputs, labels.flip(0)))


@pytest.mark.parametrize("image", [ImageSpec(3, 8, 8, classes=20), ImageSpec(3, 8, 8, conditions=20)], ids=str)
def test_labels_start_with_small_scores(image: ImageSpec) -> None:
    """As the authors' code has it: of features of unit variance a variance of one over the number of labels."""
    torch.manual_seed(0)
    embedding = gankit.build("critic", "r3gan", image, width=64).embedding
    assert embedding.table.weight.square().sum(-1 if image.classes else 0).mean().item() == pytest.approx(0.05, rel=0.1)


def test_halving_keeps_out_what_the_smaller_map_cannot_hold() -> None:
    """Every second value after the filter [1, 3, 3, 1] / 8: means stay, the finest stripes go."""
    stripes = torch.tensor([1.0, -1]).repeat(4).expand(1, 2, 8, 8)
    halved = Halving()(torch.cat([torch.ones_like(stripes), stripes]))[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(halved[0], torch.ones(2, 2, 2))
    torch.testing.assert_close(halved[1], torch.zeros(2, 2, 2))
    impulse = torch.zeros(1, 1, 8, 8)
    impulse[..., 4, 4] = 64
    assert Halving()(impulse)[0, 0, 1:3, 1:3].tolist() == [[1, 3], [3, 9]]


@pytest.mark.parametrize(("kind", "least"), [("generator", [4, 4]), ("critic", [4, 4])])
def test_settings_that_cannot_work(kind: str, least: list[int]) -> None:
    with pytest.raises(PartError, match=rf"{kind}\.widths has 2 numbers; an image of this size takes 3"):
        gankit.build(kind, "r3gan", ImageSpec(3, 16, 16), widths=least)
    with pytest.raises(PartError, match=rf"{kind} r3gan does not fit images 36 high"):
        gankit.build(kind, "r3gan", ImageSpec(3, 36, 36))


def test_widths_are_given_in_the_order_in_which_they_are_met() -> None:
    generator = gankit.build("generator", "r3gan", ImageSpec(3, 8, 8), widths=[6, 4])
    critic = gankit.build("critic", "r3gan", ImageSpec(3, 8, 8), widths=[4, 6])
    assert (generator.basis.shape[0], generator.conv.in_channels) == (6, 4)
    assert (critic.conv.out_channels, critic.basis.shape[0]) == (4, 6)


@pytest.mark.parametrize("stride", [1, 2])
def test_grouped_convolutions_have_the_derivatives_of_torch(stride: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(6, dtype=torch.float64, requires_grad=True)

    def third(convolution: Any) -> tuple[Tensor, ...]:
        inputs = (x, weight, bias)
        first = torch.autograd.grad(convolution().pow(3).sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(each.pow(3).sum() for each in first), inputs, create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in second), inputs)

    own = third(lambda: conv2d(x, weight, bias, stride, 1, 2))
    expected = third(lambda: F.conv2d(x, weight, bias, stride, 1, 1, 2))
    for a, b in zip(own, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * float(b.abs().max()))


def test_a_leaky_relu_has_the_derivatives_of_torch() -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.equal(leaky_relu(x, 0.2), F.leaky_relu(x, 0.2))
    assert torch.autograd.gradcheck(lambda x: leaky_relu(x, 0.2), x)
    assert torch.autograd.gradgradcheck(lambda x: leaky_relu(x, 0.2).pow(2), x)


def test_a_penalty_has_the_gradients_of_torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    critic: nn.Module = gankit.build("critic", "r3gan", ImageSpec(3, 12, 10), width=8, group_width=4).double()
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    images = torch.randn(2, 3, 12, 10, dtype=torch.float64, requires_grad=True)

    def gradients() -> list[Tensor]:
        (slopes,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
        found = torch.autograd.grad(slopes.square().sum(), list(critic.parameters()), allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(critic.parameters(), found, strict=True)]

    found = gradients()
    monkeypatch.setattr("gankit.nn.double_backward.uses_torch", lambda: True)
    for own, expected in zip(found, gradients(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-12)


def in_float64(module: nn.Module) -> dict[str, Tensor]:
    """Weights, drawn anew so that none is zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return dict(module.named_parameters())


def leaky(x: Tensor) -> Tensor:
    return torch.maximum(x, 0.2 * x)


def stage(x: Tensor, weights: dict[str, Tensor], number: int, groups: int) -> Tensor:
    """Two inverted bottlenecks as section 3.3 has them, by sums over windows and channels."""
    for block in range(2):
        expand, mix, contract = (f"stages.{number}.{block}.{name}" for name in ("expand", "mix", "contract"))
        inner = torch.einsum("oi,nihw->nohw", weights[f"{expand}.weight"][:, :, 0, 0], x)
        inner = leaky(inner + weights[f"{expand}.bias"][:, None, None])
        windows = F.pad(inner, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
        windows = windows.reshape(len(x), groups, -1, *windows.shape[2:])
        kernel = weights[f"{mix}.weight"].reshape(groups, -1, windows.shape[2], 3, 3)
        mixed = torch.einsum("goiyx,ngihwyx->ngohw", kernel, windows).flatten(1, 2)
        mixed = leaky(mixed + weights[f"{mix}.bias"][:, None, None])
        x = x + torch.einsum("oi,nihw->nohw", weights[f"{contract}.weight"][:, :, 0, 0], mixed)
    return x


def halved(x: Tensor) -> Tensor:
    """[1, 3, 3, 1] / 8 along both axes, zeros outside, every second value."""
    rows = F.pad(x, (0, 0, 1, 1)).unfold(2, 4, 2)
    columns = F.pad(rows @ torch.tensor([1, 3, 3, 1], dtype=x.dtype) / 8, (1, 1)).unfold(3, 4, 2)
    found: Tensor = columns @ torch.tensor([1, 3, 3, 1], dtype=x.dtype) / 8
    return found


def doubled(x: Tensor) -> Tensor:
    """Linear between the centres of pixels, the last value beyond the border: quarters and three quarters."""
    for axis in (2, 3):
        ends = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
        before = torch.cat([ends[0], x.narrow(axis, 0, x.shape[axis] - 1)], axis)
        after = torch.cat([x.narrow(axis, 1, x.shape[axis] - 1), ends[1]], axis)
        x = torch.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1).flatten(axis, axis + 1)
    return x


@pytest.mark.parametrize("classes", [0, 3])
def test_both_networks_compute_the_papers_equations(classes: int) -> None:
    """Written out in float64 without a layer of gankit or a convolution of torch; outputs and gradients."""
    image = ImageSpec(3, 10, 12, classes=classes)
    generator = gankit.build("generator", "r3gan", image, latent_dim=5, width=8, widths=[8, 6], group_width=4)
    critic = gankit.build("critic", "r3gan", image, widths=[6, 8], group_width=4)
    labels = torch.tensor([0, 2]) if classes else None
    weights = in_float64(generator)
    z = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    inputs = z if labels is None else torch.cat([z, weights["embedding.table.weight"][labels]], 1)
    x = stage((inputs @ weights["linear.weight"].T)[:, :, None, None] * weights["basis"], weights, 0, 4)
    x = doubled(torch.einsum("oi,nihw->nohw", weights["transitions.0.weight"][:, :, 0, 0], x))
    x = torch.einsum("oi,nihw->nohw", weights["conv.weight"][:, :, 0, 0], stage(x, weights, 1, 3)).tanh()
    compare(generator(z, labels), x, [z, *weights.values()])

    weights = in_float64(critic)
    images = torch.randn(2, *image.shape, dtype=torch.float64, requires_grad=True)
    x = stage(torch.einsum("oi,nihw->nohw", weights["conv.weight"][:, :, 0, 0], images), weights, 0, 3)
    x = torch.einsum("oi,nihw->nohw", weights["transitions.0.weight"][:, :, 0, 0], halved(x))
    pooled = torch.einsum("nchw,chw->nc", stage(x, weights, 1, 4), weights["basis"])
    scores = pooled @ weights["linear.weight"].T
    scores = scores[:, 0] if labels is None else (scores * weights["embedding.table.weight"][labels]).sum(1)
    compare(critic(images, labels), scores, [images, *weights.values()])


def compare(found: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    mixed = torch.randn_like(expected)
    slopes = [torch.autograd.grad((values * mixed).sum(), inputs) for values in (found, expected)]
    for own, other in zip(*slopes, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-10)
