"""Labels of a run: drawn as they occur in its training images, or encoded from what a user names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gankit import seeds
from gankit.errors import RunError
from gankit.experiments.record import RunRecord
from gankit.registry.arrays import as_array, as_text
from gankit.registry.messages import shown

Labels = int | str | Sequence[int] | Sequence[str] | Sequence[float] | NDArray[Any] | Tensor | None


def draw_labels(n: int, record: RunRecord, conditions: Tensor | None, seed: int) -> Tensor | None:
    """Labels as they occur in the training images; label i depends only on (seed, i).

    These are (n,) int64 classes, (n, k) standardised conditions, or None for a run without labels. Classes are drawn as
    often as the run's record counts them among the training images. Of the (m, k) conditions of training images whole
    rows are drawn, so that conditions fit together.
    """
    if conditions is None and not record.image["classes"]:
        return None
    draws = [torch.rand((), generator=seeds.generator(seed, "label", i), dtype=torch.float64) for i in range(n)]
    uniform = torch.stack(draws) if draws else torch.empty(0, dtype=torch.float64)
    if conditions is not None:
        return conditions[(uniform * len(conditions)).long()]
    cumulative = torch.tensor(record.label_counts, dtype=torch.float64).cumsum(0)
    return torch.searchsorted(cumulative, uniform * cumulative[-1], right=True).clamp(max=record.image["classes"] - 1)


def encode_classes(labels: Labels, n: int, record: RunRecord, run: Path) -> Tensor:
    """(n,) int64 classes from one class or n of them, each a number or a name.

    Raises:
        RunError: there is no such class in the run of the folder `run`, it had no training images, or the number of
            labels is neither 1 nor n. DataError where the labels are no array.
    """
    sequence = np.atleast_1d(_array(labels)).tolist()
    if len(sequence) == 1:
        sequence *= n
    classes = [find_class(label, record.class_names, run) for label in sequence]
    if untrained := [record.class_names[k] for k in dict.fromkeys(classes) if not record.label_counts[k]]:
        raise RunError(f"{run} had no training image of class {untrained[0]}: samples of this class would mean nothing")
    if len(classes) != n:
        raise RunError(f"{len(classes)} labels for {n} samples: give one label, or one per sample")
    return torch.tensor(classes, dtype=torch.int64)


def _array(labels: Labels) -> NDArray[Any]:
    # A list: NumPy has no bfloat16.
    return as_array(labels.tolist() if isinstance(labels, Tensor) else labels, "labels")


def find_class(label: Any, names: Sequence[str], run: Path) -> int:
    """The number of a class of the run of a folder, from its name or number; raises RunError if there is none."""
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    text = str(as_text(label))
    alike = [number for number, name in enumerate(names) if name.casefold() == text.casefold()]
    if text in names or len(alike) == 1:
        return names.index(text) if text in names else alike[0]
    # Where classes are named by numbers, such as grades 1 to 3, a number is always taken as a name.
    named_by_other_numbers = any(name.isdigit() and name != str(number) for number, name in enumerate(names))
    if not named_by_other_numbers and text.isdecimal() and len(text) < 10 and int(text) < len(names):
        return int(text)
    known = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    raise RunError(f"there is no class {shown(label)} in {run}; known: {known}")


def encode_conditions(labels: Labels, n: int, record: RunRecord) -> Tensor:
    """(n, k) standardised conditions from (k,) or (n, k) numbers in their own units.

    Raises:
        RunError: they have another shape, or are not finite numbers.
    """
    array, shape = _array(labels), (n, record.image["conditions"])
    if array.dtype.kind not in "buif" or not np.isfinite(array).all():
        raise RunError(f"conditions must be {shape[1]} finite numbers, not {str(labels)[:40]!r}")
    values = torch.as_tensor(array.astype(np.float64))
    if values.dim() < 2:
        values = values.reshape(1, -1).expand(n, -1)
    if tuple(values.shape) != shape:
        raise RunError(f"conditions have the shape {tuple(values.shape)}; {shape} is needed")
    mean, scale = (torch.tensor(part, dtype=torch.float64) for part in (record.condition_mean, record.condition_scale))
    return ((values - mean) / scale).float()
