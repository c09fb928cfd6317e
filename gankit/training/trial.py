"""One step of a rehearsal: whose fault an error is, and what the gradients of each loss reach."""

import contextlib
import traceback
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from gankit import distributed
from gankit.errors import GankitError, PartError, is_fault_of_machine, typed_line
from gankit.interfaces import Side, Turn
from gankit.nn.modes import bfloat16
from gankit.training.inputs import SIDES
from gankit.training.step import Stepper

_READ = ("latents", "raw_real", "raw_fake", "real", "fake")


def modules(part: Any) -> list[Any]:
    """A part and all modules inside it."""
    return list(part.modules()) if isinstance(part, nn.Module) else [part]


def attempt(stepper: Stepper) -> None:
    """Do a step; an error inside a part becomes a PartError that names it, and the part that called it."""
    try:
        stepper.advance()
    except GankitError:
        raise
    except Exception as error:
        if is_fault_of_machine(error):
            raise
        if isinstance(error, RuntimeError) and "grad" in str(error) and (reason := _missing_gradient(stepper)):
            raise PartError(reason) from error
        names = _parts_at_fault(stepper.parts, error)
        where = names[0] if names else f"the derivatives of {', '.join(stepper.parts)}"
        called = f" (called by {names[-1]})" if len(names) > 1 else ""
        raise PartError(f"in a trial step {where} raised {typed_line(error, 200)}{called}") from error


def _parts_at_fault(parts: dict[str, Any], error: Exception) -> list[str]:
    """The names of the parts whose methods an error passed through, innermost first."""
    owners = {id(module): name for name, part in parts.items() for module in modules(part)}
    frames = [owners.get(id(frame.f_locals.get("self"))) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return list(dict.fromkeys(name for name in reversed(frames) if name))


def _missing_gradient(stepper: Stepper) -> str | None:
    """Which part or loss kept a gradient from a failed step; None where that cannot be told."""
    with contextlib.suppress(Exception):
        return _blocking_part(stepper) or next(iter(_idle_losses(stepper)), None)
    return None


def gradient_warnings(stepper: Stepper) -> list[str]:
    """The losses that train nothing, one line each; parts change their state as in a turn.

    Raises:
        PartError: a network or the augment keeps gradients from a network, or a loss changes what others read.
    """
    lines = _idle_losses(stepper)
    if lines and (blocking := _blocking_part(stepper)):
        raise PartError(blocking)
    return lines


def turn_of(stepper: Stepper, side: Side) -> Turn:
    """A side's first turn, whose images, labels and latents are the same at every call; nothing is logged."""
    return stepper.turn(side, distributed.shard(stepper.settings.batch), 0, log=lambda name, value: None)


def _idle_losses(stepper: Stepper) -> list[str]:
    lines = []
    for side in SIDES:
        frozen = stepper.frozen_critic() if side == "generator" else contextlib.nullcontext()
        with frozen, bfloat16(stepper.device, stepper.settings.precision == "bf16"):
            turn = turn_of(stepper, side)
            for term in stepper.objective.due(side, 0):
                before = {name: getattr(turn, name).clone() for name in _READ}
                value = getattr(term.loss, side)(turn)
                if changed := [name for name in _READ if not torch.equal(getattr(turn, name), before[name])]:
                    raise PartError(f"loss {term.name} changes turn.{' and turn.'.join(changed)} in place: copy first")
                if value is not None and not _reaches(value, getattr(stepper, side).parameters()):
                    lines.append(
                        f"loss {term.name} trains nothing on the {side}'s turn, as no gradient of it reaches the "
                        f"{side}: leave out detach, no_grad and item, or return None there"
                    )
    return lines


def _blocking_part(stepper: Stepper) -> str | None:
    """The network or augment that lets no gradient from scores to the generator, or to the critic; and what to do."""
    turn = turn_of(stepper, "generator")
    generator, critic, *_, last = stepper.parts  # the augment, where there is one
    graph = (
        (generator, turn.raw_fake, stepper.generator.parameters()),
        (last, turn.fake, [turn.raw_fake]),
        (critic, turn.fake_scores, [turn.fake]),
        (critic, turn.fake_scores, stepper.critic.parameters()),
    )
    name = next((name for name, value, sources in graph if not _reaches(value, sources)), None)
    return name and f"{name} lets no gradient through: leave out detach, no_grad, .data and NumPy"


def _reaches(value: Tensor, sources: Iterable[Tensor]) -> bool:
    """Whether a gradient of a value reaches any of some tensors."""
    trained = [source for source in sources if source.requires_grad]
    if not (value.requires_grad and trained):
        return False
    gradients = torch.autograd.grad(value.sum(), trained, retain_graph=True, allow_unused=True)
    return any(gradient is not None for gradient in gradients)
