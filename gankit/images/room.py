"""Bounds the memory of the pictures that several threads decode at one time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

AT_ONCE = 90_000_000
"""Pixels of the pictures that all threads decode at one time: Pillow's own limit of one picture, less than 1 GB."""
_DECODED: list[int] = []  # pixels of each picture that is being decoded
_FREED = threading.Condition()


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
