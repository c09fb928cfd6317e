"""R3GAN (Huang et al. 2024, arXiv 2501.05441) at a sixth of the paper's width, with its schedules."""

from functools import partial
from typing import Any

from gankit.recipes import HALF_LIFE, Recipe, TrainingImages


class R3GAN(Recipe):
    """The networks of R3GAN at a sixth of their width, a relativistic loss with R1 and R2, and the paper's schedules.

    The paper chooses gamma for each data set: 0.05 to 0.5 at 32x32, 1 to 2 at 64x64, 150 at 256x256. Here gamma is
    2 (side / 64)^3, which is within a factor of 1.2 of the paper's at 64x64 and at 256x256.
    """

    purpose = "the networks and the loss of 2024"
    time = "hours on a GPU; a day or two on two CPU cores"

    def settings(self, images: TrainingImages) -> dict[str, Any]:
        """See `Recipe.settings`."""
        steps = max(images.steps // 5, 1)  # settings change over the first fifth of a training
        moving = partial(dict[str, Any], steps=steps)
        gamma, policy = float(f"{2 * (images.side / 64) ** 3:.3g}"), images.policy()
        # at the end the paper's average forgets half in a fortieth of the images of its schedules
        decay = images.averaging(max(steps * images.batch / 40, HALF_LIFE))
        augment = {
            "name": "sometimes", "inner": {"name": "diffaugment", "policy": policy},
            "probability": moving(start=0.0, end=0.6 if images.count < 10_000 else 0.3),
        }  # fmt: skip
        penalties = [{"name": name, "weight": moving(start=gamma, end=gamma / 10)} for name in ("r1", "r2")]
        return {
            "generator": {"name": "r3gan", "width": 128},
            "critic": {"name": "r3gan", "width": 128},
            "losses": [{"name": "relativistic"}, *penalties],
            **({"augment": augment} if policy else {}),
            "training": {
                "steps": images.steps, "batch": images.batch, "critic_steps": 1,
                **{f"{side}_lr": moving(start=2e-4, end=5e-5) for side in ("generator", "critic")},
                "betas": [0.0, moving(start=0.9, end=0.99)], "averaging": moving(start=0.0, end=decay),
            },
        }  # fmt: skip
