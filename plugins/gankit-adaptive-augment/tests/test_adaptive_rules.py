"""How the augment measures overfitting, and how its probability follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gankit
import pytest
import torch
from adaptive_turns import Brighter, Grey, N, adaptive, make_turn, plain, step
from gankit.augments.diffaugment import DiffAugment
from gankit.errors import PartError
from gankit.interfaces import Critic
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gankit_adaptive_augment import AdaptiveAugment

# --- sign rule --------------------------------------------------------------------------------------------------------


def test_p_rises_above_the_target_and_falls_below_it() -> None:
    augment = adaptive()
    assert not augment.needs_held_out
    assert [step(augment, make_turn(plain(0.5))) for _ in range(3)] == [0.125, 0.25, 0.375]  # r = 1
    assert augment.r == 1
    assert [step(augment, make_turn(plain(0.5, -0.5))) for _ in range(4)] == [0.25, 0.125, 0.0, 0.0]  # r = 0
    assert augment.r == 0


def test_signs_are_counted_and_compared_with_the_target() -> None:
    three_of_four = plain(0.1, 0.1, 0.1, -9.0)  # r = 0.5, though the mean score is negative
    assert step(adaptive(target=0.45), make_turn(three_of_four)) == 0.125
    assert step(adaptive(target=0.55, start=0.5), make_turn(three_of_four)) == 0.375
    assert step(adaptive(target=0.5, start=0.5), make_turn(three_of_four)) == 0.5


def test_a_sample_of_several_scores_counts_by_their_mean() -> None:
    augment = adaptive()
    step(augment, make_turn(plain(-0.1), critic=Grey(patches=4)))
    assert augment.r == -1


def test_p_stays_between_0_and_p_max() -> None:
    augment = adaptive(p_max=0.3)
    assert [step(augment, make_turn(plain(0.5))) for _ in range(4)] == pytest.approx([0.125, 0.25, 0.3, 0.3])
    assert step(augment, make_turn(plain(-0.5))) == pytest.approx(0.175)


def test_an_interval_is_judged_by_its_mean() -> None:
    augment = adaptive(interval=4, images=32 * N)
    high, low = plain(0.5), plain(-0.5)
    assert [step(augment, make_turn(images)) for images in (high, high, high, high)] == [0, 0, 0, 0.125]
    # A mean of 0.5 is too low, though the last step was high; the interval before is forgotten.
    assert [step(augment, make_turn(images)) for images in (low, high, high, high)] == [0.125, 0.125, 0.125, 0]
    assert augment.r == 0.5


def test_images_set_the_speed() -> None:
    augment = AdaptiveAugment(inner=Brighter(), interval=2, images=100 * N, p_max=1.0)
    p = [step(augment, make_turn(plain(0.5))) for _ in range(100)]
    assert p[-2:] == pytest.approx([0.98, 1.0], abs=1e-5)  # 100 batches


def test_the_generators_turn_changes_nothing() -> None:
    augment, critic = adaptive(), Grey()
    before = {name: value.clone() for name, value in augment.state_dict().items()}
    logged: list[str] = []
    augment.after_step(make_turn(plain(0.5), side="generator", critic=critic, log=lambda name, _: logged.append(name)))
    assert critic.passes == 0
    assert not logged
    assert all(torch.equal(value, before[name]) for name, value in augment.state_dict().items())


def test_beside_a_relativistic_loss_signs_of_differences_count() -> None:
    augment = adaptive(target=0.4)
    augment.use_losses({"relativistic": gankit.build("loss", "relativistic"), "r1": gankit.build("loss", "r1")})
    shifted = make_turn(plain(9.0, 9.0, 9.0, 7.0), fake=8.0)  # three of four are above their fakes
    assert step(augment, shifted) == 0.125
    assert augment.r == 0.5
    beside_hinge = adaptive()
    beside_hinge.use_losses({"hinge": gankit.build("loss", "hinge")})
    step(beside_hinge, shifted)
    assert beside_hinge.r == 1


@pytest.mark.parametrize("name", ["wasserstein", "least-squares"])
def test_without_a_sign_to_read_the_rule_is_refused(name: str) -> None:
    losses = {name: gankit.build("loss", name), "r1": gankit.build("loss", "r1")}
    with pytest.raises(PartError, match=rf"beside {name}, r1 a score of 0 does not .* set augment\.rule=held-out"):
        adaptive().use_losses(losses)
    adaptive(rule="held-out").use_losses(losses)


# --- held-out rule ----------------------------------------------------------------------------------------------------


def held_out_rule(**settings: Any) -> AdaptiveAugment:
    return adaptive(rule="held-out", start=0.5, **settings)


@pytest.mark.parametrize(
    ("held_out", "r", "p"),
    [(1.0, 0.0, 0.375), (0.5, 0.25, 0.375), (0.0, 0.5, 0.5), (-0.5, 0.75, 0.625), (-1.0, 1.0, 0.625)],
)
def test_r_is_the_normalised_gap(held_out: float, r: float, p: float) -> None:
    augment = held_out_rule()
    assert augment.needs_held_out
    turn = {"real": plain(0.9, 1.1), "fake": -1.0, "held_out": plain(held_out - 0.2, held_out + 0.2)}
    assert step(augment, make_turn(**turn)) == 0.5  # the first turn has no held-out scores to compare with
    assert augment.r == 0
    augment.target = 0.5 + 1e-5 * (r == 0.5)  # rounding decides between up and down at the target itself
    after = step(augment, make_turn(**turn))
    assert augment.r.item() == pytest.approx(r, abs=1e-5)
    assert after == (0.375 if r == 0.5 else p)


@pytest.mark.parametrize(("factor", "constant"), [(1.0, 50.0), (100.0, -300.0), (0.01, 0.0)])
def test_a_wasserstein_critic_may_be_shifted_and_scaled(factor: float, constant: float) -> None:
    greys = torch.randn(2, 12, N).tolist()

    def course(rule: str, critic: Critic) -> tuple[list[float], list[float]]:
        augment = adaptive(rule=rule, start=0.5, interval=2)
        p, r = [], []
        for real, held_out in zip(*greys, strict=True):
            p.append(step(augment, make_turn(plain(*real) + 1, held_out=plain(*held_out), critic=critic)))
            r.append(augment.r.item())
        return p, r

    p, r = course("held-out", Grey())
    shifted_p, shifted_r = course("held-out", Grey(factor, constant))
    assert shifted_r == pytest.approx(r, abs=1e-3)
    assert shifted_p == p
    assert len(set(p)) > 2
    if constant:  # which is why the sign rule is not for such a critic
        assert course("sign", Grey(factor, constant))[0] != course("sign", Grey())[0]


def test_a_step_of_the_critic_does_not_come_between_scores() -> None:
    """All scores jump at every step, as Wasserstein critics drift and clipping moves them."""
    augment, critic = held_out_rule(), Grey()
    for _ in range(5):
        turn = make_turn(plain(1.0), held_out=plain(0.5), critic=critic)
        _ = turn.real_scores, turn.fake_scores
        critic.constant += 100
        critic.factor *= 2
        augment.after_step(turn)
    assert augment.r.item() == pytest.approx(0.25, abs=1e-3)


def test_means_are_taken_before_they_are_divided() -> None:
    augment = held_out_rule(interval=2)
    for held_out in (0.0, 0.0, 0.0):
        for real, fake in ((2.0, 0.0), (0.5, 0.49)):
            step(augment, make_turn(plain(real), fake=fake, held_out=plain(held_out)))
    # The first turn is left out, so that intervals start at the second: (0.5 + 2) / (0.01 + 2) is limited to 1.
    assert augment.r == 1
    augment = held_out_rule(interval=2)
    for real, held_out in ((1.0, 0.9), (1.0, 0.2), (0.3, 0.0)):
        step(augment, make_turn(plain(real), fake=0.0, held_out=plain(held_out)))
    assert augment.r.item() == pytest.approx((0.1 + 0.1) / (1.0 + 0.3), abs=1e-5)


@pytest.mark.parametrize("fake", [1.0, 1.5])
def test_a_critic_that_separates_nothing_does_not_overfit(fake: float) -> None:
    augment = held_out_rule()
    for _ in range(3):
        p = step(augment, make_turn(plain(1.0), fake=fake, held_out=plain(-5.0)))
    assert augment.r == 0
    assert p == 0.25


def test_a_small_denominator_stays_within_limits() -> None:
    augment = held_out_rule()
    for held_out, r in ((-5.0, 1), (5.0, -1)):
        for _ in range(2):
            step(augment, make_turn(plain(1.0), fake=1 - 1e-6, held_out=plain(held_out)))
        assert augment.r == r


def test_held_out_images_cost_one_pass_without_graph() -> None:
    class Weighed(Grey):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))
            self.graphs: list[bool] = []

        def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
            scores = self.weight * super().forward(images, labels)
            self.graphs.append(scores.requires_grad)
            return scores

    critic = Weighed()
    augment = held_out_rule()
    turn = make_turn(plain(1.0), held_out=plain(0.0), critic=critic)
    step(augment, turn)
    assert critic.graphs == [True, False]  # real and fake together, then held-out
    assert turn.real_scores.requires_grad
    assert not any(value.requires_grad for value in augment.state_dict().values())


def test_held_out_images_are_seen_through_the_augment() -> None:
    augment = held_out_rule(interval=2)
    for _ in range(3):
        turn = make_turn(plain(0.0), fake=-1.0, held_out=plain(0.0), augment=augment)
        augment.p.fill_(1.0)
        step(augment, turn)
    assert augment.r == 0  # brighter by 1 all of them; unseen held-out images would give 1


# --- around both ------------------------------------------------------------------------------------------------------


def test_the_inner_augment_is_told_of_every_step_and_may_need_held_out_images() -> None:
    augment = adaptive(inner=Brighter(needs_held_out=True))
    assert augment.needs_held_out
    for side in ("critic", "generator", "critic"):
        augment.after_step(make_turn(plain(0.0), side=side))
    assert augment.inner.sides == ["critic", "generator", "critic"]


def test_p_and_r_are_logged_as_they_were() -> None:
    logged: list[tuple[str, Tensor]] = []
    augment = adaptive()
    for grey in (0.5, 0.5, -0.5):
        step(augment, make_turn(plain(grey), log=lambda name, value: logged.append((name, value))))
    assert all(value.shape == () for _, value in logged)
    assert [value.item() for name, value in logged if name == "augment/p"] == [0.125, 0.25, 0.125]
    assert [value.item() for name, value in logged if name == "augment/r"] == [1, 1, -1]


@pytest.mark.parametrize("rule", ["sign", "held-out"])
def test_nothing_is_read_back_from_the_device(rule: Any) -> None:
    class NoReading(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert "local_scalar_dense" not in str(func), "a value is read back"
            assert "nonzero" not in str(func), "a shape depends on values"
            return func(*args, **(kwargs or {}))

    augment = AdaptiveAugment(inner=DiffAugment(), rule=rule, interval=2)
    with NoReading():
        for _ in range(5):
            turn = make_turn(plain(0.5), held_out=plain(0.0), augment=augment)
            _ = turn.real_scores, turn.fake_scores
            augment.after_step(turn)
        with pytest.raises(AssertionError, match="read back"):
            augment.p.item()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_scores_of_other_types_are_measured_in_enough_digits(dtype: torch.dtype) -> None:
    class Typed(Grey):
        def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
            return super().forward(images, labels).to(dtype)

    augment = held_out_rule(interval=3)
    for _ in range(4):
        step(augment, make_turn(plain(1.0), held_out=plain(0.5), critic=Typed()))
    assert augment.r.item() == pytest.approx(0.25, abs=1e-5)
    assert augment.p.dtype == torch.float32


def test_a_state_goes_on_where_it_was_saved() -> None:
    turns = [make_turn(plain(real), held_out=plain(held_out)) for real, held_out in torch.rand(9, 2).tolist()]
    whole, first, second = (held_out_rule(interval=3) for _ in range(3))
    for turn in turns[:5]:  # into the middle of an interval
        step(whole, turn)
        step(first, turn)
    second.load_state_dict(first.state_dict())
    for turn in turns[5:]:
        assert step(second, turn) == step(whole, turn)
        assert torch.equal(second.r, whole.r)
    assert not torch.equal(first.r, whole.r)  # an interval ended since
    assert whole.state_dict().keys() == second.state_dict().keys()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def in_a_process(rank: int, address: str, results: Path) -> None:
    """One of two processes, each of which sees reals and held-out images of its own."""
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    sign, gap = adaptive(target=0.2, images=100 * N), held_out_rule(images=100 * N)

    def average(value: Tensor) -> Tensor:
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total / 2

    both: dict[str, Any] = {"batch": 2 * N, "average": average}
    for _ in range(2):
        # Alone, the first process would find r = 1 and 0, the second r = -0.5 and 1.
        step(sign, make_turn(plain(0.5) if rank == 0 else plain(-0.5, -0.5, -0.5, 0.5), **both))
        step(gap, make_turn(plain(1.0), fake=(-1.0, -2.0)[rank], held_out=plain((1.0, -2.0)[rank]), **both))
    torch.save([sign.state_dict(), gap.state_dict()], results / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_keep_one_p(tmp_path: Path) -> None:
    address = f"file://{tmp_path / 'meet'}"
    torch.multiprocessing.spawn(in_a_process, (address, tmp_path), nprocs=2)
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for a, b in zip(*states, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    sign, gap = states[0]
    assert sign["r"] == 0.25
    assert sign["p"].item() == pytest.approx(2 * 0.02)  # both processes' images count
    assert gap["r"].item() == pytest.approx(1.5 / 2.5)
    assert gap["p"].item() == pytest.approx(0.52)


def test_without_held_out_images_the_turn_says_what_is_missing() -> None:
    with pytest.raises(PartError, match=r"set data\.held_out"):
        step(held_out_rule(), make_turn(plain(0.0)))
