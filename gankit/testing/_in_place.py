"""Finds activations in place that change a value which is used again, as by a shortcut around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

ACTIVATIONS = {
    "relu", "relu6", "leaky_relu", "rrelu", "elu", "selu", "celu", "silu", "hardswish", "hardtanh", "hardsigmoid",
    "mish", "threshold", "tanh", "sigmoid", "dropout", "clamp", "clamp_min", "clamp_max", "sin", "cos",
}  # fmt: skip


class _OutOfPlace(TorchFunctionMode):
    """Computes activations in place out of place, those whose number (in order of their calls) is chosen.

    Attributes:
        used: numbers of the activations in place whose result went into another operation.
    """

    def __init__(self, chosen: Callable[[int], bool]) -> None:
        super().__init__()
        self.chosen = chosen
        self.used: set[int] = set()
        self._results: list[Tensor] = []  # kept, so that no other tensor gets their identity

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        self.see([*args, *kwargs.values()])
        name = getattr(func, "__name__", "")
        in_place = name.removesuffix("_") in ACTIVATIONS and (name.endswith("_") or kwargs.get("inplace") is True)
        if not in_place:
            return func(*args, **kwargs)
        number = len(self._results)
        if self.chosen(number):
            args = (args[0].clone(), *args[1:])
        result = func(*args, **kwargs)
        self._results.append(result)
        return result

    def see(self, values: Any) -> None:
        """Note which results of activations are among these values."""
        for tensor in _tensors(values):
            self.used |= {number for number, result in enumerate(self._results) if result is tensor}


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)


def harmful(run: Callable[[], Tensor]) -> float:
    """The largest change of a result when activations in place no longer change their input.

    An activation whose result nobody takes is meant to change its input, and stays in place.

    Args:
        run: computes the same result at every call.
    """
    with _OutOfPlace(lambda number: True) as first:
        first.see(run())
    with _OutOfPlace(first.used.__contains__):
        changed = run()
    return (run() - changed).abs().max().item()
