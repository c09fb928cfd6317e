"""The lines that `gankit list` prints."""

from __future__ import annotations

from collections.abc import Sequence

from gankit.errors import GankitError
from gankit.registry.parts import registry


def list_parts(kinds: Sequence[str], load: bool = False) -> tuple[list[str], int]:
    """One line per part: name, kind, distribution.

    Args:
        kinds: of parts.
        load: whether every part is imported, and its line says "ok", or that it fails and why.

    Returns:
        The lines, and how many parts failed.
    """
    rows = [row for kind in kinds for row in registry(kind).list()]
    columns = [(row.name, row.kind, row.distribution) for row in rows]
    widths = [max(4, *map(len, column)) for column in zip(*columns, strict=True)]
    states = [_state(row.kind, row.name) if load else "" for row in rows]
    lines = [
        "  ".join([*(text.ljust(width) for text, width in zip(texts, widths, strict=True)), state]).rstrip()
        for texts, state in zip(columns, states, strict=True)
    ]
    return lines, sum(state.startswith("fails") for state in states)


def _state(kind: str, name: str) -> str:
    try:
        registry(kind).settings(name)
    except GankitError as error:
        return f"fails: {error}"
    return "ok"
