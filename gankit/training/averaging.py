"""The moving average of the generator's weights, from which samples are drawn (`training.averaging`)."""

import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from gankit.interfaces import Generator
from gankit.nn.copies import copied
from gankit.registry import Schedule


def new_average(generator: Generator, setting: float | Schedule[float]) -> AveragedModel | None:
    """An average that begins with the generator's present weights; None for the setting 0, which turns it off."""
    if not setting:
        return None
    # For the names in its state, which checkpoints hold. Its own update would weight all steps alike.
    average = AveragedModel(nn.Identity())
    average.module = copied(generator)  # torch's own copy is slow, and cannot copy non-leaf tensors
    return average


def decay_at(setting: float | Schedule[float], step: int) -> float:
    """The decay of an average after `step` updates; a schedule moves the half-life, as in the code of R3GAN."""
    if not isinstance(setting, Schedule):
        return setting
    start, end = (-1 / math.log2(decay) if decay else 0.0 for decay in (setting.start, setting.end))
    half_life = setting.model_copy(update={"start": start, "end": end}).at(step)
    return math.exp2(-1 / half_life) if half_life else 0.0


@torch.no_grad()
def update_average(average: AveragedModel, generator: Generator, decay: float) -> None:
    """Move the average a step towards the generator's weights by `decay`, less early on, and copy its buffers."""
    averaged, current = (
        [parameter.detach() for parameter in network.parameters()] for network in (average.module, generator)
    )
    if updates := int(average.n_averaged):
        # Early on the decay is smaller, min(decay, (1 + n) / (10 + n)) for n = updates + 1, as in TensorFlow's
        # ExponentialMovingAverage: the first, poor weights are soon forgotten. An average from another run brings
        # its number of updates, so it is not forgotten so soon.
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (2 + updates) / (11 + updates)))
    else:
        torch._foreach_copy_(averaged, current)
    for own, buffer in zip(average.module.buffers(), generator.buffers(), strict=True):
        own.copy_(buffer)
    average.n_averaged += 1
