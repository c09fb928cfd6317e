"""Finds in-place activations that change a value which is used again, for example by a shortcut around them."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

ACTIVATIONS = {
    "relu", "relu6", "leaky_relu", "rrelu", "elu", "selu", "celu", "silu", "hardswish", "hardtanh", "hardsigmoid",
    "mish", "threshold", "tanh", "sigmoid", "dropout", "clamp", "clamp_min", "clamp_max", "sin", "cos",
}  # fmt: skip


class _OutOfPlace(TorchFunctionMode):
    """Computes in-place activations out of place where `is_replaced` says so of their index in the order of calls."""

    def __init__(self, is_replaced: Callable[[int], bool]) -> None:
        super().__init__()
        self.is_replaced = is_replaced
        self.used: set[int] = set()  # indices of those whose result went into another operation
        self._results: list[Tensor] = []  # kept alive, so that no other tensor gets their identity

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        self.note_use([*args, *kwargs.values()])
        name = getattr(func, "__name__", "")
        in_place = name.removesuffix("_") in ACTIVATIONS and (name.endswith("_") or kwargs.get("inplace") is True)
        if not in_place:
            return func(*args, **kwargs)
        if self.is_replaced(len(self._results)):
            args = (args[0].clone(), *args[1:])
        result = func(*args, **kwargs)
        self._results.append(result)
        return result

    def note_use(self, values: Any) -> None:
        """Note which activations' results are among these values."""
        seen = set(map(id, tree_leaves(values)))
        self.used |= {index for index, result in enumerate(self._results) if id(result) in seen}


def in_place_error(run: Callable[[], Tensor]) -> float:
    """The largest change of a result when in-place activations no longer change their input.

    An activation whose result is not used is there to change its input, and stays in place. `run` computes the same
    result at every call.
    """
    with _OutOfPlace(lambda index: True) as first:
        first.note_use(run())
    with _OutOfPlace(first.used.__contains__):
        expected = run()
    return (run() - expected).abs().max().item()
