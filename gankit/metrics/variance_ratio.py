"""Total variance of generated over that of real features: the traces in Heusel et al. 2017, arXiv 1706.08500, eq. 6."""

from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gankit.cache import row_blocks
from gankit.errors import GankitError, counted
from gankit.interfaces import Meaning, Metric, Pool, Resampling, Rows
from gankit.metrics._rows import Matrix, SumsResampling, check_rows, float64_pair, pooled_features, read_rows


def variance_ratio(real: ArrayLike, fake: ArrayLike) -> float:
    """tr(S_fake) / tr(S_real) with unbiased covariances.

    Args:
        real: (n, d) finite features, n at least 2; not modified.
        fake: (m, d) finite features, m at least 2.

    Returns:
        At least 0. 1 is ideal; below 1 the generated images vary less than real ones, as a collapsed generator's do.

    Raises:
        GankitError: fewer than 2 rows, different d, values that are not finite, or real features that are constant.
    """
    x, y = float64_pair(real, fake, min_rows=2, names=("real", "fake"))
    return _ratio(_variance(y), _variance(x))


def _variance(features: NDArray[Any]) -> float:
    """Unbiased variance of (n, d) rows, summed over the dimensions, in blocks of rows.

    Measured from the first row: the deviations of equal rows are then exactly 0, and an offset costs no precision.
    """
    origin = features[0].astype(np.float64)
    mean = sum((block - origin).sum(0) for block in row_blocks(features)) / len(features)
    squares = sum(float(np.square(block - origin - mean).sum()) for block in row_blocks(features))
    return squares / (len(features) - 1)


def _ratio(fake_variance: float, real_variance: float) -> float:
    if real_variance <= 0:
        raise GankitError("variance-ratio: the real images' features are constant; look at the images or the extractor")
    return float(fake_variance / real_variance)


@final
class VarianceRatio(Metric):
    """How much generated images vary in feature space beside real ones: exposes collapse.

    The Frechet distance between few images hides collapse: as the generated covariance shrinks, so does the distance's
    upward bias.
    """

    meanings: ClassVar = {
        "variance-ratio": Meaning(
            "variance of generated over that of real images: below 1 the former are too alike", "1"
        )
    }
    takes_moments = True

    def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
        """`variance-ratio`, at least 0 and ideally 1.

        Raises:
            GankitError: as `variance_ratio`, or statistics that are not finite.
        """
        (real_dim, real_variance), (fake_dim, fake_variance) = (
            _dimension_and_variance(rows, side) for rows, side in ((real, "real"), (fake, "generated"))
        )
        if real_dim != fake_dim:
            raise GankitError(f"features differ in dimension: {real_dim} of real and {fake_dim} of generated images")
        return {"variance-ratio": _ratio(fake_variance, real_variance)}

    def resampling(self, pool: Pool) -> Resampling:
        """Values from sums of rows and of their squares."""
        return _Sums(self, pool) if min(pool.real.count, pool.fake.count) else Resampling(self, pool)


def _dimension_and_variance(rows: Rows, side: str) -> tuple[int, float]:
    if rows.statistics is not None:
        variances = np.diagonal(rows.statistics.covariance)
        check_rows(np.stack([rows.statistics.mean, variances]), "means and variances of the statistics")
        return len(variances), float(variances.sum())
    features = read_rows(rows, side)
    if len(features) < 2:
        raise GankitError(f"variance-ratio: {counted(len(features), f'{side} image')}; at least 2 are needed")
    return features.shape[1], _variance(features)


class _Sums(SumsResampling):
    def __init__(self, metric: VarianceRatio, pool: Pool) -> None:
        super().__init__(metric, pool)
        rows = pooled_features(pool, min_rows=1)
        rows -= rows.mean(0)
        squares = np.einsum("ij,ij->i", rows, rows)
        self.summands = np.column_stack([np.ones(len(rows)), rows, squares])  # 1, features, squared length
        self.least_scatter = 1e-6 * float(squares.sum())  # a smaller difference of sums has lost too many digits

    def from_sums(self, real: Matrix, fake: Matrix) -> dict[str, float] | None:
        """None with too few images, or where sums cancel so much that the rows themselves are needed."""
        if min(real[0], fake[0]) < 2:
            return None
        scatter = [float(sums[-1] - np.square(sums[1:-1]).sum() / sums[0]) for sums in (real, fake)]
        if min(scatter) <= self.least_scatter:
            return None
        return {"variance-ratio": _ratio(scatter[1] / (fake[0] - 1), scatter[0] / (real[0] - 1))}
