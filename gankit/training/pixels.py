"""Where the images of a training are kept: on the GPU where they fit there, else read one batch ahead."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gankit import seeds
from gankit.interfaces import Dataset

Indices = NDArray[np.int64]
MEMORY_SHARE = 0.25
"""Images stay on the GPU if they take at most this share of its free memory."""
CHUNK = 256
"""Images that are copied to the GPU at a time."""
MOST_AHEAD = 32
"""Most batches read ahead: one for each side, or for each of its parts (`training.accumulate`), and some to spare."""


class Pixels(Protocol):
    """Images that are read batch by batch."""

    def rows(self, indices: Indices, next_indices: Callable[[], Indices]) -> Tensor:
        """(k, c, h, w) pixels as uint8, int32 or float32.

        Args:
            indices: (k,) which images.
            next_indices: returns the (k,) indices of the next call, which may be read meanwhile.
        """
        ...


def place(dataset: Dataset, device: torch.device) -> Pixels:
    """Keep the images of a data set where a training on this device reads them fastest."""
    if device.type != "cuda":
        return Host(dataset, device)
    free, _ = torch.cuda.mem_get_info(device)
    image = dataset.image
    size = len(dataset) * image.channels * image.height * image.width * dataset.dtype.itemsize
    return Resident(dataset, device) if size <= MEMORY_SHARE * free else ReadAhead(dataset, device)


def on_device(indices: Indices, device: torch.device) -> Tensor:
    """(k,) indices on a device, without waiting for it."""
    rows = torch.from_numpy(indices)
    return rows.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else rows.to(device)


def _storable(rows: NDArray[Any]) -> Tensor:
    """Pixels as a tensor; those of 16 bits as int16, since torch can do little with uint16."""
    return torch.from_numpy(rows.view(np.int16) if rows.dtype == np.uint16 else rows)


def _readable(pixels: Tensor) -> Tensor:
    """Pixels of `_storable` with their values: those of 16 bits as int32."""
    return pixels.to(torch.int32).bitwise_and(0xFFFF) if pixels.dtype == torch.int16 else pixels


@final
class Host:
    """Images in the machine's memory, copied batch by batch."""

    def __init__(self, dataset: Dataset, device: torch.device) -> None:
        self._dataset, self._device = dataset, device

    def rows(self, indices: Indices, next_indices: Callable[[], Indices]) -> Tensor:
        """As `Pixels.rows`."""
        return _readable(_storable(self._dataset.rows(indices)).to(self._device))


@final
class Resident:
    """Images on the GPU, 16-bit ones as int16."""

    def __init__(self, dataset: Dataset, device: torch.device) -> None:
        self._device = device
        like = _storable(np.empty(0, dataset.dtype))
        self._pixels = like.new_empty((len(dataset), *dataset.image.shape), device=device)
        for start in range(0, len(dataset), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(dataset)))
            self._pixels[start : start + CHUNK] = _storable(dataset.rows(rows))

    def rows(self, indices: Indices, next_indices: Callable[[], Indices]) -> Tensor:
        """As `Pixels.rows`."""
        return _readable(self._pixels[on_device(indices, self._device)])


@final
class ReadAhead:
    """Images that a thread reads into pinned memory while the batch before is computed."""

    def __init__(self, dataset: Dataset, device: torch.device) -> None:
        self._dataset, self._device = dataset, device
        self._reader = seeds.Reader(device)
        self._waiting: dict[bytes, Future[Tensor]] = {}

    def _read(self, indices: Indices) -> Tensor:
        pixels = _storable(self._dataset.rows(indices))
        return pixels.pin_memory() if self._device.type == "cuda" else pixels

    def rows(self, indices: Indices, next_indices: Callable[[], Indices]) -> Tensor:
        """As `Pixels.rows`."""
        waiting = self._waiting.pop(indices.tobytes(), None) or self._reader.submit(self._read, indices)
        later = next_indices()
        if len(self._waiting) >= MOST_AHEAD:  # some were never asked for; those still needed are read again
            self._waiting.clear()
        if later.tobytes() not in self._waiting:
            self._waiting[later.tobytes()] = self._reader.submit(self._read, later)
        return _readable(self._reader.result(waiting).to(self._device, non_blocking=True))
