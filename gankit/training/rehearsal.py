"""A rehearsal of a training before anything is written: a step, a save, and a step from what was read back."""

import io
import itertools
import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as from_bytes
from torch import Tensor, nn

from gankit import distributed, seeds
from gankit.errors import PartError, RunError, blame, first_of, is_device_failure, is_fault_of_machine, typed_line
from gankit.experiments.experiment import Experiment, load
from gankit.experiments.selection import open_dataset
from gankit.interfaces import Augment, Critic, FeatureCritic, Generator, Loss
from gankit.nn.copies import copied
from gankit.nn.gradients import penalty_error
from gankit.runs import checkpoint
from gankit.runs.networks import PROBE_BATCH, build_network, load_state, place, probe_labels
from gankit.training.assembly import Gan, experiment_warnings
from gankit.training.data import TrainingData, prepare
from gankit.training.description import data_warnings, describe, summarise
from gankit.training.execution.arithmetic import arithmetic, determinism_warnings
from gankit.training.inputs import SIDES
from gankit.training.log import TickLog
from gankit.training.mixing import UNSTEADY
from gankit.training.start import load_start_weights
from gankit.training.step import Stepper
from gankit.training.trial import attempt, drawn, gradient_warnings, modules, output, turn_of

NUMBERS = (Tensor, np.ndarray, np.generic, int, float)
SAVE_ADVICE = "keep what changes or is random in buffers, or in state_dict and load_state_dict"
DRAW_ADVICE = "draw with torch, and make before_step depend on its step alone, since a resumed run calls it again"
DIFFERS = f"computes something else once it is built anew with its saved state; {SAVE_ADVICE}, {DRAW_ADVICE}"


@seeds.plain_torch()
def rehearse(experiment: Experiment, data: TrainingData, checked: Gan | None = None) -> list[str]:
    """Do on a small batch what the training will do: a step of every loss, a save, an export, a resume, a second step.

    It also looks at what the gradients of each loss reach, and at inputs that are changed in place. Parts are built
    anew for it, and torch's random state is left as it was. The second step is done twice, by the parts that did the
    first one and by new ones that have loaded their saved state: results must be equal. `checked` are the experiment's
    parts where they have been built already.

    Returns:
        What the user should know about the parts, one line each.

    Raises:
        PartError: a part cannot be trained, saved, exported or resumed, blocks gradients to a network, or changes its
            inputs in place; one line that names it.
    """
    simple = {"critic_steps": 1, "compile": False, "graphs": False, "tensorboard": False}
    simplified = experiment.model_copy(update={
        "training": experiment.training.model_copy(update=simple),
        "losses": [table.model_copy(update={"every": 1}) for table in experiment.losses],
    })  # fmt: skip
    n = min(PROBE_BATCH, experiment.training.batch)
    few = {"batch": n, "generator_batch": n, "accumulate": 1}
    simplified_small = simplified.model_copy(update={"training": simplified.training.model_copy(update=few)})
    with seeds.own_draws(), distributed.alone():
        first = Stepper(simplified_small, data, TickLog(Path(), tensorboard=False), checked)
        second = Stepper(simplified_small, data, TickLog(Path(), tensorboard=False), first.gan)
        attempt(first)
        if _not_finite(first):  # perhaps only because the small batch lacks a class
            whole = Stepper(simplified, data, TickLog(Path(), tensorboard=False), first.gan)
            attempt(whole)
            if wrong := _not_finite(whole):
                raise PartError(
                    f"in a trial step {first_of(wrong)} became infinite or NaN; lower the weights of losses, "
                    "training.generator_lr and training.critic_lr, or correct the part"
                )
        _resume(first, second)
        _check_export(first)
        _check_same_outputs(first, second)
        _check_features(first)
        for stepper in (first, second):
            attempt(stepper)
        _check_same_step(first, second)
        return [
            *gradient_warnings(second),
            *_network_warnings(first),
            *_penalty_warnings(first),
            *_determinism_warnings(first),
        ]


def check(recipe_or_path: str, *overrides: str) -> Iterator[str]:
    """Load an experiment, read its data and rehearse its training; yields what to tell the user, line by line.

    Raises GankitError if the data are not there, or a part cannot be trained.
    """
    experiment = load(recipe_or_path, *overrides)
    dataset = open_dataset(experiment.data)
    yield from describe(experiment.data, dataset, experiment.training.seed)
    data = prepare(experiment.data, experiment.training.seed, dataset)
    yield f"training: {summarise(data)}"
    stepper = Stepper(experiment, data, TickLog(Path(), tensorboard=False))
    load_start_weights(stepper)
    yield from stepper.warnings
    for kind, network in (("generator", stepper.generator), ("critic", stepper.critic)):
        yield f"{kind} {getattr(experiment, kind).name}: {sum(p.numel() for p in network.parameters()):,} parameters"
    with arithmetic(experiment.training, stepper.device):
        warnings = [*experiment_warnings(experiment), *data_warnings(data), *rehearse(experiment, data, stepper.gan)]
    yield from (f"warning: {warning}" for warning in warnings)


def _not_finite(stepper: Stepper) -> list[str]:
    """The names of losses and weights that hold infinity or NaN; empties the log."""
    return [name for name, value in stepper.log.means().items() if not math.isfinite(value)] + stepper.not_finite()


def _resume(first: Stepper, second: Stepper) -> None:
    """Load into `second` what a checkpoint of `first` holds."""
    for name, part in first.stateful().items():
        with blame(PartError, f"the state of {name} cannot be saved:"):
            given = checkpoint.plain(part.state_dict())
        try:
            state = read_back(given, first.device)
        except Exception as error:
            if is_fault_of_machine(error):
                raise
            entries = given.items() if isinstance(given, dict) else []
            broken = [f"{key}, a {type(value).__name__}" for key, value in entries if not _can_be_read(value)]
            raise PartError(
                f"the state of {name} holds {' and '.join(broken) or 'something'} that a checkpoint cannot restore: "
                "hold tensors, numbers and text, in dicts and lists"
            ) from None
        _load(second.stateful()[name], name, state)
    second.go_to(first.step)


def _load(part: Any, name: str, state: Any) -> None:
    try:
        load_state(part, name, {name: state}, Path("trial"))
    except RunError as error:
        text = f"{name} cannot load its own saved state: {typed_line(error.__cause__ or error, 200)}"
        raise PartError(text) from error


def read_back(state: Any, device: torch.device | str = "cpu") -> Any:
    """A state after saving and loading it as in a checkpoint; raises torch's errors where that is impossible."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, map_location=device, weights_only=True)


def _can_be_read(value: Any) -> bool:
    try:
        read_back(value)
    except Exception:
        return False
    return True


def _check_export(stepper: Stepper) -> None:
    """Both networks, built anew as when a run is opened, must compute the same as the trained ones."""
    for kind in SIDES:
        name = f"{kind} {getattr(stepper.experiment, kind).name}"
        trained = stepper.averaged_generator() if kind == "generator" else copied(stepper.critic)
        try:
            state = from_bytes(checkpoint.pack(trained, {}))
        except Exception as error:
            raise PartError(
                f"the state of {name} cannot be exported: {typed_line(error, 200)}; hold tensors in buffers"
            ) from error
        opened = build_network(stepper.experiment, kind, stepper.data.image)
        _load(opened, name, state)
        place(name, opened, stepper.device, stepper.like.dtype)
        _check_same_output(name, trained, opened, stepper, train=False)


def _check_same_outputs(first: Stepper, second: Stepper) -> None:
    """In training mode, networks and augment must compute the same as those that loaded their state."""
    for name, part in first.parts.items():
        if not isinstance(part, Loss):
            _check_same_output(name, part, second.parts[name], first, train=True)


def _check_same_output(name: str, part: Any, other: Any, stepper: Stepper, train: bool) -> None:
    own, others = (output(name, each, stepper, train) for each in (part, other))  # on equal inputs
    if not _same(own, others):
        raise PartError(f"{name} {DIFFERS if _same(own, output(name, part, stepper, train)) else UNSTEADY}")


def _check_features(stepper: Stepper) -> None:
    """A critic's `forward` must equal `score(features(...))`, which training calls where losses read features."""
    critic, turn = copied(stepper.critic).eval(), turn_of(stepper, "critic")
    if not isinstance(critic, FeatureCritic):
        return
    with torch.no_grad():
        scores = drawn(critic, turn.raw_real, turn.labels)
        from_features = drawn(lambda images: critic.score(critic.features(images), turn.labels), turn.raw_real)
    if not _same(scores, from_features):
        raise PartError(
            f"critic {stepper.experiment.critic.name} has methods `features` and `score`, and `score(features(images), "
            "labels)`, which training uses, differs from `forward(images, labels)`: make them equal, or rename one"
        )


def _check_same_step(first: Stepper, second: Stepper) -> None:
    """After both have done step two from the same saved state, losses and parts must be equal."""
    values = [  # as tensors on the device, by which `_same` chooses its tolerance
        {name: torch.tensor(mean, device=stepper.device) for name, mean in stepper.log.means().items()}
        for stepper in (first, second)
    ]
    for side, term in itertools.product(SIDES, first.gan.losses):  # the critic's turn comes first
        found, other = (means.get(f"{side}/{term.name}") for means in values)
        if not _same(found, other):
            texts = ["no value" if value is None else f"{value:.6g}" for value in (found, other)]
            raise PartError(
                f"loss {term.name} computes {texts[0]} in a second step on the {side}'s turn, and {texts[1]} once all "
                f"parts are built anew with their saved state; {SAVE_ADVICE}; draw with torch or turn.random"
            )
    for name, part in first.parts.items():
        if not hasattr(part, "state_dict"):
            continue
        own, others = modules(part), modules(second.parts[name])
        # Parameters of networks follow from gradients, whose last digits vary on a GPU.
        trains_itself = isinstance(part, (Loss, Augment))
        if len(own) != len(others):
            raise PartError(f"{name} gains or loses modules in a step, which a resumed run would lose; {SAVE_ADVICE}")
        for module, other_module in zip(own, others, strict=True):
            expected = _attributes(other_module, trains_itself)
            for key, value in _attributes(module, trains_itself).items():
                if not _same(value, expected.get(key)):
                    raise PartError(f"{name} changes {key} in a step, which a resumed run would lose; {SAVE_ADVICE}")


def _attributes(module: Any, parameters: bool) -> dict[str, Any]:
    """The buffers and attributes of an object, but for those that every module has; its `parameters` too if asked."""
    if not isinstance(module, nn.Module):
        return dict(vars(module))
    common = vars(nn.Module())
    own = {key: value for key, value in vars(module).items() if key not in common}
    own |= module.named_parameters(recurse=False) if parameters else {}
    return own | dict(module.named_buffers(recurse=False))


def _same(a: Any, b: Any) -> bool:
    """Whether two values are equal up to rounding; also True where one is not finite, or types cannot be compared."""
    if isinstance(a, NUMBERS) and isinstance(b, NUMBERS):
        # Sums on a GPU are not always added in the same order.
        tolerance = 1e-2 if isinstance(a, Tensor) and a.is_cuda else 1e-4
        a, b = (torch.as_tensor(value).detach().cpu().to(torch.complex128) for value in (a, b))
        if a.shape != b.shape:
            return False
        scale = torch.cat([a.flatten(), b.flatten(), torch.zeros(1)]).abs().max()
        return not bool(scale.isfinite()) or bool(((a - b).abs() <= scale * tolerance).all())
    if isinstance(a, (list, tuple, deque)) and isinstance(b, type(a)):
        return len(a) == len(b) and all(_same(*pair) for pair in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(value, b[key]) for key, value in a.items())
    if isinstance(a, (str, bytes, set)):
        return bool(a == b)
    return (a is None) == (b is None)


def _network_warnings(stepper: Stepper) -> list[str]:
    """Signs that a generator or critic does not give what losses and samples expect of it."""
    tables, lines = stepper.experiment, []
    turn = turn_of(stepper, "critic")
    generator, critic = stepper.averaged_generator().eval(), copied(stepper.critic).eval()
    z, labels, images = turn.latents, turn.labels, turn.raw_real
    other_companions = 3 * z[1:].flip(1)  # any latents unlike those of the first batch
    with torch.no_grad():
        made = drawn(generator, z, labels)
        with_others = drawn(generator, torch.cat([z[:1], other_companions]), labels)
        # Extreme images are scored too: for them a sigmoid gives 0 or 1.
        scores = torch.cat([critic(scale * images, labels).flatten() for scale in (-1e6, -1.0, 1.0, 1e6)])
    if made.min() >= 0 and made.std() > 0:
        lines.append(
            f"generator {tables.generator.name} makes no value below 0, as if it ended in a sigmoid: images go from "
            "-1 (black) to 1 (white), so it can draw nothing darker than mid-grey; end in tanh"
        )
    if not _same(made[0], with_others[0]):
        lines.append(
            f"generator {tables.generator.name} uses batch statistics in evaluation mode too, or changes its state "
            "there: an image then depends on those drawn with it, not on its seed and label alone; let it use running "
            "statistics in that mode"
        )
    if scores.min() >= 0 and 0.25 < scores.max() <= 1 and scores.std() > 0:  # at first, sigmoids are near 0.5
        lines.append(
            f"critic {tables.critic.name} gives only scores between 0 and 1, as if it ended in a sigmoid: losses "
            "expect unbounded scores; leave the sigmoid out"
        )
    return lines


def _penalty_warnings(stepper: Stepper) -> list[str]:
    """A line where gradients of penalties are wrong; none where a critic does not work in float64."""
    if not any(term.loss.per_sample for term in stepper.gan.losses):
        return []
    labels = probe_labels(2, stepper.data.image)
    labels = labels.double() if labels is not None and labels.is_floating_point() else labels
    try:
        critic = copied(stepper.critic).double().eval()
        for parameter in critic.parameters():  # a last layer that is zero would hide all others
            parameter.data = (parameter.data + 0.02 * torch.randn_like(parameter)).contiguous()
        images = torch.rand(2, *stepper.data.image.shape, dtype=torch.float64, device=stepper.device) * 2 - 1
        error = penalty_error(critic, images, None if labels is None else labels.to(stepper.device))
    except Exception as failure:
        if is_device_failure(failure):
            raise
        return []
    if not error > 1e-2:  # NaN says nothing
        return []
    return [
        f"critic {stepper.experiment.critic.name} gives penalties wrong gradients (off by {error:.0%} from "
        "finite differences), as if its own backward detached or used NumPy: compute there with torch alone"
    ]


def _determinism_warnings(stepper: Stepper) -> list[str]:
    """A line on the parts that are not deterministic on a GPU, where `training.deterministic` asks for it."""
    if stepper.device.type != "cuda" or not stepper.settings.deterministic:
        return []
    turn = turn_of(stepper, "critic")
    inputs = {Generator: (turn.latents, turn.labels), Critic: (turn.raw_real, turn.labels), Augment: (turn.raw_real,)}
    parts = stepper.parts.items()
    given = {name: (part, inputs[kind]) for name, part in parts for kind in inputs if isinstance(part, kind)}
    return determinism_warnings(given, stepper.advance)
