"""Nearest rows at exact distances; the bound on products' rounding is Higham 2002, Accuracy and Stability, eq. 3.5.

|x - y|^2 = |x|^2 + |y|^2 - 2 x.y is fast, but its rounding puts equal rows apart. So it only names candidates, from
centred rows in float64 and within a proven bound; their distances are taken from differences. Equal rows are then at
exactly 0, and the distance of two rows is the same to the last bit in any order, block and direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gankit.interfaces import Indices

Matrix = NDArray[np.float64]
Apart = tuple[NDArray[Any], NDArray[Any]]
"""One code a row of x and of y: rows with equal codes are no neighbours."""

_BLOCK, _CHUNK = 4_000_000, 500_000
"""Numbers in a block of products and in a chunk of differences: 32 MB, and what stays in the processor's cache."""


def distances(x: NDArray[Any], y: NDArray[Any], i: Indices, j: Indices, *, either_sign: bool = False) -> Matrix:
    """Euclidean distances of the pairs x[i], y[j], from differences in float64.

    Args:
        x: (n, d) floats.
        y: (m, d) floats.
        i: (p,) rows of x.
        j: (p,) rows of y.
        either_sign: the smaller of |x - y| and |x + y|.

    Returns:
        (p,) distances; 0 exactly where the rows are equal.
    """
    if len(i) > 64 * (len(x) + len(y)):  # many ties, most likely of equal rows: each pair of contents once
        pairs, inverse = np.unique(_first_equal(x)[i] * len(y) + _first_equal(y)[j], return_inverse=True)
        if len(pairs) < len(i):
            return distances(x, y, *np.divmod(pairs, len(y)), either_sign=either_sign)[inverse]
    squares = np.empty(len(i))
    step = max(1, _CHUNK // x.shape[1])
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        squares[part] = np.square(np.subtract(x[i[part]], y[j[part]], dtype=np.float64)).sum(1)
        if either_sign:
            other = np.square(np.add(x[i[part]], y[j[part]], dtype=np.float64)).sum(1)
            np.minimum(squares[part], other, out=squares[part])
    return np.sqrt(squares)


def _first_equal(rows: NDArray[Any]) -> Indices:
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(row.tobytes(), place) for place, row in enumerate(rows)])


def _products(x: Matrix, y: Matrix, either_sign: bool) -> Iterator[tuple[int, Matrix, Matrix]]:
    """Blocks of rows of x: the first row, |y|^2 - 2 x.y, and (rows, 1) bounds of its error and of |x|^2."""
    centre = 0.0 if either_sign else y.mean(0)
    turned = (y - centre).T
    squares = np.square(turned).sum(0)
    step = max(1, _BLOCK // len(y))
    for start in range(0, len(x), step):
        rows = x[start : start + step] - centre
        lengths = np.square(rows).sum(1, keepdims=True)
        products = rows @ turned
        if either_sign:
            np.abs(products, out=products)
        products *= -2
        products += squares
        error = (x.shape[1] + 8) * np.finfo(np.float64).eps * (lengths + squares.max())
        yield start, products, np.hstack([error, lengths])


def _turned(rows: Matrix, along: Matrix) -> Matrix:
    return np.where(rows @ along < 0, -1.0, 1.0)[:, None] * rows


def nearest(
    x: Matrix, y: Matrix, k: int = 1, *, apart: Apart | None = None, either_sign: bool = False
) -> tuple[Indices, Matrix]:
    """The k rows of y that are nearest to each row of x, nearest first, of equal distances the earlier row first.

    Args:
        x: (n, d) float64.
        y: (m, d) float64, m at least 1.
        k: number of neighbours.
        apart: (n,) and (m,) codes; rows with equal codes are passed over.
        either_sign: distances are the smaller of |x - y| and |x + y|; rows have length 1.

    Returns:
        (n, k) rows of y and (n, k) distances; -1 and infinity where fewer than k rows are left.
    """
    if either_sign:
        x, y = _turned(x, y[0]), _turned(y, y[0])
        # Where all rows lie close together the other sign is never nearer, and centring keeps the products sharp.
        centre = y.mean(0)
        either_sign = sum(float(np.square(rows - centre).sum(1).max(initial=0)) ** 0.5 for rows in (x, y)) >= 1
    indices, found = np.full((len(x), k), -1), np.full((len(x), k), np.inf)
    for start, products, bounds in _products(x, y, either_sign):
        if apart is not None:
            products[apart[0][start : start + len(products), None] == apart[1]] = np.inf
        last = min(k, len(y)) - 1
        kth = np.partition(products, last, axis=1)[:, last:][:, :1] if last else products.min(1, keepdims=True)
        i, j = np.nonzero((products <= kth + 2 * bounds[:, :1]) & np.isfinite(products))
        i += start
        lengths = distances(x, y, i, j, either_sign=either_sign)
        order = np.lexsort((j, lengths, i))
        i, j, lengths = i[order], j[order], lengths[order]
        rank = np.arange(len(i)) - np.searchsorted(i, i)
        kept = rank < k
        indices[i[kept], rank[kept]], found[i[kept], rank[kept]] = j[kept], lengths[kept]
    return indices, found


def within(x: Matrix, y: Matrix, radius: float) -> Iterator[tuple[Indices, Indices]]:
    """The pairs of rows of x and y at a distance below `radius`, a block of rows of x at a time."""
    for start, products, bounds in _products(x, y, either_sign=False):
        i, j = np.nonzero(products < radius**2 - bounds[:, 1:] + bounds[:, :1])
        i += start
        kept = distances(x, y, i, j) < radius
        yield i[kept], j[kept]


@final
class Shortlist:
    """The nearest rows of y to each row of x, from which the nearest one of any part of y is read off.

    The arguments are those of `nearest`; k is the length of the list. Rows whose whole list is outside the part are
    searched anew.
    """

    def __init__(
        self, x: Matrix, y: Matrix, *, apart: Apart | None = None, either_sign: bool = False, k: int = 32
    ) -> None:
        self._x, self._y, self._apart, self._either_sign = x, y, apart, either_sign
        self._indices, self._distances = nearest(x, y, min(k, len(y)), apart=apart, either_sign=either_sign)

    def among(self, rows: Indices, allowed: NDArray[np.bool_]) -> tuple[Indices, Matrix]:
        """The nearest allowed row of y to some rows of x.

        Args:
            rows: (p,) rows of x.
            allowed: (m,) whether a row of y is in the part.

        Returns:
            (p,) rows of y and (p,) distances; -1 and infinity where no row is left.
        """
        listed = self._indices[rows]
        usable = allowed[listed] & (listed >= 0)
        first = usable.argmax(1)[:, None]
        indices = np.take_along_axis(listed, first, 1)[:, 0]
        found = np.take_along_axis(self._distances[rows], first, 1)[:, 0]
        lost = np.flatnonzero(~usable.any(1))
        indices[lost], found[lost] = -1, np.inf
        lost = lost[listed[lost, -1] >= 0]  # a list that is not full has named every row of y
        part = np.flatnonzero(allowed)
        if len(lost) and len(part) and listed.shape[1] < len(self._y):
            apart = None if self._apart is None else (self._apart[0][rows[lost]], self._apart[1][part])
            again, lengths = nearest(self._x[rows[lost]], self._y[part], apart=apart, either_sign=self._either_sign)
            indices[lost], found[lost] = np.where(again < 0, -1, part[again])[:, 0], lengths[:, 0]
        return indices, found
