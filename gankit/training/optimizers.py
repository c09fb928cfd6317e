"""Optimisers by name, their rates at each step, and their state when a run resumes."""

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from gankit.errors import PartError, one_line
from gankit.experiments.experiment import Training
from gankit.interfaces import Side
from gankit.registry import value_at


def build_optimizer(settings: Training, network: nn.Module, side: Side) -> torch.optim.Optimizer:
    """The optimiser that the settings name, for all parameters of one side's network, with the rates of step 0.

    Loading a state into it keeps these options, and raises ValueError for a state of another kind of optimiser.
    Raises PartError if it refuses its options.
    """
    name = settings.optimizer
    kind = getattr(torch.optim, name)
    options: dict[str, Any] = {"lr": value_at(getattr(settings, f"{side}_lr"), 0)}
    options["betas"] = tuple(value_at(beta, 0) for beta in settings.betas)
    # No fused form takes complex numbers; some versions of torch have none for Apple GPUs, and for Adagrad on any GPU.
    devices = {"cpu"} if name == "Adagrad" else {"cpu", "cuda"}
    options["fused"] = all(p.is_floating_point() and p.device.type in devices for p in network.parameters())
    options = {key: value for key, value in options.items() if key in inspect.signature(kind).parameters}
    try:
        optimizer: torch.optim.Optimizer = kind(network.parameters(), **options | settings.optimizer_options)
    except Exception as error:  # torch checks few options itself; bad ones fail somewhere inside
        raise PartError(f"training.optimizer_options: {name} refuses them: {one_line(error)}") from error
    optimizer.register_load_state_dict_pre_hook(_check_and_keep_options)
    return optimizer


def move_rate(optimizer: torch.optim.Optimizer, settings: Training, side: Side, step: int, scale: float) -> None:
    """Set the learning rate and betas of one side's optimiser for a step, counted from 0.

    `scale` multiplies the rate, and is the power of betas, for penalties that are not computed at each update.
    """
    remaining = 1 - step / settings.steps if settings.lr_decay == "linear" else 1.0
    first, second = (value_at(beta, step) for beta in settings.betas)
    for group in optimizer.param_groups:
        group["lr"] = value_at(getattr(settings, f"{side}_lr"), step) * remaining * scale
        if "betas" in group:
            group["betas"] = first**scale, second**scale


def _check_and_keep_options(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A saved state with the options of this optimiser; ValueError for the state of another kind or other parameters.

    Torch checks little more than the number of parameters, and its kernels would write beyond tensors of other shapes.
    """
    own_options, saved_options = optimizer.param_groups[0].keys(), state["param_groups"][0].keys()
    # One may have more options than the other, since versions of torch add some.
    if not (own_options <= saved_options or saved_options <= own_options):
        raise ValueError("it is the state of another optimizer")
    own = _state_after_a_step(optimizer)
    own_numbers, saved_numbers = ([group["params"] for group in groups["param_groups"]] for groups in (own, state))
    same_forms = all(_form(value) == _form(own["state"].get(number)) for number, value in state["state"].items())
    if own_numbers != saved_numbers or not same_forms:
        raise ValueError("it is the state of other parameters")
    # torch leaves counters of steps on the device that they were loaded to. On a GPU, each step would wait for them.
    moved = {
        number: {name: value.to(own["state"][number][name].device) if isinstance(value, Tensor) else value
                 for name, value in values.items()}
        for number, values in state["state"].items()
    }  # fmt: skip
    pairs = zip(state["param_groups"], optimizer.param_groups, strict=True)
    return {
        **state,
        "state": moved,
        "param_groups": [{**saved, **group, "params": saved["params"]} for saved, group in pairs],
    }


def _state_after_a_step(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of a copy of the optimiser after a step, since before its first step an optimiser has none."""
    trial = copy.deepcopy(optimizer)
    for parameter in (parameter for group in trial.param_groups for parameter in group["params"]):
        parameter.grad = torch.zeros_like(parameter)
    trial.step()
    return trial.state_dict()


def _form(value: Any) -> Any:
    """The types, shapes and layouts in the state of one parameter."""
    if isinstance(value, dict):
        return {name: _form(item) for name, item in value.items()}
    return (value.shape, value.dtype, value.layout) if isinstance(value, Tensor) else type(value)
