"""Bounds the memory of the pictures that several threads decode at one time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

AT_ONCE = 90_000_000
"""Pixels of the pictures that all threads decode at one time: Pillow's own limit of one picture, less than 1 GB."""
_DECODED: list[int] = []  # their pixels
_FREED = threading.Condition()


@contextmanager
def room_for(pixels: int) -> Iterator[None]:
    """Wait until the pictures that all threads decode have together no more pixels than the largest that is read."""
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
