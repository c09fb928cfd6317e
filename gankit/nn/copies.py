"""Copies of parts as they are in the midst of a training."""

import copy
from typing import Any, TypeVar

from torch import Tensor
from torch.overrides import TorchFunctionMode

Part = TypeVar("Part")


class _Detached(TorchFunctionMode):
    """Copies tensors that are results of others, which torch refuses to copy, without their history."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))


def copied(part: Part) -> Part:
    """A deep copy; a tensor that a part keeps from its last call, as weight normalisation does, is copied as it is.

    Raises:
        Exception: it holds what Python cannot copy, such as a lock or an open file.
    """
    with _Detached():
        return copy.deepcopy(part)
