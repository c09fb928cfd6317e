"""A training's log with a line per tick (every `training.tick_every` steps)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gankit import distributed
from gankit.errors import PartError, RunError
from gankit.files import append_line, write_atomically
from gankit.runs.record import read_log

OWN_NAMES = ("step", "critic_lr", "generator_lr", "seconds", "images_per_second", "metrics")
"""Entries of a line that gankit writes itself: a part that logged one of them would replace it."""


def check_name(name: str) -> None:
    """Refuse a name under which a part must not log, one of `OWN_NAMES`, by a PartError."""
    if name in OWN_NAMES:
        raise PartError(f"a part logs {name}, which is an entry of gankit's own in the log; choose another name")


def is_number(value: object) -> bool:
    """Whether a value is one real number, which `float` takes."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, (int, float, np.integer, np.floating, np.bool_))


class TickLog:
    """Averages values between ticks, and writes a JSON line per tick, for TensorBoard too if asked.

    Values stay on the device until a tick reads their mean.

    Args:
        path: of the log, `log.jsonl` in the run's folder.
        tensorboard: whether to write for TensorBoard too.

    Raises:
        RunError: TensorBoard is wanted and missing.
    """

    def __init__(self, path: Path, tensorboard: bool) -> None:
        self.path = path
        self._sums: dict[str, tuple[Tensor, float]] = {}  # total and count
        self._writer: Any = None  # made for the first line, since it creates the folder
        self._writer_class: Callable[[str], Any] | None = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                text = "training.tensorboard: TensorBoard is missing: pip install 'gankit[tensorboard]'"
                raise RunError(text) from error
            self._writer_class = SummaryWriter

    def add(self, name: str, value: Tensor) -> None:
        """Add a scalar tensor to the running mean of this name.

        Raises:
            PartError: it is no scalar, or the name is one of `OWN_NAMES`.
        """
        check_name(name)
        if value.numel() != 1:
            raise PartError(f"{name} was logged with shape {tuple(value.shape)}: log one number, such as a mean")
        total, count = self._sums.get(name, (value.new_zeros((), dtype=torch.float32), 0))
        self._sums[name] = (total + value.float(), count + 1)

    def means(self) -> dict[str, float]:
        """The means since the last call, read back from the device."""
        means = {name: (total / count).item() for name, (total, count) in self._sums.items()}
        self._sums.clear()
        return means

    def write(self, row: dict[str, Any]) -> None:
        """Append a line."""
        append_line(self.path, json.dumps(row))
        if self._writer_class is not None:
            self._writer = self._writer or self._writer_class(str(self.path.parent / "tensorboard"))
            for name, value in {**row, **row.get("metrics", {})}.items():
                if isinstance(value, (int, float)) and name != "step":
                    self._writer.add_scalar(name, value, row["step"])

    def drop_lines_after(self, step: int) -> None:
        """Drop lines of steps that a resumed training will do again."""
        if self.path.is_file():
            lines = [json.dumps(row) + "\n" for row in read_log(self.path) if row["step"] <= step]
            write_atomically(self.path, "".join(lines))

    def state_dict(self) -> dict[str, Any]:
        """Sums since the last tick, so that the next tick of a resumed run is the same."""
        return {name: [total, count] for name, (total, count) in self._sums.items()}

    def load_state_dict(self, state: dict[str, Any] | list[dict[str, Any]]) -> None:
        """Load the sums of this process; `state` is that of one process, or a list with that of each.

        If the number of processes has changed, each takes, for a name, the mean sum and the mean count of the processes
        that logged it. The mean of the next tick is then that of all logged values.
        """
        states = state if isinstance(state, list) else [state]
        chosen = [states[distributed.rank()]] if len(states) == distributed.size() else states
        self._sums = {}
        for name in dict.fromkeys(name for sums in chosen for name in sums):
            totals, counts = zip(*(sums[name] for sums in chosen if name in sums), strict=True)
            self._sums[name] = torch.stack(totals).mean(0), mean(counts)

    def close(self) -> None:
        """Flush TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()
