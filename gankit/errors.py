"""The errors that gankit raises for mistakes of users: one line that says what is wrong, where, and what to do."""

import contextlib
import difflib
import errno
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path

MOST_LISTED = 40
"""The largest number of known names that an error lists."""
_LINE_END = re.compile("[\n-\r\x1c-\x1e\x85\u2028\u2029]")


class GankitError(Exception):
    """A mistake, or a state of files, that the user can fix; the command line prints it and exits with code 2.

    Its text takes one line: line ends, which names of files may hold, are written as Python writes them.
    """

    def __str__(self) -> str:
        return unbroken(super().__str__())


class SettingsError(GankitError):
    """An experiment, a recipe or an override that cannot be read or is not valid; one line for each setting."""

    __str__ = Exception.__str__


class PartError(GankitError):
    """A part that is unknown, cannot be imported, is of the wrong kind, or does not fit the others."""


class DataError(GankitError):
    """Images, labels or tables that are missing, unreadable or inconsistent."""


class RunError(GankitError):
    """A run folder that is missing or broken, holds another run, or whose training cannot continue."""


class BusyError(RunError):
    """A folder that another process is writing."""


class ProcessLostError(RunError):
    """Another process of a training with several processes was lost."""


def unbroken(text: str) -> str:
    """The text with its line ends as Python writes them, "\\n" and so on."""
    return _LINE_END.sub(lambda match: repr(match[0])[1:-1], text)


def one_line(error: BaseException, most: int | None = None) -> str:
    """What an error says, on one line of at most so many characters."""
    return " ".join(str(error).split())[:most]


def cause(error: BaseException) -> str:
    """What an error says, on one line; the name of its type where it says nothing."""
    return one_line(error) or type(error).__name__


def typed_line(error: BaseException, most: int | None = None) -> str:
    """An error's type, and what it says, on one line; at most so many characters of the latter."""
    return f"{type(error).__name__}: {one_line(error, most)}"


def counted(number: int, what: str) -> str:
    """A number of things in words: "1 image", "2 images"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def first_of(names: Sequence[str], most: int = 3) -> str:
    """So many of some names at most, and how many there are beside them: "a, b, c and 2 more"."""
    return unbroken(", ".join(names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def meant_by(name: str, known: Collection[str]) -> list[str]:
    """The known names that a name may mean: itself, else those that differ in capitals, hyphens and underscores."""
    plain = [re.sub("[-_]", "", text).casefold() for text in (name, *known)]
    return [name] if name in known else [item for item, text in zip(known, plain[1:], strict=True) if text == plain[0]]


def not_in_utf8(name: str) -> str:
    """Why the name of a file or folder, as it is to be shown, cannot be written into a file."""
    advice = "" if sys.getfilesystemencoding() == "utf-8" else "set PYTHONUTF8=1, or "
    return f"{name} is not in UTF-8; {advice}rename that file or folder"


def suggestion(name: str, known: Collection[str], *, list_all: bool = False) -> str:
    """What to say after an unknown name: the closest known one; where none is close, the first `MOST_LISTED`.

    Args:
        name: the unknown name.
        known: the names that there are.
        list_all: whether they are listed after the closest one too.
    """
    listing = f"known: {', '.join(islice(known, MOST_LISTED))}" if known else "there are none"
    if len(known) > MOST_LISTED:
        listing += f", ... ({len(known)} in all)"
    folded = {item.casefold(): item for item in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    if not close or name in known:  # a key of another table is known, and not meant
        return listing
    question = f"did you mean {folded[close[0]]!r}?"
    return f"{question} {listing}" if list_all else question


def plain_words(error: Exception) -> str | None:
    """What the command line says of an error that a user can do something about; None for all others."""
    if isinstance(error, GankitError):
        return str(error)
    if isinstance(error, OSError):
        # Only folders are made where nothing of their name may be
        in_the_way = "a file is in the place of a folder: move it, or choose another folder"
        said = in_the_way if isinstance(error, FileExistsError) else error.strerror or error
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            said = f"{said}; allow it, work on a copy, or name another --out where the command takes one"
        return unbroken(f"{f'{error.filename}: ' if error.filename else ''}{said}")
    reason = next(iter(str(error).splitlines()), "it is used up")
    if is_short_of_memory(error):
        return f"not enough memory ({reason}); set smaller sizes, widths, batches or counts"
    if is_device_failure(error):
        return f"the GPU failed ({reason[:120]}); try again, or on the CPU (CUDA_VISIBLE_DEVICES=)"
    return None


def is_fault_of_machine(error: BaseException) -> bool:
    """Whether memory is used up or a device failed, which is no mistake of a part, a setting or a file."""
    return is_short_of_memory(error) or is_device_failure(error)


@contextlib.contextmanager
def blame(kind: type[GankitError], text: str) -> Iterator[None]:
    """Turn an error of code that is not gankit's into one of this kind, whose message is the text and a `typed_line`.

    A `GankitError` and a fault of the machine stay as they are.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, GankitError) or is_fault_of_machine(error):
            raise
        raise kind(f"{text} {typed_line(error, 200)}") from error


@contextlib.contextmanager
def report_lost(folder: Path) -> Iterator[None]:
    """A context that writes into a folder: where this is gone, its error says so, not that some file is not found.

    Raises:
        RunError: the folder was moved or deleted.
    """
    try:
        yield
    except FileNotFoundError as error:
        if folder.exists():
            raise
        raise RunError(
            f"{folder} is gone: it was moved or deleted while gankit was writing there; go on where it is now "
            "(a run with gankit resume), put it back, or start anew"
        ) from error


def is_short_of_memory(error: BaseException) -> bool:
    """Whether memory is used up, or too small for the sizes asked for.

    NumPy raises a MemoryError, or a ValueError where a size is beyond all numbers; torch a RuntimeError with different
    texts by device.
    """
    signs = ("out of memory", "allocate memory", "ALLOC_FAILED", "array is too big", "Maximum allowed dimension",
             "Storage size calculation overflowed")  # fmt: skip
    is_possible = isinstance(error, (RuntimeError, ValueError))
    return isinstance(error, MemoryError) or (is_possible and any(sign in str(error) for sign in signs))


def is_device_failure(error: BaseException) -> bool:
    """Whether a GPU failed, or one of the libraries that compute on it."""
    signs = ("CUDA error", "CUDA driver", "NVIDIA driver", "HIP error", "cuDNN error")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
