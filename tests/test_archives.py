"""What the wheel and the source archive hold; tests/without_repository.sh runs the tests from them."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KEPT = ("gankit", "tests", "docs", "examples", "plugins")
MADE = {"__pycache__", "dist", "code", "reference", "floors.svg"}  # by Python, by pip, and by docs/generate.py


def files(folder: str) -> set[str]:
    found = [path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()]
    hidden = [path for path in found if any(part.startswith(".") for part in path.parts)]
    return {path.as_posix() for path in found if path not in hidden and not MADE & set(path.parts)}


@pytest.fixture
def builders() -> tuple[type, type]:
    wheel, sdist = (pytest.importorskip(f"hatchling.builders.{name}") for name in ("wheel", "sdist"))
    return wheel.WheelBuilder, sdist.SdistBuilder


def test_the_wheel_holds_the_package_and_the_source_archive_all(builders: tuple[type, type]) -> None:
    wheel, source = ({file.distribution_path.replace("\\", "/") for file in builder(str(ROOT)).recurse_included_files()}
                     for builder in builders)  # fmt: skip
    assert wheel == files("gankit")
    assert {
        "gankit/py.typed",
        "gankit/recipes/demo.toml",
        "gankit/runs/pretrained/eyes/experiment.toml",
    } <= wheel
    for folder in KEPT:
        assert files(folder) <= source, folder
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", "mkdocs.yml"} <= source
    assert not [name for name in source if name.startswith((".ci", ".venv", "site/", "runs/")) or "__pycache__" in name]
