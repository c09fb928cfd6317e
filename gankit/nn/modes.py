"""How an operation is computed: by torch's own, by fewer kernels, or in the type of autocast."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

DEVICES = {"cuda"}
"""Where the number of kernels decides how long a step takes: fewer are used there, equal up to rounding. On a CPU all
results stay those of torch, bit by bit."""


def few_kernels(device: torch.device) -> bool:
    """Whether an operation should take few kernels on a device."""
    return device.type in DEVICES


def is_traced() -> bool:
    """Whether torch is in a mode that knows its own operations alone: `torch.func`, compilation or tracing."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or torch._C._is_tracing()


def uses_torch() -> bool:
    """Whether torch's own operations serve: no others are known, or no graph is made."""
    return is_traced() or not torch.is_grad_enabled()


def autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """To what autocast casts a floating tensor of any shape now, or None; on meta none, where torch raises if asked."""
    kind = tensor.device.type
    if kind == "meta" or tensor.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """A context in which autocast is off on a device."""
    return contextlib.nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def without_float16(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """A context in which autocast to float16 is off on a device, where products of gradients underflow."""
    half = autocast_dtype(torch.empty(0, device=device)) == torch.float16
    return without_autocast(device) if half else contextlib.nullcontext()


class _Casts(threading.local):
    made: dict[tuple[int, object], tuple[Tensor, Tensor]] | None = None


_casts = _Casts()


@contextlib.contextmanager
def bfloat16(device: torch.device, enabled: bool) -> Iterator[None]:
    """Autocast to bfloat16 on a device, where `enabled`; each weight is cast once, however often it is used."""
    outer, _casts.made = _casts.made, {} if enabled else None
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            yield
    finally:
        _casts.made = outer
        torch.clear_autocast_cache()  # as torch itself, but for within another autocast, where weights would stay old


def _unchanged(weight: Tensor) -> Tensor:
    return weight


def cast(weight: Tensor, prepare: Callable[[Tensor], Tensor] = _unchanged) -> Tensor:
    """`prepare(weight)` in the type that autocast asks for; of a parameter, made once within `bfloat16`.

    torch does the same for the parameters of its own operations, but not for what is computed from them.

    Args:
        weight: of any shape.
        prepare: a function of the weight alone.
    """
    dtype = autocast_dtype(weight)
    if dtype is None:
        return prepare(weight)
    if _casts.made is None or not weight.is_leaf or uses_torch():
        return prepare(weight).to(dtype)
    key = id(weight), prepare
    if key not in _casts.made:
        _casts.made[key] = weight, prepare(weight).to(dtype)  # the weight itself, so that its id stays its own
    return _casts.made[key][1]
