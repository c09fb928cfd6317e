"""Every block of the written pages but the how-to guides runs or is included from a file that does."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import WRITTEN, run_page

# What these show, guides show too, with the same commands.
SHOWN_ELSEWHERE = ("measured/agreement-study.md", "measured/classifier-study.md", "measured/conditional-eyes.md")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in SHOWN_ELSEWHERE))
        for name in WRITTEN
        if not name.startswith("how-to/")
    ],
)
def test_every_block_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_page(name, tmp_path, monkeypatch, capsys)
