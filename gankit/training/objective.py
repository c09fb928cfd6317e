"""What a turn minimises: the weighted sum of the losses that are due."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from torch import Tensor

from gankit.errors import PartError, RunError
from gankit.interfaces import Side, Turn
from gankit.registry import Schedule, value_at
from gankit.runs.networks import describe_value
from gankit.training.assembly import LossTerm

LOST_PENALTY = 100.0
"""Mean times weight above which a lazy penalty counts as lost; docs/measured/lazy-penalty.md has one of 1190."""


@final
class Objective:
    """The losses of an experiment, each with its interval (`every`) and its weight at the present step.

    Weights that move with the step have dtype and device of `like`.
    """

    def __init__(self, losses: Sequence[LossTerm], like: Tensor) -> None:
        self._losses = losses
        # Weights that move, as tensors: a CUDA graph would freeze a plain number at its recorded value.
        self._moving = {term.name: like.new_ones(()) for term in losses if isinstance(term.weight, Schedule)}

    def go_to(self, step: int) -> None:
        """Set the weights that move, for a step, counted from 0."""
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

    def lost_penalties(self, line: Mapping[str, Any]) -> dict[str, float]:
        """The means of the lazy penalties that are lost by a line of the log, by name.

        Lost means that the mean times the weight is above `LOST_PENALTY`, above the losses that are no penalties
        together, as it cannot be while the penalty holds the critic, and above the weight: a flat critic's is 1.
        """
        means = [line.get(f"critic/{term.name}", 0.0) for term in self._losses]
        weights = [abs(value_at(term.weight, line["step"] - 1)) for term in self._losses]
        terms = list(zip(self._losses, means, weights, strict=True))
        others = sum(weight * abs(mean) for term, mean, weight in terms if not term.loss.per_sample)
        lazy = [each for each in terms if each[0].every > 1 and each[0].loss.per_sample]
        return {term.name: mean for term, mean, weight in lazy if weight * mean > max(LOST_PENALTY, weight, others)}

    def judge_penalties(self, line: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
        """A warning for each penalty that is lost for the first time.

        What was lost before is read from the log, so that a resumed run decides as one that was never stopped.

        Args:
            line: the present one of the log, with the losses' means.
            earlier: the lines before it.
            folder: of the run, for the error.

        Raises:
            RunError: a penalty is lost, was so by the last line that has it, and has not fallen: the training diverged.
        """
        warnings = []
        for name, mean in self.lost_penalties(line).items():
            before = [self.lost_penalties(row).get(name) for row in earlier if f"critic/{name}" in row]
            reason = "as it is not computed on every update, it no longer restrains the critic"
            advice = f"start anew with losses.{name}.every=1, or with a lower training.critic_lr"
            if before and before[-1] is not None and before[-1] <= mean:
                raise RunError(
                    f"{folder}: the training diverged by step {line['step']} (losses.{name} is {mean:.3g} after "
                    f"{before[-1]:.3g}: {reason}); {advice}; checkpoints stay"
                )
            if not any(before):
                warnings.append(
                    f"losses.{name} is {mean:.3g} by step {line['step']}: {reason}; unless it falls, the training "
                    f"ends; {advice}"
                )
        return warnings
