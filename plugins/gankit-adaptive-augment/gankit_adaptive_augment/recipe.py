"""R3GAN (Huang et al. 2024, arXiv 2501.05441) with adaptive augmentation (Karras et al. 2020, arXiv 2006.06676)."""

from __future__ import annotations

from typing import Any, final

from gankit import recipes
from gankit.recipes import Recipe, TrainingImages


def adaptive_table(images: TrainingImages) -> dict[str, Any]:
    """The table `augment` of a recipe: `adaptive` with those of the paper's transformations that keep a label.

    Transformations that could change a label are off, and those of grey levels that may be measurements.
    """
    off = ["flip", "quarter_turns", "inversion", "hue"]
    if not images.pictures:
        off += ["brightness", "contrast", "saturation"]
    return {
        "name": "adaptive",
        "images": 100_000,
        "inner": {"name": "transforms", **dict.fromkeys(off, False)},
    }


@final
class R3GANAda(Recipe):
    """The recipe `r3gan`, augmented as often as its critic overfits, in place of a schedule and DiffAugment.

    The paper applies these transformations too, with a probability that only the number of steps decides.
    """

    purpose = "r3gan with StyleGAN2-ADA's augmentation"
    time = "hours on a GPU; a day or two on two CPU cores"

    def settings(self, images: TrainingImages) -> dict[str, Any]:
        """See `Recipe.settings`."""
        return {**recipes.get("r3gan")().settings(images), "augment": adaptive_table(images)}
