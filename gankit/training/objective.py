"""What a turn minimises: the weighted sum of the losses that are due."""

import math
from collections.abc import Hashable, Mapping, Sequence
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

    def kinds(self, critic_steps: int, most: int) -> list[Hashable]:
        """The kinds of the steps from 0 to the end of a period, after which they repeat; at most `most` steps.

        Steps are of one kind if their updates, in any order, have the same losses due.
        """
        kinds: list[Hashable] = []
        for step in range(min(math.lcm(*(term.every for term in self._losses)), most)):
            turns = [("critic", self.due("critic", step * critic_steps + update)) for update in range(critic_steps)]
            turns.append(("generator", self.due("generator", step)))
            kinds.append(tuple(sorted((side, *(term.name for term in terms)) for side, terms in turns)))
        return kinds

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

    def lost_penalties(self, row: Mapping[str, Any]) -> dict[str, float]:
        """The lazy penalties that are lost by a line of the log: mean times weight, by name.

        Lost means above `LOST_PENALTY`, and above the losses that are no penalties together: a penalty that holds the
        critic stays below them, however far apart real and fake images are.
        """
        values = {
            term: abs(value_at(term.weight, row["step"] - 1) * row.get(f"critic/{term.name}", 0.0))
            for term in self._losses
        }
        bound = max(LOST_PENALTY, sum(value for term, value in values.items() if not term.loss.per_sample))
        lazy = [term for term in self._losses if term.every > 1 and term.loss.per_sample]
        return {term.name: values[term] for term in lazy if values[term] > bound}

    def warnings(self, line: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
        """A warning for each penalty that is lost by a line of the log, but was not by the line before that has it.

        What was lost before is read from the log, so that a resumed run decides as one that was never stopped.

        Args:
            line: the present one, with the losses' means.
            earlier: the lines before it.
            folder: of the run, for the error.

        Raises:
            RunError: a penalty was lost by both lines, and has not fallen: the training has diverged.
        """
        lines = []
        for name, value in self.lost_penalties(line).items():
            previous = next((row for row in reversed(earlier) if f"critic/{name}" in row), None)
            before = self.lost_penalties(previous).get(name, 0.0) if previous else 0.0
            reason = "as it is not computed on every update, it no longer restrains the critic"
            advice = f"start anew with losses.{name}.every=1, or with a lower training.critic_lr"
            if 0 < before <= value:
                raise RunError(
                    f"{folder}: the training diverged by step {line['step']} (losses.{name} times its weight is "
                    f"{value:.3g} after {before:.3g}: {reason}); {advice}; checkpoints stay"
                )
            if not before:
                lines.append(
                    f"losses.{name} times its weight is {value:.3g} by step {line['step']}: {reason}; unless it "
                    f"falls, the training ends at the next line of the log; {advice}"
                )
        return lines
