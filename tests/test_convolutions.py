"""Convolutions beside the textbook form and those of torch: values, three derivatives, and their number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import gankit
from gankit.interfaces import ImageSpec
from gankit.nn.layers import ResampledConv2d, ResidualBlock


@pytest.mark.parametrize("resample", ["up", "down", None])
@pytest.mark.parametrize("size", [1, 3])
def test_fused_convolutions_equal_the_textbook_form(resample: str | None, size: int) -> None:
    torch.manual_seed(0)
    fused = ResampledConv2d(3, 5, size, resample, fused=True).double()  # type: ignore[arg-type]
    plain = ResampledConv2d(3, 5, size, resample, fused=False).double()  # type: ignore[arg-type]
    nn.init.normal_(fused.bias)  # type: ignore[arg-type]
    plain.load_state_dict(fused.state_dict())
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    expected = F.interpolate(x, scale_factor=2, mode="nearest") if resample == "up" else x
    expected = F.conv2d(expected, fused.weight, fused.bias, padding=size // 2)
    expected = F.avg_pool2d(expected, 2) if resample == "down" else expected
    torch.testing.assert_close(fused(x), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(plain(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("resample", ["up", "down"])
@pytest.mark.parametrize("size", [1, 3])
def test_fused_convolutions_have_right_first_and_second_derivatives(resample: str, size: int) -> None:
    torch.manual_seed(0)
    layer = ResampledConv2d(2, 3, size, resample).double()  # type: ignore[arg-type]
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)

    def scores(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, x).tanh()  # type: ignore[no-any-return]

    inputs = (x, layer.weight, layer.bias)
    assert torch.autograd.gradcheck(scores, inputs)
    assert torch.autograd.gradgradcheck(scores, inputs)


def test_a_residual_block_leaves_its_input_alone() -> None:
    """An in-place ReLU would make the shortcut see relu(x)."""
    block = ResidualBlock(3, 3, None, "none")
    x = torch.randn(2, 3, 4, 4)
    before = x.clone()
    inner = block.conv2(F.relu(block.conv1(F.relu(x))))
    torch.testing.assert_close(block(x), x + inner)
    assert torch.equal(x, before)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("resample", [None, "down"])
def test_third_derivatives_of_convolutions_are_those_of_torch(resample: str | None, size: int) -> None:
    torch.manual_seed(0)
    layer = ResampledConv2d(2, 3, size, resample).double()  # type: ignore[arg-type]
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    inputs = (x, layer.weight, layer.bias)

    def torch_alone(x: Tensor) -> Tensor:
        y = F.conv2d(x, layer.weight, layer.bias, padding=size // 2)
        return F.avg_pool2d(y, 2) if resample else y

    def third(layer: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(layer(x).pow(3).sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(each.pow(3).sum() for each in first), inputs, create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in second), inputs)

    for found, expected in zip(third(layer), third(torch_alone), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))


def test_a_penalty_has_the_gradients_of_torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    critic = gankit.build("critic", "resnet", ImageSpec(3, 20, 12), width=4).double()
    images = torch.randn(2, 3, 20, 12, dtype=torch.float64, requires_grad=True)

    def gradients() -> list[Tensor]:
        (slopes,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
        found = torch.autograd.grad(slopes.pow(3).sum(), list(critic.parameters()), allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(critic.parameters(), found, strict=True)]

    found = gradients()
    monkeypatch.setattr("gankit.nn.double_backward.uses_torch", lambda: True)
    for own, expected in zip(found, gradients(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-11, atol=1e-14)
    assert sum(bool(each.any()) for each in found) == sum(p.dim() > 1 for p in critic.parameters())


class WeightGradients(TorchDispatchMode):
    """Counts gradients of convolutions by their weights, and the largest kernel that a convolution is given."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.kernel = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.convolution_backward.default:
            self.count += args[-1][1]
        if function is torch.ops.aten.convolution.default:
            self.kernel = max(self.kernel, args[1].shape[-1])
        return function(*args, **(kwargs or {}))


def test_a_penalty_computes_each_weight_gradient_once_and_as_cheaply_as_a_first_derivative() -> None:
    torch.manual_seed(0)
    critic = gankit.build("critic", "resnet", ImageSpec(3, 32, 32), width=4)
    convolutions = sum(isinstance(module, ResampledConv2d) for module in critic.modules())
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    scores = critic(images).sum()
    with WeightGradients() as first:
        (gradient,) = torch.autograd.grad(scores, images, create_graph=True)
    with WeightGradients() as second:
        gradient.square().sum().backward()
    assert first.count == 0
    assert second.count == convolutions
    assert second.kernel == 4
