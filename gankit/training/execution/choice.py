"""Which way of executing turns a training takes."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from gankit import distributed
from gankit.errors import PartError
from gankit.experiments.experiment import Training
from gankit.nn.compilation import Compilation
from gankit.training.execution.cuda import CudaRecorder
from gankit.training.execution.graphs import Graphs
from gankit.training.execution.work import Eager, Execution, LogValue


def choose(
    settings: Training,
    device: torch.device,
    parts: Mapping[str, Any],
    loss_rng: torch.Generator,
    log: LogValue,
    report: Callable[[str], None],
    compilation: Compilation,
) -> Execution:
    """The way that the settings ask for; eager with `training.graphs="auto"` where turns cannot be recorded.

    Args:
        settings: of the training.
        device: where it runs.
        parts: networks, losses and the augment, by the name that errors use.
        loss_rng: makes the losses' random numbers.
        log: takes the values that losses log.
        report: takes a line for the user.
        compilation: used where the settings ask for it.

    Raises:
        PartError: `training.graphs=true`, and turns cannot be recorded; names the part or the reason.
    """
    obstacle = _obstacle(settings, device, parts)
    if settings.graphs is True and obstacle:
        raise PartError(f"training.graphs=true: {obstacle}; set training.graphs=auto")
    if obstacle or not settings.graphs:
        return Eager(log, compilation if settings.compile else None)
    modules = [part for part in parts.values() if isinstance(part, nn.Module)]
    return Graphs(CudaRecorder(device, [loss_rng]), modules, [loss_rng], log, report, settings.deterministic)


def _obstacle(settings: Training, device: torch.device, parts: Mapping[str, Any]) -> str | None:
    """Why turns cannot be recorded, or None."""
    if device.type != "cuda":
        return f"graphs need a CUDA device, and training.device is {device.type}"
    if settings.compile:
        return "graphs and training.compile exclude each other"
    if settings.accumulate > 1:
        return "graphs and training.accumulate exclude each other"
    for name, part in parts.items():
        if not part.capturable:
            return f"{name} does not say that it can be captured (capturable = True)"
    if distributed.has_synchronised_norms(*(part for part in parts.values() if isinstance(part, nn.Module))):
        return "batch normalisation is synchronised between processes"
    return None
