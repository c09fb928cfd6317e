"""Bounds the memory that pictures take: all of a set, and those that several threads decode at one time."""

import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gankit.images.spec import LARGEST

AT_ONCE = 90_000_000
"""Pixels of the pictures that all threads decode at one time: Pillow's own limit of one picture, less than 1 GB."""
_DECODED: list[int] = []  # pixels of each picture that is being decoded
_FREED = threading.Condition()


def memory() -> float:
    """Bytes of memory that this machine has, or this container may use; infinite where the system does not say."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf
    with suppress(OSError, ValueError):  # "max" where there is no limit
        size = min(size, float(Path("/sys/fs/cgroup/memory.max").read_text()))
    return size


def too_many(count: int, shape: Sequence[int], itemsize: int = 1) -> str:
    """Why so many images of (c, h, w) values, of `itemsize` bytes each, cannot be held at a time; "" where they may.

    Said before they are made: a system that runs short of memory ends programs without a word.
    """
    values = count * math.prod(shape)
    if values <= LARGEST and values * itemsize <= memory():
        return ""
    size = " x ".join(map(str, shape))
    needed = f"{values * itemsize / 1e9:,.0f} GB"
    return f"{count:,} images of {size} take {needed}, too much for the memory; use fewer, or smaller ones"


@contextmanager
def room_for(pixels: int) -> Iterator[None]:
    """Wait until a picture of so many pixels can be decoded without all threads together exceeding `AT_ONCE`."""
    pixels = min(pixels, AT_ONCE)
    with _FREED:
        _FREED.wait_for(lambda: sum(_DECODED) + pixels <= AT_ONCE)
        _DECODED.append(pixels)
    try:
        yield
    finally:
        with _FREED:
            _DECODED.remove(pixels)
            _FREED.notify_all()
