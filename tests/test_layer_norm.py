"""Layer normalisation with its own derivatives: equal to torch's through three of them; on a CPU torch's is kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gankit.nn import modes
from gankit.nn.layer_norm import LayerNorm
from gankit.nn.layers import Norm


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "FEW_KERNEL_DEVICES", {"cpu"})


def made(affine: bool, dtype: torch.dtype = torch.float64, n: int = 3) -> tuple[LayerNorm, Tensor]:
    torch.manual_seed(0)
    norm = LayerNorm(4, affine).to(dtype)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, 1.0, 0.5)
    return norm, (1.3 * torch.randn(n, 4, 3, 5, dtype=dtype) + 0.7).requires_grad_()


def derivatives(norm: nn.Module, x: Tensor, order: int) -> list[Tensor]:
    """The output, then all gradients of a nonlinear sum of the gradients before, and so on."""
    wanted = [x, *norm.parameters()]
    found: list[Tensor] = [norm(x)]
    latest = found
    for _ in range(order):
        total = sum((each * (1 + each).tanh()).sum() for each in latest)
        assert isinstance(total, Tensor)
        latest = list(torch.autograd.grad(total, wanted, create_graph=True))
        found += latest
    return found


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_three_derivatives_are_those_of_torch(
    affine: bool, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    norm, x = made(affine)
    x = x.detach().contiguous(memory_format=layout).requires_grad_()
    found = derivatives(norm, x, 3)
    monkeypatch.setattr(modes, "FEW_KERNEL_DEVICES", set())
    for ours, torchs in zip(found, derivatives(norm, x, 3), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-9, atol=1e-9)
    assert found[0].is_contiguous(memory_format=layout)


def penalty(norm: nn.Module, x: Tensor) -> list[Tensor]:
    """What a gradient penalty differentiates: the slope by the input alone, then all parameters."""
    (slope,) = torch.autograd.grad(norm(x).tanh().sum(), x, create_graph=True)
    (slope.square().sum((1, 2, 3)).sqrt() - 1).square().sum().backward()  # type: ignore[no-untyped-call]
    wanted = [x, *norm.parameters()]
    return [torch.zeros_like(each) if each.grad is None else each.grad for each in wanted]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_penaltys_gradients_are_those_of_float64(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    found = penalty(*made(True, dtype))
    monkeypatch.setattr(modes, "FEW_KERNEL_DEVICES", set())
    norm, x = made(True, dtype)
    exact = penalty(norm.double(), x.detach().double().requires_grad_())
    for ours, expected in zip(found, exact, strict=True):
        error = (ours - expected).norm() / expected.norm()
        assert error < (1e-12 if dtype == torch.float64 else 1e-5)


class Counted(TorchDispatchMode):
    """Operations on whole maps, and copies."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:  # type: ignore[type-arg]
        out = func(*args, **(kwargs or {}))  # type: ignore[operator]
        free = ("detach", "expand", "view")
        if (
            isinstance(out, Tensor)
            and out.dim() == 4
            and out.shape[2] > 1
            and not any(name in str(func) for name in free)
        ):
            self.seen.append(str(func))
        return out


@pytest.mark.usefixtures("own")
def test_it_takes_fewer_operations_on_maps_and_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for devices in ({"cpu"}, set()):
        monkeypatch.setattr(modes, "FEW_KERNEL_DEVICES", devices)
        norm, x = made(True)
        x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        with Counted() as counted:
            penalty(norm, x)
        counts.append(counted.seen)
    assert not [name for name in counts[0] if "copy" in name or "clone" in name]
    assert len(counts[0]) < 0.6 * len(counts[1])


@pytest.mark.parametrize("affine", [True, False])
def test_on_a_cpu_it_is_torchs_own(affine: bool) -> None:
    norm, x = made(affine, torch.float32)
    assert torch.equal(norm(x), F.group_norm(x, 1, norm.weight, norm.bias, norm.eps))
    assert isinstance(Norm("layer", 4).norm, nn.GroupNorm)
    assert list(norm.state_dict()) == (["weight", "bias"] if affine else [])
