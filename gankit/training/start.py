"""Networks that begin with what another run has learned, also one of another size or of other classes."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gankit.errors import RunError, one_line
from gankit.runs import checkpoint
from gankit.runs.networks import load_state
from gankit.runs.run import open_run
from gankit.training.step import Stepper

NAMED = 4
"""Tensors that are named at most where some stay fresh."""


def load_start_weights(stepper: Stepper) -> None:
    """Load the weights of the run that `training.start_from` names, if it names one, as far as they fit.

    Raises:
        RunError: there is no such run, it has no checkpoint, or no layer of a network fits.
    """
    if not stepper.settings.start_from:
        return
    try:
        folder = open_run(stepper.settings.start_from).path
        restored = checkpoint.restore(
            folder / "checkpoints", stepper.device, lambda state: load_networks(stepper, state, folder)
        )
    except RunError as error:
        raise RunError(f"training.start_from: {error}") from error
    if restored is None:
        raise RunError(f"training.start_from: {folder} has no checkpoint to start from")


def load_networks(stepper: Stepper, state: dict[str, Any], folder: Path) -> None:
    """Load only the networks of another experiment's state, with the averages and their age if both use them."""
    for kind, network in (("generator", stepper.generator), ("critic", stepper.critic)):
        fresh = _load(network, kind, state, folder)
        if fresh:
            more = "" if len(fresh) <= NAMED else f" and {len(fresh) - NAMED} more"
            stepper.warnings.append(
                f"training.start_from: {len(network.state_dict()) - len(fresh)} of {len(network.state_dict())} tensors "
                f"of the {kind} are those of {folder}; new are {', '.join(fresh[:NAMED])}{more}"
            )
    stepper.averaged = stepper.new_average()
    if stepper.averaged is not None and "averaged" in state:
        saved = {name.removeprefix("module."): value for name, value in state["averaged"].items()}
        _load(stepper.averaged.module, "averaged", {"averaged": saved}, folder)
        stepper.averaged.n_averaged.copy_(state["averaged"]["n_averaged"])
    stepper.go_to(stepper.step)


def _load(network: nn.Module, name: str, states: Mapping[str, Any], folder: Path) -> list[str]:
    """Load what fits of `states[name]`, and return the names of the tensors that stay as they are.

    Numbered layers are counted from the generator's first, and from the critic's last: both are at the smallest maps,
    so that networks of another size share them.
    """
    saved, own = states.get(name, {}), network.state_dict()
    # How much labels act is no layer's: a run that starts from one in which they faded in has it from there.
    layers = {key for key in own.keys() | saved.keys() if not key.endswith(".influence")}
    if all(key in own and key in saved and _shape(own[key]) == _shape(saved[key]) for key in layers):
        load_state(network, name, states, folder)
        return []
    places = _counted_from_the_end(own, saved) if name == "critic" else {key: key for key in own}
    tables = {key for key, module in network.named_modules() if isinstance(module, nn.Embedding)}
    taken = {}
    for key, value in own.items():
        is_table, place = key.rpartition(".")[0] in tables, places[key]
        found = [_fitted(saved.get(place), value, is_table)]
        found += [_fitted(saved.get(other), value, by_label=True) for other in _of_norms(place)]
        if fits := [fitted for fitted in found if fitted is not None]:
            taken[key] = fits[0]
    if not any(value.dim() > 1 for value in taken.values()):
        raise RunError(f"{folder}: the saved {name} does not fit the experiment: no layer of both has the same shape")
    try:
        network.load_state_dict({**own, **taken})
    except (ValueError, RuntimeError) as error:
        raise RunError(f"{folder}: the saved {name} does not fit the experiment: {one_line(error, 200)}") from error
    return [key for key in own if key in layers and key not in taken]


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, Tensor) else None


def _fitted(saved: Any, own: Any, by_label: bool) -> Tensor | None:
    """What is saved, where it can stand for `own`; None where it cannot.

    A table with a row for each class gets the mean of the saved rows in each of its own where their numbers differ, so
    that all classes begin alike; the same holds between a table and the row of a network without classes.
    """
    if not isinstance(saved, Tensor) or not isinstance(own, Tensor):
        return None
    if saved.shape == own.shape:
        return saved
    row = saved.mean(0) if by_label and saved.dim() == 2 else saved
    return row.expand_as(own) if by_label and row.shape == own.shape[-1:] and own.dim() in (1, 2) else None


def _of_norms(key: str) -> list[str]:
    """Where a `Norm` keeps with labels what it keeps otherwise without them."""
    pairs = [(".gain.table.weight", ".norm.weight"), (".gain.table.bias", ".norm.weight"),
             (".shift.table.weight", ".norm.bias"), (".shift.table.bias", ".norm.bias")]  # fmt: skip
    there = [key.removesuffix(one) + other for one, other in pairs if key.endswith(one)]
    back = [key.removesuffix(other) + one for one, other in pairs if key.endswith(other)]
    return there + back


def _counted_from_the_end(own: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, str]:
    """The saved name of each of a network's tensors, where lists of layers have other lengths."""
    own_lengths, saved_lengths = _lengths(own), _lengths(saved)
    names = {}
    for key in own:
        parts = key.split(".")
        there = list(parts)
        for k, part in enumerate(parts):
            if part.isdecimal():
                there[k] = str(int(part) - own_lengths[".".join(parts[:k])] + saved_lengths[".".join(there[:k])])
        names[key] = ".".join(there)
    return names


def _lengths(state: Mapping[str, Any]) -> Counter[str]:
    """The number of layers of each numbered list, by its name; 0 for others."""
    lengths: Counter[str] = Counter()
    for key in state:
        parts = key.split(".")
        for k, part in enumerate(parts):
            if part.isdecimal():
                place = ".".join(parts[:k])
                lengths[place] = max(lengths[place], int(part) + 1)
    return lengths
