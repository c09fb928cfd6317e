"""One turn as work to be done, and the plain way to do it: operation by operation, compiled or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from gankit.interfaces import Turn
from gankit.nn.compilation import Compilation

ReadInput = Callable[[str], Tensor]
"""Gives an input of a turn by its name."""
LogValue = Callable[[str, Tensor], None]
"""Takes a value that a loss logs, a scalar, with its name."""


@dataclass(frozen=True)
class Work:
    """One turn that is to be computed.

    `inputs` make each tensor that it may read, by name, such as images (n, c, h, w) and latents (n, latent_dim); every
    call gives equal values.
    """

    side: str
    key: tuple[str, ...]  # turns of one key do the same operations: the side and the names of the losses that are due
    network: nn.Module  # whose gradients the turn computes
    inputs: Mapping[str, Callable[[], Tensor]]
    seed: Callable[[], None]  # seeds all generators from which the turn draws
    build_turn: Callable[[ReadInput, LogValue], Turn]
    differentiate: Callable[[Turn], bool]  # computes the gradients of a turn; False where no loss has a value

    def compute(self, read: ReadInput, log: LogValue) -> Turn | None:
        """Do the turn from the present state of all generators, and return it; None where no loss has a value."""
        turn = self.build_turn(read, log)
        return turn if self.differentiate(turn) else None


@final
class Eager:
    """Runs a turn operation by operation, as Python asks for them; a compilation compiles the networks on the way."""

    def __init__(self, log: LogValue, compilation: Compilation | None = None) -> None:
        self._log, self._compilation = log, compilation

    def run(self, work: Work) -> Turn | None:
        """Compute the gradients of a turn, and return it for `after_step`; None where no loss has a value."""

        def once() -> Turn | None:
            work.seed()
            return work.compute(lambda name: work.inputs[name](), self._log)

        return once() if self._compilation is None else self._compilation.attempt(work.side, once)

    def close(self) -> None:
        """Nothing is kept."""
