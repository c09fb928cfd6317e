"""A part added by a newcomer touches one file: it is then listed, validated, documented and tested."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import processes
import pytest

ROOT = Path(__file__).parents[1]
LOSS = '''"""Hinge loss with a margin of one's own (after Lim and Ye 2017, arXiv 1705.02894)."""

from __future__ import annotations

from typing import Annotated, final

from annotated_types import Gt
from torch import Tensor

from gankit.interfaces import Loss, Turn


@final
class WideHinge(Loss):
    """The critic pushes reals above the margin and fakes below its negative.

    Args:
        margin: where pushing ends.
    """

    def __init__(self, *, margin: Annotated[float, Gt(0)] = 2.0) -> None:
        self.margin = margin

    def critic(self, turn: Turn) -> Tensor:
        """Mean of max(0, margin - real_scores) plus mean of max(0, margin + fake_scores); a scalar."""
        return (self.margin - turn.real_scores).relu().mean() + (self.margin + turn.fake_scores).relu().mean()

    def generator(self, turn: Turn) -> Tensor:
        """Minus the mean of fake_scores; a scalar."""
        return -turn.fake_scores.mean()
'''


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with one more file, which no other file names."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name in ("gankit", "docs", "examples"):
        # With what is compiled, but for what another process is just writing.
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc.*"))
    (folder / "tests").mkdir()
    for name in ("test_conformance.py", "pictures.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "gankit" / "losses" / "wide_hinge.py").write_text(LOSS)
    return folder


OF_THE_COPY = f"""{processes.FORGET_GANKIT}
import os, runpy
sys.argv = sys.argv[1:]
sys.path[:0] = [os.getcwd(), os.path.dirname(os.path.abspath(sys.argv[0]))]  # the second as for any script
run = runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module
run(sys.argv[0], run_name="__main__")
"""


def python(folder: Path, *arguments: str) -> processes.Done:
    """A module or a script of the copy, with its arguments."""
    return processes.run(*arguments, code=OF_THE_COPY, folder=folder)


def test_it_is_listed(copy: Path) -> None:
    done = python(copy, "gankit", "list", "loss")
    assert re.search(r"^wide-hinge\s+loss\s+gankit$", done.stdout, re.MULTILINE), done.stdout + done.stderr


FEW = ["data.counts=[6,5,5]", "generator.widths=[4,4,4,4]", "critic.widths=[4,4,4,4]"]


def test_it_is_validated(copy: Path) -> None:
    for margin, code, text in (("0.5", 0, ""), ("-1", 2, "losses.0.margin")):
        (copy / "x.toml").write_text(f'[[losses]]\nname = "wide-hinge"\nmargin = {margin}\n')
        done = python(copy, "gankit", "check", "x.toml", *FEW)
        assert done.returncode == code, done.stderr
        assert text in done.stderr


def test_it_is_documented(copy: Path) -> None:
    (copy / "docs" / "losses.py").write_text("import generate\nprint(dict(generate.part_pages())['losses.md'])\n")
    done = python(copy, "docs/losses.py")
    assert done.returncode == 0, done.stderr
    page = done.stdout
    assert "wide-hinge" in page
    assert "where pushing ends" in page
    assert "margin" in page
    assert "arxiv.org/abs/1705.02894" in page


def test_it_is_tested(copy: Path) -> None:
    alone = ["-p", "no:cacheprovider", "-p", "no:xdist"]
    done = python(copy, "pytest", "-q", *alone, "-rA", "tests/test_conformance.py", "-k", "WideHinge")
    passed = re.findall(r"^PASSED .*TestWideHingeLoss", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(passed) >= 20
