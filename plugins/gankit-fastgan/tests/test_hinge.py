"""The hinge loss with a random margin, computed by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from gankit_fastgan import FastGANHinge


def turn(real, fake, draws):
    """Scores, and draws that are known."""
    given = iter(draws)
    return SimpleNamespace(
        real_scores=torch.tensor(real), fake_scores=torch.tensor(fake),
        random=SimpleNamespace(uniform=lambda *shape: torch.tensor(next(given)).reshape(shape)),
    )  # fmt: skip


def test_each_score_has_a_margin_of_its_own():
    """Margins 0.8 and 1 for reals, 0.9 twice for fakes."""
    made = turn([[0.5], [0.95]], [[-2.0], [0.1]], [[0.0, 1.0], [0.5, 0.5]])
    assert FastGANHinge().critic(made).item() == pytest.approx((0.3 + 0.05) / 2 + (0.0 + 1.0) / 2)
    assert FastGANHinge().generator(made).item() == pytest.approx(0.95)


def test_margins_lie_between_four_fifths_and_one():
    """And in the middle on average."""
    zeros = torch.zeros(5000, 2).tolist()
    made = turn(zeros, zeros, [torch.rand(10000).tolist(), torch.zeros(10000).tolist()])
    assert FastGANHinge().critic(made).item() == pytest.approx(0.9 + 0.8, abs=0.003)
