"""StyleGAN2 (Karras et al. 2020, arXiv 1912.04958) with adaptive augmentation (arXiv 2006.06676)."""

from __future__ import annotations

from typing import Any, final

from gankit.recipes import Recipe, TrainingImages
from gankit_adaptive_augment import adaptive_table


@final
class StyleGAN2(Recipe):
    """StyleGAN2-ADA's configuration "auto" at half its channels; R1 on every fourth update instead of every 16th.

    Size and number of the images decide batch and gamma; the augmentation adapts to how much the critic overfits.
    Transformations that could change a label are off, and those of grey levels that may be measurements.
    """

    purpose = "faces, objects and scenes, with a GPU and hours"
    time = "hours on a GPU"

    def settings(self, images: TrainingImages) -> dict[str, Any]:
        """See `Recipe.settings`."""
        return {
            "generator": {
                "name": "stylegan2", "width": 128, "max_width": 256, "latent_dim": 256, "style_dim": 256,
                "mapping_layers": 2,
            },
            "critic": {"name": "stylegan2", "width": 128, "max_width": 256},
            "losses": [
                {"name": "non-saturating"},
                {"name": "r1", "weight": images.r1_weight(), "every": 4},
                {"name": "stylegan2-path-length", "every": 4},
            ],
            "augment": adaptive_table(images),
            "training": {
                "steps": images.steps, "batch": images.batch, "critic_steps": 1, "generator_lr": 2.5e-3,
                "critic_lr": 2.5e-3, "betas": [0.0, 0.99], "lazy_scaling": True, "averaging": images.averaging(),
                "mixed_penalties": True,  # R1 goes through the statistics of the minibatch
            },
        }  # fmt: skip
