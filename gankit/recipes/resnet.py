"""WGAN-GP with residual networks (Gulrajani et al. 2017, arXiv 1704.00028) and DiffAugment (arXiv 2006.10738)."""

from dataclasses import replace
from typing import Any, ClassVar

from gankit.recipes import Recipe, TrainingImages


class ResNet(Recipe):
    """Residual networks whose channels halve as the side doubles; a gradient penalty on every update; DiffAugment.

    Attributes:
        channels: at 4 to 7 pixels, and the fewest of any level.
        rate: of both networks. Wider layers move further in a step of Adam, so that they take a lower one.
        critic_steps: critic updates of each step.
        largest_batch: the most images of a critic update.
        translation_only: whether translation is the only augmentation.
    """

    purpose = "any pictures, with a GPU"
    time = "an hour on a GPU; a day or two on two CPU cores"
    channels: ClassVar[tuple[int, int]] = (512, 32)
    rate: ClassVar[float] = 2e-4
    critic_steps: ClassVar[int] = 2
    largest_batch: ClassVar[int] = 64
    translation_only: ClassVar[bool] = False

    def critic_blocks(self, images: TrainingImages, widths: list[int]) -> dict[str, Any]:
        """The generator's widths without its last, in reverse, down to 4 to 7 pixels; and one more block there."""
        return {"widths": widths[:-1][::-1], "flat_blocks": 1}

    def settings(self, images: TrainingImages) -> dict[str, Any]:
        """See `Recipe.settings`."""
        images = replace(images, given_batch=images.given_batch or min(images.batch, self.largest_batch))
        widths = images.widths(*self.channels, most=self.channels[0])
        policy = images.policy(color=not self.translation_only, cutout=not self.translation_only)
        return {
            "generator": {"name": "resnet", "widths": widths},
            "critic": {"name": "resnet", **self.critic_blocks(images, widths), "head": "flatten"},
            "losses": [{"name": "wasserstein"}, {"name": "gradient-penalty", "weight": 10.0}],
            **({"augment": {"name": "diffaugment", "policy": policy}} if policy else {}),
            "training": {
                "steps": images.steps, "batch": images.batch, "critic_steps": self.critic_steps,
                "generator_lr": self.rate, "critic_lr": self.rate, "betas": [0.0, 0.9], "lr_decay": "linear",
                "averaging": images.averaging(),
            },
        }  # fmt: skip
