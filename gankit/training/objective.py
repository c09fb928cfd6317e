"""What a turn minimises: the weighted sum of the losses that are due."""

from collections.abc import Iterator, Mapping, Sequence
from typing import final

from torch import Tensor

from gankit.errors import PartError
from gankit.interfaces import Side, Turn
from gankit.registry import Schedule, value_at
from gankit.runs.networks import describe_value
from gankit.training.assembly import LossTerm

LOST_PENALTY = 100.0
"""Value times weight above which a lazy penalty restrains no critic; 1190 diverged (docs/measured/lazy-penalty.md)."""


@final
class Objective:
    """The losses of an experiment, each with its interval (`every`) and its weight at the present step.

    Weights that move with the step have dtype and device of `like`.
    """

    def __init__(self, losses: Sequence[LossTerm], like: Tensor) -> None:
        self._losses = losses
        self._lost: set[str] = set()  # names of the penalties that the user was warned of
        # Weights that move, as tensors: a CUDA graph would freeze a plain number at its recorded value.
        self._moving = {term.name: like.new_ones(()) for term in losses if isinstance(term.weight, Schedule)}

    def go_to(self, step: int) -> None:
        """Set the weights that move, for a step by its number from 0."""
        for term in self._losses:
            if term.name in self._moving:
                self._moving[term.name].fill_(value_at(term.weight, step) * term.every)

    def due(self, side: Side, index: int) -> list[LossTerm]:
        """The losses that train a side at its `index`-th update."""
        return [term for term in self._losses if index % term.every == 0 and term.trains(side)]

    def __call__(self, turn: Turn, index: int) -> Tensor | None:
        """The weighted sum of the losses that are due at the `index`-th update of the turn's side, a scalar.

        None where no loss has a value; raises PartError if a loss returns something other than one number.
        """
        total: Tensor | None = None
        for term in self.due(turn.side, index):
            if (value := getattr(term.loss, turn.side)(turn)) is not None:
                if not isinstance(value, Tensor) or value.numel() != 1:
                    raise PartError(
                        f"loss {term.name} returned {describe_value(value)} on the {turn.side}'s turn: return one "
                        "number as a tensor, such as the mean over samples"
                    )
                turn.log(f"{turn.side}/{term.name}", value)
                weight = self._moving.get(term.name, value_at(term.weight, 0) * term.every)  # else a fixed one
                total = weight * value if total is None else total + weight * value
        return total

    def lost_penalties(self, means: Mapping[str, float], step: int) -> Iterator[str]:
        """A warning, once, for each lazy penalty that no longer restrains the critic.

        `means` holds the mean values of the losses up to a step, by the names under which they are logged.
        """
        for term in self._losses:
            is_lazy = term.every > 1 and term.loss.per_sample
            value = means.get(f"critic/{term.name}", 0.0)
            if is_lazy and value_at(term.weight, step) * value > LOST_PENALTY and term.name not in self._lost:
                self._lost.add(term.name)
                yield (
                    f"losses.{term.name}: {value:.3g} up to step {step}: computed only once in {term.every} updates, "
                    f"it no longer restrains the critic; start anew with losses.{term.name}.every=1, or with a lower "
                    "training.critic_lr"
                )
