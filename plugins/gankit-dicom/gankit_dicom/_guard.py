"""Reading such that nothing a file says reaches the screen, a log or an error: a DICOM file names its patient."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pydicom.config

Result = TypeVar("Result")

# Filters of warnings, the level of logging and pydicom's settings are the whole process's: one reader at a time.
_READING = threading.RLock()


class Problem(Exception):
    """What is wrong with a file, in this package's own words: without the file's name and without any of its values."""


def guarded(action: Callable[[], Result]) -> Result:
    """What `action` gives, run in silence; whatever it raises becomes a `Problem` that quotes nothing.

    Raises:
        Problem: without cause or context, whose text might hold values of tags.
    """
    with _silence():
        try:
            return action()
        except Problem as problem:
            text = str(problem)
        except Exception as error:
            advice = "free some memory, or " if isinstance(error, MemoryError) else ""
            text = f"cannot be read as an image ({type(error).__name__}); {advice}replace it or take it out"
    raise Problem(text)


@contextmanager
def _silence() -> Iterator[None]:
    """No warnings, no log lines, and no complaints of pydicom about values that the standard does not allow."""
    with _READING, warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)
