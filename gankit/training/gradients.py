"""Whether the gradients of a trial step reach the networks, and which part is in their way."""

import contextlib
from collections.abc import Iterable

import torch
from torch import Tensor

from gankit import distributed
from gankit.errors import PartError
from gankit.nn.modes import bfloat16
from gankit.training.inputs import SIDES
from gankit.training.step import Stepper

_READ = ("latents", "raw_real", "raw_fake", "real", "fake")


def explain(stepper: Stepper) -> str | None:
    """What is in the way of the gradients of a step that failed, or None where that cannot be told."""
    with contextlib.suppress(Exception):
        blocking = _blocking_part(stepper)
        return blocking or next(iter(_check_losses(stepper)), None)
    return None


def gradient_warnings(stepper: Stepper) -> list[str]:
    """The losses that train nothing, one line each; they add to the state of their parts as a turn does.

    Raises:
        PartError: a network or the augment keeps the gradient of a loss from a network, or a loss changes what other
            losses read.
    """
    lines = _check_losses(stepper)
    if lines and (blocking := _blocking_part(stepper)):
        raise PartError(blocking)
    return lines


def _check_losses(stepper: Stepper) -> list[str]:
    lines = []
    for side in SIDES:
        frozen = stepper.frozen_critic() if side == "generator" else contextlib.nullcontext()
        with frozen, bfloat16(stepper.device, stepper.settings.precision == "bf16"):
            shard = distributed.shard(stepper.settings.batch)
            turn = stepper.turn(side, shard, 0, log=lambda name, value: None)
            for term in stepper.objective.due(side, 0):
                before = {name: getattr(turn, name).clone() for name in _READ}
                value = getattr(term.loss, side)(turn)
                if changed := [name for name in _READ if not torch.equal(getattr(turn, name), before[name])]:
                    raise PartError(
                        f"loss {term.name} changes turn.{' and turn.'.join(changed)} in place: work on a copy"
                    )
                if value is not None and not _reaches(value, getattr(stepper, side).parameters()):
                    lines.append(
                        f"loss {term.name} trains nothing on the {side}'s turn, as no gradient of it reaches the "
                        f"{side}: leave out detach, no_grad and item, or return None there"
                    )
    return lines


def _blocking_part(stepper: Stepper) -> str | None:
    """The network or augment that lets no gradient from scores to the generator, or to the critic; and what to do."""
    turn = stepper.turn("generator", distributed.shard(stepper.settings.batch), 0, log=lambda name, value: None)
    generator, critic, *_, last = stepper.parts
    steps = {generator: (turn.raw_fake, stepper.generator.parameters()), critic: (turn.fake_scores, [turn.fake])}
    if turn.fake is not turn.raw_fake:
        steps = {generator: steps[generator], last: (turn.fake, [turn.raw_fake]), critic: steps[critic]}
    blocking = [name for name, (value, sources) in steps.items() if not _reaches(value, sources)]
    if not blocking and not _reaches(turn.fake_scores, stepper.critic.parameters()):
        blocking = [critic]
    return f"{blocking[0]} lets no gradient through: leave out detach, no_grad, .data and NumPy" if blocking else None


def _reaches(value: Tensor, sources: Iterable[Tensor]) -> bool:
    """Whether a gradient of a value reaches any of some tensors."""
    trained = [source for source in sources if source.requires_grad]
    if not (value.requires_grad and trained):
        return False
    gradients = torch.autograd.grad(value.sum(), trained, retain_graph=True, allow_unused=True)
    return any(gradient is not None for gradient in gradients)
