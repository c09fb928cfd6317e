"""What tests of settings share: files with a text, and the lines of an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gankit
from gankit.errors import SettingsError


def errors(source: Any, *overrides: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        gankit.load(source, *overrides)
    return str(caught.value).splitlines()


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
