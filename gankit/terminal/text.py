"""Text from outside, such as names of files and classes, made safe to show on terminals and in spreadsheets."""

import contextlib
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters except tab and line end, and characters that change the direction of text or break lines."""
_UNDECODED = re.compile("[\udc80-\udcff]+")
"""Bytes in names of files that are not letters of the locale, as Python keeps them."""
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
_failures: list[OSError] = []  # what kept text from standard output since the last `end_output`
NARROW_COLUMN = 20  # characters: a column is wrapped to no less
FIRST_LINE, LINE_EVERY = 5.0, 30.0  # seconds to the first line of a delayed bar that cannot be drawn, and between lines


def harmless(text: str) -> str:
    """The text with control characters, and bytes that are not in UTF-8, written as Python writes them."""
    text = _UNDECODED.sub(
        lambda match: match[0].encode(errors="surrogateescape").decode(errors="backslashreplace"), text
    )
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class ErrorStream:
    """`sys.stderr`, except that text is lost where it cannot be written: a closed terminal or pipe stops nothing."""

    GONE = (OSError, ValueError, AttributeError)
    """Errors of a stream that is gone, closed, or was never there."""

    def _do(self, action: str, *values: str) -> Any:
        with contextlib.suppress(*self.GONE):
            return getattr(sys.stderr, action)(*values)

    def write(self, text: str) -> None:
        """Write a text, where that is possible."""
        self._do("write", text)

    def flush(self) -> None:
        """Flush the stream, where that is possible."""
        self._do("flush")

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return bool(self._do("isatty"))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)  # by which tqdm knows the bars that a line is written above

    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


class LineStream(ErrorStream):
    """An `ErrorStream` for a bar in a file or a pipe: each of its states is a line, which nothing overwrites."""

    _last = ""

    def write(self, text: str) -> None:
        """Write the bar that tqdm would draw over the last one; what only moves a terminal's cursor is left out."""
        line = text.replace("\x1b[A", "").strip()
        if line and line != self._last:
            self._last = line
            super().write(line + "\n")


def can_draw() -> bool:
    """Whether a bar can be drawn over its last state: on a terminal, or in a notebook, where it is a widget."""
    return "ipykernel" in sys.modules or ErrorStream().isatty()


def progress_bar(*arguments: Any, **options: Any) -> Any:
    """A bar of tqdm, whose arguments these are, on an `ErrorStream` and by a clock that never jumps.

    Where it cannot be drawn it is a line every `LINE_EVERY` seconds; a delay is `FIRST_LINE` seconds there.
    """
    from tqdm.auto import tqdm

    kind: Any = tqdm  # its overloads cannot be checked for arguments that are passed on
    waits = not can_draw() and "delay" in options
    if can_draw():
        bar = kind(*arguments, file=ErrorStream(), **options)
    else:
        # With miniters no thread of tqdm's repeats the line: it has its own clock, and would at each look.
        lines = {"mininterval": LINE_EVERY, "miniters": 1, "smoothing": 0} | ({"delay": FIRST_LINE} if waits else {})
        bar = kind(*arguments, file=LineStream(), **{**options, **lines})
    bar._time = time.monotonic  # the default is the time of day, which can jump
    # Equal, since tqdm ends a bar without a new line if it seems to have started after its last update. A bar that
    # waits ends so anyway; its first line would come only LINE_EVERY seconds after the start.
    bar.start_t = bar._time()
    bar.last_print_t = bar.start_t - LINE_EVERY * waits
    return bar


def say(*texts: object, error: bool = False) -> None:
    """Print each text as a `harmless` line; with `error` to the `ErrorStream`.

    What cannot be written stops no work: on standard error it is lost, on standard output `end_output` reports it.
    """
    for text in texts:
        line = harmless(str(text))
        if error and (bars := getattr(sys.modules.get("tqdm"), "tqdm", None)):
            bars.write(line, file=ErrorStream())  # above them
        elif error:
            print(line, file=ErrorStream())
        else:
            try:
                print(line)
            except OSError as failure:
                _failures.append(failure)


def speaks() -> bool:
    """Whether this process prints: the only one, or the first of several that torchrun started."""
    return os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1"


def end_output() -> str | None:
    """Flush standard output, and return why it was not written as a whole, or None; a reader may leave early."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as failure:
        _failures.append(failure)
        with contextlib.suppress(OSError):  # else Python tries again at its end, and complains
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    reasons = [failure.strerror or str(failure) for failure in _failures if not isinstance(failure, BrokenPipeError)]
    _failures.clear()
    return next(iter(reasons), None)


def open_standard_streams() -> None:
    """Open standard input, output and error where the caller has closed them.

    The next file to be opened would take their number, and what libraries print would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def as_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of text, its header first, as lines with aligned columns.

    On a narrower terminal the widest column is wrapped; where its words do not fit then, the other cells of each row
    are put below the first one.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # Files and pipes have whole lines.
    most = shutil.get_terminal_size().columns if sys.stdout and sys.stdout.isatty() else 0
    needed = sum(widths) + 2 * (len(widths) - 1)
    table = list(map(list, rows))
    if most and needed > most:
        widest = max(range(len(widths)), key=widths.__getitem__)
        room = widths[widest] - (needed - most)
        if room < max([NARROW_COLUMN, *(len(word) for row in rows for word in row[widest].split())]):
            below = [" | ".join(filter(None, map(str.strip, cells))) for _, *cells in rows]
            return [line for row, text in zip(rows, below, strict=True) for line in (row[0], *_wrap(text, most, "  "))]
        widths[widest] = room
        parts = [(row, _wrap(row[widest], room) or [""]) for row in rows]
        table = [
            [part if k == widest else "" if number else cell for k, cell in enumerate(row)]
            for row, lines in parts for number, part in enumerate(lines)
        ]  # fmt: skip
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]


def _wrap(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def to_cell(value: object) -> object:
    """A value for a cell of a CSV file: a text that a spreadsheet would take as a formula gets an apostrophe in front.

    Numbers stay as they are; `from_cell` gives the text back.
    """
    formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if formula else value


def from_cell(cell: str) -> str:
    """The text of a cell that `to_cell` made."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
