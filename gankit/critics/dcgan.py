"""The DCGAN critic of Radford, Metz and Chintala 2016 (arXiv 1511.06434), in its widely used torch form."""

import itertools

from torch import Tensor, nn

from gankit.interfaces import Critic, ImageSpec
from gankit.nn.layers import Norm, NormName, Width, unconditional_pyramid, with_spectral_norm


class DCGANCritic(Critic):
    """4x4 convolutions of stride 2 with normalisation and LeakyReLU 0.2; scores are logits, without a sigmoid.

    The shorter side of the image must be 4 to 7 times 2^k with k at least 1, and 2^k must divide the longer. At 64x64
    and width 64 it has 2,765,568 parameters. It cannot use labels. With the paper's batch
    normalisation the score of a sample depends on the others: such a critic is refused beside a gradient penalty.

    Args:
        image: specification of the images to score.
        width: channels of the largest level; each smaller level has twice as many.
        norm: "batch", "layer" (GroupNorm with one group) or "none", after every convolution but the first and last.
        spectral: spectral normalisation of every weight (arXiv 1802.05957).

    Raises:
        PartError: the size does not fit, or the data are conditional.
    """

    channels_last = True
    capturable = True

    def __init__(
        self, image: ImageSpec, *, width: Width = 64, norm: NormName = "batch", spectral: bool = False
    ) -> None:
        super().__init__()
        levels, height, width_ = unconditional_pyramid(image, "critic dcgan")
        channels = [image.channels, *(width << level for level in range(levels))]
        layers: list[nn.Module] = []
        for level, (a, b) in enumerate(itertools.pairwise(channels)):
            layers.append(nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False))
            if level and norm != "none":
                layers.append(Norm(norm, b))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, (height, width_), bias=False))
        for module in self.layers.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
        if spectral:
            with_spectral_norm(self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, channels, height, width) to (n,) scores; labels are not used."""
        scores: Tensor = self.layers(images)
        return scores.flatten()
