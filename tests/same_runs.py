"""Whether two runs are the same, bit by bit; and a kill in the middle of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gankit.runs import checkpoint


def state(folder: Path) -> dict[str, Any]:
    restored = checkpoint.restore(folder / "checkpoints")
    assert restored is not None
    return restored.state


def assert_equal(a: Any, b: Any, place: str = "") -> None:
    assert type(a) is type(b), place
    if isinstance(a, Tensor):
        assert torch.equal(a.cpu(), b.cpu()), place
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            assert_equal(a[key], b[key], f"{place}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), place
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{place}/{i}")
    else:
        assert a == b, place


def log_without_times(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


def assert_same_run(a: Path, b: Path) -> None:
    assert_equal(state(a), state(b))
    assert (a / "generator.safetensors").read_bytes() == (b / "generator.safetensors").read_bytes()
    assert log_without_times(a) == log_without_times(b)


class Killed(BaseException):
    pass
