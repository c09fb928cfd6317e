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
        self._rows: list[NDArray[np.floating]] = []  # those that are not yet in the scatter
        self._scattered = 0
        self._mean: Matrix | None = None
        self._scatter: Matrix | None = None  # sum of outer products of centred rows
        self._moments: Moments | None = None

    def add(self, rows: NDArray[np.floating]) -> None:
        """Take in (n, d) rows; a copy, since the caller may fill its buffer again.

        Raises:
            GankitError: not (n, d), another d than before, or values that are not finite.
        """
        self._take(np.array(checked(rows, "features")))

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
                merged.set_moments(part._moments)
            if part._mean is not None and part._scatter is not None:
                merged._absorb(part._scattered, part._mean, part._scatter)
            for rows in part._rows:
                merged._take(rows)
        return merged

    def _take(self, rows: NDArray[np.floating]) -> None:
        self._check(rows.shape[1])
        if not len(rows):
            return
        self._rows.append(rows)
        self.n = (self.n or 0) + len(rows)
        if sum(map(len, self._rows)) >= (2 * self.dim if self._scatter is None else self.BLOCK):
            self._flush()

    def _check(self, dim: int) -> None:
        if self._moments is not None:
            raise GankitError("moments stand for a whole set: they cannot be joined with other features")
        if self.n and dim != self.dim:
            raise GankitError(f"features have {dim} dimensions after {self.dim}: use one extractor")

    def _flush(self) -> None:
        """Put the rows into mean and scatter."""
        while self._rows:
            rows = self._rows.pop(0)
            while self._rows and len(rows) < self.BLOCK:
                rows = np.concatenate([rows, *self._rows])
                self._rows = []
            for start in range(0, len(rows), self.BLOCK):
                block = rows[start : start + self.BLOCK].astype(np.float64)
                mean = block.mean(0)
                block -= mean
                self._add(len(block), mean, block.T @ block)

    def _absorb(self, n: int, mean: Matrix, scatter: Matrix) -> None:
        self._check(len(mean))
        self._add(n, mean, scatter)
        self.n = (self.n or 0) + n

    def _add(self, n: int, mean: Matrix, scatter: Matrix) -> None:
        if self._mean is None or self._scatter is None:
            self._scattered, self._mean, self._scatter = n, mean.copy(), scatter.copy()
            return
        shift, total = mean - self._mean, self._scattered + n
        self._mean += shift * (n / total)
        self._scatter += scatter
        self._scatter += np.outer(shift, shift * (self._scattered * n / total))
        self._scattered = total

    @property
    def dim(self) -> int:
        """Dimension of the features, 0 before the first."""
        if self._moments is not None:
            return len(self._moments.mean)
        if self._mean is not None:
            return len(self._mean)
        return self._rows[0].shape[1] if self._rows else 0

    def rows(self) -> Matrix | None:
        """(n, d) float64 rows, where all of them are still at hand."""
        if self._scatter is not None or not self._rows:
            return None
        return np.concatenate(self._rows).astype(np.float64, copy=False)

    def moments(self) -> Moments:
        """Mean and unbiased covariance.

        Raises:
            GankitError: fewer than 2 rows.
        """
        if self._moments is not None:
            return self._moments
        if self.n is None or self.n < 2:
            raise GankitError(f"{self.n} rows of features; a covariance needs at least 2")
        self._flush()
        assert self._mean is not None
        assert self._scatter is not None
        return Moments(self.n, self._mean, self._scatter / (self.n - 1))

    def mean_and_factor(self) -> tuple[Matrix, Matrix]:
        """The mean, and a factor A of the covariance: A'A; as exact as what is kept allows."""
        if (rows := self.rows()) is not None and len(rows) > 1:
            mean = rows.mean(0)
            return mean, compact((rows - mean) / math.sqrt(len(rows) - 1))
        moments = self.moments()
        return moments.mean, root(moments.covariance)
