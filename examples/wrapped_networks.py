"""Train networks that were written without gankit: wrap them, register them, and name them in an experiment."""

import sys

from torch import Tensor, nn

import gankit


# --8<-- [start:theirs]
class TheirGenerator(nn.Module):
    """Written elsewhere: latents of shape (n, nz, 1, 1) to images of 32x32."""

    def __init__(self, nz: int = 100, ngf: int = 16) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, 4 * ngf, 4, 1, 0), nn.BatchNorm2d(4 * ngf), nn.ReLU(),
            nn.ConvTranspose2d(4 * ngf, 2 * ngf, 4, 2, 1), nn.BatchNorm2d(2 * ngf), nn.ReLU(),
            nn.ConvTranspose2d(2 * ngf, ngf, 4, 2, 1), nn.BatchNorm2d(ngf), nn.ReLU(),
            nn.ConvTranspose2d(ngf, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        return self.main(z)


class TheirCritic(nn.Module):
    def __init__(self, ndf: int = 16) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(3, ndf, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(ndf, 2 * ndf, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * ndf, 4 * ndf, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4 * ndf, 1, 4, 1, 0),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.main(images)


# --8<-- [end:theirs]

# --8<-- [start:wrap]
# Wrap an instance. gankit gives latents as (n, 100), so a layer that adds the missing axes comes first.
generator = nn.Sequential(nn.Unflatten(1, (100, 1, 1)), TheirGenerator(nz=100))
gankit.generators.register("theirs")(gankit.wrap("generator", generator, latent_dim=100))
# Wrap a class: an experiment can then set its arguments.
gankit.critics.register("theirs")(gankit.wrap("critic", TheirCritic))

out, *overrides = sys.argv[1:] or ["runs/wrapped"]
experiment = gankit.load("wgan-gp", "generator.name=theirs", "critic.name=theirs", "critic.ndf=24", *overrides)
run = gankit.train(experiment, out)
# --8<-- [end:wrap]
print(run.path, run.steps, run.sample(4).shape)
