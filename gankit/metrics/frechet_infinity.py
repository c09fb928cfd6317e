"""Frechet distance extrapolated to infinitely many images: Chong and Forsyth 2020, arXiv 1911.07023, sec. 4."""

from typing import Annotated, ClassVar, final

import numpy as np
from pydantic import Field

from gankit.errors import GankitError
from gankit.interfaces import Meaning, Metric, Result, Rows
from gankit.metrics._rows import digests, feature_pair, permutation
from gankit.metrics.frechet import frechet_distance


@final
class FrechetInfinity(Metric):
    """The intercept of a straight line fitted to Frechet distances over 1 / n: the distance for infinitely many images.

    At each n both sides are cut to n images, since the reals bring as much bias as the generated images. With fewer
    than twice as many images as dimensions the bias is far from linear in 1 / n, and the extrapolation is refused:
    for a true distance of 5 in 2048 dimensions it gives 31 at n = 500 and 21 at n = 1000, hardly better than the plain
    value.

    Args:
        points: number of sizes, from half of the images to all of them, evenly spaced in 1 / n.
    """

    better = "lower"
    meanings: ClassVar = {"frechet-infinity": Meaning("the Frechet distance for infinitely many images", "lower")}
    jackknife_groups = 10  # each value takes as many Frechet distances as there are points

    def __init__(self, *, points: Annotated[int, Field(ge=3, le=100)] = 15) -> None:
        self.points = points

    def compute(self, real: Rows, fake: Rows) -> Result:
        """`frechet-infinity`, which may be negative.

        Raises:
            GankitError: either side has fewer than 4 images, or fewer than twice the number of dimensions.
        """
        # Shuffled by content: the first rows are a random sample, whatever order the rows arrived in. Rows common to
        # both sides come in the same order on both, so that the first n of either side overlap in the same proportion
        # for every n. With two orders the overlap would grow with n, and the bias would not be in proportion to 1 / n.
        # At least 4 rows, so that half of them have a covariance.
        sides = [rows[permutation(digests(rows))] for rows in feature_pair(real, fake, min_rows=4)]
        n, dim = min(map(len, sides)), sides[0].shape[1]
        if n < 2 * dim:
            raise GankitError(
                f"frechet-infinity needs at least {2 * dim} images of each side, twice the {dim} dimensions of the "
                f"features, and there are {n}: its line would extrapolate from values that are all bias; use kid"
            )
        sizes = np.unique(np.floor(n / np.linspace(1, 2, self.points)).astype(np.int64))
        values = [frechet_distance(sides[0][:size], sides[1][:size]) for size in sizes]
        intercept = float(np.polynomial.Polynomial.fit(1 / sizes, values, 1).convert().coef[0])
        return Result({"frechet-infinity": intercept}, counts={"frechet-infinity": (n, n)})
