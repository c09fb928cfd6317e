import torch
from gankit_soft_margin import SoftMargin

import gankit.testing


class TestSoftMargin(gankit.testing.LossTests):
    part = SoftMargin


def test_a_margin_of_zero_is_the_non_saturating_loss() -> None:
    class Scores:
        real_scores, fake_scores = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])

    expected = gankit.build("loss", "non-saturating").critic(Scores)
    torch.testing.assert_close(SoftMargin(margin=0.0).critic(Scores), expected)
