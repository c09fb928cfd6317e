"""Start from the weights of another run, even one with images of another size or with other classes."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gankit.errors import RunError, first_of
from gankit.runs import checkpoint
from gankit.runs.networks import load_state
from gankit.runs.run import open_run
from gankit.training.averaging import new_average
from gankit.training.step import Stepper

NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
"""A layer's place in a list, in the name of a tensor."""
SHIFTS = (-1, 1, -2, 2)
"""By how many layers those of equal shape may lie apart: at 28 and at 64 pixels other levels have the same widths."""
LISTED = 4
"""Messages name at most this many tensors."""
SPECTRAL_NAMES = (
    (".parametrizations.weight.original", ".parametrizations.weight.0._u", ".parametrizations.weight.0._v"),
    (".weight_orig", ".weight_u", ".weight_v"),
)
"""A spectrally normalised weight and its singular vectors, in both of torch's forms."""


def load_start_weights(stepper: Stepper) -> None:
    """Load the weights of the run that `training.start_from` names, if it names one, as far as they fit.

    Raises:
        RunError: there is no such run, it has no checkpoint, no layer of a network fits, or its weights are not finite.
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
        raise RunError(
            f"training.start_from: {folder} has no checkpoint to start from, and an exported generator is not enough: "
            "name a run that was trained here"
        )
    if restored.skipped:
        stepper.warnings.append(
            f"training.start_from: {'; '.join(restored.skipped)}; starting from step {restored.step} of that run"
        )


def load_networks(stepper: Stepper, state: dict[str, Any], folder: Path) -> None:
    """Load the networks of another run's state and, where both runs average, the average with its number of updates.

    Args:
        stepper: whose networks begin with them.
        state: what the other run's checkpoint holds.
        folder: the other run's, for messages.

    Raises:
        RunError: no layer of a network fits, or layers that `training.freeze` names are not in the other run,
            or its weights are not finite.
    """
    warnings = []  # only given if this state fits; else an older one is tried
    for kind, network in (("generator", stepper.generator), ("critic", stepper.critic)):
        unmatched = _load_matching(network, kind, state, folder)
        if kind == "critic" and stepper.settings.freeze:
            _refuse_frozen(network, unmatched, folder)
        if unmatched:
            warnings.append(
                f"training.start_from: {len(network.state_dict()) - len(unmatched)} of {len(network.state_dict())} "
                f"tensors of the {kind} come from {folder}; freshly drawn: {first_of(unmatched, LISTED)}"
            )
    stepper.averaged = new_average(stepper.generator, stepper.settings.averaging)
    if stepper.averaged is not None and "averaged" in state:
        saved = {name.removeprefix("module."): value for name, value in state["averaged"].items()}
        _load_matching(stepper.averaged.module, "averaged", {"averaged": saved}, folder)
        stepper.averaged.n_averaged.copy_(state["averaged"]["n_averaged"])
    if wrong := stepper.not_finite():
        raise RunError(f"{folder}: the saved networks hold NaN or infinity ({first_of(wrong)}): take another run")
    stepper.warnings += warnings
    stepper.go_to(stepper.step)  # calls each `before_step` again, since loading has replaced buffers


def _refuse_frozen(critic: nn.Module, unmatched: list[str], folder: Path) -> None:
    """Refuse to freeze layers of a critic that the other run does not have: they would stay as they were drawn."""
    parameters = critic.named_parameters()
    if frozen := [name for name, weight in parameters if not weight.requires_grad and name in unmatched]:
        raise RunError(
            f"training.freeze: the critic of {folder} has no {first_of(frozen, LISTED)}, which would stay as drawn; "
            "freeze fewer layers, or start from a run of the same image size"
        )


def _load_matching(network: nn.Module, name: str, states: Mapping[str, Any], folder: Path) -> list[str]:
    """Load those tensors of `states[name]` that fit, and return the names of the others in the network.

    Networks for other image sizes share the layers at the smallest maps. So layers in a list are counted from the
    first in a generator, and from the last in a critic; or another way, if more layers fit then.
    """
    own = network.state_dict()
    saved = _as_normalised(own, states.get(name, {}))
    # The buffers of `training.label_fade` are no weights, and perhaps only one of the two networks has them.
    layers = {key for key in own.keys() | saved.keys() if not key.endswith(".influence")}
    shapes = [{key: getattr(state[key], "shape", None) for key in layers & state.keys()} for state in (own, saved)]
    if shapes[0] == shapes[1]:
        load_state(network, name, {name: saved}, folder)
        return []
    # Embeddings are taken to be indexed by class, as all of gankit's are. A weight may be computed from other tensors,
    # such as weight_orig or parametrizations.weight.original.
    class_tables = tuple(f"{key}." for key, module in network.named_modules() if isinstance(module, nn.Embedding))
    from_end = name == "critic"
    ways = [(from_end, 0), (not from_end, 0), *((from_end, shift) for shift in SHIFTS)]
    found = [_fitting(own, saved, class_tables, *way) for way in ways]
    taken = max(found, key=lambda tensors: sum(tensor.dim() > 1 for tensor in tensors.values()))
    if not any(tensor.dim() > 1 for tensor in taken.values()):
        raise RunError(
            f"{folder}: the saved {name} does not fit the experiment: no layer of both has the same shape; give the "
            "networks the names and widths that its experiment.toml has, and images of a size nearer to its own"
        )
    load_state(network, name, {name: {**own, **taken}}, folder)
    return [key for key in own if key in layers and key not in taken]


def _as_normalised(own: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """The saved tensors, their weights under spectral normalisation where those of `own` are, and nowhere else.

    A weight that is no longer normalised is saved as the network used it: divided by its singular value.
    """
    result = dict(saved)
    for original, vector, other in SPECTRAL_NAMES:
        for key in [key for key in saved if key.endswith(original)]:
            place = key.removesuffix(original)
            vectors = [result.get(f"{place}{name}") for name in (vector, other)]
            if key not in own and f"{place}.weight" in own and all(values is not None for values in vectors):
                sigma = vectors[0] @ saved[key].flatten(1) @ vectors[1]
                result[f"{place}.weight"] = result.pop(key) / sigma
        for key in [key for key in own if key.endswith(original) and key not in saved]:
            if (weight := f"{key.removesuffix(original)}.weight") in result:
                result[key] = result.pop(weight)
    return result


def _fitting(
    own: Mapping[str, Any], saved: Mapping[str, Any], class_tables: tuple[str, ...], from_end: bool, shift: int
) -> dict[str, Tensor]:
    """The saved tensors that fit, by the names of `own`."""
    lists, taken = (_lists(own), _lists(saved)), {}
    for key, value in own.items():
        place = saved_name = ""
        for part in key.split("."):
            counterpart = part
            if part.isdecimal():
                alike = lists[0][place], lists[1].get(saved_name, {})
                counterpart = str(_counterpart(*alike, int(part), from_end, shift))
            place, saved_name = f"{place}{part}.", f"{saved_name}{counterpart}."
        saved_name = saved_name[:-1]
        candidates = [_fit(saved.get(saved_name), value, by_label=key.startswith(class_tables))]
        candidates += [_fit(saved.get(other), value, by_label=True) for other in _norm_aliases(saved_name)]
        if fits := [tensor for tensor in candidates if tensor is not None]:
            taken[key] = fits[0]
    return taken


def _fit(saved: Any, own: Any, by_label: bool) -> Tensor | None:
    """The saved tensor in the shape of `own`; None where it does not fit.

    `by_label` tensors have a row for each class, or are the single row of a network without classes. Where the numbers
    of rows differ, each row of `own` becomes the mean of the saved rows, so that all classes begin alike.
    """
    if not isinstance(saved, Tensor) or not isinstance(own, Tensor):
        return None
    if saved.shape == own.shape:
        return saved
    if not by_label or own.dim() not in (1, 2):
        return None
    row = saved.mean(0) if saved.dim() == 2 else saved
    return row.expand_as(own) if row.shape == own.shape[-1:] else None


def _norm_aliases(key: str) -> list[str]:
    """Other names of the same tensor: a `Norm` with labels and one without give gain and shift different names."""
    pairs = [(".gain.table.weight", ".norm.weight"), (".gain.table.bias", ".norm.weight"),
             (".shift.table.weight", ".norm.bias"), (".shift.table.bias", ".norm.bias")]  # fmt: skip
    pairs += [(without, labelled) for labelled, without in pairs]
    return [key.removesuffix(ending) + alias for ending, alias in pairs if key.endswith(ending)]


def _lists(state: Mapping[str, Any]) -> dict[str, dict[int, frozenset[str]]]:
    """The lists of layers, by their names and a point: each layer's number, and the names of the weights in it."""
    lists: dict[str, dict[int, frozenset[str]]] = {}
    for key, value in state.items():
        for number in NUMBER.finditer(key):
            layers = lists.setdefault(key[: number.start()], {})
            weight = getattr(value, "ndim", 0) > 1 and not _norm_aliases(key)
            name = NUMBER.sub("", key[number.end() :])
            layers[int(number[0])] = layers.get(int(number[0]), frozenset()) | ({name} if weight else set())
    return lists


def _counterpart(
    own: Mapping[int, frozenset[str]], saved: Mapping[int, frozenset[str]], number: int, from_end: bool, shift: int
) -> int:
    """The number of a list's layer in the saved list; -1 for none.

    Layers are counted among those that have weights of the same names, or else among those that have no like in the
    other list. So a block that halves does not become one that keeps the size, and a setting may add normalisations.
    """
    common = {*own.values()} & {*saved.values()}
    sought = {own[number]} if own[number] in common else {*own.values(), *saved.values()} - common
    alike, others = (sorted(key for key in layers if layers[key] in sought) for layers in (own, saved))
    position = alike.index(number) + (len(others) - len(alike) if from_end else 0) + shift
    return others[position] if 0 <= position < len(others) else -1
