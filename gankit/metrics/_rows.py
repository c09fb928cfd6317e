"""Checked features of real and generated images, metrics that need only sums of rows, and shuffles by content."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gankit.cache import row_blocks
from gankit.errors import GankitError, counted
from gankit.interfaces import Indices, Pool, Resampling, Rows

Matrix = NDArray[np.float64]

LARGEST = 1e20
"""Larger features come from a broken network, and their powers overflow."""
LARGEST_POOL = 7000
"""Images of the largest pool for which a matrix over all pairs is kept: 400 MB."""


def check_rows(values: ArrayLike, name: str) -> NDArray[Any]:
    """The values as an (n, d) array; raises GankitError unless all are real and at most `LARGEST` in size."""
    rows = np.asanyarray(values)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise GankitError(f"{name} must be (n, d), their shape is {rows.shape}")
    if rows.dtype.kind not in "biuf" or np.ma.isMaskedArray(rows):
        raise GankitError(f"{name} must be an array of real numbers, not {type(rows).__name__} of {rows.dtype}")
    for block in row_blocks(rows):
        if not np.isfinite(block).all():
            raise GankitError(f"{name} have values that are NaN or infinite; look for the images that cause them")
        if max(-float(block.min(initial=0)), float(block.max(initial=0))) > LARGEST:
            raise GankitError(f"{name} have values beyond {LARGEST:g}; look for what makes the extractor overflow")
    return rows


def read_rows(rows: Rows, side: str, name: str = "features") -> NDArray[Any]:
    """The features or logits of the "real", "generated" or "training" images; raises as `check_rows`."""
    return check_rows(rows.required(name, whose=f"the {side}"), f"{name} of the {side} images")


def float64_pair(
    x: ArrayLike, y: ArrayLike, min_rows: int, names: tuple[str, str] = ("features x", "features y")
) -> tuple[Matrix, Matrix]:
    """Two sets of features in float64, of at least `min_rows` rows each and of one dimension."""
    first, second = check_pair(x, y, min_rows, names)
    return first.astype(np.float64), second.astype(np.float64)


def check_pair(x: ArrayLike, y: ArrayLike, min_rows: int, names: tuple[str, str]) -> tuple[NDArray[Any], NDArray[Any]]:
    """As `float64_pair`, without converting their types."""
    first, second = (check_rows(rows, name) for rows, name in zip((x, y), names, strict=True))
    for rows, name in ((first, names[0]), (second, names[1])):
        if len(rows) < min_rows:
            raise GankitError(f"{name}: {counted(len(rows), 'row')}; at least {min_rows} are needed")
    if first.shape[1] != second.shape[1]:
        raise GankitError(
            f"{names[0]} and {names[1]} differ in dimension: {first.shape[1]} and {second.shape[1]}; use one extractor"
        )
    return first, second


def feature_pair(real: Rows, fake: Rows, min_rows: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The features of real and of generated images, of any type and of at least `min_rows` each."""
    names = ("features of the real images", "features of the generated images")
    x, y = real.required("features", whose="the real"), fake.required("features", whose="the generated")
    return check_pair(x, y, min_rows, names)


def pooled_features(pool: Pool, min_rows: int) -> Matrix:
    """(N, d) features of all images of a pool in float64, of at least `min_rows` of each side."""
    return np.concatenate(feature_pair(pool.real, pool.fake, min_rows), dtype=np.float64)


class SumsResampling(Resampling, ABC):
    """Values that depend on each side only by sums over its images.

    Attributes:
        summands: (N, k) float64, the row that each image of the pool adds to the sums of its side.
    """

    summands: Matrix

    @abstractmethod
    def from_sums(self, real: Matrix, fake: Matrix) -> Mapping[str, float] | None:
        """The values from the (k,) sums of either side; None where they must be computed from scratch."""

    def values(self, real: Indices, fake: Indices) -> Mapping[str, float]:
        chosen = np.zeros((2, len(self.summands)))
        chosen[0, real] = chosen[1, fake] = 1  # no place comes twice
        values = self.from_sums(*(chosen @ self.summands))
        return super().values(real, fake) if values is None else values

    def values_without(self, parts: Sequence[Indices]) -> list[Mapping[str, float]]:
        n, values = self.pool.real.count, []
        real, fake = self.summands[:n].sum(0), self.summands[n:].sum(0)
        for part in parts:
            of_real, of_fake = (self.summands[side].sum(0) for side in (part[part < n], part[part >= n]))
            without = self.from_sums(real - of_real, fake - of_fake)
            values.append(super().values_without([part])[0] if without is None else without)
        return values


def digests(rows: NDArray[Any]) -> list[bytes]:
    """A digest of each row's content; equal rows have equal ones."""
    # All types become float64, so that the type changes no order. + 0.0 makes -0.0 and 0.0 equal.
    blocks = (block.astype(np.float64) + 0.0 for block in row_blocks(rows, 1024))
    return [blake2b(row.tobytes(), digest_size=16).digest() for block in blocks for row in block]


def permutation(content: Sequence[bytes], which: str = "") -> Indices:
    """A fixed random permutation of rows that depends on their content, not on their order.

    Copies of one row are spread at random too, as independent draws would be. Leaving rows out does not change the
    sequence of the others, so that a jackknife measures the effect of the rows left out, not of a reshuffle.

    Args:
        content: the digest of each row, from `digests`.
        which: the permutation's name. Two sets permuted under one name have the rows that they share in the same
            order; under two names the orders are independent.
    """
    copies_seen = dict.fromkeys(content, 0)
    keys = []
    for digest in content:
        numbered = digest + copies_seen[digest].to_bytes(8, "big")
        keys.append(blake2b(numbered, digest_size=16, person=which.encode()).digest())
        copies_seen[digest] += 1
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
