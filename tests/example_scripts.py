"""The example scripts, run in this process with small settings: importing torch anew for each would take longest."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from joblib.externals.loky import get_reusable_executor

from gankit.runs import checkpoint

EXAMPLES = Path(__file__).parents[1] / "examples"
QUICK = [
    "data.counts=[12, 8, 10]", "training.steps=2", "training.batch=4", "training.generator_batch=4",
    "training.critic_steps=1", "evaluation.features=pixels",
]  # fmt: skip
NARROW = ["generator.width=4", "critic.width=4"]
LEVELS = ["generator.widths=[4, 4, 4, 4]", "critic.widths=[4, 4, 4, 4]", "generator.latent_dim=4"]

Run = Callable[..., str]


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a script as `python script arguments` would, and gives what it prints."""

    def script(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.syspath_prepend(EXAMPLES)  # as Python does for a script
        capsys.readouterr()
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    yield script
    get_reusable_executor().shutdown(wait=True)  # the processes of joblib


def steps(folder: Path) -> int:
    """Of the newest checkpoint; a run with parts of a script's own opens only where the script registers them."""
    restored = checkpoint.restore(folder / "checkpoints")
    return 0 if restored is None else restored.step
