"""The networks of a run: building them, loading their states, and drawing images from a generator."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from gankit import seeds
from gankit.errors import PartError, RunError, blame, is_fault_of_machine, one_line
from gankit.experiments.experiment import Experiment
from gankit.images.pictures import to_pixels
from gankit.images.room import memory
from gankit.interfaces import Generator, ImageSpec
from gankit.nn.layers import label_layers
from gankit.nn.modes import exact
from gankit.registry import registry
from gankit.terminal.text import progress_bar

SAMPLE_BATCH = 64
PROBE_BATCH = 4
COPIES = 4  # how many times its weights a training keeps: themselves, their gradients, and the two moments of Adam
_known_to_fit: set[str] = set()  # networks that memory holds, since a training builds each several times


def build_network(experiment: Experiment, kind: Literal["generator", "critic"], image: ImageSpec) -> Any:
    """A freshly initialised network; its labels fade in over the steps of `training.label_fade`, if set.

    Raises:
        PartError: the part refuses the image, is larger than the memory, or is a generator without a `latent_dim`.
    """
    part = getattr(experiment, kind).part
    key = f"{part!r} for {image}"
    # Other parts may do more when they are built than draw weights.
    if key not in _known_to_fit and part.name in registry(kind).built_in():
        refuse_large(f"{kind} {part.name}", lambda: part.build(image), "its width, widths or latent_dim, or data.size")
        _known_to_fit.add(key)
    network: nn.Module = part.build(image)
    if kind == "generator" and not isinstance(getattr(network, "latent_dim", None), int):
        raise PartError(
            f"generator {part.name} has no latent_dim: set self.latent_dim, the length of a latent vector, in __init__"
        )
    if any(is_lazy(value) for value in [*network.parameters(), *network.buffers()]):
        # Lazy layers take their sizes from a batch; in evaluation mode running statistics stay as they are.
        call_part(f"{kind} {part.name}", network.eval(), *probe_inputs(network, image))
        network.train()
    _set_type(network, torch.float32)  # the program or a plug-in may have changed the default type
    if experiment.training.label_fade is not None:
        for layer in label_layers(network):
            layer.fade_in(*experiment.training.label_fade)
    return network


def place(name: str, network: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32) -> Any:
    """The network on a device, its floating-point numbers of one type; complex ones stay complex.

    Raises:
        PartError: it cannot be moved; names the network.
    """
    with blame(PartError, f"{name} cannot be moved to {device}:"):
        network = network.to(device)
        network.train(network.training)  # a module may have its own `train`, which fails, or returns nothing
    _set_type(network, dtype)
    return network


def _set_type(network: nn.Module, dtype: torch.dtype) -> None:
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point() and tensor.dtype != dtype:
            tensor.data = tensor.data.to(dtype)


def _inputs_like(network: nn.Module) -> Tensor:
    """A tensor of the device and the type that a network's inputs have."""
    parameters = list(network.parameters())
    return next((p for p in parameters if p.is_floating_point()), torch.empty(0, device=parameters[0].device))


def refuse_large(what: str, build: Callable[[], nn.Module], lower: str) -> None:
    """Refuse a network that memory cannot hold, before it is built: the system would end this program, or another.

    `build` is called on torch's device "meta", where tensors take no memory; it must do nothing but draw weights.

    Raises:
        PartError: its weights, and what a training needs besides them, are larger than this machine's memory; names
            the network, and what to `lower`.
    """
    with seeds.own_draws([]), torch.device("meta"):
        needed = sum(parameter.nbytes for parameter in build().parameters())
    if needed > memory() / COPIES:
        raise PartError(
            f"{what} has {needed / 1e9:,.0f} GB of weights, and training takes {COPIES} times that; this machine has "
            f"{memory() / 1e9:,.0f} GB of memory; lower {lower}"
        )


def probe_labels(n: int, image: ImageSpec) -> Tensor | None:
    """Some valid labels of n samples: (n,) int64 classes, (n, k) float conditions, or None."""
    if image.classes:
        return torch.arange(n) % image.classes
    return torch.randn(n, image.conditions) if image.conditions else None


def probe_inputs(network: nn.Module, image: ImageSpec) -> tuple[Tensor, Tensor | None]:
    """PROBE_BATCH inputs of a network of a GAN: (n, latent_dim) latents or (n, c, h, w) images, and labels."""
    sizes = (network.latent_dim,) if isinstance(network, Generator) else image.shape
    return torch.randn(PROBE_BATCH, *sizes), probe_labels(PROBE_BATCH, image)


def call_part(name: str, part: Callable[..., Any], *inputs: Tensor | None, alone: bool = True) -> Tensor:
    """The output of a part for these inputs, without gradients: a tensor of any shape.

    `alone` is as for `seeds.unchanged_settings`.

    Raises:
        PartError: it raises an error, returns something other than a tensor, or changes what all parts share; names the
            part, and its inputs and outcome. Errors of the machine, such as too little memory, stay as they are.
    """
    arguments = describe_value([value for value in inputs if value is not None])
    unchanged = seeds.unchanged_settings(name, alone=alone)
    with torch.no_grad(), unchanged, blame(PartError, f"{name}, called with {arguments}, raised"):
        output = part(*inputs)
    if not isinstance(output, Tensor):
        raise PartError(
            f"{name}, called with {arguments}, returned {describe_value(output)}; it must return one tensor"
        )
    return output


def describe_value(value: Any) -> str:
    """A value in an error: a tensor or array by its shape, a list, tuple or dict by what it holds, others by value."""
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{'' if isinstance(value, Tensor) else 'a NumPy array of '}{tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dict of {' and '.join(f'{key}: {describe_value(item)}' for key, item in value.items())}"
    if isinstance(value, (list, tuple)):
        items = " and ".join(map(describe_value, value))
        return items if isinstance(value, list) else f"a tuple of {items}"
    return "None" if value is None else f"{value!r:.40} ({type(value).__name__})"


def step_hooks(part: object) -> list[Callable[[int], Mapping[str, float] | None]]:
    """The method `before_step` of a part and of every module inside it."""
    modules: list[Any] = list(part.modules()) if isinstance(part, nn.Module) else [part]
    return [module.before_step for module in modules if hasattr(type(module), "before_step")]


def load_state(part: Any, name: str, states: Mapping[str, Any], folder: Path) -> None:
    """Load `states[name]`, as a file of a run holds it, into a part.

    Raises:
        RunError: it is missing, or does not fit; names the run's folder.
    """
    try:
        if isinstance(part, nn.Module):
            refuse_lossy(part.state_dict(), states[name])
        part.load_state_dict(states[name])
    except Exception as error:  # plug-ins' parts, and torch itself, may raise anything for a state that does not fit
        if is_fault_of_machine(error):
            raise
        raise RunError(f"{folder}: the saved {name} does not fit the experiment: {one_line(error, 200)}") from error


def refuse_lossy(own: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Refuse saved tensors whose numbers a network's own cannot hold: torch would drop imaginary parts and fractions.

    Raises:
        ValueError: names the first such tensor, and both types.
    """
    for name, value in saved.items():
        old, new = getattr(value, "dtype", None), getattr(own.get(name), "dtype", None)
        if old is not None and new is not None and not torch.can_cast(old, new):
            raise ValueError(f"{name} holds numbers of {old}, and the network's are of {new}")


def generate_pixels(
    generator: Generator, z: Tensor, labels: Tensor | None, dtype: str, value_range: tuple[float, float],
    quiet: bool = False,
) -> NDArray[Any]:  # fmt: skip
    """Draw images as `generate_batches` does, in the data's type; only one batch at a time is held as floats.

    The generator is in evaluation mode. From (n, latent_dim) latents, and None, (n,) int64 classes or (n, k) float
    conditions, it makes (n, channels, height, width) images of the type "uint8", "uint16" or "float32", within
    `value_range`, black and white. `quiet` hides the progress bar, which a short drawing never shows.
    """
    pixels = []
    with progress_bar(total=len(z), unit="image", desc="drawing", delay=2, disable=quiet) as bar:
        for images in generate_batches(generator, z, labels):
            pixels.append(to_pixels(images, dtype, value_range))
            bar.update(len(images))
    return np.concatenate(pixels)


def generate_batches(generator: Generator, z: Tensor, labels: Tensor | None) -> Iterator[Tensor]:
    """Batches of (k, c, h, w) images in [-1, 1] on the CPU, made on the generator's device; at least one.

    Equal latents give equal images, even where the network itself draws random numbers. Every batch is padded to
    `SAMPLE_BATCH` rows, since rounding can depend on the size of a batch.

    Raises:
        RunError: an image is not finite.
    """
    like = _inputs_like(generator)
    for start in range(0, max(len(z), 1), SAMPLE_BATCH):
        count = min(len(z) - start, SAMPLE_BATCH)
        # The last latent pads a batch; without any latents the batch is empty.
        rows = (start + torch.arange(SAMPLE_BATCH)).clamp(max=len(z) - 1) if count else torch.arange(0)
        label = None if labels is None else labels[rows].to(like.device)
        # None stands for all devices, since `seed_torch` seeds all; a GPU that is not in use has no draws to be kept.
        devices: list[torch.device] | None = None if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        with seeds.own_draws(devices), seeds.plain_torch(), exact(like.device), torch.no_grad():
            seeds.seed_torch(0, "sample batch", start)
            images = generator(z[rows].to(like), label)[:count].float().cpu()
        if not (finite := images.flatten(1).isfinite().all(1)).all():
            wrong = start + int((~finite).nonzero()[0])
            raise RunError(f"image {wrong} of the generator holds NaN or infinity, though its weights may be finite")
        yield images


@torch.no_grad()
def recompute_norms(generator: nn.Module, latent_dim: int, labels: Tensor | None, seed: int, n_batches: int) -> None:
    """Compute the running statistics of batch normalisation anew, for the generator's present weights.

    The running statistics of training do not fit averaged weights. Batch statistics would fit, but let a sample depend
    on the others of its batch.

    `n_batches` batches of `SAMPLE_BATCH` fixed latents, and the (n,) classes or (n, k) conditions in turn, go through
    the generator, which is changed in place and left in evaluation mode.
    """
    norms = [module for module in generator.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    generator.train()
    like = _inputs_like(generator)
    # Running statistics, and the vectors of spectral normalisation, are buffers: without any, nothing is to be updated.
    has_buffers = next(generator.buffers(), None) is not None
    for batch in range(n_batches if has_buffers else 0):
        z = torch.randn(SAMPLE_BATCH, latent_dim, generator=seeds.generator(seed, "statistics", batch)).to(like)
        label = None
        if labels is not None:
            label = labels[(torch.arange(SAMPLE_BATCH) + batch * SAMPLE_BATCH) % len(labels)].to(like.device)
        with seeds.own_draws(), exact(like.device):
            seeds.seed_torch(seed, "statistics of a batch", batch)  # for generators that draw
            generator(z, label)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    generator.eval()


def not_finite(networks: Mapping[str, nn.Module]) -> list[str]:
    """The names of parameters that hold NaN or infinity, and of buffers that hold NaN, of networks by name."""
    wrong = {f"{name}.{key}": ~p.isfinite().all() for name, network in networks.items()
             for key, p in network.named_parameters()}  # fmt: skip
    # A buffer may hold infinity on purpose, as masks do.
    wrong |= {f"{name}.{key}": b.isnan().any() for name, network in networks.items()
              for key, b in network.named_buffers() if b.is_floating_point() or b.is_complex()}  # fmt: skip
    device = next(iter(wrong.values())).device
    flags = torch.stack([flag.to(device) for flag in wrong.values()]).tolist()  # waits for the device only once
    return [name for name, is_wrong in zip(wrong, flags, strict=True) if is_wrong]
