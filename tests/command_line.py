"""`gankit ...` in this process, and runs of one step to try it on."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gankit
from gankit.cli import main
from gankit.images.pictures import grid_png

Small = Callable[..., list[str]]


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of a refusal."""
        assert self.code == 2, self
        lines = [line for line in self.err.splitlines() if "decoding" not in line]
        assert len(lines) == 1, lines
        assert lines[0].startswith("gankit: ")
        assert "Traceback" not in self.err
        return lines[0]


Call = Callable[..., Answer]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`gankit ...` in this process."""

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["gankit", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code: Any = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


RUNS = {
    "plain": ["data.path={}/colour.npz"],
    "classes": ["data.path={}/colour.npz", "data.conditional=true"],
    "condition": ["data.path={}/colour.npz", 'data.conditional=["severity"]'],
    "grey": ["data.path={}/grey.npz"],
}
"""Settings of runs without labels, on classes, on a float condition, and on 16-bit grey images."""


def train_runs(folder: Path, *names: str) -> dict[str, Path]:
    """Folders of runs, trained for one step, by name; and "folder", which has them and their data."""
    draw = np.random.default_rng(0)
    colour = draw.integers(0, 255, (20, 3, 8, 8), dtype=np.uint8)
    grey = draw.integers(0, 65535, (20, 1, 8, 8), dtype=np.uint16)
    facts = {"labels": np.arange(20) % 2, "class_names": np.array(["left", "right"]), "severity": draw.normal(5, 2, 20)}
    np.savez(folder / "colour.npz", images=colour, **facts)
    np.savez(folder / "grey.npz", images=grey)
    small = ["data.name=npz", "generator.width=4", "generator.latent_dim=6", "critic.width=4", "critic.flat_blocks=1",
             "training.steps=1", "training.batch=4", "training.generator_batch=4",
             "training.critic_steps=1"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gankit.training.evaluator.grid_png", grid_png)  # walks cut pictures out of enlarged grids
        for name in names:
            settings = [text.format(folder) for text in RUNS[name]]
            gankit.train(gankit.load("wgan-gp", *small, *settings), folder / name)
    return {"folder": folder, **{name: folder / name for name in names}}


def rows(folder: Path) -> list[list[str]]:
    with open(folder / "labels.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))
