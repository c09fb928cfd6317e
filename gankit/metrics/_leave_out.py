"""Traces of matrix square roots after some rows have been left out, from one eigendecomposition (own derivation).

For positive semi-definite A and B, tr sqrt(A) - tr sqrt(B) = (1 / pi) * integral over s > 0 of
log det(A + s^2) - log det(B + s^2), since the integral of 1 / (a + s^2) is pi / (2 sqrt(a)). With B diagonal and
A = B - Z'Z of few rows Z, the difference of the logarithms is log det(I - Z (B + s^2)^-1 Z'), the determinant of a
matrix with only as many rows as Z. In u = log s the integrand is analytic in a strip of half width pi / 2, so that the
trapezoidal rule with step h errs by about exp(-pi^2 / h) (Trefethen and Weideman 2014, SIAM Review 56).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

STEP = 0.5
"""Of the trapezoidal rule: an error of 3e-9 of the difference."""
MARGIN = 18.0
"""How far, in log s, the rule goes beyond the smallest and the largest eigenvalue: e^-18 of the difference is left."""
BLOCK = 2_000_000
"""Numbers that one step holds: 16 MB."""
SPURIOUS = 1e-13
"""Eigenvalues below this share of the largest are rounding errors of zero."""


def trace_roots(values: Matrix, removed: list[Matrix]) -> Matrix:
    """tr sqrt(diag(values) - Z'Z) for each Z.

    Args:
        values: (q,) eigenvalues, none negative but for rounding.
        removed: (k, q) rows each, with diag(values) - Z'Z positive semi-definite.

    Returns:
        One trace each. Where few rows are removed, the error is some 1e-8 of the change that removing them makes.
    """
    kept = values > SPURIOUS * values.max(initial=0.0)
    values = values[kept]
    whole = float(np.sqrt(values).sum())
    if not len(values):
        return np.zeros(len(removed))
    low, high = np.log(values.min()) / 2 - MARGIN, np.log(values.max()) / 2 + MARGIN
    nodes = np.exp(np.arange(low, high, STEP))
    shrink = np.sqrt(1 / (values + nodes[:, None] ** 2))  # (nodes, q)
    traces = []
    for rows in removed:
        part = rows[:, kept]
        if 3 * len(part) > len(values):
            left = np.linalg.eigvalsh(np.diag(values) - part.T @ part)
            traces.append(float(np.sqrt(left.clip(min=0)).sum()))
            continue
        at_once = max(1, BLOCK // part.size)
        logs = [_log_det(part * shrink[start : start + at_once, None]) for start in range(0, len(nodes), at_once)]
        traces.append(whole + STEP / np.pi * float(np.dot(np.concatenate(logs), nodes)))
    return np.array(traces)


def _log_det(rows: Matrix) -> Matrix:
    """For (p, k, q) rows R, the p values log det(I - R R').

    Rows that span a whole direction leave an eigenvalue of 0, which rounding may make slightly negative: it is clipped.
    """
    left = np.linalg.eigvalsh(np.eye(rows.shape[1]) - rows @ rows.transpose(0, 2, 1))
    logs: Matrix = np.log(left.clip(min=np.finfo(np.float64).eps)).sum(1)
    return logs
