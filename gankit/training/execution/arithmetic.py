"""How a device computes: deterministically or not, and how precisely."""

import contextlib
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from gankit.experiments.experiment import Training
from gankit.nn.copies import copied
from gankit.nn.modes import NOT_DETERMINISTIC, deterministic, tf32


@contextlib.contextmanager
def arithmetic(settings: Training, device: torch.device) -> Iterator[None]:
    """Use TF32 as `training.precision` says and, on a CUDA device, deterministic operations if the settings say so."""
    on_gpu = device.type == "cuda"
    with contextlib.ExitStack() as stack:
        if on_gpu and device.index is not None:  # make it the current one, to which pinned memory and graphs belong
            stack.enter_context(torch.cuda.device(device))
        if on_gpu and settings.deterministic:
            stack.enter_context(deterministic())
        stack.enter_context(tf32(convolutions=on_gpu and settings.precision != "float32-exact"))
        yield


def describe_arithmetic(settings: Training, device: torch.device) -> str:
    """The arithmetic of a training, in words, for its record."""
    words = {
        "float32": "float32, its convolutions in TF32 where the GPU has it" if device.type == "cuda" else "float32",
        "float32-exact": "float32",
        "bf16": "bfloat16 (autocast) over float32",
        "float64": "float64",
    }[settings.precision]
    return words + (", deterministic" if settings.deterministic and device.type == "cuda" else "")


@contextlib.contextmanager
def noting_nondeterminism() -> Iterator[set[str]]:
    """Suppress warnings; the yielded set is filled at the end with the operations that have no deterministic form."""
    found: set[str] = set()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    found.update(match[1] for warning in caught if (match := NOT_DETERMINISTIC.match(str(warning.message))))


def nondeterministic_operations(part: nn.Module, *inputs: Tensor | None) -> list[str]:
    """The operations of a part, and of its first and second derivatives, that have no deterministic form.

    The part is copied; its inputs are latents (n, latent_dim) or images (n, c, h, w), and labels.
    """
    with noting_nondeterminism() as found:
        part = copied(part).train()
        leaves = [x.detach().requires_grad_() if x is not None and x.is_floating_point() else x for x in inputs]
        output: Tensor = part(*leaves)
        sources = [value for value in [*leaves, *part.parameters()] if value is not None and value.requires_grad]
        with contextlib.suppress(RuntimeError):  # not every part can be differentiated, or twice
            first = torch.autograd.grad(output.square().sum(), sources, create_graph=True, allow_unused=True)
            total = torch.stack([gradient.square().sum() for gradient in first if gradient is not None]).sum()
            torch.autograd.grad(total, sources, allow_unused=True)
    return sorted(found)


def determinism_warnings(
    parts: dict[str, tuple[nn.Module, tuple[Tensor | None, ...]]], step: Callable[[], object]
) -> list[str]:
    """One line that names the parts and their operations without a deterministic form; no line if there are none.

    Parts come by name, each with its inputs: (n, latent_dim) latents or (n, c, h, w) images, and labels. `step` does a
    step with all of them; operations found only there are the losses'.
    """
    with deterministic(), noting_nondeterminism() as operations:
        step()
    with deterministic():
        found = {name: nondeterministic_operations(part, *inputs) for name, (part, inputs) in parts.items()}
    found["the losses"] = sorted(operations.difference(*found.values()))
    named = [f"{name} ({', '.join(operations)})" for name, operations in found.items() if operations]
    what = f"not deterministic on this GPU: {' and '.join(named)}; a resumed run ends slightly differently"
    return [f"training.deterministic: {what}"] if named else []
