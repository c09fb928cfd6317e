"""Whether a network's outputs for the samples of a batch depend on one another, and the setting that ends it."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Literal, get_args, get_origin

import torch
from torch import Tensor, nn

from gankit import seeds
from gankit.errors import PartError, blame
from gankit.images.spec import ImageSpec
from gankit.nn.copies import copied
from gankit.registry.parts import Part
from gankit.runs.networks import PROBE_BATCH, probe_labels

UNSTEADY = "computes something else at every call for the same input and draws: use no clock, and draw with torch"
_equal = partial(torch.allclose, rtol=1e-3, atol=1e-6, equal_nan=True)


def mixes_samples(network: nn.Module, shape: tuple[int, ...], image: ImageSpec, name: str = "the network") -> bool:
    """Whether a network's output for a sample depends, in training mode, on the other samples of its batch.

    Copies of the network get the same sample with different others. Small noise is added to their weights, since a last
    layer that starts at zero would hide everything before it.

    Args:
        network: a critic or a generator.
        shape: of a sample that it takes: (c, h, w), or (z,) of latents.
        image: the images of the experiment.
        name: the network's, for the error.

    Raises:
        PartError: its outputs differ even for the same batch.
    """
    labels = probe_labels(PROBE_BATCH, image)

    def output(scale: float) -> Tensor:
        probe = copied(network)  # a pass may change buffers
        probe.train()
        seeds.seed_torch(2, "mixing")  # noise, dropout and other random layers are the same at every call
        for parameter in probe.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        return probe(torch.cat([sample, scale * others]), labels)[0]  # type: ignore[no-any-return]

    with torch.no_grad(), seeds.own_draws([]):
        sample, others = torch.randn(1, *shape), torch.randn(PROBE_BATCH - 1, *shape)
        first = output(0.1)
        mixes = not _equal(first, output(3.0))
        if mixes and not _equal(first, output(0.1)):
            raise PartError(f"{name} {UNSTEADY}")
        return mixes


def setting_without_mixing(part: Part, image: ImageSpec) -> str | None:
    """A setting with which a network does not mix samples, such as "norm=layer" or "group=1"; None if there is none.

    It tries other values of a `Literal`, False for a switch that is on, and 1 and 0 for a number if shapes stay.

    Args:
        part: a generator or a critic that mixes samples.
        image: the images of the experiment.
    """
    with suppress(PartError, ValueError, RuntimeError, MemoryError), seeds.own_draws([]):
        shapes = _shapes(part.build(image))
        for name, field in type(part.settings).model_fields.items():
            for value in _others(field.annotation, getattr(part.settings, name)):
                with suppress(PartError, ValueError), blame(PartError, ""):
                    settings = type(part.settings)(**{**dict(part.settings), name: value})
                    network = part.model_copy(update={"settings": settings}).build(image)
                    shape = (network.latent_dim,) if part.kind == "generator" else image.shape
                    fits = type(value) is not int or _shapes(network) == shapes
                    if fits and not mixes_samples(network, shape, image):
                        return f"{name}={str(value).lower() if isinstance(value, bool) else value}"
    return None


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {key: parameter.shape for key, parameter in network.named_parameters()}


def _others(annotation: Any, current: object) -> Iterator[Any]:
    """The values beside the current one that a setting may be tried with."""
    if get_origin(annotation) is Literal:
        yield from (value for value in get_args(annotation) if value != current)
    elif annotation is bool and current:  # what is switched on may download weights
        yield False
    elif annotation is int:
        yield from (value for value in (1, 0) if value != current)
