"""How operations are computed: by torch or by fewer kernels, in which type, and deterministically or not."""

import contextlib
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

FEW_KERNEL_DEVICES = {"cuda", "meta"}
"""Here the number of kernels decides how long a step takes, so operations use fewer, and equal torch's up to
rounding. On a CPU they equal torch's bit by bit. The meta device, which computes nothing, stands for a GPU."""
NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")


def few_kernels(device: torch.device) -> bool:
    """Whether an operation should take few kernels on a device."""
    return device.type in FEW_KERNEL_DEVICES


def is_traced() -> bool:
    """Whether torch is in a mode that knows no operations but torch's: `torch.func`, compilation or tracing."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or torch._C._is_tracing()


def uses_torch() -> bool:
    """Whether to use torch's own operations: no others are allowed now, or no graph is made."""
    return is_traced() or not torch.is_grad_enabled()


def autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """The type to which autocast casts a floating tensor of any shape now, or None."""
    kind = tensor.device.type
    # torch has no answer for the meta device.
    if kind == "meta" or tensor.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """A context in which autocast is off on a device."""
    return contextlib.nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def without_float16(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """A context in which autocast to float16 is off on a device: products of gradients underflow in it."""
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
        torch.clear_autocast_cache()  # within another autocast torch would not, and use old weights


def _unchanged(weight: Tensor) -> Tensor:
    return weight


def cast(weight: Tensor, prepare: Callable[[Tensor], Tensor] = _unchanged) -> Tensor:
    """`prepare(weight)` in the type that autocast asks for; for a parameter, it is made once within `bfloat16`.

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
        _casts.made[key] = weight, prepare(weight).to(dtype)  # keeps the weight, so that no other gets its id
    return _casts.made[key][1]


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Use deterministic operations where they exist; torch's warnings about all others are not shown."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first matrix product starts
    before, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_deterministic_debug_mode("warn")  # `use_deterministic_algorithms` would import the compiler
    torch.backends.cudnn.benchmark = False  # it takes whichever convolution was faster in a trial
    # Filling new tensors with NaN helps to find mistakes and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", NOT_DETERMINISTIC.pattern)
            # torch warns if matrix products came before that variable, though it gives each stream memory of its own.
            warnings.filterwarnings("ignore", "Deterministic behavior was enabled")
            yield
    finally:
        torch.set_deterministic_debug_mode(before)
        torch.backends.cudnn.benchmark = benchmark
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


_FLAGS = threading.Lock()
_asked: list[list[bool]] = []  # by those inside `tf32`, in any thread; in lists, so that equal requests differ
_program = contextlib.ExitStack()  # brings the calling program's flags back


@contextlib.contextmanager
def tf32(convolutions: bool) -> Iterator[None]:
    """Let a GPU's convolutions and recurrent layers use TF32, 11 of float32's 24 bits, if `convolutions`.

    All else uses all bits, on CPUs that could use fewer too, whatever the calling program has set. Flags are one for
    all threads: while several compute, the last request holds, and the last one to end brings the program's own back.
    """
    with _FLAGS:
        if not _asked:
            _keep_flags()
        _asked.append(request := [convolutions])
        _set_flags(convolutions)
    try:
        yield
    finally:
        with _FLAGS:
            _asked[:] = [other for other in _asked if other is not request]
            if _asked:
                _set_flags(*_asked[-1])
            else:
                _program.close()


def _newer_flags() -> list[Any]:
    """The owners of torch's newer flags, a GPU's convolutions and recurrent layers first."""
    cudnn, cpu, gpu = torch.backends.cudnn, torch.backends.mkldnn, torch.backends.cuda
    return [cudnn.conv, cudnn.rnn, gpu.matmul, cpu.matmul, cpu.conv, cpu.rnn]  # type: ignore[attr-defined]


def _keep_flags() -> None:
    cudnn = torch.backends.cudnn
    for owner in _newer_flags():
        _program.callback(setattr, owner, "fp32_precision", owner.fp32_precision)
    with contextlib.suppress(RuntimeError):  # cannot be read where newer flags contradict it
        _program.callback(setattr, cudnn, "allow_tf32", cudnn.allow_tf32)
    with contextlib.suppress(RuntimeError):
        _program.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())


def _set_flags(convolutions: bool) -> None:
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.set_float32_matmul_precision("highest")
    # Without TF32 the older flags leave the newer ones to `torch.backends.fp32_precision`, which may ask for it.
    for place, owner in enumerate(_newer_flags()):
        owner.fp32_precision = "tf32" if convolutions and place < 2 else "ieee"


@contextlib.contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Compute float32 with all its bits, and on a CUDA device deterministically, to draw images and to measure them.

    Devices then agree up to rounding.
    """
    with deterministic() if device.type == "cuda" else contextlib.nullcontext(), tf32(convolutions=False):
        yield
