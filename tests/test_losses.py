"""Every loss, both sides, against closed forms."""

import numpy as np
import pytest
import torch
from loss_turns import Brighter, HalfSquare, Linear, turn
from torch import nn

import gankit
from gankit.interfaces import Augment
from gankit.losses.gradient_penalty import gradient_penalty
from gankit.registry import registry

ADVERSARIAL = ["wasserstein", "minimax", "non-saturating", "least-squares", "hinge", "relativistic"]


def log_sigmoid(scores):
    return -np.logaddexp(0, -scores)


CRITIC = {
    "wasserstein": lambda real, fake: fake.mean() - real.mean(),
    "minimax": lambda real, fake: -log_sigmoid(real).mean() - log_sigmoid(-fake).mean(),
    "non-saturating": lambda real, fake: -log_sigmoid(real).mean() - log_sigmoid(-fake).mean(),
    "least-squares": lambda real, fake: ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2,
    "hinge": lambda real, fake: np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean(),
    "relativistic": lambda real, fake: -log_sigmoid(real - fake).mean(),
}
GENERATOR = {
    "wasserstein": lambda real, fake: -fake.mean(),
    "minimax": lambda real, fake: log_sigmoid(-fake).mean(),
    "non-saturating": lambda real, fake: -log_sigmoid(fake).mean(),
    "least-squares": lambda real, fake: ((fake - 1) ** 2).mean() / 2,
    "hinge": lambda real, fake: -fake.mean(),
    "relativistic": lambda real, fake: -log_sigmoid(fake - real).mean(),
}


@pytest.mark.parametrize("pixels", [1, 6])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_losses_have_their_papers_values(name, pixels):
    draw = np.random.default_rng(0)
    real, fake = draw.normal(1, 2, (5, pixels)), draw.normal(-1, 2, (5, pixels))
    loss = gankit.build("loss", name)
    assert loss.critic(turn(real, fake)).item() == pytest.approx(CRITIC[name](real, fake), rel=1e-12)
    generator = loss.generator(turn(real, fake, side="generator"))
    assert generator.item() == pytest.approx(GENERATOR[name](real, fake), rel=1e-12)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_each_side_pulls_its_own_way(name):
    loss = gankit.build("loss", name)
    given = turn([[0.3], [-0.2]], [[0.1], [0.4]])
    given.real_scores.requires_grad_()
    given.fake_scores.requires_grad_()
    real, fake = torch.autograd.grad(loss.critic(given), [given.real_scores, given.fake_scores])
    assert (real < 0).all()
    assert (fake > 0).all()
    given = turn([[0.3], [-0.2]], [[0.1], [0.4]], side="generator")
    (fake,) = torch.autograd.grad(loss.generator(given), given.fake_scores)
    assert (fake < 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("real", "fake"), [(1e4, 1e4), (1e4, -1e4), (-1e4, 1e4), (-1e4, -1e4)])
@pytest.mark.parametrize("name", ["minimax", "non-saturating", "relativistic"])
def test_logistic_losses_are_finite_at_any_score(name, real, fake, dtype):
    loss = gankit.build("loss", name)
    for side, formula in (("critic", CRITIC), ("generator", GENERATOR)):
        given = turn([[real]], [[fake]], side=side)
        given.generator.to(dtype)
        given.latents = given.latents.to(dtype)
        given.real_scores = given.real.to(dtype).requires_grad_()
        given.fake_scores = given.fake.detach().requires_grad_()
        value = getattr(loss, side)(given)
        assert value.dtype == dtype
        assert value.item() == pytest.approx(formula[name](np.float64(real), np.float64(fake)), rel=1e-6, abs=1e-6)
        slopes = torch.autograd.grad(value, [given.real_scores, given.fake_scores], allow_unused=True)
        assert all(slope is None or slope.isfinite().all() for slope in slopes)


def test_saturating_generator_learns_nothing_from_a_sure_critic_and_the_other_does():
    slopes = {}
    for name in ("minimax", "non-saturating"):
        given = turn([[0.0]], [[-30.0]], side="generator")
        (slopes[name],) = torch.autograd.grad(gankit.build("loss", name).generator(given), given.fake_scores)
    assert slopes["minimax"].abs().item() < 1e-12
    assert slopes["non-saturating"].item() == pytest.approx(-1)


def test_relativistic_sides_mirror_each_other_and_ignore_a_common_offset():
    real, fake = np.array([[0.5], [2.0], [-1.0]]), np.array([[1.5], [-3.0], [0.2]])
    loss = gankit.build("loss", "relativistic")
    critic = loss.critic(turn(real, fake)).item()
    assert critic == pytest.approx(loss.generator(turn(fake, real, side="generator")).item())
    assert critic == pytest.approx(loss.critic(turn(real + 7, fake + 7)).item())
    assert loss.critic(turn(real, real)).item() == pytest.approx(np.log(2))
    # Pairs, not means: another order of the fakes is another value.
    assert critic != pytest.approx(loss.critic(turn(real, fake[::-1].copy())).item())


# --- penalties and bounds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["r1", "r2"])
@pytest.mark.parametrize("n", [1, 4, 16])
def test_zero_centred_penalties_of_a_linear_critic_are_half_its_squared_norm(name, n):
    loss = gankit.build("loss", name).critic(turn(np.ones((n, 2)), np.zeros((n, 2)), Linear(3.0, 4.0)))
    assert loss.item() == pytest.approx(25 / 2)


@pytest.mark.parametrize(("name", "place"), [("r1", 0), ("r2", 1)])
def test_r1_looks_at_reals_and_r2_at_fakes_as_the_critic_sees_them(name, place):
    images = np.array([[1.0, 2.0], [0.0, -3.0]]), np.array([[0.5, 0.5], [4.0, 0.0]])
    loss = gankit.build("loss", name)
    assert loss.critic(turn(*images, HalfSquare())).item() == pytest.approx((images[place] ** 2).sum(1).mean() / 2)
    augmented = loss.critic(turn(*images, HalfSquare(), augment=Brighter())).item()
    assert augmented == pytest.approx(((images[place] + 0.5) ** 2).sum(1).mean() / 2)


@pytest.mark.parametrize("name", ["r1", "r2", "gradient-penalty"])
def test_penalties_of_half_precision_images_are_computed_in_float32(name):
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(2, 8), nn.Softplus(), nn.Linear(8, 1))
    loss = gankit.build("loss", name)
    images = torch.tensor([[1.0, 2.0], [0.5, -3.0]]), torch.tensor([[0.5, 0.25], [4.0, 0.0]])

    def penalty(dtype):
        given = turn(*images)
        given.critic = lambda images, labels=None: critic(images)
        given.real, given.fake = (x.to(dtype).reshape(2, 2, 1, 1) for x in images)
        return loss.critic(given)

    expected = penalty(torch.float32)
    with torch.autocast("cpu", torch.float16):
        actual = penalty(torch.float16)  # these images are exact in float16
    assert actual.dtype == torch.float32
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("name", ["r1", "r2", "gradient-penalty"])
def test_penalties_train_the_critic_and_nothing_else(name):
    given = turn(np.ones((3, 2)), np.zeros((3, 2)), Linear(3.0, 4.0))
    loss = gankit.build("loss", name)
    loss.critic(given).backward()
    factor = {"gradient-penalty": 2 * (5 - 1) / 5}.get(name, 1.0)  # d (|w| - 1)^2 / dw, or d |w|^2 / 2 / dw
    torch.testing.assert_close(given.critic.weight.grad, factor * given.critic.weight.detach())
    assert given.generator.gain.grad is None
    assert loss.generator(given) is None


def test_gradient_penalty_takes_its_settings_and_the_turns_alpha():
    real, fake = np.array([[2.0, 0.0], [0.0, 8.0]]), np.array([[0.0, 2.0], [0.0, 0.0]])
    given = turn(real, fake, HalfSquare())
    between = 0.25 * real + 0.75 * fake
    slopes = np.sqrt((between**2).sum(1))
    two_sided = gankit.build("loss", "gradient-penalty", target=1.8).critic(given)
    assert two_sided.item() == pytest.approx(((slopes - 1.8) ** 2).mean())
    one_sided = gankit.build("loss", "gradient-penalty", target=1.8, one_sided=True).critic(given)
    assert one_sided.item() == pytest.approx((np.maximum(0, slopes - 1.8) ** 2).mean())
    alpha = torch.tensor([0.25, 0.25])
    public = gradient_penalty(given.critic, given.real, given.fake, target=1.8, alpha=alpha)
    torch.testing.assert_close(two_sided, public.mean())


def test_clipping_clamps_the_critic_after_its_own_step_only():
    loss = gankit.build("loss", "weight-clipping")
    critic = Linear(0.5, -0.5, 0.003)
    before = critic.weight.detach().clone()
    images = np.zeros((1, 3))
    loss.after_step(turn(images, images, critic, side="generator"))
    assert torch.equal(critic.weight, before)
    critic_turn = turn(images, images, critic)
    loss.after_step(critic_turn)
    assert critic.weight.flatten().tolist() == pytest.approx([0.01, -0.01, 0.003])
    assert critic.weight.requires_grad
    assert critic_turn.generator.gain.item() == 1
    assert loss.critic(critic_turn) is None
    assert loss.generator(critic_turn) is None
    gankit.build("loss", "weight-clipping", clip=0.002).after_step(critic_turn)
    assert critic.weight.flatten().tolist() == pytest.approx([0.002, -0.002, 0.002])


def test_drift_is_the_mean_square_of_real_scores():
    real, fake = np.array([[1.0], [-3.0]]), np.array([[100.0], [100.0]])
    loss = gankit.build("loss", "drift")
    assert loss.critic(turn(real, fake)).item() == pytest.approx(5)
    assert loss.generator(turn(real, fake, side="generator")) is None


# --- consistency ----------------------------------------------------------------------------------------------------

SCOPES = ["critic", "critic-turn", "real", "on-request"]


@pytest.mark.parametrize("scope", SCOPES)
def test_consistency_is_zero_for_a_critic_that_the_augment_does_not_reach(scope):
    draw = np.random.default_rng(0)
    images = draw.normal(size=(4, 2)), draw.normal(size=(4, 2))
    given = turn(*images, Linear(1.0, -1.0), augment=Brighter(), scope=scope)
    assert gankit.build("loss", "consistency").critic(given).item() == pytest.approx(0, abs=1e-24)


@pytest.mark.parametrize("scope", SCOPES)
def test_consistency_compares_raw_images_with_views(scope):
    draw = np.random.default_rng(0)
    real, fake = draw.normal(size=(4, 2)), draw.normal(size=(4, 2))

    def disagreement(images):
        return ((((images + 0.5) ** 2).sum(1) / 2 - (images**2).sum(1) / 2) ** 2).mean()

    for factors in ({}, {"real": 3.0, "fake": 0.0}, {"real": 0.0, "fake": 2.0}, {"real": 1.0, "fake": 5.0}):
        given = turn(real, fake, HalfSquare(), augment=Brighter(), scope=scope)
        loss = gankit.build("loss", "consistency", **factors).critic(given).item()
        expected = factors.get("real", 10.0) * disagreement(real) + factors.get("fake", 10.0) * disagreement(fake)
        assert loss == pytest.approx(expected)


def test_consistency_shares_the_scores_of_raw_images():
    images = np.zeros((2, 1))
    for scope, calls in (("on-request", 3), ("critic", 5)):  # one pass for the pair, one a view, one a raw set
        given = turn(images, images, Linear(1.0), augment=Brighter(), scope=scope)
        gankit.build("loss", "wasserstein").critic(given)
        gankit.build("loss", "consistency").critic(given)
        assert given.critic.calls == calls


def test_consistency_averages_patch_scores_and_trains_the_critic_alone():
    images = np.zeros((2, 3))
    given = turn(images, images, augment=Brighter(), scope="on-request")
    assert gankit.build("loss", "consistency", real=1, fake=0).critic(given).item() == pytest.approx(0.25)
    given = turn(images, images, Linear(1.0, 1.0, 1.0), augment=Brighter(), scope="on-request")
    loss = gankit.build("loss", "consistency")
    loss.critic(given).backward()
    assert (given.critic.weight.grad > 0).all()
    assert given.generator.gain.grad is None
    assert loss.generator(given) is None
    assert gankit.build("loss", "consistency", real=0, fake=0).critic(given) is None
    assert loss.needs == (Augment,)


def test_consistency_of_half_precision_scores_does_not_overflow():
    given = turn(np.zeros((2, 1)), np.zeros((2, 1)), augment=Brighter())
    given.critic = lambda images, labels=None: 1000 * images.half()
    assert gankit.build("loss", "consistency").critic(given).item() == 2 * 10 * 500**2


# --- what the registry says -----------------------------------------------------------------------------------------


def test_every_loss_is_listed_with_its_default_weight():
    weights = {name: registry("loss").get(name).default_weight for name in registry("loss").built_in()}
    special = {"gradient-penalty": 10.0, "r1": 10.0, "r2": 10.0, "drift": 1e-3}
    plain = [*ADVERSARIAL, "weight-clipping", "consistency", "auxiliary-class"]
    assert weights == {**dict.fromkeys(plain, 1.0), **special}


def test_losses_that_differentiate_single_scores_say_so():
    sample = {name for name in registry("loss").built_in() if registry("loss").get(name).per_sample}
    assert sample == {"gradient-penalty", "r1", "r2"}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("gradient-penalty", {"target": -1}, "target: .* greater than or equal to 0"),
        ("gradient-penalty", {"weight": 1}, "weight: "),
        ("weight-clipping", {"clip": 0}, "clip: .* greater than 0"),
        ("consistency", {"fake": -1}, "fake: .* greater than or equal to 0"),
        ("hinge", {"margin": 1}, "margin: "),
    ],
)
def test_wrong_settings_are_refused(name, settings, message):
    with pytest.raises(gankit.GankitError, match=message):
        gankit.build("loss", name, **settings)
