"""FastGAN (Liu et al. 2021, arXiv 2101.04775) for images of 28 to 256 pixels."""

from __future__ import annotations

from typing import Any, final

from gankit.recipes import Recipe, TrainingImages


@final
class FastGAN(Recipe):
    """The published losses, rates and augmentation; networks of width 64, as the paper's at 256x256.

    Batches follow from size and number of the images, and are larger than the published 8: at 64x64, batches of 64
    learned faster than of 16.
    """

    purpose = "a hundred to some thousand pictures, with a GPU"
    time = "20 minutes on a GPU at 64x64"
    proposed_on = ("cuda",)

    def settings(self, images: TrainingImages) -> dict[str, Any]:
        """See `Recipe.settings`."""
        policy = images.policy(cutout=False)  # the published one
        return {
            "generator": {"name": "fastgan", "width": 64},
            "critic": {"name": "fastgan", "width": 64},
            "losses": [{"name": "fastgan-hinge"}, {"name": "fastgan-reconstruction"}],
            **({"augment": {"name": "diffaugment", "policy": policy}} if policy else {}),
            "training": {
                "steps": images.steps, "batch": images.batch, "critic_steps": 1, "generator_lr": 2e-4,
                "critic_lr": 2e-4, "betas": [0.5, 0.999], "averaging": images.averaging(),
            },
        }  # fmt: skip
