"""How near an image is to the reals: the realism score of Kynkaanniemi et al. 2019, arXiv 1904.06991, eq. 3."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gankit.errors import GankitError
from gankit.metrics._distances import squared_distances
from gankit.metrics._rows import pair

NEIGHBOUR = 3
"""The paper's k."""
TIE = 1e-6
"""Squares that differ by less are equal: two images that are each other's k-th neighbour have one radius."""
DISTANCES = 2**24
"""Distances that are held at once."""


def realism_score(real: ArrayLike, fake: ArrayLike, *, k: int = NEIGHBOUR) -> NDArray[np.float64]:
    """Realism scores: the largest ratio of a real image's radius to its distance from the generated image.

    The radius of a real image is the distance to its k-th nearest other real one. As published, the half of the real
    images with the largest radii is left out: only radii up to the median count, so that lonely real images do not lend
    their wide balls. At 1 and above an image lies in a ball of those that are left. An image that equals one of them
    is at infinity, whatever the radius; a real image of radius 0 (one with k copies) gives 0 to all others.

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
    reals, fakes = pair(real, fake, 1, ("features of the real images", "features of the generated images"))
    n = len(reals)
    if n < k + 2:
        raise GankitError(f"realism with k = {k} needs at least {k + 2} real images, and there are {n}: give more")
    step = max(1, DISTANCES // n)
    radii = np.concatenate(
        [
            np.partition(squared_distances(reals[start : start + step], reals), k, axis=1)[:, k]
            for start in range(0, n, step)
        ]
    )
    kept = radii <= np.median(radii) * (1 + TIE)
    reals, radii = reals[kept], radii[kept]
    best = np.empty(len(fakes))
    for start in range(0, len(fakes), step):
        squares = squared_distances(fakes[start : start + step], reals)
        with np.errstate(divide="ignore", invalid="ignore"):
            best[start : start + step] = np.where(squares == 0, np.inf, radii / squares).max(1)
    return np.sqrt(best)
