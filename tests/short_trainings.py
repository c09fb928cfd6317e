"""What makes small trainings shorter in tests, in this process and in those of `processes`."""

from __future__ import annotations

import io
import os
from typing import Any

from gankit.images.pictures import grid, to_8bit
from gankit.training import evaluator


def plain_grid(images: Any, value_range: tuple[float, float], columns: int | None = None) -> bytes:
    """A grid of samples as a PNG in which small images are not enlarged."""
    buffer = io.BytesIO()
    grid(to_8bit(images, value_range), columns).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def wait_for_no_disk(descriptor: int) -> None:
    """Refuse what is no open file as `os.fsync` does: only a power cut, which no test makes, shows more."""
    os.fstat(descriptor)


# Statistics of batch normalisation from eight batches take a third of a small training's time, enlarged grids a tenth,
# to wait for the disk a fifth.
SHORTER: dict[tuple[Any, str], Any] = {
    (evaluator, "STATISTICS_BATCHES"): 1,
    (evaluator, "grid_png"): plain_grid,
    (os, "fsync"): wait_for_no_disk,
}
