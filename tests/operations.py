"""Counts of torch's operations, each of which is at least one kernel on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MEMORY_ALONE = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "promote_types"}


class Operations(TorchDispatchMode):
    """The names of all operations inside, in their order, without those that compute nothing, such as views.

    Attributes:
        names: of the operations.
        sizes: of each operation, how many numbers its largest tensor holds.
        casts: the shape of each tensor that was cast to bfloat16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.sizes: list[int] = []
        self.casts: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        given = {value.untyped_storage()._cdata for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        made = [value for value in tree_leaves(out) if isinstance(value, Tensor)]
        is_view = not func._schema.is_mutable and all(value.untyped_storage()._cdata in given for value in made)
        if made and not is_view and name not in MEMORY_ALONE:
            self.names.append(name)
            tensors = [value for value in tree_leaves((args, kwargs, out)) if isinstance(value, Tensor)]
            self.sizes.append(max(value.numel() for value in tensors))
        if name == "_to_copy" and (kwargs or {}).get("dtype") == torch.bfloat16:
            self.casts.append(tuple(args[0].shape))
        return out
