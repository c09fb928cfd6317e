"""Optimisers by name, and their state when a run resumes."""

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from gankit.errors import PartError, one_line
from gankit.experiments.experiment import Training
from gankit.registry import value_at

CANNOT_TRAIN = {"LBFGS": "needs to compute the loss again within a step", "SparseAdam": "accepts only sparse gradients"}


def build_optimizer(settings: Training, network: nn.Module, rate: float) -> torch.optim.Optimizer:
    """The optimiser that the settings name, for all parameters of a network, at a learning rate.

    Loading a state into it keeps these options, and raises ValueError for a state of another kind of optimiser.

    Raises:
        PartError: it cannot train networks, or refuses its options.
    """
    name = settings.optimizer
    if name in CANNOT_TRAIN:
        raise PartError(f"training.optimizer: {name} {CANNOT_TRAIN[name]}; choose another, for example Adam")
    kind = getattr(torch.optim, name)
    options: dict[str, Any] = {"lr": rate, "betas": betas_at(settings, 0)}
    # Not complex numbers, nor where some versions of torch have no such form: Apple GPUs, and Adagrad on any GPU.
    devices = {"cpu"} if name == "Adagrad" else {"cpu", "cuda"}
    options["fused"] = all(p.is_floating_point() and p.device.type in devices for p in network.parameters())
    options = {key: value for key, value in options.items() if key in inspect.signature(kind).parameters}
    try:
        optimizer: torch.optim.Optimizer = kind(network.parameters(), **options | settings.optimizer_options)
    except Exception as error:  # torch checks few options itself; bad ones fail somewhere inside
        raise PartError(f"training.optimizer_options: {name} refuses them: {one_line(error)}") from error
    optimizer.register_load_state_dict_pre_hook(_check_and_keep_options)
    return optimizer


def betas_at(settings: Training, step: int) -> tuple[float, float]:
    """The optimisers' betas after `step` generator updates."""
    first, second = (value_at(beta, step) for beta in settings.betas)
    return first, second


def _check_and_keep_options(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    own_options, saved_options = optimizer.param_groups[0].keys(), state["param_groups"][0].keys()
    if not (own_options <= saved_options or saved_options <= own_options):  # versions of torch add options
        raise ValueError("it is the state of another optimizer")
    # Torch checks nothing more, and its kernels would write beyond tensors of other shapes.
    trial = copy.deepcopy(optimizer)
    for parameter in (parameter for group in trial.param_groups for parameter in group["params"]):
        parameter.grad = torch.zeros_like(parameter)
    trial.step()
    own = trial.state_dict()
    numbers = [[group["params"] for group in groups["param_groups"]] for groups in (state, own)]
    if numbers[0] != numbers[1] or any(
        _form(value) != _form(own["state"].get(i)) for i, value in state["state"].items()
    ):
        raise ValueError("it is the state of other parameters")
    # torch leaves the number of steps where it was loaded to. On a GPU, each step would wait for each of them.
    moved = {
        i: {name: value.to(own["state"][i][name].device) if isinstance(value, Tensor) else value
            for name, value in values.items()}
        for i, values in state["state"].items()
    }  # fmt: skip
    pairs = zip(state["param_groups"], optimizer.param_groups, strict=True)
    return {
        **state,
        "state": moved,
        "param_groups": [{**saved, **own, "params": saved["params"]} for saved, own in pairs],
    }


def _form(value: Any) -> Any:
    """The types, shapes and layouts in the state of one parameter."""
    if isinstance(value, dict):
        return {name: _form(item) for name, item in value.items()}
    return (value.shape, value.dtype, value.layout) if isinstance(value, Tensor) else type(value)
