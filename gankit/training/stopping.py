"""Stopping a training cleanly: interrupts are noted, and acted on between two updates."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from gankit.terminal.text import ErrorStream


class BrokenOff(KeyboardInterrupt):
    """Raised when an interrupt ends an evaluation early; a resumed training repeats the evaluation."""


class StopRequest:
    """A context in which the first interrupt only requests a stop, and says so; a later one interrupts at once.

    Interrupts are Ctrl-C, SIGTERM and a closed terminal, except those that the process was started to ignore: a closed
    terminal under `nohup`, Ctrl-C in the background of a shell script.

    A terminal and a wrapper such as `timeout` or make may both pass on the same interrupt. A second one within `GRACE`
    seconds is therefore ignored. The first prints a notice on the error stream. Outside the main thread none is noted.
    """

    GRACE = 2.0

    def __init__(self, notice: str = "") -> None:
        self.requested = False  # whether there was an interrupt
        self._notice = notice
        self._when = 0.0
        self._breaks_off = False
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            kinds = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
            # Handlers that were not set from Python are None here; they could not be restored, and are left in place.
            kinds = {kind for kind in kinds if signal.getsignal(kind) not in (None, signal.SIG_IGN)}
            self._previous_handlers = {kind: signal.signal(kind, self._request) for kind in kinds}
        return self

    def _request(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested, self._when = True, time.monotonic()
            if self._notice:
                # Not through the bar, whose lock the interrupted code may hold.
                ErrorStream().write(f"\n{self._notice}\n")
            if self._breaks_off:
                raise BrokenOff
        elif time.monotonic() - self._when > self.GRACE:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def breaking_off(self) -> Iterator[None]:
        """A context that raises BrokenOff at the first interrupt, or at its start if there was one before."""
        self._breaks_off = True
        try:
            if self.requested:
                raise BrokenOff
            yield
        finally:
            self._breaks_off = False

    def __exit__(self, *_: object) -> None:
        for kind, handler in self._previous_handlers.items():
            signal.signal(kind, handler)
