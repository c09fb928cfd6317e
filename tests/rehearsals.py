"""Trainings are rehearsed once for all of a kind: a rehearsal takes half the time of a small one.

Of a kind are those that differ in their images, length and seed alone; a rehearsal that fails is always repeated. In
the own tests of a plug-in those whose parts or images differ in settings and sizes alone are of a kind too: its suites
rehearse each part besides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gankit.registry import registry
from gankit.registry.plugins import PART_KINDS
from gankit.training import rehearsal, trainer


def shared(of_strangers: bool) -> Callable[..., list[str]]:
    """What to call instead of `rehearse`; parts that are not gankit's own are shared only where told so."""
    built_in = {name for kind in PART_KINDS for name in registry(kind).built_in()}
    said: dict[str, list[str]] = {}

    def rehearse(experiment: Any, data: Any, checked: Any = None) -> list[str]:
        tables = experiment.tables()
        parts = [tables.get(name) for name in ("generator", "critic", "losses", "augment")]
        training = {
            name: value for name, value in tables["training"].items()
            if name not in ("steps", "seed", "max_minutes", "start_from", "threads") and not name.endswith("_every")
        }  # fmt: skip
        classes = data.labels.unique().tolist() if data.image.classes else []
        of_data = (data.image, classes, tables["data"].get("held_out"))
        if of_strangers:
            parts = experiment.part_names()
            training = {name: value for name, value in training.items() if not name.endswith(("batch", "critic_steps"))}
            of_data = (bool(classes), data.image.conditions, bool(tables["data"].get("held_out")))
        kind = repr((parts, training, of_data))
        if kind not in said or not (of_strangers or built_in.issuperset(experiment.part_names())):
            said[kind] = rehearsal.rehearse(experiment, data, checked)
        return list(said[kind])

    return rehearse


def share() -> None:
    """In this process from now on, for all parts: those of a plug-in that is tested in it do not change."""
    trainer.rehearse = shared(of_strangers=True)
