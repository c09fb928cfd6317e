"""Optimisers by name, and their state when a run goes on."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from gankit.errors import PartError
from gankit.experiments.experiment import Training

CANNOT_TRAIN = {"LBFGS": "evaluates its own steps", "SparseAdam": "takes sparse gradients alone"}


def build_optimizer(settings: Training, network: nn.Module, rate: float) -> torch.optim.Optimizer:
    """The optimiser that the settings name, for all parameters of a network.

    Args:
        settings: of the training.
        network: to be trained.
        rate: the learning rate.

    Raises:
        PartError: it cannot train networks, or refuses its options.
    """
    name = settings.optimizer
    if name in CANNOT_TRAIN:
        raise PartError(f"training.optimizer: {name} {CANNOT_TRAIN[name]}; choose another, for example Adam")
    kind = getattr(torch.optim, name)
    known = inspect.signature(kind).parameters
    options: dict[str, Any] = {"lr": rate}
    if "betas" in known:
        options["betas"] = settings.betas
    if "fused" in known:
        options["fused"] = True
    options |= settings.optimizer_options
    try:
        optimizer: torch.optim.Optimizer = kind(network.parameters(), **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise PartError(f"training.optimizer_options: {name} refuses them: {error}") from error
    return optimizer


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimiser's state; its options stay those of the experiment.

    Raises:
        ValueError: the state is of another optimiser.
    """
    options = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    current, saved = options[0].keys(), state["param_groups"][0].keys() - {"params"}
    if not (current <= saved or saved <= current):  # a newer torch may know more of them
        raise ValueError("it is the state of another optimizer")
    optimizer.load_state_dict(state)
    for group, option in zip(optimizer.param_groups, options, strict=True):
        group.update(option)
