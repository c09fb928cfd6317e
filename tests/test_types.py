"""What `mypy --strict` says of a program that uses gankit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import numpy as np
import gankit
from torch import nn

image = gankit.ImageSpec(3, 8, 8)
reveal_type(gankit.wrap("generator", nn.Linear(2, 2), latent_dim=2))
reveal_type(gankit.wrap("generator", nn.Linear, latent_dim=2))
reveal_type(gankit.wrap("critic", nn.Linear(2, 2)))
reveal_type(gankit.wrap("critic", nn.Linear, labels=True))
reveal_type(gankit.wrap("augment", nn.Identity()))
reveal_type(gankit.wrap("features", nn.Identity, dim=2))
reveal_type(gankit.wrap("loss", critic=lambda turn: None))
reveal_type(gankit.wrap("dataset", np.zeros((2, 3, 8, 8), np.uint8)))
reveal_type(gankit.build("generator", "resnet", image, width=4))
reveal_type(gankit.build("critic", "resnet", image))
reveal_type(gankit.build("metric", "kid"))
reveal_type(gankit.build("dataset", "npz", path="a.npz"))
reveal_type(gankit.train("wgan-gp", "run"))
gankit.wrap("generator", nn.Linear(2, 2))
gankit.wrap("nothing", nn.Linear(2, 2))
gankit.nothing
"""
REVEALED = ["Generator", "type[Generator]", "Critic", "type[Critic]", "Augment", "type[Features]", "Loss", "Dataset",
            "Generator", "Critic", "Metric", "Dataset", "Run"]  # fmt: skip
ERRORS = ["call-overload", "call-overload", "attr-defined"]


def test_a_program_has_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = pytest.importorskip("mypy.api")
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.chdir(ROOT)
    # The project's own options, so that the cache of `make check` serves.
    said, broken, _ = api.run(["--config-file=pyproject.toml", str(tmp_path / "program.py")])
    assert not broken
    revealed = [re.sub(r"\w+\.(?=\w)|builtins\.", "", text) for text in re.findall(r'Revealed type is "(.+)"', said)]
    assert revealed == REVEALED
    assert re.findall(r"error: .*\[([\w-]+)\]$", said, re.M) == ERRORS
