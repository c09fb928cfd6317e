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
_OWN_GROUPS, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
"""Where Linux lists the control groups of this process, "number:kinds:path" a line, and the folder of all groups."""
_LIMITS = {"": ("", "memory.max"), "memory": ("memory", "memory.limit_in_bytes")}
"""Below that folder, the sub-folder and the file that hold a limit: in version 2, and in version 1."""
_DECODING: list[int] = []  # pixels of each picture that is being decoded
_FREED = threading.Condition()


def memory() -> float:
    """Bytes of memory that this machine has, or this process may use in a container or job; infinite if not known."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf
    return min([size, *_group_limits()])


def _group_limits() -> Iterator[float]:
    """The limits of the control groups that this process is in, and of the groups around them."""
    lines = ["0::/", "0:memory:/"]  # a container may see its own group as the root
    with suppress(OSError):
        lines += _OWN_GROUPS.read_text().splitlines()
    for line in lines:
        _, kinds, group = line.split(":", 2)
        for kind in _LIMITS.keys() & kinds.split(","):
            folder, file = _LIMITS[kind]
            inner = _GROUPS / folder / group.lstrip("/")
            for around in (inner, *inner.parents):
                with suppress(OSError, ValueError):  # no such file, or "max" where there is no limit
                    yield float((around / file).read_text())


def too_many(count: int, shape: Sequence[int], itemsize: int = 1) -> str:
    """Why so many images of (c, h, w) values, of `itemsize` bytes each, cannot be held at a time; "" where they may.

    Said before they are made: a system that runs short of memory ends programs without a word.
    """
    values = count * math.prod(shape)
    if values <= LARGEST and values * itemsize <= memory():
        return ""
    size = " x ".join(map(str, shape))
    needed = f"{values * itemsize / 1e9:,.1f} GB"
    return f"{count:,} images of {size} take {needed}, too much for the memory; use fewer, or smaller ones"


@contextmanager
def room_for(pixels: int) -> Iterator[None]:
    """Wait until a picture of so many pixels can be decoded without all threads together exceeding `AT_ONCE`."""
    pixels = min(pixels, AT_ONCE)
    with _FREED:
        _FREED.wait_for(lambda: sum(_DECODING) + pixels <= AT_ONCE)
        _DECODING.append(pixels)
    try:
        yield
    finally:
        with _FREED:
            _DECODING.remove(pixels)
            _FREED.notify_all()
