"""Problems of a data set that spoil a training or its evaluation: copies, leaks, near-blank images."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gankit.cache import row_blocks
from gankit.errors import counted, first_of, unbroken
from gankit.interfaces import Dataset, Rows
from gankit.metrics.leakage import NEAR_COPY, Thumbnail, duplicates, thumbnails

MOST_COMPARED = 20_000  # the most images that are looked at; of larger sets the first ones
BLANK = 0.02  # standard deviation, as a share of the range from black to white, below which an image is near-blank
NAMED = 5  # the most images that a finding names
BATCH = 256


def findings(dataset: Dataset) -> Iterator[str]:
    """One line for each thing that deserves a look before a training; reads `MOST_COMPARED` images at most."""
    n = min(len(dataset), MOST_COMPARED)
    known, blank, thumbs = dataset.known, [], list[Thumbnail]()
    low, high = dataset.value_range
    for indices in row_blocks(np.arange(n), BATCH):
        pixels = dataset.read(indices)
        is_blank = pixels.reshape(len(pixels), -1).std(1, dtype=np.float64) < BLANK * (high - low)
        blank += indices[is_blank].tolist()
        kept = Rows(images=pixels[~is_blank], ids=indices[~is_blank], value_range=dataset.value_range)
        thumbs += thumbnails(kept, "data")
    if len(dataset) > n:
        yield f"the first {n:,} images were compared with each other"
    if blank:
        advice = "leave out those that show nothing"
        if len(blank) == n and dataset.dtype.itemsize > 1:
            advice = f"{low:g} to {high:g} is too wide a range for all; set value_range (of DICOM files a window)"
        yield f"{counted(len(blank), 'near-blank image')}, {_names(dataset, blank)}: {advice}"
    # (p, 2) indices of each pair, the smaller first; the later image counts as the copy.
    ids, found = np.array([thumb.id for thumb in thumbs]), duplicates(thumbs, thumbs, NEAR_COPY) if thumbs else ()
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *(ids[np.stack([i, j], 1)[i < j]] for i, j, _, _ in found)])
    if len(pairs):
        copies = np.unique(pairs[:, 1])
        yield f"{counted(len(copies), 'duplicate')} of other images, such as {_names(dataset, pairs[0])}: remove them"
        for values, of_what, advice in (
            (known.labels, "with different classes", "correct them"),
            (known.groups, "of different patients", "keep each pair on one side, or held-out images are not new"),
        ):
            if values is not None and (differ := values[pairs[:, 0]] != values[pairs[:, 1]]).any():
                count, first = counted(int(differ.sum()), "pair"), _names(dataset, pairs[differ][0])
                yield f"{count} of duplicates {of_what}, such as {first}: {advice}"
    yield from _leaks(dataset, pairs)


def _leaks(dataset: Dataset, pairs: NDArray[np.int64]) -> Iterator[str]:
    """Duplicate images, and patients, that occur in more than one split."""
    splits_of: dict[int, set[str]] = defaultdict(set)
    for name, indices in dataset.known.splits.items():
        for index in np.asarray(indices).tolist():
            splits_of[index].add(name)
    leaked = [pair for pair in pairs.tolist() if len(splits_of[pair[0]] | splits_of[pair[1]]) > 1]
    if leaked:
        yield f"{counted(len(leaked), 'pair')} of duplicates across splits, such as {_names(dataset, leaked[0])}"
    if dataset.known.groups is not None:
        splits_of_group: dict[str, set[str]] = defaultdict(set)
        for index, names in splits_of.items():
            splits_of_group[str(dataset.known.groups[index])] |= names
        if both := [group for group, names in splits_of_group.items() if len(names) > 1]:
            first = unbroken(both[0])
            yield f"{counted(len(both), 'patient')} in more than one split, such as {first}: keep each in one"


def _names(dataset: Dataset, indices: Any) -> str:
    files = dataset.known.files
    return first_of([files[index] if len(files) else f"image {index}" for index in indices], NAMED)
