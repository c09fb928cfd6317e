"""Floating-point operations of convolutions and matrix products, counted while a program runs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Flops(TorchDispatchMode):
    """While entered, counts what torch's own formulas give for each operation, those of backward passes included.

    torch's `FlopCounterMode` has the same formulas, but its module hooks fail on the gradient of a gradient.

    Attributes:
        counts: by the operation's name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = function(*args, **kwargs)
        formula = flop_registry.get(function._overloadpacket)
        if formula is not None:
            self.counts[str(function._overloadpacket)] += formula(*args, **kwargs, out_val=made)
        return made
