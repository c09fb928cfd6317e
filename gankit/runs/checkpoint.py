"""Checkpoints that appear only when complete, and the export of a generator."""

import io
import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from gankit.errors import RunError
from gankit.files import write_atomically

FORMAT = 2
"""The version of the format of checkpoints and exports.

Weights of format 1 lack the buffer with the influence that labels have while they fade in; `LabelLayer` supplies it.
"""
KEPT = 2
"""Checkpoints kept: the newest, and one before it in case the newest cannot be read."""


def save(folder: Path, step: int, state: dict[str, Any], best: bool = False) -> Path:
    """Write the state after `step` generator updates, and forget all but the newest checkpoints.

    Args:
        folder: the run's `checkpoints`.
        step: generator updates done.
        state: tensors, numbers and strings in dicts and lists.
        best: whether to save it as `best.pt`, for the best generator so far, which is never deleted as an old one.
    """
    path = folder / ("best.pt" if best else f"step-{step:08d}.pt")
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "step": step, "state": state}, buffer)
    write_atomically(path, buffer.getvalue())
    for old in _step_checkpoints(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def restore(folder: Path, device: str | torch.device = "cpu", mmap: bool = False) -> tuple[int, dict[str, Any]] | None:
    """The newest checkpoint that can be read, as (step, state), or None where there is none.

    Args:
        folder: the run's `checkpoints`.
        device: where tensors are loaded to.
        mmap: leaves tensors on the disk until they are read.

    Raises:
        RunError: there are checkpoints and none can be read, or one is of a newer gankit.
    """
    paths = _step_checkpoints(folder)
    for path in reversed(paths):
        try:
            content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError):
            continue
        _check_format(path, content["format"])
        return content["step"], content["state"]
    if paths:
        raise RunError(f"{folder}: none of {len(paths)} checkpoints can be read; train anew in another folder")
    return None


def _check_format(path: Path, number: int) -> None:
    if number > FORMAT:
        raise RunError(f"{path} was written by a newer gankit (format {number}): upgrade gankit")


def _step_checkpoints(folder: Path) -> list[Path]:
    """The numbered checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*.pt") if re.fullmatch(r"step-\d+\.pt", path.name))


def export(path: Path, generator: nn.Module, config: dict[str, Any]) -> None:
    """Write a generator's weights as safetensors with its config in one metadata key; equal runs give equal bytes."""
    write_atomically(path, pack(generator, config))


def pack(generator: nn.Module, config: dict[str, Any]) -> bytes:
    """The content of an export; what a module used under two names shares stands there twice."""
    layout = torch.contiguous_format
    tensors = {name: value.detach().cpu().clone(memory_format=layout) for name, value in generator.state_dict().items()}
    return bytes(to_bytes(tensors, {"gankit": json.dumps(config, sort_keys=True)}))


def read_export(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A generator's weights by name, each of any shape, and its config.

    Raises:
        RunError: the file is missing, is no export of gankit, or is of a newer gankit.
    """
    if not path.is_file():
        raise RunError(f"{path.parent}: there is no generator yet: train or resume the run first")
    try:
        with safe_open(path, framework="pt") as file:
            config = json.loads((file.metadata() or {})["gankit"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise RunError(f"{path} is no generator that gankit exported: {error}") from error
    _check_format(path, config.get("format", 1))
    return tensors, config
