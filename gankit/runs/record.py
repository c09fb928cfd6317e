"""What a run remembers: the facts of its data and versions, its log, and what goes with an exported generator."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gankit import distributed
from gankit.errors import RunError
from gankit.experiments.experiment import Experiment, RunRecord
from gankit.interfaces import Dataset, ImageSpec
from gankit.runs import checkpoint
from gankit.version import __version__ as gankit_version


def record_run(
    experiment: Experiment,
    dataset: Dataset,
    image: ImageSpec,
    condition_mean: Sequence[float],
    condition_scale: Sequence[float],
    device: torch.device,
    data_in_process: bool,
) -> RunRecord:
    """The record of a run that starts, or goes on, in this process.

    Args:
        experiment: the run's.
        dataset: the training images.
        image: what the networks make and score, with the labels that they take.
        condition_mean: mean of each float condition over the training images.
        condition_scale: its standard deviation.
        device: the device in use.
        data_in_process: whether the data came from the calling program.
    """
    labels = dataset.labels
    counts = [] if labels is None else np.bincount(labels, minlength=dataset.image.classes).tolist()
    return RunRecord(
        versions=_versions(experiment),
        image=dataclasses.asdict(image),
        dtype=str(dataset.dtype),
        value_range=dataset.value_range,
        class_names=list(dataset.class_names),
        condition_mean=list(condition_mean),
        condition_scale=list(condition_scale),
        label_counts=counts,
        images=len(dataset),
        device=str(device),
        threads=torch.get_num_threads(),
        processes=distributed.size(),
        data_in_process=data_in_process,
    )


def _versions(experiment: Experiment) -> dict[str, str]:
    """Of gankit, Python, torch, NumPy, and the plug-ins whose parts the experiment names."""
    versions = {"gankit": gankit_version, "python": platform.python_version()}
    versions |= {"torch": torch.__version__, "numpy": np.__version__}
    for name in experiment.part_names():
        distribution, _, _ = name.rpartition(":")
        if distribution:
            versions[distribution] = importlib.metadata.version(distribution)
    return versions


def check_same_data(folder: Path, before: RunRecord, now: RunRecord) -> None:
    """Refuse to go on with other images than a run started with, as far as its record can tell.

    Raises:
        RunError: a fact of the data differs; names each with both values.
    """
    old, new = before.model_dump(), now.model_dump()
    exact = ("image", "dtype", "value_range", "class_names", "images", "label_counts")
    different = [name for name in exact if old[name] != new[name]]
    different += [name for name in ("condition_mean", "condition_scale") if not np.allclose(old[name], new[name])]
    if different:
        differences = "; ".join(f"{name} was {old[name]}, is {new[name]}" for name in different)
        raise RunError(
            f"{folder}: the data are not those that the run started with ({differences}); put them back, or start "
            "anew in another folder"
        )


def export_config(experiment: Experiment, record: RunRecord, conditions: Tensor | None) -> dict[str, Any]:
    """What goes with an exported generator, so that it can be built and sampled without its run's folder.

    Args:
        experiment: the run's.
        record: of the run.
        conditions: (m, k) standardised conditions to draw from, or None.
    """
    config: dict[str, Any] = {
        "format": checkpoint.FORMAT,
        "generator": experiment.generator.table(),
        "image": record.image,
        "dtype": record.dtype,
        "value_range": list(record.value_range),
        "class_names": record.class_names,
    }
    if conditions is not None:
        config["conditions"] = conditions.tolist()
    return config


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of `log.jsonl`, each with its "step"; none where there is no file, and no line that is not whole."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = [_read_row(line) for line in lines]
    return [row for row in rows if row is not None]


def _read_row(line: str) -> dict[str, Any] | None:
    """A line of the log, or None where a killed run left half of one."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None
