"""R3GAN (Huang et al. 2024, arXiv 2501.05441) at a sixth of the paper's width, with its schedules."""

from typing import Any

from gankit.recipes import HALF_LIFE, Recipe, TrainingImages

MOVING = 5
"""Settings move over the first fifth of a training."""


class R3GAN(Recipe):
    """The networks of R3GAN at a sixth of their width, a relativistic loss with R1 and R2, and the paper's schedules.

    The paper chooses gamma for each data set: 0.05 to 0.5 at 32x32, 1 to 2 at 64x64, 150 at 256x256. The rule, twice
    the cube of side / 64, lies within a factor of 1.2 of the last two.
    """

    purpose = "the networks and the loss of 2024"
    time = "hours on a GPU; a day or two on two CPU cores"

    def settings(self, images: TrainingImages) -> dict[str, Any]:
        """See `Recipe.settings`."""
        moving = max(images.steps // MOVING, 1)
        gamma = float(f"{2 * (images.side / 64) ** 3:.3g}")
        policy = images.policy()
        rates, weight = (
            {"start": start, "end": end, "steps": moving} for start, end in ((2e-4, 5e-5), (gamma, gamma / 10))
        )
        augment = {
            "name": "sometimes", "inner": {"name": "diffaugment", "policy": policy},
            "probability": {"start": 0.0, "end": 0.6 if images.count < 10_000 else 0.3, "steps": moving},
        }  # fmt: skip
        return {
            "generator": {"name": "r3gan", "width": 128},
            "critic": {"name": "r3gan", "width": 128},
            "losses": [
                {"name": "relativistic"}, {"name": "r1", "weight": weight}, {"name": "r2", "weight": dict(weight)},
            ],
            **({"augment": augment} if policy else {}),
            "training": {
                "steps": images.steps, "batch": images.batch, "critic_steps": 1, "generator_lr": rates,
                "critic_lr": dict(rates), "betas": [0.0, {"start": 0.9, "end": 0.99, "steps": moving}],
                # the paper's average forgets half in a fortieth of the images of its schedules
                "averaging": images.averaging(max(moving * images.batch / 40, HALF_LIFE)),
            },
        }  # fmt: skip
