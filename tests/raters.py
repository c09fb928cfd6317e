"""Files of ratings as people give them, and tables as they read them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gankit.ranking.key import Key, read_key


def read(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def rate(page: Path, name: str, score: Callable[[Any], int], call: Callable[[Any], str] = lambda image: "") -> Path:
    """The ratings of a person who sees what the images are."""
    key, digest = read_key(page.parent / "key.json", Key)
    rows = [f"{image.id},{score(image)},{image.label},{call(image)},{name},{digest}" for image in key.images]
    return write(page.parent / f"{name}.csv", "image,score,diagnosis,call,rater,key", *rows)
