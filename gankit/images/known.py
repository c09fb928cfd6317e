"""What is known of images beside their pixels."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from gankit.errors import unbroken

GRID = "grid.png"
"""The file in a folder of samples that shows them all."""


@final
class Columns(Mapping[str, NDArray[Any]]):
    """Arrays by name, each of any shape and read at first use.

    Args:
        names: of the arrays.
        read: reads the array of a name.
    """

    def __init__(self, names: Iterable[str], read: Callable[[str], NDArray[Any]]) -> None:
        self._names, self._read = dict.fromkeys(names), read
        self._arrays: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._arrays and name in self._names:
            self._arrays[name] = self._read(name)
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@final
@dataclass(frozen=True, eq=False)
class Known:
    """What is known of n images beside their pixels.

    Attributes:
        files: path of each image below the folder of the images, with forward slashes; empty where images are no files.
        labels: (n,) classes from 0, or None.
        class_names: one name per class.
        groups: (n,) group of each image (patient, photograph), or None.
        agreement: (n,) share of raters, in [0, 1], whose call equals the label, or None.
        raters: how many raters there are at most for an image; 0 where that is not known.
        splits: (k,) indices of the images of each named split ("train", "val", "test").
        facts: (n, ...) array of anything else, by name.
        changed_by_mirror: names of the facts whose values the mirror image does not share.
        left_out: paths of images that are there and not used, since the table of labels does not list them.
        not_read: names of tables that lie in the folder of the images and were not read.
        read_as: what columns of other titles than gankit's own were read as, by title: "group", "vote", ...
    """

    files: Sequence[str] = ()
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    groups: NDArray[Any] | None = None
    agreement: NDArray[np.float64] | None = None
    raters: int = 0
    splits: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    changed_by_mirror: frozenset[str] = frozenset()
    left_out: Sequence[str] = ()
    not_read: Sequence[str] = ()
    read_as: Mapping[str, str] = field(default_factory=dict)

    @property
    def remarks(self) -> list[str]:
        """What whoever uses the images should know, one line each."""
        lines = []
        if left_out := [unbroken(file) for file in self.left_out if file != GRID]:
            first = left_out[0]
            lines = [f"{len(left_out)} images ({first} first) are left out, as the table of labels does not list them"]
        name = unbroken(next(iter(self.class_names), ""))
        if self.files and all(name in file.split("/")[:-2] for file in self.files):  # a class of several sub-folders
            advice = "for its sub-folders as classes move them out of it, or name it as the folder (data.path=...)"
            lines.append(f"all images lie in {name!r}: {advice}")
        return lines

    def take(self, indices: NDArray[np.int64]) -> Self:
        """What is known of the images at these (k,) indices, without what concerns all: splits and images left out."""
        columns = {name: getattr(self, name) for name in ("labels", "groups", "agreement")}
        taken: dict[str, Any] = {name: None if column is None else column[indices] for name, column in columns.items()}
        files = [self.files[index] for index in indices] if self.files else ()
        facts = Columns(self.facts, partial(_take_column, self.facts, indices))
        return replace(self, files=files, **taken, splits={}, left_out=(), not_read=(), facts=facts)


def _take_column(columns: Mapping[str, NDArray[Any]], indices: NDArray[np.int64], name: str) -> NDArray[Any]:
    return columns[name][indices]
