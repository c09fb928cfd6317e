"""gankit: plug-in GAN components for few images, and numbers that can be trusted at the sample size they have."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from typing import TYPE_CHECKING, Any

from gankit.version import __version__ as __version__

if TYPE_CHECKING:
    from gankit import augments, critics, datasets, features, generators, losses, metrics, studies
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
_FOLDERS = ["augments", "critics", "datasets", "features", "generators", "losses", "metrics", "studies"]

__all__ = [
    "Augment", "Batch", "Critic", "Dataset", "Experiment", "Features", "GankitError", "Generator", "ImageSpec", "Loss",
    "Metric", "Run", "Turn", "augments", "build", "compare", "critics", "datasets", "evaluate", "features",
    "generators", "load", "losses", "metrics", "open_run", "rank", "resume", "statistics", "studies", "train",
    "wrap",
]  # fmt: skip


_MOVED = {
    "building": "training.assembly", "config": "experiments.experiment", "data": "training.data",
    "extraction": "evaluation.extraction", "image_tables": "images.labels_csv", "layers": "nn.layers",
    "pictures": "images.pictures", "resizing": "images.resizing", "run": "runs.run", "sampling": "runs.sampling",
    "tables": "evaluation.tables", "uncertainty": "evaluation.uncertainty", "wrapping": "registry.wrapping",
}  # fmt: skip
"""Modules that plug-ins and scripts import by the names that they had in 0.1.0, and where they stand now."""


class _Moved:
    """Finds the modules that have moved, after all other ways to find them have failed."""

    def find_spec(self, name: str, *_: object) -> Any:
        known = name.removeprefix("gankit.") in _MOVED
        return importlib.machinery.ModuleSpec(name, self) if known else None  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        moved = importlib.import_module(f"gankit.{_MOVED[module.__name__.removeprefix('gankit.')]}")
        module.__dict__.update({name: value for name, value in vars(moved).items() if not name.startswith("__")})


sys.meta_path.append(_Moved())


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"gankit.{_MODULES[name]}"), name)
    if name in _FOLDERS:
        return importlib.import_module(f"gankit.{name}")
    raise AttributeError(f"module 'gankit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
