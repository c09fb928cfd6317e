"""One step of a rehearsal: whose fault an error is, and what the gradients of each loss reach."""

import contextlib
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gankit import distributed, seeds
from gankit.errors import GankitError, PartError, first_of, is_fault_of_machine, typed_line
from gankit.interfaces import Augment, Critic, Generator, Loss, Side, Turn
from gankit.nn.copies import copied
from gankit.nn.modes import bfloat16
from gankit.training.inputs import SIDES
from gankit.training.step import Stepper

_READ = ("latents", "raw_real", "raw_fake", "real", "fake")
_unchanged = partial(torch.allclose, rtol=0, atol=0, equal_nan=True)


def modules(part: Any) -> list[Any]:
    """A part and all modules inside it."""
    return list(part.modules()) if isinstance(part, nn.Module) else [part]


def attempt(stepper: Stepper) -> None:
    """Do a step; an error inside a part becomes a PartError that names it, and the part that called it."""
    networks = {name: part for name, part in stepper.parts.items() if isinstance(part, (Generator, Critic))}
    shapes = _shapes(networks)
    # A step seeds torch itself.
    with seeds.unchanged_settings(f"one of {', '.join(stepper.parts)}", seed=False), _blaming(stepper.parts):
        try:
            stepper.advance()
        except (RuntimeError, ValueError) as error:
            if is_fault_of_machine(error):
                raise
            now = _shapes(networks)
            if grown := [name for name in shapes if shapes[name] != now[name]]:
                raise PartError(
                    f"{first_of(grown)} gains or loses parameters or buffers in a step, or changes their shapes, which "
                    "optimizers and averages cannot follow: make all of them in __init__"
                ) from error
            if "grad" in str(error) and (reason := _broken_gradient(stepper, error)):
                raise PartError(reason) from error
            raise


def _shapes(networks: Mapping[str, nn.Module]) -> dict[str, list[torch.Size]]:
    return {name: [t.shape for t in (*part.parameters(), *part.buffers())] for name, part in networks.items()}


@contextlib.contextmanager
def _blaming(parts: dict[str, Any]) -> Iterator[None]:
    """Turns an error inside one of these parts into a PartError that names it, and the part that called it."""
    try:
        yield
    except Exception as error:
        if isinstance(error, GankitError) or is_fault_of_machine(error):
            raise
        owners = {id(module): name for name, part in parts.items() for module in modules(part)}
        frames = [owners.get(id(frame.f_locals.get("self"))) for frame, _ in traceback.walk_tb(error.__traceback__)]
        names = list(dict.fromkeys(name for name in reversed(frames) if name))  # innermost first
        where = names[0] if names else f"the derivatives of {', '.join(parts)}"
        called = f" (called by {names[-1]})" if len(names) > 1 else ""
        raise PartError(f"in a trial step {where} raised {typed_line(error, 200)}{called}") from error


def _broken_gradient(stepper: Stepper, error: Exception) -> str | None:
    """What changed values in place or blocked gradients in a step that raised `error`, in words; else None."""
    try:
        if not re.search("in-?place operation", str(error)):
            return _blocking_part(stepper) or next(iter(_idle_losses(stepper)), None)
        for name, part in stepper.parts.items():
            if not isinstance(part, Loss):
                output(name, part, stepper, train=True)
        _idle_losses(stepper)
    except PartError as found:
        return str(found)
    except Exception as other:
        if is_fault_of_machine(other):
            raise
    return None


def gradient_warnings(stepper: Stepper) -> list[str]:
    """The losses that train nothing, one line each; parts change their state as in a turn.

    Raises:
        PartError: a network or the augment blocks gradients to a network, a loss changes what others read, or a part
            raises an error.
    """
    with _blaming(stepper.parts):
        lines = _idle_losses(stepper)
        if lines and (blocking := _blocking_part(stepper)):
            raise PartError(blocking)
    return lines


def turn_of(stepper: Stepper, side: Side) -> Turn:
    """A side's first turn, whose images, labels and latents are the same at every call; nothing is logged."""
    return stepper.turn(side, distributed.shard(stepper.settings.batch), 0, log=lambda name, value: None)


def output(name: str, part: Any, stepper: Stepper, train: bool) -> Tensor:
    """The output, of any shape, of a copy of a network or augment, for the same inputs and draws at every call.

    Raises PartError if it changes its input.
    """
    turn = turn_of(stepper, "critic")
    inputs = turn.latents if isinstance(part, Generator) else turn.raw_real
    labels = [] if isinstance(part, Augment) else [turn.labels]
    before = inputs.clone()
    with torch.no_grad():
        result = drawn(copied(part).train(train), inputs, *labels)
    if not _unchanged(inputs, before):
        raise PartError(f"{name} changes its input in place, which other parts read too: work on a copy of it")
    return result


def drawn(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """A function's output for these inputs, a tensor of any shape, with the same draws at every call."""
    seeds.seed_torch(0, "rehearsal")
    return function(*inputs)


def _idle_losses(stepper: Stepper) -> list[str]:
    lines = []
    for side in SIDES:
        frozen = stepper.frozen_critic() if side == "generator" else contextlib.nullcontext()
        with frozen, bfloat16(stepper.device, stepper.settings.precision == "bf16"):
            turn = turn_of(stepper, side)
            for term in stepper.objective.due(side, 0):
                before = {name: getattr(turn, name).clone() for name in _READ}
                # On a GPU a thread may read images ahead, and a data set may seed torch to make them.
                with seeds.unchanged_settings(f"loss {term.name}", seed=stepper.device.type != "cuda"):
                    value = getattr(term.loss, side)(turn)
                if changed := [name for name in _READ if not _unchanged(getattr(turn, name), before[name])]:
                    raise PartError(f"loss {term.name} changes turn.{' and turn.'.join(changed)} in place: copy first")
                own = term.loss.parameters() if isinstance(term.loss, nn.Module) else ()
                if value is not None and not _reaches(value, [*getattr(stepper, side).parameters(), *own]):
                    lines.append(
                        f"loss {term.name} trains nothing on the {side}'s turn, as no gradient of it reaches the "
                        f"{side}: leave out detach, no_grad and item, or return None there"
                    )
    return lines


def _blocking_part(stepper: Stepper) -> str | None:
    """The network or augment that blocks gradients from scores to a network, and what to do; None if there is none."""
    turn = turn_of(stepper, "generator")
    generator, critic, *_ = stepper.parts
    augment = next((name for name, part in stepper.parts.items() if part is stepper.gan.augment), "")
    graph = (
        (generator, turn.raw_fake, stepper.generator.parameters()),
        (augment, turn.fake, [turn.raw_fake]),  # one tensor without augment
        (critic, turn.fake_scores, [turn.fake]),
        (critic, turn.fake_scores, stepper.critic.parameters()),
    )
    name = next((name for name, value, sources in graph if not _reaches(value, sources)), None)
    return name and f"{name} lets no gradient through: leave out detach, no_grad, .data and NumPy"


def _reaches(value: Tensor, sources: Iterable[Tensor]) -> bool:
    """Whether a gradient of a value reaches any of some tensors; True where only a backward pass can tell."""
    trained = [source for source in sources if source.requires_grad]
    if not (value.requires_grad and trained):
        return False
    try:
        gradients = torch.autograd.grad(value.sum(), trained, retain_graph=True, allow_unused=True)
    except RuntimeError as error:  # from re-entrant checkpoints, which allow `backward` alone
        if is_fault_of_machine(error):
            raise
        return True
    return any(gradient is not None for gradient in gradients)
