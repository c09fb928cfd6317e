"""What the augment does to images."""

from __future__ import annotations

import pytest
import torch
from adaptive_turns import Brighter, N
from gankit.augments.diffaugment import DiffAugment
from gankit.errors import PartError
from torch import Tensor

from gankit_adaptive_augment import AdaptiveAugment, Transforms


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_at_0_images_stay_and_at_1_they_are_those_of_the_inner_augment(dtype: torch.dtype) -> None:
    images = torch.randn(N, 3, 16, 16, dtype=dtype).contiguous(memory_format=torch.channels_last)
    inner = DiffAugment()
    never, always = AdaptiveAugment(inner=inner), AdaptiveAugment(inner=inner, start=1.0, p_max=1.0)
    assert torch.equal(never(images), images)
    torch.manual_seed(1)
    expected = inner(images)
    torch.manual_seed(1)
    result = always(images)
    assert torch.equal(result, expected)
    assert result.dtype == dtype
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.8])
def test_each_sample_has_a_coin_of_its_own(p: float) -> None:
    n = 20_000
    changed = AdaptiveAugment(inner=Brighter(), start=p)(torch.zeros(n, 2, 2, 2))
    coins = changed[:, 0, 0, 0]
    assert torch.equal(changed, coins[:, None, None, None].expand_as(changed))
    assert set(coins.tolist()) == {0.0, 1.0}
    error = (p * (1 - p) / n) ** 0.5
    assert abs(coins.mean().item() - p) < 5 * error
    # Neighbours know nothing of each other: both are 1 with p squared.
    both = (coins[::2] * coins[1::2]).mean().item()
    assert abs(both - p**2) < 5 * (p**2 * (1 - p**2) / (n / 2)) ** 0.5


def test_half_precision_images_do_not_make_coins_coarse() -> None:
    p = 2.0**-12  # bfloat16 draws are multiples of 2**-8, of which 0 alone would be below
    changed = AdaptiveAugment(inner=Brighter(), start=p)(torch.zeros(2**20, 1, 1, 1, dtype=torch.bfloat16))
    assert abs(changed.sum(dtype=torch.float32).item() - 2**8) < 5 * 2**4


@pytest.mark.slow
def test_it_is_twice_differentiable() -> None:
    augment = AdaptiveAugment(inner=DiffAugment(), start=0.5)

    def seeded(images: Tensor) -> Tensor:
        torch.manual_seed(3)
        return augment(images) ** 3

    images = torch.randn(4, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    same = (augment(images) == images).flatten(1).all(1)
    assert 0 < same.sum() < 4
    assert torch.autograd.gradcheck(seeded, images)
    assert torch.autograd.gradgradcheck(seeded, images)


def test_an_augment_with_coins_of_its_own_gets_the_probability() -> None:
    augment = AdaptiveAugment(inner=Transforms(), start=0.25)
    assert augment.inner.p == 0.25
    changed = AdaptiveAugment(inner=Transforms(), start=1.0)(torch.zeros(400, 1, 2, 2)).flatten(1).any(1)
    assert changed.float().mean() > 0.95  # by brightness, which chooses all of them
    with pytest.raises(PartError, match=r"leave inner\.probability out"):
        AdaptiveAugment(inner=Transforms(probability=0.5))
