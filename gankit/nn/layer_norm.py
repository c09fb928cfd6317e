"""Layer normalisation over channels and pixels whose second derivatives are a few sums and products.

It is torch's group normalisation with one group. Its derivative, differentiated again, falls apart there into many
operations on whole maps, and each changes the layout of maps that are channels_last. Here every derivative is a linear
combination of maps whose factors are one number per sample and channel, and the layout stays.
"""

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gankit.nn.modes import autocast_dtype, few_kernels, uses_torch

Maps = tuple[Tensor, ...]


@final
class LayerNorm(nn.GroupNorm):
    """Layer normalisation of (n, c, h, w) over all but n, with gain and bias per channel where `affine`."""

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__(1, channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to the same."""
        if not few_kernels(x.device) or uses_torch():
            return F.group_norm(x, 1, self.weight, self.bias, self.eps)
        x = x if autocast_dtype(x) is None else x.float()  # as torch's under autocast
        gain, bias = (
            (x.new_ones(x.shape[1]), x.new_zeros(x.shape[1])) if self.weight is None else (self.weight, self.bias)
        )
        y: Tensor = _LayerNorm.apply(x, gain, bias, self.eps)
        return y


def _combination(constant: Tensor, *terms: tuple[Tensor, Tensor]) -> Tensor:
    """The sum of a constant and of maps (n, c, h, w) times factors; constant and factors are (n, 1 or c)."""
    total = constant[:, :, None, None]
    for maps, factors in terms:
        total = torch.addcmul(total, maps, factors[:, :, None, None])
    return total


def _sums(*products: Tensor) -> Maps:
    """The (n, c) sums over pixels of each of some (n, c, h, w) maps."""
    return tuple(product.sum((2, 3)) for product in products)


def _statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(n, 1) means, and inverses of the standard deviations."""
    variance, mean = torch.var_mean(x, (1, 2, 3), correction=0)
    return mean[:, None], (variance + eps).rsqrt()[:, None]


def _gradients(g: Tensor, x: Tensor, gain: Tensor, mean: Tensor, r: Tensor) -> Maps:
    """The gradients by the input, the gain and the bias, given that by the output."""
    size = x[0].numel()
    s, sx = _sums(g, g * x)
    centred = r * (sx - mean * s)  # sums of g times the normalised x
    m1, m2 = ((gain * each).sum(1, keepdim=True) / size for each in (s, centred))
    by_x = _combination(r * (r * mean * m2 - m1), (x, -r * r * m2), (g, r * gain))
    return by_x, centred.sum(0), s.sum(0)


class _LayerNorm(torch.autograd.Function):
    """y = gain r (x - mean) + bias."""

    @staticmethod
    def forward(context: Any, x: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
        mean, r = _statistics(x, eps)
        context.eps = eps
        context.save_for_backward(x, gain, mean, r)
        return _combination(bias - mean * r * gain, (x, r * gain))

    @staticmethod
    def backward(context: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, mean, r = context.saved_tensors
        if not torch.is_grad_enabled():
            return *_gradients(g, x, gain, mean, r), None
        return *_Gradients.apply(g, x, gain, mean.detach(), r.detach(), context.eps), None


class _Gradients(torch.autograd.Function):
    """`_gradients` with its own derivative by g, x and gain.

    With P(u) = u - mean(u) - z mean(u z), where z is the normalised x, the gradient by x is r P(gain g). P is
    symmetric, and z and r have the derivatives r P(.) and -r^2 z / size. That gives the code below.
    """

    @staticmethod
    def forward(context: Any, g: Tensor, x: Tensor, gain: Tensor, mean: Tensor, r: Tensor, eps: float) -> Maps:
        context.eps = eps
        context.set_materialize_grads(False)
        context.save_for_backward(g, x, gain, mean, r)
        return _gradients(g, x, gain, mean, r)

    @staticmethod
    def backward(context: Any, v: Tensor | None, *others: Tensor | None) -> tuple[Tensor | None, ...]:
        g, x, gain, mean, r = context.saved_tensors
        if v is None or any(each is not None for each in others) or torch.is_grad_enabled():
            return *_by_torch(context, (v, *others), (g, x, gain)), None, None, None
        size = x[0].numel()
        s, sx, t, tx, p = _sums(g, g * x, v, v * x, v * g)
        z_g, z_v = r * (sx - mean * s), r * (tx - mean * t)
        m1, m2, both = ((gain * each).sum(1, keepdim=True) / size for each in (s, z_g, p))
        a, b = (each.sum(1, keepdim=True) / size for each in (t, z_v))
        by_g = _combination(gain * r * (r * mean * b - a), (x, -r * r * b * gain), (v, r * gain))
        by_gain = (r * (p - a * s - b * z_g)).sum(0)
        # -r^2 (z S + b P(gain g) + m2 P(v)), with S the mean of v P(gain g); `by_z` is the factor of z in the sum
        by_z = both - m1 * a - m2 * b - 2 * b * m2
        by_x = _combination(
            r * r * (mean * r * by_z + b * m1 + m2 * a),
            (x, -r * r * r * by_z), (g, -r * r * b * gain), (v, -r * r * m2),
        )  # fmt: skip
        return by_g, by_x, by_gain, None, None, None


def _by_torch(context: Any, cotangents: tuple[Tensor | None, ...], inputs: Maps) -> Maps:
    """What `_Gradients.backward` gives, for any combination of cotangents, and differentiable again."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Not the inputs themselves: g may depend on x, and the derivative by x is meant at a fixed g.
        g, x, gain = (each.view_as(each) if create_graph else each.detach().requires_grad_() for each in inputs)
        outputs = _gradients(g, x, gain, *_statistics(x, context.eps))
        pairs = [(out, given) for out, given in zip(outputs, cotangents, strict=True) if given is not None]
        wanted = [each for each in (g, x, gain) if each.requires_grad]
        found = torch.autograd.grad(
            [out for out, _ in pairs], wanted, [given for _, given in pairs], create_graph=create_graph,
            allow_unused=True,
        )  # fmt: skip
    gradients = iter(found)
    return tuple(next(gradients) if each.requires_grad else None for each in (g, x, gain))  # type: ignore[misc]
