"""Factors of covariances, and the trace term of the Frechet distance between them (Dowson and Landau 1982).

With factors A and B of two covariances A'A and B'B, the trace of sqrt(A'A B'B) is the nuclear norm of A B': real, not
negative, and without the product of covariances, whose rounding errors grow when a square root is taken. Any
factors will do: centred rows, triangular factors, or the roots that an eigendecomposition gives.
"""

import math

import numpy as np

from gankit.metrics._rows import Matrix

EPS = float(np.finfo(np.float64).eps)
CONDITION = 1e-10
"""How small a squared pivot of a Cholesky factor, or a squared singular value, may be relative to the largest."""
EIGENVALUES_FROM_SIZE = 512
"""Smallest size of a square product for which eigenvalues are tried before a singular value decomposition."""


def sum_of_squares(values: Matrix) -> float:
    """The squared Frobenius norm."""
    return float(np.vdot(values, values))


def rounding_threshold(eigenvalues: Matrix) -> float:
    """The size below which an eigenvalue may be a rounding error of zero."""
    return len(eigenvalues) * EPS * float(eigenvalues.max(initial=0.0))


def cholesky(covariance: Matrix) -> Matrix | None:
    """The upper triangular R with R'R = covariance, or None where it is singular or nearly so."""
    try:
        lower = np.linalg.cholesky(covariance).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        return None
    pivots = np.square(np.diagonal(lower))
    return lower.T if pivots.min() > CONDITION * pivots.max() else None


def root(covariance: Matrix) -> Matrix:
    """Some R with R'R = covariance, a positive semi-definite matrix.

    Eigenvalues within rounding of zero count as zero: the root of a rounding error is much larger than the error.
    """
    factor = cholesky(covariance)
    if factor is None:
        values, vectors = np.linalg.eigh(covariance)
        values[values < rounding_threshold(values)] = 0
        factor = np.sqrt(values)[:, None] * vectors.T
    return factor


def compact(rows: Matrix) -> Matrix:
    """Reduce (n, d) centred and scaled rows A to a factor R of at most d rows with R'R = A'A.

    Cholesky's factor if the covariance is well conditioned. Otherwise a QR decomposition of the rows: it avoids A'A,
    whose condition number is the square of theirs, and is exact for any rank.
    """
    if len(rows) <= rows.shape[1]:
        return rows
    factor = cholesky(rows.T @ rows)
    return np.asarray(np.linalg.qr(rows, mode="r")) if factor is None else factor


def covariance_term(a: Matrix, b: Matrix) -> float:
    """tr(A'A) + tr(B'B) - 2 |A B'| in the nuclear norm, of (n, d) and (m, d) factors.

    Never negative: a value within its rounding error of 0 counts as 0.
    """
    traces, product = sum_of_squares(a) + sum_of_squares(b), a @ b.T
    bound = _relative_rounding_bound(len(a), len(b), a.shape[1]) * traces
    singular_values = _singular_values(product)
    if singular_values is None:
        singular_values = np.linalg.svd(product, compute_uv=False).astype(np.float64, copy=False)
    else:
        # Twice the errors of roots of eigenvalues (`_singular_values`), added in quadrature: the sum counts twice.
        bound += EPS * singular_values[-1] ** 2 * float(np.sqrt((1 / singular_values**2).sum()))
    term = traces - 2 * float(singular_values.sum())
    return 0.0 if term <= bound else term


def _relative_rounding_bound(n: int, m: int, d: int) -> float:
    """Bound of the rounding error of `covariance_term`, relative to tr(A'A) + tr(B'B), which is at least 2 |A| |B|.

    Norms without a name are Frobenius norms, u is the machine epsilon. The product A B' errs by sqrt(d) u |A| |B|, and
    its singular value decomposition, which is backward stable, by sqrt(n + m) u |A| |B|: the usual bounds, with square
    roots because errors of either sign cancel (Higham and Mary 2019, SIAM J. Sci. Comput. 41). An error E of a matrix
    changes its nuclear norm by at most sqrt(min(n, m)) |E|. The factor 2 leaves room for the errors of the sums.
    """
    return 2 * EPS * math.sqrt(min(n, m)) * (math.sqrt(d) + math.sqrt(n + m))


def _singular_values(product: Matrix) -> Matrix | None:
    """Singular values in ascending order, as roots of eigenvalues: four times faster than their own decomposition.

    None for a small product, one that is not square, or one whose smallest singular value would be inexact.

    An eigenvalue w is off by some EPS w_max, its root by EPS w_max / (2 sqrt(w)). If the smallest is at least
    `CONDITION` times the largest, the sum of the roots has a relative error of some 1e-12.
    """
    if len(product) != product.shape[1] or len(product) < EIGENVALUES_FROM_SIZE:
        return None
    values: Matrix = np.linalg.eigvalsh(product @ product.T).astype(np.float64, copy=False)
    return np.sqrt(values) if values[0] > CONDITION * values[-1] else None
