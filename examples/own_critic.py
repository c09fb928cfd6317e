"""A critic in ten lines: strided convolutions that score patches."""

import itertools
import sys

from torch import Tensor, nn

import gankit


# --8<-- [start:critic]
@gankit.critics.register("patches")
class Patches(gankit.Critic):
    def __init__(self, image: gankit.ImageSpec, *, width: int = 32) -> None:
        super().__init__()
        channels = [image.channels, width, 2 * width, 4 * width]
        halvings = [[nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.2)] for a, b in itertools.pairwise(channels)]
        self.layers = nn.Sequential(*itertools.chain(*halvings), nn.Conv2d(channels[-1], 1, 1))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.layers(images)  # (n, 1, h / 8, w / 8): scores of any shape are averaged for each image


# --8<-- [end:critic]


out, *overrides = sys.argv[1:] or ["runs/own-critic"]
run = gankit.train(gankit.load("wgan-gp", "critic.name=patches", *overrides), out)
print(run.path, run.steps)
