"""gankit: plug-in GAN components for few images, and numbers that can be trusted at the sample size they have."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gankit import augments, critics, datasets, features, generators, losses, metrics
    from gankit.config import Experiment, load
    from gankit.errors import GankitError
    from gankit.evaluation import compare, evaluate, statistics
    from gankit.interfaces import Augment, Batch, Critic, Dataset, Features, Generator, ImageSpec, Loss, Metric, Turn
    from gankit.ranking import rank
    from gankit.registry import build
    from gankit.run import Run, open_run
    from gankit.training import resume, train
    from gankit.wrapping import wrap

_HOME = {
    "config": ["Experiment", "load"],
    "errors": ["GankitError"],
    "evaluation": ["compare", "evaluate", "statistics"],
    "interfaces": [
        "Augment", "Batch", "Critic", "Dataset", "Features", "Generator", "ImageSpec", "Loss", "Metric", "Turn",
    ],
    "ranking": ["rank"],
    "registry": ["build"],
    "run": ["Run", "open_run"],
    "training": ["resume", "train"],
    "wrapping": ["wrap"],
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
