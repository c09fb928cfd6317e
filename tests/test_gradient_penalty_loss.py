"""The gradient penalty as a loss: the turn's own draws, augmented images, mixed precision."""

import torch
from simple_critics import assert_equal, network, normal
from torch import nn

import gankit
from gankit.interfaces import Critic, Generator, Turn
from gankit.losses.gradient_penalty import GradientPenalty, gradient_penalty


class Pixels(Generator):
    latent_dim = 2

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 192).double()

    def forward(self, z, labels=None):
        return self.linear(z).tanh().reshape(-1, 3, 8, 8)


class Recorder(Critic):
    """A smooth critic that remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.net = network(192)
        self.seen = []

    def forward(self, images, labels=None):
        self.seen.append((images.detach().clone(), labels))
        return self.net(images)


class Draws:
    def __init__(self):
        self.shapes = []

    def uniform(self, *shape):
        self.shapes.append(shape)
        return torch.linspace(0.1, 0.9, shape[0], dtype=torch.float64)


def turn(**options):
    return Turn(
        "critic",
        Pixels(),
        Recorder(),
        real=lambda: normal(5, 3, 8, 8, seed=4).tanh(),
        labels=torch.arange(5),
        latents=normal(5, 2),
        step=0,
        random=Draws(),
        **options,
    )


def test_loss_is_the_mean_penalty_with_the_turns_own_draws():
    given_turn = turn()
    loss = GradientPenalty(target=2.0).critic(given_turn)
    assert given_turn.random.shapes == [(5,)]
    (_, labels), *rest = given_turn.critic.seen
    assert not rest
    assert torch.equal(labels, torch.arange(5))
    alpha = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    expected = gradient_penalty(
        given_turn.critic.net, given_turn.raw_real, given_turn.raw_fake, target=2.0, alpha=alpha
    )
    assert_equal(loss, expected.mean())
    assert GradientPenalty.per_sample
    assert GradientPenalty.default_weight == 10.0
    assert GradientPenalty().generator(given_turn) is None


def test_penalty_is_taken_between_the_augmented_images():
    torch.manual_seed(0)
    given_turn = turn(augment=gankit.build("augment", "diffaugment"))
    loss = GradientPenalty(one_sided=True).critic(given_turn)
    real, fake = given_turn.real, given_turn.fake
    assert not torch.equal(real, given_turn.raw_real)
    assert not torch.equal(fake, given_turn.raw_fake)
    ((images, _),) = given_turn.critic.seen
    alpha = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    share = alpha.reshape(5, 1, 1, 1)
    assert_equal(images, share * real + (1 - share) * fake)
    expected = gradient_penalty(given_turn.critic.net, real, fake, one_sided=True, alpha=alpha)
    assert_equal(loss, expected.mean())
    loss.backward()
    assert all(parameter.grad is None for parameter in given_turn.generator.parameters())
    assert given_turn.critic.net[1].weight.grad.isfinite().all()


def test_loss_agrees_with_and_without_mixed_precision_around_it():
    given_turn = turn()
    expected = GradientPenalty().critic(given_turn)
    with torch.autocast("cpu", torch.float16):
        assert_equal(GradientPenalty().critic(given_turn), expected)
