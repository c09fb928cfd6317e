"""Euclidean distances and nearest rows, fast and exact for equal rows.

|x|^2 + |y|^2 - 2 x.y is fast, but its rounding puts equal rows apart. Where that matters, this formula only picks
candidates, with a margin for its rounding error (Higham 2002, Accuracy, eq. 3.5); their distances come from x - y.
Equal rows are at exactly 0, and the distance of two rows is the same to the last bit in any order, block and direction.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, cast, final

import numpy as np
from numpy.typing import NDArray

from gankit.interfaces import Indices
from gankit.metrics._rows import Matrix

Codes = tuple[NDArray[Any], NDArray[Any]]
"""A code for each row of x and of y: rows with the same code are never matched."""

NEAR = 1e-6
"""Share of |x|^2 + |y|^2 below which a squared distance is computed from x - y.

Above it, the fast formula's error of at most 2 (d + 3) u (|x|^2 + |y|^2), with u = 1.1e-16, is less than 5e-7 of the
value for d = 2048 (some 1e-11 in practice).
"""
_BLOCK = 2_000_000
"""Elements of a block of x @ y.T: 16 MB."""
_CHUNK = 500_000
"""Elements of a chunk of x - y: few enough for the processor's cache."""


class _Block(NamedTuple):
    """Squared distances of some rows of x to all rows of y, off by at most 2 (d + 3) u (|x|^2 + |y|^2)."""

    start: int  # index of the first of these rows in x
    squares: Matrix  # (k, m), possibly below 0
    norms_x: Matrix  # (k, 1) squared norms |x|^2
    norms_y: Matrix  # (m,) squared norms |y|^2


@final
class Rows64:
    """Rows of any floating-point type; those that are read are converted to float64.

    Args:
        rows: (n, d).
        divisors: (m,) numbers, which may be negative, by which the rows are divided; None leaves them as they are.
        places: (m,) indices of the rows to use; None for all.
    """

    def __init__(
        self, rows: NDArray[Any], divisors: Matrix | None = None, places: NDArray[np.int64] | None = None
    ) -> None:
        self.rows, self.divisors, self.places = rows, divisors, places
        self.shape = rows.shape if places is None else (len(places), *rows.shape[1:])

    @classmethod
    def of(cls, rows: "NDArray[Any] | Rows64") -> "Rows64":
        """The rows themselves, or those of an array."""
        return rows if isinstance(rows, Rows64) else cls(rows)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, part: Any) -> Matrix:
        """One row, or those chosen by a slice or by indices."""
        rows: Matrix = self.rows[part if self.places is None else self.places[part]].astype(np.float64)
        return rows if self.divisors is None else rows / self.divisors[part, None]

    def take(self, part: Indices) -> "Rows64":
        """Some rows, not yet in float64."""
        places = part if self.places is None else self.places[part]
        return Rows64(self.rows, None if self.divisors is None else self.divisors[part], places)

    def blocks(self) -> Iterator[tuple[slice, Matrix]]:
        """All rows, a block at a time, each block with its slice of the rows."""
        step = max(1, 2 * _CHUNK // self.shape[1])
        for start in range(0, len(self), step):
            yield slice(start, start + step), self[start : start + step]

    def mean(self) -> Matrix:
        """(d,) mean of the rows."""
        return np.asarray(sum(block.sum(0) for _, block in self.blocks()) / len(self))


def _blocks(x: Rows64, y: Rows64, origin: Matrix | float, either_sign: bool = False) -> Iterator[_Block]:
    """Blocks of rows of x; an origin near the rows (0.0 for none) is subtracted from x and y first, for precision.

    With `either_sign` the squares are then the smaller of |x - y|^2 and |x + y|^2.
    """
    norms_y = np.concatenate([_squared_norms(block - origin) for _, block in y.blocks()])
    step = max(1, _BLOCK // len(y))
    for start in range(0, len(x), step):
        centred_x = x[start : start + step] - origin
        norms_x = _squared_norms(centred_x)[:, None]
        squares = np.empty((len(centred_x), len(y)))
        for part, rows in y.blocks():
            squares[:, part] = centred_x @ (rows - origin).T
        if either_sign:
            np.abs(squares, out=squares)
        squares *= -2
        squares += norms_x
        squares += norms_y
        yield _Block(start, squares, norms_x, norms_y)


def _squared_norms(rows: Matrix) -> Matrix:
    return np.asarray(np.einsum("ij,ij->i", rows, rows))


def squared_distances(x: NDArray[Any], y: NDArray[Any], origin: Matrix | None = None) -> Matrix:
    """(n, m) squared distances of (n, d) and (m, d) rows; equal rows are at exactly 0.

    An origin near the rows, by default the first of x, is subtracted from both for precision.
    """
    squared = np.empty((len(x), len(y)))
    # A row as the origin, so that an offset of all rows costs no precision; unlike a mean it keeps integers exact.
    for block in _blocks(Rows64(x), Rows64(y), x[:1].astype(np.float64) if origin is None else origin):
        i, j = np.nonzero(block.squares < NEAR * (block.norms_x + block.norms_y))
        block.squares[i, j] = _squares_of_pairs(x, y, i + block.start, j)
        squared[block.start : block.start + len(block.squares)] = block.squares
    return squared


def _squares_of_pairs(x: Any, y: Any, i: Indices, j: Indices, combine: np.ufunc = np.subtract) -> Matrix:
    """(p,) squared norms of x[i] - y[j] in float64; of the sums where `combine` is np.add."""
    squares = np.empty(len(i))
    step = max(1, _CHUNK // x.shape[1])
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        squares[part] = np.square(combine(x[i[part]], y[j[part]], dtype=np.float64)).sum(1)
    return squares


def pair_distances(
    x: NDArray[Any] | Rows64, y: NDArray[Any] | Rows64, i: Indices, j: Indices, *, either_sign: bool = False
) -> Matrix:
    """(p,) Euclidean distances of the pairs x[i], y[j], from differences in float64; exactly 0 of equal rows.

    With `either_sign` the smaller of |x - y| and |x + y|.
    """
    if len(i) > 64 * (len(x) + len(y)):  # so many pairs mean duplicate rows: compute each distinct pair only once
        pairs, inverse = np.unique(_first_equal(x)[i] * len(y) + _first_equal(y)[j], return_inverse=True)
        if len(pairs) < len(i):
            return pair_distances(x, y, *np.divmod(pairs, len(y)), either_sign=either_sign)[inverse]
    squares = _squares_of_pairs(x, y, i, j)
    if either_sign:
        np.minimum(squares, _squares_of_pairs(x, y, i, j, np.add), out=squares)
    return np.sqrt(squares)


def _first_equal(rows: NDArray[Any] | Rows64) -> Indices:
    """For each row, the index of the first row that equals it."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(rows[place].tobytes(), place) for place in range(len(rows))])


def nearest(
    x: NDArray[Any] | Rows64,
    y: NDArray[Any] | Rows64,
    k: int = 1,
    *,
    never_match: Codes | None = None,
    either_sign: bool = False,
) -> tuple[Indices, Matrix]:
    """The k rows of y that are nearest to each row of x, nearest first, equally near ones in the order of y.

    Args:
        x: (n, d).
        y: (m, d), m at least 1.
        k: number of neighbours.
        never_match: (n,) and (m,) codes; rows with the same code are passed over.
        either_sign: distances are the smaller of |x - y| and |x + y|; rows have length 1.

    Returns:
        (n, k) rows of y and (n, k) distances; -1 and infinity where fewer than k rows are left.
    """
    x, y = Rows64.of(x), Rows64.of(y)
    if either_sign:
        x, y = _same_side(x, y[0]), _same_side(y, y[0])
        either_sign = _sums_may_be_shorter(x, y)  # else |x - y| is the smaller one everywhere
    # Centring the rows, for precision, keeps differences but not sums.
    origin = 0.0 if either_sign else y.mean()
    indices, nearest_distances = np.full((len(x), k), -1), np.full((len(x), k), np.inf)
    for block in _blocks(x, y, origin, either_sign):
        if never_match is not None:
            codes_x = never_match[0][block.start : block.start + len(block.squares)]
            block.squares[codes_x[:, None] == never_match[1]] = np.inf
        i, j = _candidates(block, min(k, len(y)), x.shape[1])
        distances = pair_distances(x, y, i, j, either_sign=either_sign)
        order = np.lexsort((j, distances, i))
        i, j, distances = i[order], j[order], distances[order]
        rank = np.arange(len(i)) - np.searchsorted(i, i)  # of each candidate among those of its row of x
        kept = rank < k
        indices[i[kept], rank[kept]], nearest_distances[i[kept], rank[kept]] = j[kept], distances[kept]
    return indices, nearest_distances


def _candidates(block: _Block, k: int, dim: int) -> tuple[Indices, Indices]:
    """Pairs of rows of x and y, among them the k nearest rows of y to each row of the block."""
    if k == 1:
        kth = block.squares.min(1, keepdims=True)  # faster
    else:
        kth = np.partition(block.squares, k - 1, axis=1)[:, k - 1 : k]
    # Both the k-th square and that of a nearer row may be wrong.
    i, j = np.nonzero((block.squares <= kth + 2 * _error_bound(block, dim)) & np.isfinite(block.squares))
    return i + block.start, j


def _sums_may_be_shorter(x: Rows64, y: Rows64) -> bool:
    """Whether |x + y| may be below |x - y| for some rows, all of length 1.

    Rows of x (y) are within r_x (r_y) of the centre of y, so that |x - y| <= r_x + r_y. The sum is shorter only where
    |x - y| is above sqrt(2); the limit of 1 leaves room.
    """
    centre = y.mean()
    squares = [[float(np.square(block - centre).sum(1).max()) for _, block in rows.blocks()] for rows in (x, y)]
    radii = [math.sqrt(max(of_side, default=0.0)) for of_side in squares]
    return sum(radii) >= 1


def _same_side(rows: Rows64, along: Matrix) -> Rows64:
    """Each row or its negative, whichever makes no obtuse angle with `along`."""
    signs = np.concatenate([np.where(block @ along < 0, -1.0, 1.0) for _, block in rows.blocks()] or [np.empty(0)])
    return Rows64(rows.rows, signs if rows.divisors is None else signs * rows.divisors, rows.places)


def _error_bound(block: _Block, dim: int) -> Matrix:
    """(k, 1) bounds of the rounding errors of a block's squares, with some room (eps is 2 u)."""
    return cast(Matrix, (dim + 8) * np.finfo(np.float64).eps * (block.norms_x + block.norms_y.max()))


def within(x: Matrix, y: Matrix, radius: float) -> Iterator[tuple[Indices, Indices]]:
    """The pairs of rows of x and y at a distance below `radius`, a block of rows of x at a time."""
    for block in _blocks(Rows64(x), Rows64(y), Rows64(y).mean()):
        i, j = np.nonzero(block.squares < radius**2 + _error_bound(block, x.shape[1]))
        i += block.start
        kept = pair_distances(x, y, i, j) < radius
        yield i[kept], j[kept]


@final
class Shortlist:
    """Lists of the rows of y nearest to each row of x, in which the nearest row within a subset of y is found quickly.

    The arguments are those of `nearest`; k is the length of a list. If no row of a list is in the subset, the nearest
    row is searched anew.
    """

    def __init__(
        self, x: NDArray[Any] | Rows64, y: NDArray[Any] | Rows64, *, never_match: Codes | None = None,
        either_sign: bool = False, k: int = 32,
    ) -> None:  # fmt: skip
        self._x, self._y, self._never_match, self._either_sign = Rows64.of(x), Rows64.of(y), never_match, either_sign
        self._indices, self._distances = nearest(x, y, min(k, len(y)), never_match=never_match, either_sign=either_sign)

    def among(self, rows: Indices, allowed: NDArray[np.bool_]) -> tuple[Indices, Matrix]:
        """For (p,) rows of x the nearest of the (m,) allowed rows of y, and the distance; -1 and infinity for none."""
        listed = self._indices[rows]
        usable = allowed[listed] & (listed >= 0)
        first = usable.argmax(1)[:, None]
        indices = np.take_along_axis(listed, first, 1)[:, 0]
        distances = np.take_along_axis(self._distances[rows], first, 1)[:, 0]
        missing = ~usable.any(1)
        indices[missing], distances[missing] = -1, np.inf
        if listed.shape[1] < len(self._y) and allowed.any():
            # A list with -1 at its end holds all rows of y that may be matched: searching again would find no more.
            beyond = np.flatnonzero(missing & (listed[:, -1] >= 0))
            if len(beyond):
                indices[beyond], distances[beyond] = self._search(rows[beyond], np.flatnonzero(allowed))
        return indices, distances

    def _search(self, rows: Indices, subset: Indices) -> tuple[Indices, Matrix]:
        """For (p,) rows of x the nearest of some rows of y, and the distance; -1 and infinity for none."""
        codes = None if self._never_match is None else (self._never_match[0][rows], self._never_match[1][subset])
        x, y = self._x.take(rows), self._y.take(subset)
        found, distances = nearest(x, y, never_match=codes, either_sign=self._either_sign)
        return np.where(found < 0, -1, subset[found])[:, 0], distances[:, 0]
