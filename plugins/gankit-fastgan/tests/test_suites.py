"""gankit's conformance suites on every part of this distribution."""

from __future__ import annotations

from typing import ClassVar

import gankit.testing
import pytest
import torch
from gankit.interfaces import ImageSpec

from gankit_fastgan import FastGANCritic, FastGANGenerator, FastGANHinge, Reconstruction


class TestGenerator(gankit.testing.GeneratorTests):
    """The generator."""

    part = FastGANGenerator
    settings: ClassVar = {"width": 4, "latent_dim": 8}


class TestCritic(gankit.testing.CriticTests):
    """The critic as in published trainings."""

    part = FastGANCritic
    settings: ClassVar = {"width": 4}

    @pytest.mark.parametrize("kind_of_image", ["colour", "grey", "wide", "tall"])
    def test_every_parameter_gets_a_finite_gradient(self, kind_of_image: str) -> None:
        """Scores do not depend on the decoders; scores and reconstructions together depend on everything."""
        image = self.like(kind_of_image)
        critic = self.build(image)
        features = critic.features(torch.rand(4, *image.shape) * 2 - 1)
        outputs = [critic.score(features), *critic.reconstruct(features, torch.rand(4, 2))]
        torch.stack([(output * torch.randn_like(output)).sum() for output in outputs]).sum().backward()
        for name, parameter in critic.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.any(), name


@pytest.mark.slow
class TestCriticWithoutBatchStatistics(TestCritic):
    """The critic for losses that differentiate sample by sample."""

    settings: ClassVar = {"width": 4, "norm": "layer"}


@pytest.mark.slow
class TestReconstruction(gankit.testing.LossTests):
    """The loss, with a critic that mixes no samples."""

    part = Reconstruction
    image = ImageSpec(3, 32, 32)
    critic = FastGANCritic
    critic_settings: ClassVar = {"width": 4, "norm": "layer"}
    generator = FastGANGenerator
    generator_settings: ClassVar = {"width": 4, "latent_dim": 8}


class TestHinge(gankit.testing.LossTests):
    """The adversarial loss."""

    part = FastGANHinge
