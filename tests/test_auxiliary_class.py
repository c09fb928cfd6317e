"""The loss auxiliary-class: the cross entropy of both sides."""

import numpy as np
import pytest
import torch
from loss_turns import turn

import gankit
from gankit.errors import PartError
from gankit.interfaces import Critic
from gankit.nn.layers import set_influence


class Naming(Critic):
    """Pixels are the features, their sum is the score, and each feature is the logit of a class."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def features(self, images):
        self.passes += 1
        return images.flatten(1)

    def score(self, features, labels=None):
        return features.sum(1)

    def forward(self, images, labels=None):
        return self.score(self.features(images), labels)

    def class_logits(self, features):
        return 2 * features


def cross_entropy(logits, labels):
    return np.mean([np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, labels, strict=True)])


@pytest.mark.parametrize("fake", [True, False])
@pytest.mark.parametrize("factor", [1.0, 0.1, 0.0])
def test_auxiliary_class_is_the_cross_entropy_of_both_sides(fake, factor):
    draw = np.random.default_rng(0)
    real, made, labels = draw.normal(size=(5, 3)), draw.normal(size=(5, 3)), np.array([0, 1, 2, 1, 1])
    loss = gankit.build("loss", "auxiliary-class", gankit.ImageSpec(3, 1, 1, classes=3), fake=fake, generator=factor)
    expected = cross_entropy(2 * real, labels) + (cross_entropy(2 * made, labels) if fake else 0)
    critic = Naming()
    given = turn(real, made, critic)
    given.labels = torch.tensor(labels)
    assert loss.critic(given).item() == pytest.approx(expected, rel=1e-12)
    assert given.real_scores.shape == (5,)
    assert critic.passes == 1, "scores and logits share one pass over reals and fakes"
    given = turn(real, made, critic, side="generator")
    given.labels = torch.tensor(labels)
    value = loss.generator(given)
    if factor:
        assert value.item() == pytest.approx(factor * cross_entropy(2 * made, labels), rel=1e-12)
        (gain,) = torch.autograd.grad(value, [given.generator.gain])
        assert torch.isfinite(gain)
    else:
        assert value is None


def test_auxiliary_class_of_a_head_that_knows_nothing_is_the_logarithm_of_the_classes():
    image = gankit.ImageSpec(3, 16, 16, classes=3)
    critic = gankit.build("critic", "resnet", image, width=4, class_head=True)
    set_influence(critic, 0.0)
    given = turn(np.zeros((4, 768)), np.ones((4, 768)), critic.double())
    given.labels, given.critic = torch.tensor([0, 1, 2, 0]), critic
    given.real, given.fake = torch.randn(2, 4, 3, 16, 16, dtype=torch.float64)
    value = gankit.build("loss", "auxiliary-class", image).critic(given)
    assert value.item() == pytest.approx(2 * np.log(3), rel=1e-12)


@pytest.mark.parametrize("image", [gankit.ImageSpec(3, 16, 16), gankit.ImageSpec(3, 16, 16, conditions=2)])
def test_auxiliary_class_needs_classes(image):
    with pytest.raises(PartError, match="auxiliary-class needs classes: set data"):
        gankit.build("loss", "auxiliary-class", image)
