"""The record of a run (its data and versions), its log, and the config of its exported generator."""

import contextlib
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, Field
from torch import Tensor

from gankit import distributed
from gankit.errors import RunError
from gankit.experiments.experiment import Experiment, default_features
from gankit.experiments.record import RunRecord
from gankit.interfaces import Dataset
from gankit.version import __version__ as gankit_version


def record_run(experiment: Experiment, dataset: Dataset, **facts: Any) -> RunRecord:
    """The record of a run that starts or resumes in this process.

    `facts` are the fields of `RunRecord` that follow neither from the experiment nor from the training images.
    """
    before = experiment.run
    if experiment.evaluation.features:
        features = ""
    else:  # the default is chosen when a run starts, and kept when it resumes
        features = (before.features if before else "") or default_features()
    return RunRecord(
        versions=_versions(experiment), dtype=str(dataset.dtype), value_range=dataset.value_range,
        threads=torch.get_num_threads(), processes=distributed.size(), features=features,
        **_image_facts(dataset), **facts,
    )  # fmt: skip


def _image_facts(dataset: Dataset) -> dict[str, Any]:
    """Fields of `RunRecord` that describe the training images."""
    labels, n, (low, high) = dataset.labels, len(dataset), dataset.value_range
    counts = [] if labels is None else np.bincount(labels, minlength=dataset.image.classes).tolist()
    some = dataset.read(np.linspace(0, n - 1, min(n, 32), dtype=np.int64))
    means = ((some.mean((1, 2, 3), dtype=np.float64) - low) / (high - low)).round(8).tolist()
    return {"class_names": list(dataset.class_names), "label_counts": counts, "images": n, "image_means": means}


def _versions(experiment: Experiment) -> dict[str, str]:
    versions = {"gankit": gankit_version, "python": platform.python_version()}
    versions |= {"torch": torch.__version__, "numpy": np.__version__}
    for name in experiment.part_names():
        distribution, _, _ = name.rpartition(":")
        if distribution:
            versions[distribution] = importlib.metadata.version(distribution)
    return versions


def check_same_images(folder: Path, before: RunRecord, training: Dataset, held_out: Dataset | None) -> None:
    """Refuse images other than those that a run was trained on or held out, as far as its record can tell.

    If the data set has changed, so has the split: the generator may have been trained on images that are now held out.

    Raises:
        RunError: as `check_same_data`.
    """
    now = before.model_copy(update={**_image_facts(training), "held_out": 0 if held_out is None else len(held_out)})
    check_same_data(folder, before, now)


def check_same_data(folder: Path, before: RunRecord, now: RunRecord) -> None:
    """Refuse to resume a run with other images than it started with, as far as its record can tell.

    Raises:
        RunError: a fact of the data differs; names each with both values.
    """
    old, new = before.model_dump(), now.model_dump()
    exact = ["image", "dtype", "value_range", "class_names", "images", "label_counts"]
    exact += ["held_out"] if before.held_out is not None else []
    different = [name for name in exact if old[name] != new[name]]
    rounded = ("condition_mean", "condition_scale")
    different += [name for name in rounded if len(old[name]) != len(new[name]) or not np.allclose(old[name], new[name])]
    note = " (the same in another order)" if sorted(old["class_names"]) == sorted(new["class_names"]) else ""
    differences = [f"{name} was {old[name]}, is {new[name]}{note * (name == 'class_names')}" for name in different]
    if before.image_means and not different and not _have_same_means(before, now):
        differences = ["as many images, but other ones, or other ones are held out"]
    if differences:
        raise RunError(
            f"{folder}: the data are not those that the run started with ({'; '.join(differences)}); put them and "
            "their settings back, or train another run"
        )


def _have_same_means(before: RunRecord, now: RunRecord) -> bool:
    """Whether `image_means` may be of the same images, whose pixels decoders and processors round in several ways.

    They may differ by half a grey level; those of floats, which have no levels, by a hundredth of their spread.
    """
    low, high = before.value_range
    alike = float(np.std(before.image_means)) / 100 if before.dtype == "float32" else 0.5 / (high - low)
    alike += 5.1e-6  # older records have five digits
    means, new_means = before.image_means, now.image_means
    return len(means) == len(new_means) and np.allclose(means, new_means, rtol=0, atol=alike)


def export_config(experiment: Experiment, record: RunRecord, conditions: Tensor | None) -> dict[str, Any]:
    """The config of an exported generator, with which it can be built and sampled without the run's folder.

    `conditions` are (m, k) standardised conditions to draw from, or None.
    """
    config: dict[str, Any] = {
        "generator": experiment.generator.table(), "image": record.image, "dtype": record.dtype,
        "value_range": list(record.value_range), "class_names": record.class_names,
    }  # fmt: skip
    if conditions is not None:
        config["conditions"] = conditions.tolist()
    return config


class _Row(BaseModel, extra="allow", strict=True):
    """What every line of the log holds; of other names, numbers."""

    __pydantic_extra__: dict[str, float]
    step: Annotated[int, Field(ge=0, lt=2**63)]
    metrics: dict[str, float] = Field(default_factory=dict)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of `log.jsonl`, each with its "step"; damaged ones are skipped, such as the last of a killed run."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    rows = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):  # a ValidationError is a ValueError
            row = json.loads(line)
            _Row.model_validate(row)
            rows.append(row)
    return rows
