"""Arrays that are costly to make, kept on disk and read back memory-mapped."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray


def cache_folder() -> Path:
    """Where gankit keeps what it can make again: `GANKIT_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("GANKIT_CACHE") or platformdirs.user_cache_dir("gankit"))


def clear_cache() -> int:
    """Delete the cache; returns the number of bytes freed."""
    folder = cache_folder() / "arrays"
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    shutil.rmtree(folder, ignore_errors=True)
    return size


def stored(key: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """The array of this key, read-only: memory-mapped from the cache, made first where it is missing or broken.

    Two processes may ask at once: a file appears under its name only when it is complete. Where the folder cannot be
    written, the array stays in memory.

    Args:
        key: a file name that changes whenever the content would.
        make: makes the array.
    """
    path = cache_folder() / "arrays" / f"{key}.npy"
    try:
        return _mapped(path)
    except (OSError, ValueError):
        array = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            np.save(file, array, allow_pickle=False)
        os.replace(file.name, path)
    except OSError:
        array.setflags(write=False)
        return array
    return _mapped(path)


def _mapped(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
