"""Copies of parts, and of their buffers, as they are in the midst of a training."""

import copy
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Part = TypeVar("Part")


class _Detached(TorchFunctionMode):
    """Copies non-leaf tensors, which torch refuses to copy, without their history."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))


def copied(part: Part) -> Part:
    """A deep copy with the hooks of parameters; a tensor that a part keeps from its last call is copied as it is.

    Raises:
        Exception: of any type; the part holds what Python cannot copy, such as a lock or an open file.
    """
    modules = part.modules() if isinstance(part, nn.Module) else ()
    hooks = [value for module in modules for value in vars(module).values() if type(value) is OrderedDict and not value]
    # deepcopy takes what the memo holds as copied: new dicts for empty ones, a dozen a module and slow to copy.
    memo = {id(value): OrderedDict[Any, Any]() for value in hooks}
    with _Detached():
        twin = copy.deepcopy(part, memo)
        if isinstance(part, nn.Module) and isinstance(twin, nn.Module):
            for own, other in zip(part.parameters(), twin.parameters(), strict=True):
                for name in ("_backward_hooks", "_post_accumulate_grad_hooks"):  # methods of the part become its twin's
                    setattr(other, name, copy.deepcopy(getattr(own, name), memo))
    return twin


def buffers_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Copies of all buffers of some modules, each of any shape, for `restore_buffers`."""
    return [buffer.clone() for module in modules for buffer in module.buffers()]


@torch.no_grad()
def restore_buffers(modules: Iterable[nn.Module], values: Sequence[Tensor]) -> None:
    """Set the buffers of modules to earlier values, of the same shapes, in place."""
    for buffer, value in zip((buffer for module in modules for buffer in module.buffers()), values, strict=True):
        buffer.copy_(value)
