"""Rows of features that are kept as they come in, checked, and dealt in a way that their order does not change."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gankit.errors import GankitError
from gankit.interfaces import Batch, Indices, Metric, Pool

Matrix = NDArray[np.float64]

LARGEST = 1e20
"""Features beyond it come of a broken network, and powers of them overflow."""


class FeatureRows(Metric):
    """A metric that keeps the features of both sides, so that merged metrics give what one pass gives."""

    real: list[NDArray[Any]]
    fake: list[NDArray[Any]]

    def __init__(self) -> None:
        self.add_state("real", list, operator.add)
        self.add_state("fake", list, operator.add)

    def update(self, batch: Batch) -> None:
        """Take in (n, d) features of real or of generated images; a copy, since the caller may fill its buffer again.

        Raises:
            GankitError: no features, not (n, d), or values that are not finite.
        """
        rows = np.array(self.wanted(batch, "features"))
        side, name = (self.real, "real") if batch.real else (self.fake, "generated")
        side.append(checked(rows, f"features of the {name} images"))

    def both(self, least: int) -> tuple[Matrix, Matrix]:
        """All rows, real and generated.

        Raises:
            GankitError: fewer than `least` on a side, or different dimensions.
        """
        for batches, name in ((self.real, "real"), (self.fake, "generated")):
            widths = {rows.shape[1] for rows in batches}
            if len(widths) > 1:
                raise GankitError(
                    f"features of the {name} images differ in dimension: {sorted(widths)}; use one extractor"
                )
        real, fake = (np.concatenate(batches) if batches else np.zeros((0, 1)) for batches in (self.real, self.fake))
        return pair(real, fake, least, ("features of the real images", "features of the generated images"))


def checked(values: ArrayLike, name: str) -> NDArray[Any]:
    """
    Raises:
        GankitError: not (n, d), or values that are not finite or too large for their powers.
    """  # fmt: skip
    rows = np.asarray(values)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise GankitError(f"{name} must be (n, d), their shape is {rows.shape}")
    if not np.isfinite(rows).all():
        raise GankitError(f"{name} have values that are NaN or infinite; look for the images that cause them")
    if max(-float(rows.min(initial=0)), float(rows.max(initial=0))) > LARGEST:
        raise GankitError(f"{name} have values beyond {LARGEST:g}; look for what makes the extractor overflow")
    return rows


def pair(
    x: ArrayLike, y: ArrayLike, least: int, names: tuple[str, str] = ("features x", "features y")
) -> tuple[Matrix, Matrix]:
    """Two sets of features in float64.

    Raises:
        GankitError: as `checked`, fewer than `least` rows, or different dimensions.
    """
    first, second = (checked(rows, name).astype(np.float64) for rows, name in zip((x, y), names, strict=True))
    for rows, name in ((first, names[0]), (second, names[1])):
        if len(rows) < least:
            raise GankitError(f"{name}: {len(rows)} rows; at least {least} are needed")
    if first.shape[1] != second.shape[1]:
        raise GankitError(
            f"{names[0]} and {names[1]} differ in dimension: {first.shape[1]} and {second.shape[1]}; use one extractor"
        )
    return first, second


def pooled(pool: Pool, least: int) -> Matrix:
    """(N, d) features of all images of a pool.

    Raises:
        GankitError: as `pair`; an image set without features.
    """
    real, fake = pool.real.fields.get("features"), pool.fake.fields.get("features")
    if real is None or fake is None:
        raise GankitError(f"the {'real' if real is None else 'generated'} images have no features")
    return np.concatenate(pair(real, fake, least, ("features of the real images", "features of the generated images")))


def digests(rows: Matrix) -> list[bytes]:
    """A digest of each row's content; equal rows have equal ones."""
    return [blake2b(row.tobytes(), digest_size=16).digest() for row in rows + 0.0]  # + 0.0: -0.0 and 0.0 are equal


def shuffled(content: Sequence[bytes], which: str = "") -> Indices:
    """A fixed random permutation of rows that depends on what they hold, not on their order.

    Copies of one row are spread at random too, as independent draws would be. Leaving rows out keeps the others in
    sequence, so that a jackknife sees the rows that it leaves out, and not another permutation.

    Args:
        content: of each row, from `digests`.
        which: names the permutation; rows of two sets that hold the same need two.
    """
    copies: dict[bytes, int] = {}
    keys = []
    for digest in content:
        copies[digest] = copy = copies.get(digest, -1) + 1
        keys.append(blake2b(digest + copy.to_bytes(8, "big"), digest_size=16, person=which.encode()).digest())
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
