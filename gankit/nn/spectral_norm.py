"""Spectral normalisation (Miyato et al. 2018, arXiv 1802.05957): torch's, with fewer kernels where these are slow."""

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm

from gankit.nn.modes import few_kernels, is_traced, without_autocast


@final
class SpectralNorm(_SpectralNorm):
    """A weight over its largest singular value; buffers, their random start and their names in checkpoints are torch's.

    Where kernels are to be few, the singular value is the norm that the power iteration computes anyway, and the
    derivative is one sum of an outer product.
    """

    def forward(self, weight: Tensor) -> Tensor:
        """(o, ...) to the same shape."""
        if is_traced() or not self.training or not few_kernels(weight.device):
            normalised: Tensor = super().forward(weight)
            return normalised
        with without_autocast(weight.device):
            sigma, u, v = self._iterate(weight.detach().flatten(1))
            y: Tensor = _Divided.apply(weight, sigma, u, v)
        return y

    def _power_method(self, weight_mat: Tensor, n_power_iterations: int) -> None:
        if not weight_mat.is_meta:  # meta tensors have no values, and each operation on them takes a millisecond
            super()._power_method(weight_mat, n_power_iterations)

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One power iteration, algorithm 1: the largest singular value, and its vectors (o,) and (i,)."""
        u = F.normalize(torch.mv(matrix, self._v), dim=0, eps=self.eps)
        direction = torch.mv(matrix.T, u)
        sigma = direction.norm().clamp_min(self.eps)
        v = direction / sigma
        self._u.copy_(u)
        self._v.copy_(v)
        return sigma, u, v


class _Divided(torch.autograd.Function):
    """weight / sigma, where sigma = u' weight v has the derivative u v' by the weight."""

    @staticmethod
    def forward(context: Any, weight: Tensor, sigma: Tensor, u: Tensor, v: Tensor) -> Tensor:
        y = weight / sigma
        context.save_for_backward(weight, y, sigma, u, v)
        return y

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        weight, y, sigma, u, v = context.saved_tensors
        if torch.is_grad_enabled():  # for a further derivative, by torch
            sigma = torch.dot(u, torch.mv(weight.flatten(1), v))
            share = (gradient * weight).sum() / sigma
        else:
            share = torch.dot(gradient.flatten(), y.flatten())
        by_weight = torch.addr(gradient.flatten(1), u * share, v, alpha=-1) / sigma
        return by_weight.view_as(weight), None, None, None


def with_spectral_norm(network: nn.Module) -> None:
    """Divide the weight of each Conv2d, Linear and Embedding by its largest singular value, in place.

    Miyato et al. 2018 (arXiv 1802.05957), algorithm 1: one power iteration a forward pass in training.
    """
    for module in list(network.modules()):
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.Embedding)):
            parametrize.register_parametrization(module, "weight", SpectralNorm(module.weight))
