"""Extreme values of every setting of an experiment or study file, and of what `gankit plan` takes, one at a time.

Experiments go through `gankit check`; studies are read, and their jobs made as far as nothing is trained; plans are
made but for the time of a step, which is not measured. What a field's type allows decides the values that are tried:
numbers at the ends of their range, no text and odd text, lists that are empty, long, or of extreme numbers, schedules
and options that lead nowhere. Settings of the training and of the evaluation that pass are also trained with for two
steps. `experiments.py` counts how the cases end.
"""

from __future__ import annotations

import contextlib
import copy
import io
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import tomlkit
from PIL import Image
from pydantic import BaseModel

import gankit
from gankit.experiments.experiment import Evaluation, Training
from gankit.experiments.lines import KeyPath
from gankit.experiments.tables import AugmentTable, CriticTable, DataTable, GeneratorTable, LossTable
from gankit.planning import proposal
from gankit.registry import Schedule, registry
from gankit.studies.fitting import Classical
from gankit.studies.reading import load_study
from gankit.training.rehearsal import check

VALUES: dict[Any, list[Any]] = {
    int: [0, 1, 10**9, 2**63 - 1],
    float: [0.0, -0.0, 1e38, 1e30, 5e-324, 1 - 1e-10, float("nan"), float("inf")],
    str: ["", "\x1b[2J", "x" * 4000, "~nobody/x"],
    list: [[], [1], [10**9], [10**9, 10**9], [1] * 2000, [0, 2**62], [0, 1e38], [-1e38, 1e38], [0, 5e-324], [0, 0, 2],
           ["a\tb"]],
    dict: [{}, {"eps": 1e30}, {"eps": -1}, {"weight_decay": 1e30}, {"capturable": True}, {"differentiable": True}],
    Schedule: [{"start": 0.5, "end": 1e38, "steps": 1}, {"start": 1e38, "end": 0.5, "steps": 2**62}],
    None: ["nope"],
}  # fmt: skip
SMALL: dict[str, Any] = {
    "data": {"name": "npz", "path": "d.npz"},
    "generator": {"name": "resnet", "width": 4, "latent_dim": 4}, "critic": {"name": "resnet", "width": 4},
    "losses": ["wasserstein"],
    "training": {"steps": 2, "batch": 4, "critic_steps": 1, "averaging": 0.9, "device": "cpu", "threads": 1},
    "evaluation": {"features": "pixels", "metrics": ["kid"], "count": 8, "subset": 8, "every": 1},
}  # fmt: skip
DATA: dict[str, dict[str, Any]] = {
    "eyes": {"size": 16, "counts": [4, 4, 4]}, "npz": {"path": "d.npz"}, "folder": {"path": "p", "size": 8},
    "torchvision": {"dataset": "FakeData", "options": {"size": 8}, "size": 8},
}  # fmt: skip
STUDIES: dict[str, dict[str, Any]] = {
    "agreement": {"drawn": 8, "kept": 2}, "augmentation": {"folds": 2, "validation": 2, "reserve": 2, "width": 2},
    "classifier": {"folds": 2, "width": 2},
    "readers": {"generated": {"g": {"name": "folder", "path": "p"}}, "real": DATA["npz"] | {"name": "npz"}, "images": 4,
                "pairs": 2},
}  # fmt: skip
TABLES = {registry("study").get(name).table: name for name in STUDIES}
"""The study of each study's own table."""
PLAN = {"images": SMALL["data"], "minutes": 60.0, "out": "plan.toml", "recipe": "resnet"}


class Plan(BaseModel):
    """What `gankit plan` takes."""

    images: str
    minutes: float
    out: str
    recipe: str


def values_of(annotation: Any) -> list[Any]:
    """The extreme values of a setting of this type."""
    kinds = list(dict.fromkeys(_kinds(annotation)))
    return [value for kind in kinds or [None] for value in VALUES[kind]]


def _kinds(annotation: Any) -> Iterator[Any]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type):
        yield from (
            kind for kind in VALUES if kind is not None and issubclass(annotation, kind) and annotation is not bool
        )
    elif origin in (list, tuple, dict):
        yield list if origin is tuple else origin
    elif origin is not Literal:
        for argument in arguments[:1] if origin is typing.Annotated else arguments:
            yield from _kinds(argument)


def tables() -> Iterator[tuple[dict[str, Any], KeyPath, type[BaseModel]]]:
    """(settings, place of a table in them, model of the table) of every table that an experiment or study may hold."""
    yield {"plan": PLAN}, ("plan",), Plan
    yield {"plan": PLAN}, ("plan", "images"), DataTable
    for table, name in TABLES.items():
        experiment = {**SMALL, table: STUDIES[name]}
        yield experiment, (table,), registry("study").settings(name)
        if "classical" in registry("study").settings(name).model_fields:
            yield {**experiment, table: {**STUDIES[name], "classical": {}}}, (table, "classical"), Classical
    for kind in ("features", "metric", "augment", "loss", "critic", "generator", "dataset"):
        for name in registry(kind).built_in():
            experiment, place = copy.deepcopy(SMALL), (kind,)
            if kind == "features":
                path = {"path": "d.npz"} if "path" in registry(kind).settings(name).model_fields else {}
                experiment["evaluation"]["features"], place = {"name": name, **path}, ("evaluation", "features")
            elif kind == "dataset":
                experiment["data"], place = {"name": name, **DATA[name]}, ("data",)
            elif kind in ("generator", "critic"):
                experiment[kind]["name"] = name
                experiment["data"]["size"] = 16 if name == "dcgan" else 8
            elif kind == "loss":
                experiment["data"]["conditional"] = experiment["critic"]["class_head"] = True
                experiment["augment"] = "diffaugment"
                experiment["losses"], place = ["wasserstein", {"name": name}], ("losses", 1)  # type: ignore[assignment]
            elif kind == "augment":
                inner = {"inner": "diffaugment", "probability": 0.5} if name == "sometimes" else {}
                experiment["augment"] = {"name": name, **inner}
            else:
                experiment["evaluation"]["metrics"], place = [{"name": name}], ("evaluation", "metrics", 0)  # type: ignore[assignment]
            yield experiment, place, registry(kind).settings(name)
    for own in (GeneratorTable, CriticTable):
        assert set(own.model_fields) == {"part"}
    yield {**SMALL, "losses": [{"name": "wasserstein"}]}, ("losses", 0), LossTable
    yield {**SMALL, "augment": {"name": "diffaugment"}}, ("augment",), AugmentTable
    yield SMALL, ("data",), DataTable
    yield SMALL, ("evaluation",), Evaluation
    yield SMALL, ("training",), Training


@cache
def cases() -> list[tuple[dict[str, Any], KeyPath, Any]]:
    """(settings, place of a setting, its value) of every case."""
    return [
        (settings, (*place, name), value)
        for settings, place, model in tables()
        for name, field in model.model_fields.items() if name != "part"
        for value in values_of(field.annotation)
    ]  # fmt: skip


def try_setting(number: int, folder: Path) -> str:
    """Check what has one extreme setting, and train with it where it decides how to train or judge."""
    if not (folder / "d.npz").exists():
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
        np.savez(folder / "d.npz", images=images, labels=np.arange(24) % 2, agreement=np.arange(24) % 5 / 4)
        (folder / "p").mkdir()
        for place, image in enumerate(images):
            Image.fromarray(image).save(folder / "p" / f"{place}.png")
    experiment, path, value = cases()[number]
    experiment = table = copy.deepcopy(experiment)
    for key in path[:-1]:
        table = table[key]
    table[path[-1]] = copy.deepcopy(value)
    if path[0] == "plan":
        plan = experiment["plan"]
        if not isinstance(plan["images"], str):
            images = tomlkit.inline_table()
            images.update(plan["images"])
            plan["images"] = images.as_string()
        Path("plan.toml").unlink(missing_ok=True)
        with patch.object(proposal, "time_training", lambda experiment: 0.01):
            list(proposal.plan(plan["images"], plan["minutes"], Path(plan["out"]), plan["recipe"]))
        return "checked"
    if path[0] in TABLES:
        Path("study.toml").write_text(tomlkit.dumps(experiment), encoding="utf-8")
        study = load_study(TABLES[path[0]], "study.toml")
        study.arms()
        study.work(Path(f"study-{number}", "jobs"))
        return "checked"
    gankit.load(experiment)
    for _ in check(experiment):  # type: ignore[arg-type]
        pass
    if path[0] in ("training", "evaluation"):
        experiment["training"]["steps"] = min(experiment["training"]["steps"], 2)
        with contextlib.redirect_stderr(io.StringIO()):
            gankit.train(gankit.load(experiment), folder / f"run-{number}")
    return "checked"
