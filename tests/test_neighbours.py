"""The nearest neighbours, against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from brute_force import distance, rows

from gankit.metrics._distances import Shortlist, nearest, within


class TestNeighbours:
    @pytest.mark.parametrize("k", [1, 3, 50])
    @pytest.mark.parametrize("offset", [0.0, 1e6])
    def test_nearest(self, k: int, offset: float) -> None:
        x, y = rows(30, 4, 1) + offset, rows(40, 4, 2) + offset
        y[9], x[4] = y[30], y[30]
        codes = np.arange(30) % 7, np.arange(40) % 5
        indices, lengths = nearest(x, y, k, never_match=codes)
        for i in range(30):
            line = sorted((distance(x[i], y[j]), j) for j in range(40) if codes[0][i] != codes[1][j])[:k]
            line += [(math.inf, -1)] * (k - len(line))
            assert list(zip(lengths[i].tolist(), indices[i].tolist(), strict=True)) == line

    @pytest.mark.parametrize("offset", [0.0, 30.0, 1e7])
    def test_nearest_of_either_sign(self, offset: float) -> None:
        x, y = rows(30, 3, 1) + offset, rows(40, 3, 2) + offset
        x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
        x[::3] *= -1
        indices, lengths = nearest(x, y, 2, either_sign=True)
        for i in range(30):
            line = sorted((min(distance(x[i], y[j]), distance(x[i], -y[j])), j) for j in range(40))[:2]
            assert list(zip(lengths[i].tolist(), indices[i].tolist(), strict=True)) == line

    def test_many_equal_rows(self) -> None:
        x = np.repeat(rows(4, 8, 1), 300, axis=0)
        indices, lengths = nearest(x, x, 2)
        assert (lengths == 0).all()
        assert (indices[:, 0] == np.arange(1200) // 300 * 300).all()

    def test_within(self) -> None:
        x, y = rows(60, 3, 1) + 100, rows(50, 3, 2) + 100
        radius = distance(x[5], y[6])  # exclusive
        found = {(int(i), int(j)) for part in within(x, y, radius) for i, j in zip(*part, strict=True)}
        assert found == {(i, j) for i in range(60) for j in range(50) if distance(x[i], y[j]) < radius}
        assert not any(len(i) for i, _ in within(x, x, 0.0))

    def test_shortlist(self) -> None:
        x, y, draw = rows(30, 3, 1), rows(40, 3, 2), np.random.default_rng(0)
        codes = np.arange(30) % 3, np.arange(40) % 3
        lists = Shortlist(x, y, never_match=codes, k=4)
        for share in (1.0, 0.5, 0.1, 0.0):
            allowed, chosen = draw.random(40) < share, draw.permutation(30)[:20]
            indices, lengths = lists.among(chosen, allowed)
            for i, index, length in zip(chosen, indices, lengths, strict=True):
                line = [(distance(x[i], y[j]), j) for j in np.flatnonzero(allowed) if codes[0][i] != codes[1][j]]
                assert (length, index) == min(line, default=(math.inf, -1))
