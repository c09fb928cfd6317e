"""Monge inception distance (MIND): Berthet et al. 2026, arXiv 2605.06797; a scaled sliced Wasserstein distance."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, cast, final

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import ArrayLike

from gankit.errors import GankitError
from gankit.interfaces import Indices, Meaning, Metric, Pool, Resampling, Result, Rows
from gankit.metrics._rows import LARGEST_POOL, Matrix, feature_pair, float64_pair, pooled_features

VALUES_AT_ONCE = 2**22
"""Number of projected values that are sorted at a time, where the projections are not kept."""


def monge_distance(x: ArrayLike, y: ArrayLike, *, projections: int = 1000) -> float:
    """3 d times the mean, over directions u, of the squared Wasserstein distance between the rows' projections on u.

    With n rows on either side and M directions that is 3 d / (n M) sum_u sum_j (sort(x u)_j - sort(y u)_j)^2. Sides of
    different length are compared as distributions, by their quantiles, so that every row counts. The directions are
    drawn once, from a fixed seed, so that the value is the same on every call.

    Args:
        x: (n, d) finite features; not modified.
        y: (m, d) finite features.
        projections: number of directions, at least 1; the paper uses 100 to 1000.

    Returns:
        At least 0, and 0 for equal sets. As with the Frechet distance its mean is above 0 for finite sets of one
        distribution, and falls with their size: read it beside the value between real images.

    Raises:
        GankitError: an empty side, different d, values that are not finite, or no projection.
    """
    if projections < 1:
        raise GankitError(f"projections = {projections}: at least 1 is needed")
    first, second = float64_pair(x, y, min_rows=1)
    step = max(1, VALUES_AT_ONCE // (len(first) + len(second)))
    total = sum(
        float(_squared_distances(first @ directions, second @ directions).sum())
        for directions in _directions(first.shape[1], projections, step)
    )
    return float(3 * first.shape[1] * total / projections)


def _directions(dim: int, count: int, step: int) -> Iterator[Matrix]:
    """(dim, k) unit vectors, at most `step` at a time, `count` in all; the same whatever the step."""
    draw = np.random.default_rng(0)
    for start in range(0, count, step):
        vectors: Matrix = draw.normal(size=(min(step, count - start), dim))
        vectors /= np.sqrt(np.square(vectors).sum(1, keepdims=True))
        yield vectors.T


def _squared_distances(x: Matrix, y: Matrix) -> Matrix:
    """(k,) squared Wasserstein distances between the columns of (n, k) and (m, k), from sorted values."""
    n, m = len(x), len(y)
    x, y = np.sort(x, axis=0), np.sort(y, axis=0)
    if n == m:
        return cast(Matrix, np.square(x - y).mean(0))
    # The quantile functions are constant between these edges, in units of 1 / (n m).
    edges = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    shares = np.diff(edges, prepend=0) / (n * m)
    return shares @ np.square(x[(edges - 1) // m] - y[(edges - 1) // n])


@final
class Mind(Metric):
    """The sliced Wasserstein distance between real and generated images in feature space: no Gaussian is assumed.

    Args:
        projections: number of random directions, at most 10,000; with more, the value depends less on them.
    """

    better = "lower"
    meanings: ClassVar = {"mind": Meaning("mean distance between projections of both sides' features", "lower")}

    def __init__(self, *, projections: Annotated[int, Ge(1), Le(10_000)] = 1000) -> None:
        self.projections = projections

    def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
        """`mind`, at least 0; its mean is above 0 for equal distributions, the more so the fewer images there are.

        Raises:
            GankitError: as `monge_distance`.
        """
        return {"mind": monge_distance(*feature_pair(real, fake, min_rows=1), projections=self.projections)}

    def resampling(self, pool: Pool) -> Resampling:
        """Values from projections that are computed once, for up to 7,000 images."""
        can_share = pool.real.count + pool.fake.count <= LARGEST_POOL
        return _SharedProjections(self, pool) if can_share else Resampling(self, pool)


class _SharedProjections(Resampling):
    def __init__(self, metric: Mind, pool: Pool) -> None:
        super().__init__(metric, pool)
        features = pooled_features(pool, min_rows=1)
        self.scale = 3 * features.shape[1]
        (directions,) = _directions(features.shape[1], metric.projections, metric.projections)
        self.projected = features @ directions

    def whole(self) -> Result:
        return Result(self.values(self.pool.real_places, self.pool.fake_places))

    def values(self, real: Indices, fake: Indices) -> dict[str, float]:
        distances = _squared_distances(self.projected[real], self.projected[fake])
        return {"mind": self.scale * float(distances.mean())}
