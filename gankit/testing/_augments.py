"""The suite for augments."""

import copy
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from gankit import seeds
from gankit.interfaces import Augment, ImageSpec, Side, Turn
from gankit.registry.wrapping import wrap
from gankit.testing._suite import assert_is_gradient, each_image, save_and_load
from gankit.testing._trained import TrainedSuite
from gankit.training.inputs import SIDES

ALIKE = 64
"""Equal images in one batch."""


class AugmentTests(TrainedSuite):
    """Tests of an augment: give its class, or its registered name, as `part`."""

    kind = "augment"
    image: ClassVar[ImageSpec] = ImageSpec(3, 16, 16)

    def images(self, n: int, image: ImageSpec | None = None, dtype: torch.dtype = torch.float64) -> Tensor:
        """(n, channels, height, width) in [-1, 1]."""
        return torch.rand(n, *(image or self.image).shape, dtype=dtype) * 2 - 1

    def view(self, augment: Augment, images: Tensor, seed: int = 5) -> Tensor:
        """The view that a copy of the augment makes under a seed, so that no call changes the next."""
        seeds.manual_seed(seed)
        return copy.deepcopy(augment)(images)

    @each_image
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_keeps_shape_and_type(self, kind_of_image: str, dtype: torch.dtype) -> None:
        """(n, channels, height, width) to the same, finite."""
        image = self.like(kind_of_image)
        augment = self.build_or_skip(image)
        for n in (5, 1):
            images = self.images(n, image, dtype)
            view = augment(images)
            assert view.shape == images.shape, f"{tuple(images.shape)} becomes {tuple(view.shape)}"
            assert view.dtype == dtype, f"{dtype} becomes {view.dtype}"
            assert torch.isfinite(view).all(), "values are not finite"

    def test_keeps_its_input(self) -> None:
        """Losses that compare views read the raw images again."""
        augment, images = self.build(), self.images(4)
        before = images.clone()
        augment(images)
        assert torch.equal(images, before), "the augment changes its input in place"

    def test_draws_anew_for_every_sample(self) -> None:
        """With one draw per batch, all images of a batch would be bright, or all shifted."""
        augment = self.build()
        images = self.images(1).expand(ALIKE, -1, -1, -1)
        first, second = self.view(augment, images, 5), self.view(augment, images, 6)
        if torch.equal(first, second):
            pytest.skip("it draws nothing")
        assert any(not torch.equal(first[0], other) for other in first[1:]), (
            f"{ALIKE} equal images in one batch get one and the same view: draw one value per sample"
        )

    def test_mixes_no_samples(self) -> None:
        """The view of an image must not depend on the others, or per-sample penalties would be wrong."""
        augment = self.build()
        images = self.images(4)
        others = torch.cat([images[:1], self.images(3) * 0.3])
        torch.testing.assert_close(self.view(augment, images)[0], self.view(augment, others)[0], rtol=1e-9, atol=1e-9)

    def test_is_deterministic_under_a_seed(self) -> None:
        """Draws come from torch's own generator, which the trainer seeds before every turn."""
        augment, images = self.build(), self.images(4)
        assert torch.equal(self.view(augment, images), self.view(augment, images)), (
            "two views under one seed differ: draw with torch, not with random or numpy"
        )

    def test_is_twice_differentiable(self) -> None:
        """The generator learns through it, and penalties differentiate its gradient once more."""
        augment = self.build()
        images = self.images(4).requires_grad_()

        def total(at: Tensor) -> Tensor:
            return self.view(augment, at).pow(3).sum()

        value = total(images)
        assert value.requires_grad, "no gradient flows through the augment: leave out detach, no_grad and NumPy"
        (gradient,) = torch.autograd.grad(value, images, create_graph=True)
        assert gradient.any(), "the view does not depend on the images"
        assert_is_gradient(gradient, total, images, "the augment")
        weights = torch.randn_like(images)

        def weighted_gradient(at: Tensor) -> Tensor:
            with torch.enable_grad():
                at = at.detach().requires_grad_()
                return (torch.autograd.grad(total(at), at)[0] * weights).sum()

        (second,) = torch.autograd.grad((gradient * weights).sum(), images)
        assert_is_gradient(second, weighted_gradient, images, "the augment's gradient")

    def test_takes_part_in_a_step(self) -> None:
        """`after_step` is called with the turn of either side, whether or not images are held out."""
        augment = self.build()
        for side in (*SIDES, *SIDES):
            self._step(side, augment)
        assert torch.isfinite(augment(self.images(4, dtype=torch.float32))).all()

    def _step(self, side: Side, augment: Augment) -> None:
        """Let the augment take part in one step of linear networks."""
        pixels = self.image.channels * self.image.height * self.image.width
        layers = nn.Linear(8, pixels), nn.Tanh(), nn.Unflatten(1, self.image.shape)
        generator = wrap("generator", nn.Sequential(*layers), latent_dim=8)
        critic = wrap("critic", nn.Sequential(nn.Flatten(), nn.Linear(pixels, 1))).requires_grad_(side == "critic")
        random: Any = SimpleNamespace(uniform=torch.rand, normal=torch.randn)
        real, held_out = self.images(4, dtype=torch.float32), self.images(4, dtype=torch.float32)
        turn = Turn(
            side, generator, critic, real=lambda: real, labels=None, latents=torch.randn(4, 8), step=0, random=random,
            augment=augment, held_out=lambda: (held_out, None),
        )  # fmt: skip
        (turn.fake_scores.mean() - turn.real_scores.mean()).backward()  # type: ignore[no-untyped-call]
        augment.after_step(turn)

    def test_state_survives_a_checkpoint(self) -> None:
        """What it learned is in buffers, so that a resumed training continues with it."""
        augment, other = self.build(), self.build()
        for _ in range(2):
            self._step("critic", augment)
        other.load_state_dict(save_and_load(augment.state_dict()))
        images = self.images(8)
        assert torch.equal(self.view(augment, images), self.view(other, images)), (
            "an augment with the saved state makes another view: keep what it learns in buffers"
        )
        for part in (augment, other):
            seeds.manual_seed(7)
            self._step("critic", part)
        assert torch.equal(self.view(augment, images), self.view(other, images)), "after one more step they differ"
