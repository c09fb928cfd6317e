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

Layers = dict[int, frozenset[str]]
"""A list of layers: each one's number, and the names of the weights in it."""
NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
"""A layer's place in a list, in the name of a tensor."""
SHIFTS = (-1, 1, -2, 2)
"""By how many places equal layers may be shifted: of 28 and of 64 pixels, equal widths may be at other levels."""
SINGULAR_VECTORS = {
    ".parametrizations.weight.original": (".parametrizations.weight.0._u", ".parametrizations.weight.0._v"),
    ".weight_orig": (".weight_u", ".weight_v"),
}
"""The names of the left and right singular vector, by that of the normalised weight, in both of torch's forms."""
NORMALISED = re.compile(f"({'|'.join(map(re.escape, SINGULAR_VECTORS))})$")


def load_start_weights(stepper: Stepper) -> None:
    """Load the weights of the run that `training.start_from` names, if it names one, as far as they fit.

    Raises:
        RunError: there is no such run, it has no checkpoint, no layer of a network fits, or its weights are not finite.
    """
    if not stepper.settings.start_from:
        return
    try:
        folder = (run := open_run(stepper.settings.start_from)).path
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
    names = list(stepper.data.dataset.class_names)
    moved = [f"{old} to {new}" for old, new in zip(run.class_names, names, strict=False) if old != new]
    if moved and set(run.class_names) == set(names) and run.image.classes and stepper.data.image.classes:
        stepper.warnings.append(
            f"training.start_from: {folder} has the same classes in another order, and what it learnt of a class goes "
            f"to the one in its place: of {first_of(moved)}"
        )


def load_networks(stepper: Stepper, state: dict[str, Any], folder: Path) -> None:
    """Load the networks of another run's state and, where both runs average, the average with its number of updates.

    Raises:
        RunError: no layer of a network fits, the other run lacks frozen ones, or its weights are not finite.
    """
    warnings = []  # only given if this state fits; else an older one is tried
    for kind, network in (("generator", stepper.generator), ("critic", stepper.critic)):
        unmatched = _load_matching(network, kind, state, folder)
        frozen = [key for key, weight in network.named_parameters() if key in unmatched and not weight.requires_grad]
        if kind == "critic" and stepper.settings.freeze and frozen:
            raise RunError(
                f"training.freeze: the critic of {folder} has no {first_of(frozen)}, which would stay as drawn; "
                "freeze fewer layers, or start from a run of the same image size"
            )
        if unmatched:
            warnings.append(
                f"training.start_from: {len(network.state_dict()) - len(unmatched)} of {len(network.state_dict())} "
                f"tensors of the {kind} come from {folder}; freshly drawn: {first_of(unmatched)}"
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


def _load_matching(network: nn.Module, name: str, states: Mapping[str, Any], folder: Path) -> list[str]:
    """Load those tensors of `states[name]` that fit, and return the names of the others in the network.

    Networks for other image sizes share the layers at the smallest maps. So layers in a list are counted from the
    first in a generator, and from the last in a critic; or another way, if more layers fit then.
    """
    own, saved = network.state_dict(), states.get(name, {})
    # The buffers of `training.label_fade` are no weights, and perhaps only one of the two networks has them.
    layers = {key for key in own.keys() | saved.keys() if not key.endswith(".influence")}
    shapes = [{key: getattr(state[key], "shape", None) for key in layers & state.keys()} for state in (own, saved)]
    if shapes[0] == shapes[1]:
        load_state(network, name, {name: saved}, folder)
        return []
    critic = name == "critic"
    ways = [(critic, 0), (not critic, 0), *((critic, shift) for shift in SHIFTS)]
    found = [_take_fitting(network, saved, critic, *way) for way in ways]
    taken = max(found, key=lambda tensors: sum(tensor.dim() > 1 for tensor in tensors.values()))
    if not any(tensor.dim() > 1 for tensor in taken.values()):
        raise RunError(
            f"{folder}: the saved {name} does not fit the experiment: no layer of both has the same shape; give the "
            "networks the names and widths that its experiment.toml has, and images of a size nearer to its own"
        )
    load_state(network, name, {name: {**own, **taken}}, folder)
    return [key for key in own if key in layers and key not in taken]


def _take_fitting(
    network: nn.Module, saved: Mapping[str, Any], critic: bool, from_end: bool, shift: int
) -> dict[str, Tensor]:
    """The saved tensors that fit, by the network's names; such a name is translated to a saved one part by part."""
    own, names = network.state_dict(), {NORMALISED.sub(".weight", key): key for key in saved}
    # Embeddings are taken to be indexed by class, as all of gankit's are.
    class_tables = tuple(f"{key}." for key, module in network.named_modules() if isinstance(module, nn.Embedding))
    own_lists, saved_lists, taken = _lists(own), _lists(saved), {}
    for key, value in own.items():
        own_prefix = saved_prefix = ""
        for part in NORMALISED.sub(".weight", key).split("."):
            layer_lists = own_lists.get(own_prefix, {}), saved_lists.get(saved_prefix, {})
            saved_part = _counterpart(*layer_lists, int(part), critic, from_end, shift) if part.isdecimal() else part
            own_prefix, saved_prefix = f"{own_prefix}{part}.", f"{saved_prefix}{saved_part}."
        saved_name = saved_prefix.removesuffix(".")
        weight = _weight(network, key, saved, names.get(saved_name, ""))
        candidates = [_fit(weight, value, by_label=key.startswith(class_tables))]
        candidates += [_fit(saved.get(other), value, by_label=True) for other in _norm_aliases(saved_name)]
        if fits := [tensor for tensor in candidates if tensor is not None]:
            taken[key] = fits[0]
    return taken


def _weight(network: nn.Module, key: str, saved: Mapping[str, Any], saved_key: str) -> Any:
    """A saved tensor for one of the network; None where there is none.

    A weight that is no longer spectrally normalised is taken as it was used: divided by its singular value.
    """
    weight: Any = saved.get(saved_key)
    if (ending := NORMALISED.search(saved_key)) and not NORMALISED.search(key):
        left, right = (saved.get(saved_key[: ending.start()] + name, Tensor()) for name in SINGULAR_VECTORS[ending[0]])
        # Torch takes the second dimension of a transposed convolution as the matrix's rows.
        by_input = isinstance(network.get_submodule(key.rpartition(".")[0]), nn.modules.conv._ConvTransposeNd)
        matrix = (weight.transpose(0, 1) if by_input else weight).flatten(1)
        return weight / (left @ matrix @ right) if matrix.shape == left.shape + right.shape else None
    return weight


def _fit(saved: Any, own: Any, by_label: bool) -> Tensor | None:
    """The saved tensor in the shape of `own`; None where it does not fit.

    `by_label` tensors have a row for each class, or are the single row of a network without classes. Where the numbers
    of rows differ, each row of `own` becomes the mean of the saved rows, so that all classes begin alike.
    """
    if not isinstance(saved, Tensor) or not isinstance(own, Tensor):
        return None
    if by_label and saved.shape != own.shape and own.dim() in (1, 2):
        row = saved.mean(0) if saved.dim() == 2 else saved
        saved = row.expand_as(own) if row.shape == own.shape[-1:] else row
    return saved if saved.shape == own.shape else None


def _norm_aliases(key: str) -> list[str]:
    """Other names of the same tensor: a `Norm` with labels and one without give gain and shift different names."""
    pairs = [(".gain.table.weight", ".norm.weight"), (".gain.table.bias", ".norm.weight"),
             (".shift.table.weight", ".norm.bias"), (".shift.table.bias", ".norm.bias")]  # fmt: skip
    pairs += [(without, labelled) for labelled, without in pairs]
    return [key.removesuffix(ending) + alias for ending, alias in pairs if key.endswith(ending)]


def _lists(state: Mapping[str, Any]) -> dict[str, Layers]:
    """The lists of layers, each by what precedes the numbers in the names of its tensors, such as "blocks."."""
    lists: dict[str, Layers] = {}
    for key, value in state.items():
        plain = NORMALISED.sub(".weight", key)
        for number in NUMBER.finditer(plain):
            layers = lists.setdefault(plain[: number.start()], {})
            is_weight = getattr(value, "ndim", 0) > 1 and not _norm_aliases(plain)
            names = {NUMBER.sub("", plain[number.end() :])} if is_weight else set()
            layers[int(number[0])] = layers.get(int(number[0]), frozenset()) | names
    return lists


def _counterpart(own: Layers, saved: Layers, number: int, critic: bool, from_end: bool, shift: int) -> int:
    """The number of the layer in the saved list that corresponds to layer `number` of the network's; -1 for none.

    Layers are counted that share the name of a weight with this one. But if in both lists their number of weights never
    falls from the smallest map outwards, as in blocks that keep the size and then ones that halve it, only those with
    exactly its names are counted. If the saved list has none, all are whose set of names only one list has.
    """
    kinds = {kind for kind in [*own.values(), *saved.values()] if kind & own[number]}
    counts = [[len(layers[key]) for key in sorted(layers) if layers[key] in kinds] for layers in (own, saved)]
    if all(each == sorted(each, reverse=critic) for each in counts):
        kinds = {own[number]} if own[number] in saved.values() else {*own.values()} ^ {*saved.values()}
    own_numbers, saved_numbers = (sorted(key for key in layers if layers[key] in kinds) for layers in (own, saved))
    surplus = len(saved_numbers) - len(own_numbers)
    # Lists of equal length are matched place by place, so that a layer with other widths fits nowhere.
    position = own_numbers.index(number) + (from_end * surplus + shift if surplus else 0)
    return saved_numbers[position] if 0 <= position < len(saved_numbers) else -1
