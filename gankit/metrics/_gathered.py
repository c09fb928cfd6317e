"""Features of one side as they come in: rows while they are few, then co-moments (Chan, Golub and LeVeque 1983)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gankit.errors import GankitError
from gankit.interfaces import Moments
from gankit.metrics._covariance import Matrix, compact, root
from gankit.metrics._rows import checked


class Gathered:
    """What is needed of (n, d) features for their mean and covariance, in memory that does not grow with n.

    Below 2 d rows the rows themselves are kept: they are smaller than a co-moment, and exact for any rank. Two of them
    merge to what one pass gives.

    Attributes:
        n: rows taken in; None where moments came without a number.
    """

    BLOCK = 4096

    def __init__(self) -> None:
        self.n: int | None = 0
        self._rows: list[NDArray[np.floating]] = []
        self._mean: Matrix | None = None
        self._scatter: Matrix | None = None  # sum of outer products of centred rows
        self._moments: Moments | None = None

    def add(self, rows: NDArray[np.floating]) -> None:
        """Take in (n, d) rows; a copy, since the caller may fill its buffer again.

        Raises:
            GankitError: not (n, d), another d than before, or values that are not finite.
        """
        self._take(checked(rows, "features"))

    def set_moments(self, moments: Moments) -> None:
        """Take moments in place of rows.

        Raises:
            GankitError: there are rows already.
        """
        if self.n != 0:
            raise GankitError("moments stand for a whole set: they cannot be joined with other features")
        self.n, self._moments = moments.n, moments

    def merge(self, other: Gathered) -> Gathered:
        """Both together; neither is changed.

        Raises:
            GankitError: they differ in dimension, or either has moments without rows.
        """
        merged = Gathered()
        for part in (self, other):
            if part._moments is not None:
                if self.n and other.n:
                    raise GankitError("moments stand for a whole set: they cannot be joined with other features")
                merged.set_moments(part._moments)
            elif part._mean is not None and part._scatter is not None:
                merged._absorb(part.n or 0, part._mean, part._scatter)
            for rows in part._rows:
                merged._take(rows)
        return merged

    def _take(self, rows: NDArray[np.floating]) -> None:
        assert self.n is not None
        if self._moments is not None:
            raise GankitError("moments stand for a whole set: they cannot be joined with other features")
        if self.n and rows.shape[1] != self.dim:
            raise GankitError(f"features have {rows.shape[1]} dimensions after {self.dim}: use one extractor")
        if self._mean is None:
            self._rows.append(np.array(rows))
            self.n += len(rows)
            if self.n < 2 * self.dim:
                return
            gathered, self._rows, self.n = self._rows, [], 0
            rows = np.concatenate(gathered)
        for start in range(0, len(rows), self.BLOCK):
            block = np.asarray(rows[start : start + self.BLOCK], dtype=np.float64)
            mean = block.mean(0)
            block = block - mean
            self._absorb(len(block), mean, block.T @ block)

    def _absorb(self, n: int, mean: Matrix, scatter: Matrix) -> None:
        assert self.n is not None
        if self._rows:  # few rows beside co-moments of the other part of a merge
            gathered, self._rows, self.n = self._rows, [], 0
            self._mean, self._scatter = mean.copy(), scatter.copy()
            self.n = n
            for rows in gathered:
                self._take(rows)
            return
        if self._mean is None or self._scatter is None:
            self.n, self._mean, self._scatter = n, mean.copy(), scatter.copy()
            return
        if len(mean) != len(self._mean):
            raise GankitError(f"features have {len(mean)} dimensions after {len(self._mean)}: use one extractor")
        shift, total = mean - self._mean, self.n + n
        self._mean += shift * (n / total)
        self._scatter += scatter
        self._scatter += np.outer(shift, shift * (self.n * n / total))
        self.n = total

    @property
    def dim(self) -> int:
        """Dimension of the features, 0 before the first."""
        if self._moments is not None:
            return len(self._moments.mean)
        if self._mean is not None:
            return len(self._mean)
        return self._rows[0].shape[1] if self._rows else 0

    def rows(self) -> Matrix | None:
        """(n, d) float64 rows, where they are still at hand."""
        return np.concatenate(self._rows).astype(np.float64) if self._rows else None

    def moments(self) -> Moments:
        """Mean and unbiased covariance.

        Raises:
            GankitError: fewer than 2 rows.
        """
        if self._moments is not None:
            return self._moments
        if self.n is None or self.n < 2:
            raise GankitError(f"{self.n} rows of features; a covariance needs at least 2")
        if (rows := self.rows()) is not None:
            mean = rows.mean(0)
            rows = rows - mean
            return Moments(self.n, mean, rows.T @ rows / (self.n - 1))
        assert self._mean is not None
        assert self._scatter is not None
        return Moments(self.n, self._mean, self._scatter / (self.n - 1))

    def mean_and_factor(self) -> tuple[Matrix, Matrix]:
        """The mean, and a factor A of the covariance: A'A; as exact as what is kept allows."""
        if (rows := self.rows()) is not None:
            mean = rows.mean(0)
            return mean, compact((rows - mean) / math.sqrt(len(rows) - 1))
        moments = self.moments()
        return moments.mean, root(moments.covariance)
