"""gankit: plug-in GAN components for few images, and numbers that can be trusted at the sample size they have."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gankit.version import __version__ as __version__

if TYPE_CHECKING:
    from gankit import augments, critics, datasets, features, generators, losses, metrics
    from gankit.errors import GankitError
    from gankit.evaluation.evaluate import compare, evaluate, statistics
    from gankit.experiments.experiment import Experiment, load
    from gankit.interfaces import Augment, Batch, Critic, Dataset, Features, Generator, ImageSpec, Loss, Metric, Turn
    from gankit.ranking import rank
    from gankit.registry import build
    from gankit.registry.wrapping import wrap
    from gankit.runs.run import Run, open_run
    from gankit.training.trainer import resume, train

_HOME = {
    "errors": ["GankitError"],
    "evaluation.evaluate": ["compare", "evaluate", "statistics"],
    "experiments.experiment": ["Experiment", "load"],
    "interfaces": [
        "Augment", "Batch", "Critic", "Dataset", "Features", "Generator", "ImageSpec", "Loss", "Metric", "Turn",
    ],
    "ranking": ["rank"],
    "registry": ["build"],
    "registry.wrapping": ["wrap"],
    "runs.run": ["Run", "open_run"],
    "training.trainer": ["resume", "train"],
}  # fmt: skip
_MODULES = {name: module for module, names in _HOME.items() for name in names}
_FOLDERS = ["augments", "critics", "datasets", "features", "generators", "losses", "metrics"]

__all__ = [
    "Augment", "Batch", "Critic", "Dataset", "Experiment", "Features", "GankitError", "Generator", "ImageSpec", "Loss",
    "Metric", "Run", "Turn", "augments", "build", "compare", "critics", "datasets", "evaluate", "features",
    "generators", "load", "losses", "metrics", "open_run", "rank", "resume", "statistics", "train", "wrap",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"gankit.{_MODULES[name]}"), name)
    if name in _FOLDERS:
        return importlib.import_module(f"gankit.{name}")
    raise AttributeError(f"module 'gankit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
