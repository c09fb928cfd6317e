"""The recipe resnet with a fourth of its channels, for CPUs; docs/measured/demo-search.md has its trials."""

from typing import Any

from gankit.recipes import TrainingImages
from gankit.recipes.resnet import ResNet


class SmallResNet(ResNet):
    """The recipe `resnet` with a fourth of its channels, smaller batches and higher rates, for CPUs.

    With colour or cutout, networks would take longer to learn than is practical on a CPU.
    """

    purpose = "any pictures, without a GPU"
    time = "2 hours on a CPU core at 32x32"
    proposed_on = ("cpu", "mps")
    channels = (128, 16)
    rate = 1e-3
    critic_steps = 1
    largest_batch = 32
    translation_only = True

    def critic_blocks(self, images: TrainingImages, widths: list[int]) -> dict[str, Any]:
        """The generator's widths in reverse, down to 2 or 3 pixels.

        If the last block would halve an odd side, they are without the generator's first, and that block is flat.
        """
        if all(side % 2 ** len(widths) == 0 for side in (images.image.height, images.image.width)):
            return {"widths": widths[::-1], "flat_blocks": 0}
        return {"widths": widths[1:][::-1], "flat_blocks": 1}
