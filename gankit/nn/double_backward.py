"""Operations of torch whose second derivatives, which penalties take, cost no more than their first.

Each is equal to torch's, through any derivative, but a derivative of zero may be None. torch's take detours: a
convolution with a kernel as large as the image, or a whole backward pass of zeros.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gankit.nn.modes import autocast_dtype, cast, uses_torch


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, groups: int = 1) -> Tensor:
    """`F.conv2d`: (n, i, h, w) and a weight (o, i / groups, k, l) to (n, o, h', w')."""
    setting = (stride, padding, groups)
    if uses_torch():
        return F.conv2d(x, weight, bias, stride, padding, 1, groups)
    if (dtype := autocast_dtype(x)) is not None:
        x, weight, bias = x.to(dtype), cast(weight), None if bias is None else cast(bias)
    link = _Weights.apply(weight, bias, [x], setting)  # in a list, x is no input to autograd
    y: Tensor = _Convolution.apply(x, weight, link, bias, setting)
    return y


def relu(x: Tensor) -> Tensor:
    """(n, ...) to the same shape, negative values to 0; as `leaky_relu`."""
    return F.relu(x) if uses_torch() else leaky_relu(x, 0.0)


def leaky_relu(x: Tensor, slope: float) -> Tensor:
    """(n, ...) to the same shape, negative values times `slope`; differentiating twice costs less than with torch's.

    A parameter that has no part in a second derivative, such as a bias, then has no gradient, where torch gives zero.
    """
    if uses_torch():
        return F.leaky_relu(x, slope)
    y: Tensor = _LeakyRelu.apply(x, slope)
    return y


def mean_pool(x: Tensor) -> Tensor:
    """Means of 2x2 pixels: (n, c, h, w) to (n, c, h // 2, w // 2)."""
    if uses_torch() or x.shape[2] % 2 or x.shape[3] % 2:
        return F.avg_pool2d(x, 2)
    y: Tensor = _Pooled.apply(x)
    return y


Setting = tuple[int, int, int]
"""Stride, padding and groups of a convolution."""
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def _gradients(
    setting: Setting, gradient: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]
) -> Gradients:
    """Gradients of a convolution by its input, weight and bias; None for those that are not wanted."""
    stride, padding, groups = setting
    gradients: Gradients = torch.ops.aten.convolution_backward(
        gradient, x, weight, [len(weight)] if wanted[2] else None,
        [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups, wanted,
    )  # fmt: skip
    return gradients


class _Convolution(torch.autograd.Function):
    """A convolution whose second derivatives cost what its first ones do.

    <g, x * w> is linear in each of the three, so that x * w, its gradient by x and that by w are each other's
    derivatives. torch instead takes the gradient by w in a second derivative from a convolution with a kernel as large
    as the image, which takes two to seven times as long on a CPU.

    This node computes only the gradient by x. It passes the gradient of its output on to `_Weights`, whose output is
    its input `link` and which computes the gradients by the weight and the bias. Where only the gradient by x is
    wanted, as in a penalty, autograd never calls `_Weights`.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, link: Tensor, bias: Tensor | None, setting: Setting) -> Tensor:
        context.setting = setting
        context.save_for_backward(x, weight)
        stride, padding, groups = setting
        return F.conv2d(x, weight, bias, stride, padding, 1, groups)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = context.saved_tensors
        wanted, setting = context.needs_input_grad[0], context.setting
        by_x = _Gradient.apply(0, gradient, weight, x.detach(), setting) if wanted else None
        return by_x, None, gradient, None, None


class _Weights(torch.autograd.Function):
    """Computes the gradients of a convolution by its weight and bias; its own output is a tensor without content."""

    @staticmethod
    def forward(context: Any, weight: Tensor, bias: Tensor | None, x: list[Tensor], setting: Setting) -> Tensor:
        context.setting = setting
        context.save_for_backward(weight, *x)
        height, width = (
            (side + 2 * setting[1] - kernel) // setting[0] + 1
            for side, kernel in zip(x[0].shape[2:], weight.shape[2:], strict=True)
        )
        return weight.new_empty(()).expand(len(x[0]), len(weight), height, width)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, x = context.saved_tensors
        wanted = context.needs_input_grad
        if not torch.is_grad_enabled():
            return *_gradients(context.setting, gradient, x, weight, (False, *wanted[:2]))[1:], None, None
        by_weight = _Gradient.apply(1, gradient, x, weight.detach(), context.setting) if wanted[0] else None
        return by_weight, gradient.sum((0, 2, 3)) if wanted[1] else None, None, None


class _Gradient(torch.autograd.Function):
    """The gradient of a convolution by its input (`by` 0) or its weight (`by` 1), of which `like` gives the shape.

    `other` is the input or the weight, whichever the gradient is not by.
    """

    @staticmethod
    def forward(context: Any, by: int, gradient: Tensor, other: Tensor, like: Tensor, setting: Setting) -> Tensor:
        context.by, context.setting = by, setting
        context.save_for_backward(gradient, other)
        x, weight = (other, like) if by else (like, other)
        result = _gradients(setting, gradient, x, weight, (by == 0, by == 1, False))[by]
        assert result is not None
        return result

    @staticmethod
    def backward(context: Any, direction: Tensor) -> tuple[Tensor | None, ...]:
        gradient, other = context.saved_tensors
        x, weight = (other, direction) if context.by else (direction, other)
        _, by_gradient, by_other, _, _ = context.needs_input_grad
        return (
            None,
            conv2d(x, weight, None, *context.setting) if by_gradient else None,
            _Gradient.apply(1 - context.by, gradient, direction, other.detach(), context.setting) if by_other else None,
            None,
            None,
        )


class _LeakyRelu(torch.autograd.Function):
    """A leaky ReLU whose second derivative, zero, is not sent backwards.

    torch's own sends a tensor of zeros, with which the whole network is differentiated once more.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, slope: float) -> Tensor:
        y = F.leaky_relu(x, slope) if slope else F.relu(x)
        context.slope = slope
        context.save_for_backward(y)
        return y

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Masked.apply(gradient, context.saved_tensors[0].detach(), context.slope), None


class _Masked(torch.autograd.Function):
    """What a leaky ReLU, given its output, makes of a gradient: the slope times it where the output is negative."""

    @staticmethod
    def forward(context: Any, gradient: Tensor, output: Tensor, slope: float) -> Tensor:
        context.slope = slope
        context.save_for_backward(output)
        masked: Tensor = torch.ops.aten.leaky_relu_backward(gradient, output, slope, True)
        return masked

    @staticmethod
    def backward(context: Any, by: Tensor) -> tuple[Tensor | None, ...]:
        return _Masked.apply(by, context.saved_tensors[0], context.slope), None, None


class _Pooled(torch.autograd.Function):
    """2x2 mean pooling of even sides. Its second derivative, zero, is not sent backwards, as in `_LeakyRelu`."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.format = torch.contiguous_format if x.is_contiguous() else torch.channels_last
        return F.avg_pool2d(x, 2)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        by_x = F.interpolate(gradient / 4, scale_factor=2, mode="nearest")
        return by_x.contiguous(memory_format=context.format)  # torch's gradient has it, and users' loops rely on it
