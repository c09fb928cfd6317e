"""Frechet distance extrapolated to infinitely many images: Chong and Forsyth 2020, arXiv 1911.07023, sec. 4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, final

import numpy as np
from pydantic import Field

from gankit.errors import GankitError
from gankit.metrics._rows import FeatureRows, digests, shuffled
from gankit.metrics.frechet import frechet_distance


@final
class FrechetInfinity(FeatureRows):
    """The Frechet distance at 1 / n = 0 of a straight line through its values at several n.

    Both sides are drawn at each n, since the reals bring as much bias as the generated images. Below twice as many
    images as dimensions the bias is far from linear in 1 / n, and the extrapolation is refused: of a true distance of
    5 in 2048 dimensions it makes 31 at n = 500 and 21 at n = 1000, hardly better than the plain value.
    """

    better = "lower"
    jackknife_groups = 10

    def __init__(self, *, points: Annotated[int, Field(ge=3, le=100)] = 15) -> None:
        """
        Args:
            points: sizes from half of the images to all, evenly spaced in 1 / n.
        """
        super().__init__()
        self.points = points

    def compute(self) -> dict[str, float]:
        """`frechet-infinity`, which may be negative.

        Raises:
            GankitError: either side has fewer than twice as many images as dimensions.
        """
        # Mixed by content, so that any first rows are a random sample that depends on nothing but the rows.
        sides = [rows[shuffled(digests(rows))] for rows in self.both(2)]
        n, dim = min(map(len, sides)), sides[0].shape[1]
        if n < 2 * dim:
            raise GankitError(
                f"frechet-infinity needs at least {2 * dim} images of each side, twice the {dim} dimensions of the "
                f"features, and there are {n}: its line would extrapolate from values that are all bias; take kid"
            )
        shares = np.linspace(1, 2, self.points)  # n / size
        sizes = np.unique(np.floor(n / shares).astype(np.int64))
        values = [frechet_distance(sides[0][:size], sides[1][:size]) for size in sizes]
        return {"frechet-infinity": float(np.polynomial.Polynomial.fit(1 / sizes, values, 1).convert().coef[0])}

    def counts(self) -> Mapping[str, tuple[int, int]]:
        """As many images of either side as the smaller one has."""
        n = min(sum(map(len, side)) for side in (self.real, self.fake))
        return {"frechet-infinity": (n, n)}
