"""The suite for losses."""

import copy
import statistics
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from gankit import seeds
from gankit.errors import PartError
from gankit.interfaces import Augment, Critic, Generator, ImageSpec, Loss, Side, Turn
from gankit.registry import registry
from gankit.registry.wrapping import wrap
from gankit.seeds import TurnDraws
from gankit.testing._suite import build_part, labels_for, save_and_load
from gankit.testing._trained import TrainedSuite, named
from gankit.training.inputs import SIDES

each_side = pytest.mark.parametrize("side", SIDES)


class LossTests(TrainedSuite):
    """Tests of a loss: give its class, or its registered name, as `part`.

    Attributes:
        critic: the critic that the loss is tested with, by name or class; it must score each sample by itself.
        critic_settings: settings of that critic.
        generator: the generator, by name or class.
        generator_settings: settings of that generator.
        augment: class of an augment that the loss is tested with; by default losses that need one get a fixed view.
        averages: whether the loss is a mean over samples, so that its value on a batch is the mean of the values on the
            halves; False for a loss that compares the samples of a batch with one another.
    """

    kind = "loss"
    image: ClassVar[ImageSpec] = ImageSpec(3, 16, 16)
    critic: ClassVar[str | type[Critic]] = "resnet"
    critic_settings: ClassVar[Mapping[str, Any]] = {"width": 6, "flat_blocks": 1}
    generator: ClassVar[str | type[Generator]] = "resnet"
    generator_settings: ClassVar[Mapping[str, Any]] = {"width": 6, "latent_dim": 8}
    augment: ClassVar[type[Augment] | None] = None
    averages: ClassVar[bool] = True

    SAMPLES: ClassVar[int] = 6
    PARTS: ClassVar[set[str]] = {"generator", "critic", "real", "latents", "labels", "augment"}

    def turn(self, side: Side, rows: slice = slice(None), *, seed: int = 0, **changes: Any) -> Turn:
        """A turn of `SAMPLES` fixed samples, or of some rows of them, in float64.

        Args:
            side: whose turn it is.
            rows: which samples.
            seed: seed of the loss's random numbers.
            changes: arguments of `Turn` in place of the suite's, for example another critic.
        """
        parts = changes if changes.keys() >= self.PARTS else {**self._parts(), **changes}
        real, labels, latents = parts.pop("real"), parts.pop("labels"), parts.pop("latents")
        parts["critic"].requires_grad_(side == "critic")
        seeds.manual_seed(seed)
        start, stop, _ = rows.indices(self.SAMPLES)
        # For all samples, of which a turn gets its rows, as if processes shared the batch.
        draws = TurnDraws(torch.Generator().manual_seed(seed), latents[:0], (start, stop, self.SAMPLES))
        return Turn(
            side, **parts, real=lambda: real[rows], labels=None if labels is None else labels[rows],
            latents=latents[rows], step=0, random=draws,
            held_out=lambda: (real.flip(0)[rows], None if labels is None else labels.flip(0)[rows]),
        )  # fmt: skip

    def _parts(self, image: ImageSpec | None = None) -> dict[str, Any]:
        """New networks, always with the same weights, and fixed samples."""
        image = image or self.image
        seeds.manual_seed(1)
        generator = build_part("generator", self.generator, image, self.generator_settings).double()
        critic = build_part("critic", self.critic, image, self.critic_settings).double()
        with torch.no_grad():
            for parameter in [*generator.parameters(), *critic.parameters()]:
                parameter.add_(0.05 * torch.randn_like(parameter))
        real = torch.rand(self.SAMPLES, *image.shape, dtype=torch.float64) * 2 - 1
        latents = torch.randn(self.SAMPLES, generator.latent_dim, dtype=torch.float64)
        # The view is always the same, so that a part of a batch is augmented as in the whole batch.
        fixed_view = _fixed_view() if Augment in self.build().needs else None
        # The generator normalises by its running statistics, so that a fake does not depend on the other fakes.
        return {
            "generator": generator.eval(), "critic": critic, "real": real, "latents": latents,
            "labels": labels_for(image, self.SAMPLES, real), "augment": self.augment() if self.augment else fixed_view,
        }  # fmt: skip

    def value(self, side: Side, rows: slice = slice(None), loss: Loss | None = None, **changes: Any) -> Tensor:
        """The loss of one side on a new turn; skips the test if the loss is silent on that side."""
        turn = self.turn(side, rows, **changes)
        value = getattr(loss or self.build(), side)(turn)
        if value is None:
            pytest.skip(f"it is silent on the {side}'s turn")
        assert isinstance(value, Tensor), f"the {side}'s loss is {value!r}, not a tensor"
        assert value.dim() == 0, f"the {side}'s loss has shape {tuple(value.shape)}: take its mean"
        return value

    def test_finds_what_it_needs_among_the_suite_s_parts(self) -> None:
        """The suite's critic, generator or augment is an instance of each of `needs`."""
        parts = self._parts()
        for need in self.build().needs:
            assert any(isinstance(parts[name], need) for name in ("generator", "critic", "augment")), (
                f"the loss needs a {need.__name__}: set `critic`, `generator` or `augment` of this test class to a "
                "part of that type"
            )

    def test_acts_on_one_side_at_least(self) -> None:
        """A loss that is silent on both sides and does nothing after a step has a misspelt method."""
        names, loss = ("critic", "generator", "after_step"), self.build()
        assert any(getattr(getattr(loss, name), "__func__", None) is not getattr(Loss, name) for name in names), (
            "it overrides none of critic, generator and after_step"
        )

    @each_side
    def test_trains_its_side_and_no_other(self, side: Side) -> None:
        """Finite gradients reach the network whose turn it is, and no other: fakes must be detached."""
        parts = self._parts()
        generator, critic = parts["generator"], parts["critic"]
        generator.requires_grad_()
        value = self.value(side, **parts)
        assert torch.isfinite(value), f"the {side}'s loss is {value}"
        assert value.requires_grad, f"no gradient flows from the {side}'s loss: leave out detach, no_grad and item"
        value.backward()  # type: ignore[no-untyped-call]
        network, other = (critic, generator) if side == "critic" else (generator, critic)
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        assert gradients, f"the {side}'s loss does not depend on the {side}"
        assert all(torch.isfinite(gradient).all() for gradient in gradients), "gradients are not finite"
        assert any(gradient.any() for gradient in gradients), "all gradients are zero"
        reached = [name for name, parameter in other.named_parameters() if parameter.grad is not None]
        assert not reached, (
            f"the {side}'s loss trains the {'generator' if side == 'critic' else 'critic'} too ({reached[0]}, ...): on "
            "the critic's turn take turn.fake, or detach"
        )

    @each_side
    def test_is_a_mean_over_samples(self, side: Side) -> None:
        """A norm or root over the whole batch is not the mean of its values on the halves."""
        if not self.averages:
            pytest.skip("it compares the samples of a batch")
        half = self.SAMPLES // 2
        whole = self.value(side)
        halves = [self.value(side, rows) for rows in (slice(0, half), slice(half, None))]
        torch.testing.assert_close(
            whole, torch.stack(halves).mean(), rtol=1e-7, atol=1e-9,
            msg=lambda text: "the value on a batch is not the mean of the values on its halves. A norm over the whole "
            "batch has this effect, and so have random numbers that are not one row per sample of turn.random. " + text,
        )  # fmt: skip

    @each_side
    def test_draws_are_one_per_sample(self, side: Side) -> None:
        """Over n equal samples the spread between seeds falls as 1 / sqrt(n); with one draw per batch it does not."""
        if not self.averages:
            pytest.skip("it compares the samples of a batch")
        parts = self._parts()
        equal = {name: parts[name][:1].expand(self.SAMPLES, *parts[name].shape[1:]) for name in ("real", "latents")}
        if parts["labels"] is not None:
            equal["labels"] = parts["labels"][:1].expand(self.SAMPLES, *parts["labels"].shape[1:])
        parts |= equal
        one_sample = slice(0, 1)
        if len({self.value(side, one_sample, seed=seed, **parts).item() for seed in range(3)}) == 1:
            return  # it draws nothing
        variance_of_one, variance_of_all = (
            statistics.variance([self.value(side, rows, seed=seed, **parts).item() for seed in range(40)])
            for rows in (one_sample, slice(None))
        )
        # With independent draws the ratio is SAMPLES in expectation, and between 3 and 12 for 40 seeds almost surely.
        assert variance_of_all <= variance_of_one / (self.SAMPLES / 3), (
            f"the variance between seeds is {variance_of_one:.3g} with one sample and {variance_of_all:.3g} with "
            f"{self.SAMPLES} equal ones: draw one row per sample, as turn.random.uniform(len(turn.real))"
        )

    @each_side
    def test_is_deterministic_under_a_seed(self, side: Side) -> None:
        """The same turn twice gives the same value, bit by bit."""
        assert torch.equal(self.value(side), self.value(side))

    @each_side
    def test_keeps_the_images(self, side: Side) -> None:
        """Other losses of the turn read the same tensors."""
        turn = self.turn(side)
        before = {name: getattr(turn, name).detach().clone() for name in ("real", "fake", "real_scores", "fake_scores")}
        getattr(self.build(), side)(turn)
        for name, value in before.items():
            assert torch.equal(getattr(turn, name), value), f"the loss changes turn.{name} in place"

    @each_side
    @pytest.mark.parametrize("kind_of_image", ["grey", "wide", "classes", "conditions"])
    def test_takes_every_kind_of_image(self, side: Side, kind_of_image: str) -> None:
        """Grey, not square, and with labels, as far as the suite's networks take them."""
        image = self.like(kind_of_image)
        try:
            loss, parts = self.build(image), self._parts(image)
        except PartError as error:
            if error.__cause__ is not None:  # a constructor did not refuse the image: it failed
                raise
            pytest.skip(f"refused: {error}")
        assert torch.isfinite(self.value(side, loss=loss, **parts))

    @each_side
    def test_takes_maps_of_scores(self, side: Side) -> None:
        """A critic may score patches: (n, 1, h, w)."""
        layers = nn.Conv2d(self.image.channels, 4, 4, 4), nn.Softplus(), nn.Conv2d(4, 1, 1)
        critic = wrap("critic", nn.Sequential(*layers)).double()
        if any(not isinstance(critic, need) for need in self.build().needs if need is not Augment):
            pytest.skip("it needs more of a critic")
        assert torch.isfinite(self.value(side, critic=critic))

    def test_says_that_it_differentiates_sample_by_sample(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`per_sample = True` lets gankit refuse the loss together with a critic with batch normalisation."""
        calls: list[Any] = []
        grad = torch.autograd.grad

        def record(*args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            return grad(*args, **kwargs)

        monkeypatch.setattr(torch.autograd, "grad", record)
        loss: Loss = self.build()
        loss.critic(self.turn("critic"))
        assert not calls or loss.per_sample, "it differentiates scores by images: set per_sample = True"

    @each_side
    def test_acts_after_a_step(self, side: Side) -> None:
        """`after_step` is called with the turn of either side."""
        loss, turn = self.build(), self.turn(side)
        getattr(loss, side)(turn)
        loss.after_step(turn)

    def test_state_survives_a_checkpoint(self) -> None:
        """A loss with a state continues from where it was."""
        loss = self.build()
        if not hasattr(loss, "state_dict"):
            pytest.skip("it keeps no state")
        for side in SIDES:
            turn = self.turn(side)
            getattr(loss, side)(turn)
            loss.after_step(turn)
        other = self.build()
        other.load_state_dict(save_and_load(loss.state_dict()))
        for side in SIDES:
            values = [getattr(copied, side)(self.turn(side)) for copied in (copy.deepcopy(loss), other)]
            if values[0] is not None:
                assert torch.equal(*values), f"a loss with the saved state gives another value on the {side}'s turn"

    def partners(self) -> dict[str, Any]:
        """The suite's networks, and its augment or a fixed view for a loss that needs one."""
        needs_view = Augment in self.build().needs
        if needs_view:
            registry("augment").register("fixed-view")(_fixed_view())
        return {
            "generator": {"name": named("generator", self.generator), **self.generator_settings},
            "critic": {"name": named("critic", self.critic), **self.critic_settings},
            "augment": named("augment", self.augment) if self.augment else "fixed-view" if needs_view else "none",
        }

    def test_has_a_sensible_weight(self) -> None:
        """`default_weight` is the factor if the experiment states none."""
        assert 0 < self.build().default_weight < float("inf")


def _fixed_view() -> Any:
    return wrap("augment", lambda images: 0.7 * images.flip(2) + 0.1, capturable=True)
