"""The gradient penalty against what is known of it exactly; almost all in float64."""

import pytest
import torch
from hypothesis import strategies as st
from simple_critics import COUNTS, SEEDS, SHAPES, assert_equal, cases, half_square, linear, network, normal
from torch import nn

from gankit.errors import GankitError
from gankit.losses.gradient_penalty import gradient_penalty


@cases(COUNTS, SHAPES, SEEDS, st.sampled_from([0.0, 1.0, 2.5]))
def test_linear_critic_gives_its_norm_for_any_shape_and_batch_size(n, shape, seed, target):
    weight = normal(*shape, seed=seed)
    penalties = gradient_penalty(linear(weight), normal(n, *shape), normal(n, *shape, seed=1), target=target)
    assert penalties.shape == (n,)
    assert penalties.dtype == torch.float64
    assert_equal(penalties, (weight.square().sum().sqrt() - target).square().expand(n))


@pytest.mark.parametrize("n", [1, 4, 16, 64, 256])
def test_unit_linear_critic_gives_zero_for_every_batch_size(n):
    weight = normal(3, 4, 4)
    weight /= weight.norm()
    penalties = gradient_penalty(linear(weight), normal(n, 3, 4, 4), normal(n, 3, 4, 4, seed=1))
    assert_equal(penalties, torch.zeros(n, dtype=torch.float64))


def test_two_samples_with_two_slopes_have_two_penalties():
    real, fake = torch.full((2, 1), 2.0).double(), torch.zeros(2, 1).double()
    penalties = gradient_penalty(half_square, real, fake, alpha=torch.tensor([0.25, 1.0]))
    assert_equal(penalties, torch.tensor([0.25, 1.0]).double())  # slopes 0.5 and 2


@cases(COUNTS, SHAPES, SEEDS)
def test_every_sample_is_interpolated_by_its_own_alpha(n, shape, seed):
    real, fake = normal(n, *shape, seed=seed), normal(n, *shape, seed=seed + 1)
    alpha = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = [((a * r + (1 - a) * f).norm() - 1).square() for a, r, f in zip(alpha, real, fake, strict=True)]
    assert_equal(gradient_penalty(half_square, real, fake, alpha=alpha), torch.stack(expected))
    column = alpha.reshape(n, *[1] * len(shape))
    assert_equal(gradient_penalty(half_square, real, fake, alpha=column), torch.stack(expected))


def test_alpha_is_the_share_of_the_real_image():
    real, fake = normal(4, 2, 3), normal(4, 2, 3, seed=1)
    at_real = gradient_penalty(half_square, real, fake, alpha=torch.ones(4))
    at_fake = gradient_penalty(half_square, real, fake, alpha=torch.zeros(4))
    assert_equal(at_real, (real.flatten(1).norm(dim=1) - 1).square())
    assert_equal(at_fake, (fake.flatten(1).norm(dim=1) - 1).square())


def test_alpha_is_drawn_uniformly_for_every_sample():
    n = 4000
    torch.manual_seed(0)
    real = torch.ones(n, 1, dtype=torch.float64)
    alpha = 1 - gradient_penalty(half_square, real, torch.zeros_like(real)).sqrt()  # the slope of half x^2 at alpha
    assert len(alpha.unique()) == n
    deciles = torch.histc(alpha, 10, 0, 1)
    assert deciles.sum() == n
    assert (deciles - n / 10).abs().max() < 5 * (n * 0.09) ** 0.5


@cases(COUNTS, SEEDS)
def test_order_of_samples_does_not_matter(n, seed):
    real, fake, alpha = normal(n, 2, 3, 3, seed=seed), normal(n, 2, 3, 3, seed=seed + 1), torch.linspace(0, 1, n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    critic = network(18)
    penalties = gradient_penalty(critic, real, fake, alpha=alpha)
    assert_equal(gradient_penalty(critic, real[order], fake[order], alpha=alpha[order]), penalties[order])


@cases(COUNTS, SEEDS)
def test_other_samples_of_the_batch_do_not_matter(n, seed):
    real, fake, alpha = normal(n, 2, 3, 3, seed=seed), normal(n, 2, 3, 3, seed=seed + 1), torch.linspace(0, 1, n)
    critic = network(18)
    together = gradient_penalty(critic, real, fake, alpha=alpha)
    alone = [gradient_penalty(critic, real[[i]], fake[[i]], alpha=alpha[[i]]) for i in range(n)]
    assert_equal(together, torch.cat(alone))
    twice = gradient_penalty(critic, real.repeat(2, 1, 1, 1), fake.repeat(2, 1, 1, 1), alpha=alpha.repeat(2))
    assert_equal(twice.mean(), together.mean())


def test_empty_batch_has_no_penalties():
    empty = torch.zeros(0, 3, 2, 2)
    assert gradient_penalty(linear(torch.ones(3, 2, 2)), empty, empty).shape == (0,)


# --- laws -----------------------------------------------------------------------------------------------------------

FACTORS = st.floats(1e-3, 1e3)


@cases(FACTORS, st.floats(-1e3, 1e3))
def test_scaling_the_critic_scales_its_slope_and_an_offset_does_nothing(factor, offset):
    real, fake, alpha, critic = normal(3, 2, 4), normal(3, 2, 4, seed=1), torch.tensor([0.2, 0.5, 0.9]), network(8)
    slope = gradient_penalty(critic, real, fake, alpha=alpha, target=0.0).sqrt()
    scaled = gradient_penalty(lambda x: factor * critic(x) + offset, real, fake, alpha=alpha)
    assert_equal(scaled, (factor * slope - 1).square())


@cases(FACTORS)
def test_scaling_the_images_divides_the_slope(factor):
    real, fake, alpha, critic = normal(3, 2, 4), normal(3, 2, 4, seed=1), torch.tensor([0.2, 0.5, 0.9]), network(8)
    slope = gradient_penalty(critic, real, fake, alpha=alpha, target=0.0).sqrt()
    scaled = gradient_penalty(lambda x: critic(x / factor), factor * real, factor * fake, alpha=alpha)
    torch.testing.assert_close(scaled, (slope / factor - 1).square(), rtol=1e-8, atol=1e-10)


@cases(FACTORS)
def test_critic_and_target_scaled_together_scale_the_penalty_by_the_square(factor):
    real, fake, alpha, critic = normal(3, 2, 4), normal(3, 2, 4, seed=1), torch.tensor([0.2, 0.5, 0.9]), network(8)
    penalties = gradient_penalty(critic, real, fake, alpha=alpha)
    scaled = gradient_penalty(lambda x: factor * critic(x), real, fake, alpha=alpha, target=factor)
    assert_equal(scaled, factor**2 * penalties)


@cases(SEEDS, st.floats(0, 3))
def test_one_sided_is_two_sided_above_the_target_and_zero_below(seed, target):
    real, fake, alpha, critic = (
        normal(6, 8, seed=seed),
        normal(6, 8, seed=seed + 1),
        torch.linspace(0, 1, 6),
        network(8),
    )
    steep = lambda x: 5 * critic(x)  # noqa: E731
    slopes = gradient_penalty(steep, real, fake, alpha=alpha, target=0.0).sqrt()
    two = gradient_penalty(steep, real, fake, alpha=alpha, target=target)
    one = gradient_penalty(steep, real, fake, alpha=alpha, target=target, one_sided=True)
    assert (one <= two).all()
    assert_equal(one, torch.where(slopes > target, two, 0.0))


@pytest.mark.parametrize(("norm", "one", "two"), [(0.5, 0.0, 0.25), (3.0, 4.0, 4.0)])
def test_one_sided_spares_gentle_slopes(norm, one, two):
    weight = torch.tensor([norm], dtype=torch.float64)
    real = torch.ones(1, 1, dtype=torch.float64)
    assert gradient_penalty(linear(weight), real, real, one_sided=True).item() == pytest.approx(one, abs=1e-12)
    assert gradient_penalty(linear(weight), real, real).item() == pytest.approx(two)


# --- gradients ------------------------------------------------------------------------------------------------------


class Bias(nn.Module):
    """Scores that do not depend on the images at all."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, images):
        return self.bias.expand(len(images))


def zeroed(critic):
    for parameter in critic.parameters():
        nn.init.zeros_(parameter)
    return critic


def dead():
    """ReLUs that are all off."""
    critic = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    nn.init.constant_(critic[1].bias, -1e3)
    return critic


@pytest.mark.parametrize("target", [1.0, 2.0])
@pytest.mark.parametrize("make", [Bias, dead, lambda: zeroed(network(12)), lambda: zeroed(nn.Conv2d(3, 1, 2).double())])
def test_flat_critic_gives_the_squared_target_and_finite_gradients(make, target):
    critic = make()
    penalties = gradient_penalty(critic, normal(5, 3, 2, 2), normal(5, 3, 2, 2, seed=1), target=target)
    assert_equal(penalties, torch.full((5,), target**2, dtype=torch.float64))
    penalties.mean().backward()
    for parameter in critic.parameters():
        assert parameter.grad is None or (parameter.grad == 0).all()
    assert any(parameter.grad is not None for parameter in critic.parameters())


def test_only_the_critic_receives_gradients():
    generator = nn.Linear(2, 12).double()
    real = normal(4, 12).requires_grad_()
    alpha = torch.rand(4, dtype=torch.float64, requires_grad=True)
    critic = network(12)
    fake = generator(normal(4, 2))
    gradient_penalty(critic, real, fake, alpha=alpha).mean().backward()
    assert all(parameter.grad is None for parameter in generator.parameters())
    assert real.grad is None
    assert alpha.grad is None
    weights = [critic[1].weight, critic[1].bias, critic[3].weight]
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in weights)


def test_inputs_are_left_as_they_were():
    real, fake = normal(2, 3), normal(2, 3, seed=1)
    before = real.clone(), fake.clone()
    gradient_penalty(network(3), real, fake)
    assert not real.requires_grad
    assert not fake.requires_grad
    assert_equal((real, fake), before)


@pytest.mark.parametrize("one_sided", [False, True])
def test_derivatives_by_the_parameters_are_right_to_second_order(one_sided):
    real, fake, alpha = normal(3, 1, 2, 2), normal(3, 1, 2, 2, seed=1), torch.tensor([0.1, 0.5, 0.8])
    first, second = 2 * normal(3, 4, seed=2), 2 * normal(3, seed=3)
    first.requires_grad_()
    second.requires_grad_()

    def penalties(first, second):
        def critic(images):
            return torch.tanh(images.flatten(1) @ first.T) @ second

        return gradient_penalty(critic, real, fake, alpha=alpha, one_sided=one_sided)

    assert (penalties(first, second) > 0).any()
    assert torch.autograd.gradcheck(penalties, (first, second))
    assert torch.autograd.gradgradcheck(penalties, (first, second))


def test_gradient_step_moves_the_slope_towards_the_target():
    critic = nn.Linear(6, 1).double()
    real, fake = normal(8, 6), normal(8, 6, seed=1)
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        gradient_penalty(critic, real, fake).mean().backward()
        optimizer.step()
    assert critic.weight.norm().item() == pytest.approx(1.0, abs=1e-6)


@cases(
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([0.0, 1e-30, 1e-12, 1.0, 1e6]),
    st.sampled_from([0.0, 1e-20, 1.0, 1e4]),
    st.sampled_from([nn.ReLU(), nn.LeakyReLU(0.2), nn.Tanh(), nn.Softplus()]),
    st.booleans(),
    SEEDS,
)
def test_never_a_nan(dtype, image_scale, weight_scale, activation, same, seed):
    torch.manual_seed(seed)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(8, 4), activation, nn.Linear(4, 1)).to(dtype)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter *= weight_scale
    real = image_scale * torch.randn(3, 2, 2, 2, dtype=dtype)
    fake = real if same else image_scale * torch.randn(3, 2, 2, 2, dtype=dtype)
    penalties = gradient_penalty(critic, real, fake)
    assert penalties.isfinite().all()
    penalties.mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in critic.parameters())


def test_without_gradients_the_value_is_the_same_and_carries_no_graph():
    real, fake, alpha, critic = normal(3, 4), normal(3, 4, seed=1), torch.tensor([0.1, 0.5, 0.8]), network(4)
    expected = gradient_penalty(critic, real, fake, alpha=alpha)
    with torch.no_grad():
        penalties = gradient_penalty(critic, real, fake, alpha=alpha)
    assert not penalties.requires_grad
    assert_equal(penalties, expected.detach())


# --- critics of many kinds ------------------------------------------------------------------------------------------


@cases(COUNTS, st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))
def test_patch_scores_are_averaged_per_sample(n, channels, height, width):
    weight = normal(1, channels, 1, 1)
    penalties = gradient_penalty(
        lambda images: nn.functional.conv2d(images, weight),
        normal(n, channels, height, width),
        normal(n, channels, height, width, seed=1),
    )
    slope = weight.norm() / (height * width) ** 0.5  # each pixel has weight / (height * width)
    assert_equal(penalties, (slope - 1).square().expand(n))


def test_labels_reach_the_critic_unmixed():
    weights, labels, seen = normal(3, 4), torch.tensor([0, 2, 1, 2, 0]), []

    def critic(images, labels):
        seen.append(labels)
        return (images * weights[labels]).sum(1)

    penalties = gradient_penalty(critic, normal(5, 4), normal(5, 4, seed=1), labels)
    assert len(seen) == 1
    assert seen[0] is labels
    assert_equal(penalties, (weights.norm(dim=1)[labels] - 1).square())


def test_a_critic_of_images_alone_is_called_with_images_alone():
    calls = []

    def critic(*arguments):
        calls.append(len(arguments))
        return half_square(arguments[0])

    gradient_penalty(critic, normal(2, 3), normal(2, 3))
    gradient_penalty(critic, normal(2, 3), normal(2, 3), torch.zeros(2, 1))
    assert calls == [1, 2]


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_and_autocast_to_float16_is_off(half):
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(3, 8, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(32, 1))
    real, fake, alpha = torch.randn(4, 3, 4, 4).to(half), torch.randn(4, 3, 4, 4).to(half), torch.rand(4)
    expected = gradient_penalty(critic, real.float(), fake.float(), alpha=alpha)
    with torch.autocast("cpu", half):
        assert critic(real).dtype == half
        penalties = gradient_penalty(critic, real, fake, alpha=alpha)
    assert penalties.dtype == torch.float32
    assert torch.equal(penalties, expected) == (half == torch.float16)
    torch.testing.assert_close(penalties, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("critic", "real", "alpha", "message"),
    [
        (half_square, (4, 3, 2, 3), None, "must have one shape"),
        (half_square, (3, 3, 2, 2), None, "must have one shape"),
        (half_square, (4, 3, 2, 2), torch.rand(1), "one number per sample"),
        (half_square, (4, 3, 2, 2), torch.rand(4, 3, 2, 2), "one number per sample"),
        (lambda images: half_square(images).mean(), (4, 3, 2, 2), None, r"scores of shape \(\) for 4 images"),
        (lambda images: half_square(images)[:2], (4, 3, 2, 2), None, r"scores of shape \(2,\) for 4 images"),
        (lambda images: half_square(images).detach(), (4, 3, 2, 2), None, "cannot be differentiated"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(critic, real, alpha, message):
    with pytest.raises(GankitError, match=message):
        gradient_penalty(critic, torch.randn(*real), torch.randn(4, 3, 2, 2), alpha=alpha)
