"""The DCGAN generator of Radford, Metz and Chintala 2016 (arXiv 1511.06434), in its widely used torch form."""

from torch import Tensor, nn

from gankit.interfaces import Generator, ImageSpec
from gankit.nn.layers import Width, unconditional_pyramid


class DCGANGenerator(Generator):
    """Transposed 4x4 convolutions of stride 2 with batch normalisation and ReLU; tanh at the end.

    The shorter side of the image must be 4 to 7 times 2^k with k at least 1, and 2^k must divide the longer. At 64x64
    and width 64 it has 3,576,704 parameters. It cannot use labels.

    Args:
        image: specification of the images to make.
        latent_dim: length of a latent vector.
        width: channels of the largest hidden level; each smaller level has twice as many.

    Raises:
        PartError: the size does not fit, or the data are conditional.
    """

    channels_last = True
    capturable = True

    def __init__(self, image: ImageSpec, *, latent_dim: Width = 100, width: Width = 64) -> None:
        super().__init__()
        levels, height, width_ = unconditional_pyramid(image, "generator dcgan")
        channels = [width << level for level in reversed(range(levels))]
        self.latent_dim = latent_dim
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim, channels[0], (height, width_), bias=False)]
        for a, b in zip(channels, [*channels[1:], image.channels], strict=True):
            layers += [nn.BatchNorm2d(a), nn.ReLU(), nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False)]
        self.layers = nn.Sequential(*layers, nn.Tanh())
        for layer in layers:
            if isinstance(layer, nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, 0.0, 0.02)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, 1.0, 0.02)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, latent_dim) to (n, channels, height, width) in [-1, 1]; labels are not used."""
        images: Tensor = self.layers(z[:, :, None, None])
        return images
