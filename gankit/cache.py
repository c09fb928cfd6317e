"""A cache on disk: arrays that are costly to make and read back memory-mapped, and downloaded weights."""

import contextlib
import hashlib
import math
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import platformdirs
from numpy.typing import NDArray

from gankit.errors import GankitError
from gankit.files import is_sealed, open_atomically, seal
from gankit.files import user_path as user_path  # parts import no `files`

Folder = Literal["arrays", "features"]
ABANDONED = 3600.0
"""Seconds after which a temporary file is taken to be left by a process that has died."""


def cache_folder() -> Path:
    """The folder of files that gankit can make again: `GANKIT_CACHE`, or the user's cache folder.

    Raises:
        GankitError: `GANKIT_CACHE` names the home folder of nobody.
    """
    if named := os.environ.get("GANKIT_CACHE"):
        return user_path(named)
    folder = platformdirs.user_cache_path("gankit")
    # In a container, a user may have no home folder.
    return folder if folder.is_absolute() else Path(tempfile.gettempdir()) / "gankit"


def feature_limit() -> float:
    """Bytes that cached features may take: `GANKIT_CACHE_GB` times 1e9, by default 2e9.

    Raises:
        GankitError: the variable holds no number, or one below 0.
    """
    text = os.environ.get("GANKIT_CACHE_GB") or "2"
    with contextlib.suppress(ValueError):
        if (limit := float(text)) >= 0:
            return limit * 1e9
    raise GankitError(f"GANKIT_CACHE_GB={text}: a number of gigabytes is needed, for example 2")


def clear_cache() -> int:
    """Delete arrays and features, and leave downloaded weights; returns the number of bytes freed."""
    freed = 0
    for name in get_args(Folder):
        folder = cache_folder() / name
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):  # a folder, or a file that cannot be deleted or is gone
                size = path.stat().st_size
                path.unlink()
                freed += size
        shutil.rmtree(folder, ignore_errors=True)
    return freed


def stored(key: str, make: Callable[[], NDArray[Any]], folder: Folder = "arrays") -> NDArray[Any]:
    """The read-only array of a key: memory-mapped from the cache, and made first if it is missing or broken.

    Several processes may do this at once: a file appears under its name only when it is complete. If the folder cannot
    be written, the array stays in memory. Files end with a digest, which is checked whenever they are opened. If those
    of features take more than `feature_limit`, those that were unused for longest are deleted.

    Args:
        key: a file name that differs whenever the content would.
        make: makes the array, of any shape.
        folder: "arrays" for decoded or rendered images, "features" for features.
    """
    path = cache_folder() / folder / f"{key}.npy"
    limit = feature_limit()  # raises before time is spent on the array
    try:
        return _map(path)
    except (OSError, ValueError, EOFError):
        array = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_atomically(path) as file:
            np.save(file, array, allow_pickle=False)
            seal(file)
        _make_room(path.parent, limit if folder == "features" else math.inf)
        return _map(path)
    except (OSError, ValueError, EOFError):  # no folder to write, or cleared by another process at this moment
        array.setflags(write=False)
        return array


def row_blocks(array: NDArray[Any], size: int = 4096) -> Iterator[NDArray[Any]]:
    """Consecutive rows of an array, `size` at a time; rows of a memory map leave memory once they are used."""
    owner: Any = array  # becomes the memory map that the array is a view of, if it is one
    mode = None
    while isinstance(owner, np.ndarray):
        mode, owner = getattr(owner, "mode", None), owner.base
    for start in range(0, len(array), size):
        yield array[start : start + size]
        # Pages of a copy-on-write map hold what was written to them, and must stay.
        if isinstance(owner, mmap.mmap) and mode == "r" and hasattr(mmap, "MADV_DONTNEED"):
            owner.madvise(mmap.MADV_DONTNEED)


def fingerprint(prefix: str, files: Iterable[Path], options: object) -> str:
    """A key for `stored` that changes with the path, size and modification time of every file, and with the options.

    Args:
        prefix: what the array holds, as the beginning of its file name.
        files: the files that it is made from.
        options: everything else that its content depends on, such as versions of decoders; compared by its `repr`.
    """
    digest = hashlib.sha256(repr(options).encode())
    for file in files:
        status = file.stat()
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return f"{prefix}-{digest.hexdigest()[:32]}"


def _map(path: Path) -> NDArray[Any]:
    if not is_sealed(path):
        raise ValueError(f"{path} is damaged")
    with contextlib.suppress(OSError):
        os.utime(path)  # the time of its last use
    return cast(NDArray[Any], np.load(path, mmap_mode="r", allow_pickle=False))


def _make_room(folder: Path, limit: float) -> None:
    """Delete the files that were unused for longest until the others fit; the newest always stays."""
    files, now = [], time.time()
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may have deleted it
            status = path.stat()
            # After a clock was set back there are times in the future: they must not count as the newest for long.
            files.append((abs(now - status.st_mtime), status.st_size, path))
    total = 0
    for place, (age, size, path) in enumerate(sorted(files)):  # newest first
        total += size
        superfluous = age >= ABANDONED if path.suffix == ".tmp" else total > limit
        if place > 0 and superfluous:
            with contextlib.suppress(OSError):
                path.unlink()
