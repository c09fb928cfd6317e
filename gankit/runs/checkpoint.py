"""Checkpoints that appear only when complete, and the export of a generator."""

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from gankit.errors import RunError, is_device_failure, is_short_of_memory, one_line
from gankit.files import is_sealed, seal, write_atomically

FORMAT = 3
"""The version of the format of checkpoints and exports.

Weights of format 1 lack the buffer with the influence that labels have while they fade in; `LabelLayer` supplies it.
Files of formats 1 and 2 have no digest, and their checkpoints hold the log's sums of one process only.
"""
KEPT = 2  # checkpoints kept: the newest, and one before it in case the newest cannot be read


@dataclass(frozen=True)
class Restored:
    """A checkpoint that could be read."""

    step: int  # generator updates done
    state: dict[str, Any]
    skipped: list[str]  # newer checkpoints that could not be read, each with the reason


def save(folder: Path, step: int, state: Mapping[str, Any], every: int = 1, best: bool = False) -> Path:
    """Write the state after `step` generator updates into a run's `checkpoints`, and delete all but the newest ones.

    A state holds tensors, numbers and strings in dicts and lists. One older checkpoint is kept, the newest at a
    multiple of `every` or, if there is none, the newest. `best` saves it as `best.pt`, for the best generator so far,
    which is never deleted as an old one.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / ("best.pt" if best else f"step-{step:08d}.pt")
    folder.mkdir(exist_ok=True)  # not its parents: a run's folder may have been moved
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "step": step, "state": dict(state)}, buffer)
    seal(buffer)
    write_atomically(path, buffer.getvalue())
    if not best:
        prune(folder, step, every)
    return path


def prune(folder: Path, step: int, every: int) -> None:
    """Delete all but the newest checkpoints; `step` and `every` as for `save`, which calls it."""
    # Checkpoints of later steps stay: they could not be read, or the run would have resumed from them.
    older = [old for old in _step_checkpoints(folder) if _step(old) < step]
    regular = [old for old in older if _step(old) % every == 0]
    kept = (regular or older)[-(KEPT - 1) :]  # besides the one of `step`
    for old in set(older) - set(kept):
        old.unlink(missing_ok=True)


def plain(state: Any) -> Any:
    """A state with NumPy's numbers, which a checkpoint cannot hold, replaced by Python's."""
    if isinstance(state, np.generic):
        return state.item()
    # Subclasses, such as the OrderedDict of a module, may carry more than their items.
    if type(state) is dict:
        return {key: plain(value) for key, value in state.items()}
    return type(state)(map(plain, state)) if type(state) in (list, tuple) else state


def restore(
    folder: Path, device: str | torch.device = "cpu",
    load: Callable[[dict[str, Any]], object] = lambda state: None, mmap: bool = False,
) -> Restored | None:  # fmt: skip
    """The newest checkpoint that can be read and loaded, or None where there is none.

    `load` loads a state, into networks for example; if it raises a RunError, an older checkpoint is tried. Tensors are
    loaded to the device; `mmap` leaves them on the disk until they are read.

    Raises:
        RunError: there are checkpoints, but none can be read or loaded, one is of a newer gankit, or the device has too
            little memory for one.
    """
    skipped: list[str] = []
    refusal: RunError | None = None
    for path in reversed(_step_checkpoints(folder)):
        try:
            step, state = _read(path, device, mmap)
        except _DamagedError as error:
            skipped.append(f"{path} cannot be read ({error})")
            continue
        try:
            load(state)
        except RunError as error:
            refusal = refusal or error  # that of the newest
            skipped.append(str(error))
            continue
        return Restored(step, state, skipped)
    if refusal is not None:
        raise refusal
    if skipped:
        raise RunError(
            f"{folder}: none of {len(skipped)} checkpoints can be read ({skipped[0]}); put back a copy of one, or "
            "train anew in another folder"
        )
    return None


class _DamagedError(Exception):
    """A checkpoint that cannot be read."""


def _read(path: Path, device: str | torch.device, mmap: bool) -> tuple[int, dict[str, Any]]:
    """The step and the state of a checkpoint."""
    digest_fits: bool | None = None  # None for a file without a digest, as formats 1 and 2 are
    try:
        digest_fits = is_sealed(path)
        if digest_fits is False:
            raise _DamagedError("it was altered after it was written")
        content = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
        number, step, state = content["format"], content["step"], content["state"]
    except _DamagedError:
        raise
    except Exception as error:  # a damaged file may raise anything, and ask for any amount of memory
        if digest_fits and is_short_of_memory(error):
            raise RunError(
                f"{path} does not fit into the memory of {device} ({one_line(error, 100)}); it is not damaged: leave "
                "the device to this run alone, or use the CPU (CUDA_VISIBLE_DEVICES=)"
            ) from error
        if digest_fits and is_device_failure(error):
            raise
        raise _DamagedError(one_line(error, 100) or type(error).__name__) from error
    if not isinstance(state, dict) or step != _step(path) or (digest_fits is None and number not in (1, 2)):
        raise _DamagedError("it was altered after it was written")
    _check_format(path, number)
    return step, state


def _check_format(path: Path, number: object) -> None:
    if not isinstance(number, int):
        raise RunError(f"{path} is of the format {str(number)[:20]!r}, which no version of gankit writes")
    if number > FORMAT:
        raise RunError(f"{path} was written by a newer gankit (format {number}): upgrade gankit")


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _step_checkpoints(folder: Path) -> list[Path]:
    """The numbered checkpoints, oldest first."""
    return sorted((path for path in folder.glob("step-*.pt") if re.fullmatch(r"step-\d+\.pt", path.name)), key=_step)


def export(path: Path, generator: nn.Module, config: dict[str, Any]) -> None:
    """Write a generator's weights, its config and a digest as safetensors; equal runs give equal bytes.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(path, pack(generator, config))


def pack(generator: nn.Module, config: dict[str, Any]) -> bytes:
    """The content of an export; tensors that have two names are stored twice."""
    layout = torch.contiguous_format
    tensors = {name: value.detach().cpu().clone(memory_format=layout) for name, value in generator.state_dict().items()}
    config = {"format": FORMAT, **config}
    text = json.dumps({**config, "digest": _digest(tensors, config)}, sort_keys=True)
    return bytes(to_bytes(tensors, {"gankit": text}))  # a single key, since safetensors writes several in random order


def read_export(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights, tensors of any shape by name, and the config of an exported generator or classifier.

    Raises:
        RunError: the file is missing, is no export of gankit, was altered, or is of a newer gankit.
    """
    if not path.is_file():
        raise RunError(f"{path.parent}: there is no generator yet: train or resume the run first")
    try:
        with safe_open(path, framework="pt") as file:
            config = json.loads((file.metadata() or {})["gankit"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        number, digest = config.get("format", 1), config.pop("digest", None)
    except (SafetensorError, OSError, KeyError, ValueError, AttributeError) as error:
        raise RunError(f"{path} was not exported by gankit, or is damaged: {error}") from error
    _check_format(path, number)
    if digest != _digest(tensors, config) and (digest is not None or number not in (1, 2)):
        raise RunError(f"{path} was altered after it was written; put back a copy, or delete it and resume the run")
    return tensors, config


def _digest(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> str:
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
