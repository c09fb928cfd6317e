"""Precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991, eq. 1 and 2), and density and coverage.

The latter two are those of Naeem et al. 2020, arXiv 2002.09797, section 3. All four count which images lie in which
balls. A ball is centred on an image; its radius is the distance to that image's k-th nearest neighbour in its set.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, final

import numpy as np
from annotated_types import Ge
from numpy.typing import ArrayLike, NDArray

from gankit.errors import GankitError
from gankit.interfaces import Indices, Meaning, Metric, Pool, Resampling, Result, Rows
from gankit.metrics._distances import squared_distances
from gankit.metrics._rows import Matrix, check_pair, digests, feature_pair, float64_pair, permutation

BallCounts = tuple[NDArray[np.bool_], NDArray[np.int64]]
"""For each ball, whether it holds any of the other images; for each other image, the number of balls that hold it."""

LISTED = 16
"""An image's list holds (k + 1) times this many of its nearest images; for larger balls all distances are computed."""
LARGEST_RATIO = 20
"""Above this ratio of all images to the smaller side's no lists are made: a value uses few of the larger side's."""
CENTRES, COLUMNS = 512, 2048
"""Rows and columns of the distances that are held in memory at a time."""
SATURATED = 0.98
"""If the precision between real images is at least this, the values tell little."""
FAR_CENTRES = 256
"""Number of balls larger than their lists that are counted at a time."""
TIE = 1e-6
"""Relative tolerance above the median squared radius: rounding may separate the equal radii of mutual neighbours."""


def precision_recall(real: ArrayLike, fake: ArrayLike, *, k: int | None = None) -> dict[str, float]:
    """Precision, recall, density and coverage of generated images.

    The larger side is cut to the size of the smaller one, by a draw that depends on what the rows hold and not on their
    order. An image at exactly the radius lies in the ball, and equal rows are at a distance of exactly 0: a copy of a
    set lies in its balls, and where all features are equal, density is n / k and all other values are 1.

    Args:
        real: (n, d) finite features; not modified.
        fake: (m, d) finite features.
        k: which nearest neighbour makes the balls, at least 1. None scales it with the smaller set, of n images:
            5, but at most a tenth of them and at least 1.

    Returns:
        "precision": share of generated images in a ball of a real one, in [0, 1]; "recall": share of real images in a
        ball of a generated one, in [0, 1]; "density": the number of real balls that hold a generated image, averaged
        over the generated images and divided by k, in [0, n / k], about 1 for equal distributions; "coverage": share of
        real balls that hold a generated image, in [0, 1].

    Raises:
        GankitError: fewer than k + 2 rows, different d, values that are not finite, or k below 1.
    """
    x, y = check_pair(real, fake, min_rows=3, names=("real", "fake"))
    return _values(x, y, _k_for(min(len(x), len(y)), k))


def _k_for(n: int, k: int | None) -> int:
    """The k for n images: the given one, or 5, but at most a tenth of the images and at least 1."""
    if k is None:
        k = min(5, max(1, n // 10))
    if k < 1:
        raise GankitError(f"k = {k}: the nearest neighbour is k = 1")
    if n < k + 2:
        advice = "lower k" if k > 1 else "give more, or leave precision-recall out"
        raise GankitError(f"k = {k} needs at least {k + 2} images on each side, and one side has {n}; {advice}")
    return k


def _values(real: NDArray[Any], fake: NDArray[Any], k: int) -> dict[str, float]:
    n = min(len(real), len(fake))
    real, fake = (rows if len(rows) == n else rows[permutation(digests(rows))[:n]] for rows in (real, fake))
    return _Neighbours((real, fake), k).scores(np.arange(n), np.arange(n, 2 * n), k)


@final
class _Neighbours:
    """The images of two sets as one pool, and for each image a list of its nearest ones, from which balls are counted.

    The sets are (n, d) and (m, d) features, and k is the largest to expect.
    """

    def __init__(self, sets: tuple[NDArray[Any], NDArray[Any]], k: int) -> None:
        self.sets, self.content = sets, [digest for rows in sets for digest in digests(rows)]
        self.n = len(self.content)
        first_place: dict[bytes, int] = {}
        # Copies share the distances of the first of them, so that rounding cannot tell them apart.
        self.first_copy = np.array([first_place.setdefault(digest, place) for place, digest in enumerate(self.content)])
        self.origin = self._rows(np.arange(1))  # one for all blocks, so that their distances round alike
        length = min(self.n - 1, LISTED * (k + 1))
        self.listed, self.listed_squared = np.empty((self.n, length), np.int64), np.empty((self.n, length))
        for start in range(0, self.n, CENTRES):
            part = slice(start, start + CENTRES)
            self.listed[part], self.listed_squared[part] = self._nearest(np.arange(self.n)[part], length)

    def _rows(self, places: Indices) -> NDArray[Any]:
        real, fake = self.sets
        is_real = places < len(real)
        rows = np.empty((len(places), real.shape[1]), np.result_type(real, fake))
        rows[is_real], rows[~is_real] = real[places[is_real]], fake[places[~is_real] - len(real)]
        return rows

    def _squares(self, centres: Indices) -> Iterator[tuple[Indices, Matrix]]:
        """All places, in blocks of b: the places of each block, and the centres' (c, b) squared distances to them."""
        x = self._rows(centres)
        for start in range(0, self.n, COLUMNS):
            columns = np.arange(start, min(start + COLUMNS, self.n))
            distinct, copy_of = np.unique(self.first_copy[columns], return_inverse=True)
            yield columns, squared_distances(x, self._rows(distinct), self.origin)[:, copy_of]

    def _nearest(self, centres: Indices, length: int) -> tuple[Indices, Matrix]:
        """(c, length) places of the images nearest to each of (c,) centres, nearest first, and squared distances."""
        places, squares = [], []
        for columns, block in self._squares(centres):
            block[centres[:, None] == columns] = np.inf  # an image is not listed for itself
            nearest = _smallest(block, length)
            places.append(columns[nearest])
            squares.append(np.take_along_axis(block, nearest, 1))
        listed, listed_squared = np.concatenate(places, axis=1), np.concatenate(squares, axis=1)
        nearest = _smallest(listed_squared, length)
        order = np.take_along_axis(listed_squared, nearest, 1).argsort(1)
        nearest = np.take_along_axis(nearest, order, 1)
        return np.take_along_axis(listed, nearest, 1), np.take_along_axis(listed_squared, nearest, 1)

    def scores(self, real: Indices, fake: Indices, k: int) -> dict[str, float]:
        """The four values of real and generated images at these (n,) places each."""
        holds_a_fake, balls_around_each_fake = self._balls(real, fake, k)
        _, balls_around_each_real = self._balls(fake, real, k)
        return {
            "precision": float((balls_around_each_fake > 0).mean()),
            "recall": float((balls_around_each_real > 0).mean()),
            "density": float(balls_around_each_fake.mean() / k),
            "coverage": float(holds_a_fake.mean()),
        }

    def _balls(self, centres: Indices, others: Indices, k: int) -> BallCounts:
        """The counts of (m,) others in balls around (n,) centres, each up to its k-th nearest other centre."""
        is_centre, is_other = np.zeros(self.n, dtype=bool), np.zeros(self.n, dtype=bool)
        is_centre[centres] = is_other[others] = True
        listed, squared = self.listed[centres], self.listed_squared[centres]
        centres_so_far = is_centre[listed].cumsum(1)  # how many a list holds up to each place
        # Of a list with fewer than k centres argmax gives 0; such a list is not enough, see below.
        squared_radii = squared[np.arange(len(centres)), (centres_so_far >= k).argmax(1)]
        inside = (squared <= squared_radii[:, None]) & is_other[listed]
        # A list is enough if it holds the k-th neighbour and goes beyond the radius, or holds all other images.
        goes_beyond = (squared[:, -1] > squared_radii) | (squared.shape[1] == self.n - 1)
        is_enough = (centres_so_far[:, -1] >= k) & goes_beyond
        inside &= is_enough[:, None]
        hit, counts = inside.any(1), np.bincount(listed[inside], minlength=self.n)[others]
        too_large = np.flatnonzero(~is_enough)
        if len(too_large):
            for part in np.array_split(too_large, -(-len(too_large) // FAR_CENTRES)):
                hit[part], counts_of_part = self._far_balls(centres[part], centres, others, k)
                counts += counts_of_part
        return hit, counts

    def _far_balls(self, centres: Indices, all_centres: Indices, others: Indices, k: int) -> BallCounts:
        """Balls that reach beyond the lists, from all distances of their centres."""
        squared = np.concatenate([block for _, block in self._squares(centres)], axis=1)
        # Each centre is its own nearest neighbour, at distance 0, so that the k-th other one has the index k.
        squared_radii = np.partition(squared[:, all_centres], k, axis=1)[:, k]
        inside = squared[:, others] <= squared_radii[:, None]
        return np.asarray(inside.any(1)), inside.sum(0)


def _smallest(values: Matrix, count: int) -> Indices:
    """(n, up to count) places of the smallest values of each row, in any order."""
    if values.shape[1] <= count:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    return np.argpartition(values, count - 1, axis=1)[:, :count]


def realism_score(real: ArrayLike, fake: ArrayLike, *, k: int = 3) -> NDArray[np.float64]:
    """Realism scores, eq. 3: the largest ratio of a real image's radius to its distance from the generated image.

    The radius of a real image is the distance to its k-th nearest other real one. As published, only real images with
    radii up to the median are used: the balls of outliers are too wide. At 1 and above an image lies in one of the
    balls used. A copy of a real image that is used scores infinity, whatever the radius; a real image of radius 0 (one
    with k copies) gives a ratio of 0 to every image that is no copy of it.

    Args:
        real: (n, d) finite features.
        fake: (m, d) finite features.
        k: which neighbour, 3 in the paper.

    Returns:
        (m,) scores in [0, infinity], larger is more real.

    Raises:
        GankitError: fewer than k + 2 real images, k below 1, different d, or values that are not finite.
    """
    if k < 1:
        raise GankitError(f"k = {k}: the nearest neighbour is k = 1")
    names = ("features of the real images", "features of the generated images")
    reals, fakes = float64_pair(real, fake, min_rows=1, names=names)
    n = len(reals)
    if n < k + 2:
        raise GankitError(f"realism with k = {k} needs at least {k + 2} real images, and there are {n}: give more")
    squared_radii = np.concatenate([np.partition(squares, k, axis=1)[:, k] for squares in _all_squares(reals, reals)])
    kept = squared_radii <= np.median(squared_radii) * (1 + TIE)
    scores = [np.empty(0)]
    for squares in _all_squares(fakes, reals[kept]):
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(squares == 0, np.inf, squared_radii[kept] / squares)
        scores.append(np.sqrt(ratios.max(1)))
    return np.concatenate(scores)


def _all_squares(x: Matrix, y: Matrix) -> Iterator[Matrix]:
    """Squared distances of (n, d) to (m, d) rows, some rows of x at a time."""
    for start in range(0, len(x), CENTRES):
        yield squared_distances(x[start : start + CENTRES], y)


@final
class PrecisionRecall(Metric):
    """How many generated images look real, and how much of the real ones the generator covers.

    Args:
        k: which nearest neighbour gives a ball its radius. The default is 5, but at most a tenth of the smaller set and
            at least 1. In simulations with equal distributions on both sides (1,280 Gaussian dimensions, flat to steep
            spectra) it keeps precision and coverage below 0.98 from 10 images on. At 25 images it is 2 and gives a
            precision of 0.65 to 0.84 and a coverage of 0.77; 5 would give 0.86 to 0.97 and 0.98, near saturation. At 50
            images it is 5 and gives a precision of 0.83 to 0.97.
    """

    better = "higher"
    meanings: ClassVar = {
        "precision": Meaning("share of generated images that are near real ones: quality", "higher", share=True),
        "recall": Meaning("share of real images that are near generated ones: variety", "higher", share=True),
        "density": Meaning("how many real images a generated one is near, relative to the expected number", "higher"),
        "coverage": Meaning("share of real images with a generated one nearby: variety", "higher", share=True),
    }

    def __init__(self, *, k: Annotated[int, Ge(1)] | None = None) -> None:
        self.k = k

    def compute(self, real: Rows, fake: Rows) -> Result:
        """`precision`, `recall`, `density`, `coverage`, with the larger side cut to the size of the smaller one.

        Raises:
            GankitError: as `precision_recall`.
        """
        x, y = feature_pair(real, fake, min_rows=3)
        n = min(len(x), len(y))
        k = _k_for(n, self.k)
        return _result(_values(x, y, k), n, k)

    def warnings(self, real_vs_real: Mapping[str, float]) -> list[str]:
        """A warning where precision is saturated between real images already."""
        precision = real_vs_real.get("precision", 0.0)
        if precision < SATURATED:
            return []
        return [
            f"precision between real images is {precision:.3g} already: precision, recall and coverage are saturated "
            "at this number of images and tell little; lower k"
        ]

    def resampling(self, pool: Pool) -> Resampling:
        """Values from lists of the nearest images of each image of the pool, unless one side is many times larger."""
        n, m = pool.real.count, pool.fake.count
        can_share = 0 < n + m <= LARGEST_RATIO * min(n, m)
        return _SharedNeighbours(self, pool) if can_share else Resampling(self, pool)


def _result(values: dict[str, float], n: int, k: int) -> Result:
    warning = f"precision: k = {k} is more than a fifth of {n} images: balls hold most images; lower k"
    return Result(values, dict.fromkeys(values, (n, n)), {"k": k}, [warning] if 5 * k > n else [])


class _SharedNeighbours(Resampling):
    def __init__(self, metric: PrecisionRecall, pool: Pool) -> None:
        super().__init__(metric, pool)
        self.k = metric.k
        self.neighbours = _Neighbours(feature_pair(pool.real, pool.fake, min_rows=1), self.k or 5)
        self.smaller = min(pool.real.count, pool.fake.count)

    def whole(self) -> Result:
        k = _k_for(self.smaller, self.k)
        return _result(self._values(self.pool.real_places, self.pool.fake_places, k), self.smaller, k)

    def values(self, real: Indices, fake: Indices) -> dict[str, float]:
        return self._values(real, fake, self.k)

    def values_without(self, parts: Sequence[Indices]) -> list[Mapping[str, float]]:
        # With the k of the whole pool: values of another k are another quantity, and tell nothing of the error.
        k = _k_for(self.smaller, self.k)
        real, fake = self.pool.real_places, self.pool.fake_places
        return [self._values(np.setdiff1d(real, part), np.setdiff1d(fake, part), k) for part in parts]

    def _values(self, real: Indices, fake: Indices, k: int | None) -> dict[str, float]:
        n, content = min(len(real), len(fake)), self.neighbours.content
        k = _k_for(n, k)
        real, fake = (
            side if len(side) == n else side[permutation([content[place] for place in side])[:n]]
            for side in (real, fake)
        )
        return self.neighbours.scores(real, fake, k)
