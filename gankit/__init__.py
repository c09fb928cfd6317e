"""gankit: plug-in GAN components for small, imbalanced image sets, with metrics you can trust at small sample sizes."""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import sys
from typing import TYPE_CHECKING, Any

from gankit.version import __version__ as __version__

# Beside other programs, OpenMP threads that spin while they wait make a step ten times as long.
# libgomp reads this when torch is loaded; a user's own choice stands.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
    os.environ["GOMP_SPINCOUNT"] = "1000"

# ruff: noqa: I001 - several names on a line
if TYPE_CHECKING:  # the names of _MODULES and _FOLDERS, for type checkers; "as" exports them
    from gankit import augments as augments, critics as critics, datasets as datasets, features as features
    from gankit import generators as generators, losses as losses, metrics as metrics, recipes as recipes
    from gankit import studies as studies
    from gankit.errors import GankitError as GankitError
    from gankit.evaluation.comparison import compare as compare
    from gankit.evaluation.evaluate import evaluate as evaluate, statistics as statistics
    from gankit.experiments.experiment import Experiment as Experiment, load as load
    from gankit.interfaces import Augment as Augment, Critic as Critic, Dataset as Dataset
    from gankit.interfaces import Features as Features, Generator as Generator, ImageSpec as ImageSpec
    from gankit.interfaces import Loss as Loss, Metric as Metric, Turn as Turn
    from gankit.oversampling.sampler import GanOverSampler as GanOverSampler
    from gankit.ranking import rank as rank
    from gankit.registry import build as build
    from gankit.registry.wrapping import wrap as wrap
    from gankit.runs.run import Run as Run, open_run as open_run
    from gankit.training.train import resume as resume, train as train
else:  # hidden from type checkers, to which it would make every name known

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return getattr(importlib.import_module(f"gankit.{_MODULES[name]}"), name)
        if name == "Batch":  # raises an error that says what has replaced it
            return getattr(importlib.import_module("gankit.interfaces"), name)
        if name in _FOLDERS:
            return importlib.import_module(f"gankit.{name}")
        raise AttributeError(f"module 'gankit' has no attribute {name!r}")


_MODULES = {
    **dict.fromkeys(["Augment", "Critic", "Dataset", "Features", "Generator", "ImageSpec"], "interfaces"),
    **dict.fromkeys(["Loss", "Metric", "Turn"], "interfaces"),
    "GankitError": "errors", "compare": "evaluation.comparison",
    "evaluate": "evaluation.evaluate", "statistics": "evaluation.evaluate",
    "Experiment": "experiments.experiment", "load": "experiments.experiment",
    "rank": "ranking", "build": "registry", "wrap": "registry.wrapping", "Run": "runs.run", "open_run": "runs.run",
    "resume": "training.train", "train": "training.train", "GanOverSampler": "oversampling.sampler",
}  # fmt: skip
"""The module of each public name."""
_FOLDERS = ["augments", "critics", "datasets", "features", "generators", "losses", "metrics", "recipes", "studies"]

__all__ = sorted([*_MODULES, *_FOLDERS])


_MOVED = {
    "building": "training.assembly", "config": "experiments.experiment", "data": "training.data",
    "extraction": "evaluation.extraction", "image_tables": "images.labels_csv", "layers": "nn.layers",
    "pictures": "images.pictures", "ranking.realism": "metrics.precision_recall",
    "resizing": "images.resizing", "run": "runs.run", "sampling": "runs.sampling",
    "study": "studies", "study.classifier": "studies.classifier.study",
    "study.classifier_intervals": "evaluation.paired", "study.classifier_networks": "runs.classifiers",
    "study.classifier_scores": "evaluation.classification",
    "tables": "evaluation.tables", "uncertainty": "evaluation.uncertainty", "wrapping": "registry.wrapping",
}  # fmt: skip
"""Modules that plug-ins and scripts import by the names that they had in 0.1.0, and where they stand now."""


class _Moved:
    """Finds the modules that have moved, after all other ways to find them have failed."""

    def find_spec(self, name: str, *_: object) -> Any:
        known = name.startswith("gankit.") and name.removeprefix("gankit.") in _MOVED
        # A package, since `gankit.study` has modules inside.
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        moved = importlib.import_module(f"gankit.{_MOVED[module.__name__.removeprefix('gankit.')]}")
        module.__dict__.update({name: value for name, value in vars(moved).items() if not name.startswith("__")})


sys.meta_path.append(_Moved())


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
