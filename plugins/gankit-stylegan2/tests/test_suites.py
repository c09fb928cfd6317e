"""gankit's conformance suites on every part of this distribution."""

from __future__ import annotations

from typing import ClassVar

import gankit.testing
from gankit.interfaces import ImageSpec

from gankit_stylegan2 import PathLength, StyleGAN2Critic, StyleGAN2Generator

SMALL = {"width": 4, "max_width": 6, "latent_dim": 5, "style_dim": 6, "mapping_layers": 2}


class TestGenerator(gankit.testing.GeneratorTests):
    """The generator."""

    part = StyleGAN2Generator
    image = ImageSpec(3, 16, 16)
    settings: ClassVar = SMALL


class TestCritic(gankit.testing.CriticTests):
    """The critic."""

    part = StyleGAN2Critic
    image = ImageSpec(3, 16, 16)
    settings: ClassVar = {"width": 4, "max_width": 6}


class TestPathLength(gankit.testing.LossTests):
    """The loss, with the generator that it is for."""

    part = PathLength
    image = ImageSpec(3, 8, 8)
    critic = StyleGAN2Critic
    critic_settings: ClassVar = {"width": 4, "max_width": 6, "group": 1}
    generator = StyleGAN2Generator
    generator_settings: ClassVar = SMALL
