"""Prints the oldest versions that pyproject.toml allows of what gankit needs to run, as constraints for pip."""

from __future__ import annotations

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]
print("\n".join([*project["dependencies"], *extras["yaml"], *extras["tensorboard"]]).replace(">=", "=="))
