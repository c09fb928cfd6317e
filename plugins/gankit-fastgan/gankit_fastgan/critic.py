"""The critic of Liu et al. 2021 (FastGAN, arXiv 2101.04775, section 3.2): an encoder with small decoders."""

from __future__ import annotations

import itertools
from typing import Annotated, final

from annotated_types import Ge
from gankit.interfaces import Critic, ImageSpec
from gankit.nn.layers import Norm, NormName, ResampledConv2d, unconditional_pyramid, with_spectral_norm
from torch import Tensor, nn
from torch.nn import functional as F

from gankit_fastgan.layers import SLOPE, Decoder, ResidualDown, channels_at, crop_quarters

Maps = tuple[Tensor, Tensor]
DOUBLINGS = 4
"""Doublings of each decoder in the paper, from 8x8 to 128x128."""


@final
class FastGANCritic(Critic):
    """Residual halvings down to 8 to 14 pixels, then one score for every 4x4 window.

    Two decoders turn its maps into images: the last map into a small whole image, and a crop of the map before into a
    crop of the image. Only the loss `fastgan-reconstruction` trains them; without it they are not used. The shorter
    side of the image must be 4 to 7 times 2^k with k at least 3, and 2^k must divide the longer. At 64x64 and width 64
    it has 10,139,527 parameters, 3,839,878 of them in the decoders. It cannot use labels.

    Args:
        image: specification of the images to score.
        width: channels where the shorter side is 64 to 127 pixels; twice as many at half the side.
        norm: "batch", as in published trainings, "layer" (GroupNorm with one group) or "none". With "batch" the score
            of a sample depends on the others: such a critic is refused beside a gradient penalty.
        spectral: spectral normalisation of every weight but the decoders' (arXiv 1802.05957).

    Raises:
        PartError: the size does not fit, or the data are conditional.
    """

    channels_last = True
    capturable = True

    def __init__(
        self,
        image: ImageSpec,
        *,
        width: Annotated[int, Ge(1)] = 64,
        norm: NormName = "batch",
        spectral: bool = True,
    ) -> None:
        super().__init__()
        levels, height, width_ = unconditional_pyramid(image, "critic fastgan", 3)
        channels = [channels_at(width, level) for level in range(levels, 0, -1)]
        self.grid = (4 * height, 4 * width_)
        self.encoder = nn.ModuleList([ResampledConv2d(image.channels, channels[0], 3)])
        self.encoder.extend(ResidualDown(a, b, norm) for a, b in itertools.pairwise(channels))
        self.head = nn.Sequential(
            nn.Conv2d(channels[-1], channels[-1], 1, bias=norm == "none"),
            Norm(norm, channels[-1]),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(channels[-1], 1, 4),
        )
        if spectral:
            with_spectral_norm(self)
        # No reconstruction has more pixels than the image or crop that it shows.
        doublings = [min(DOUBLINGS, levels - 1), min(DOUBLINGS, levels - 2)]
        self.pooling = [2 ** (most - used) for most, used in zip((levels - 1, levels - 2), doublings, strict=True)]
        self.whole = Decoder(width, 1, channels[-1], image.channels, doublings[0], norm)
        self.part = Decoder(width, 2, channels[-2], image.channels, doublings[1], norm)

    def features(self, images: Tensor) -> Maps:
        """(n, channels, height, width) to the last two maps.

        Returns:
            (n, c, h, w) with a shorter side of 16 to 28 pixels, and (n, 2 c, h / 2, w / 2).
        """
        x = self.encoder[0](images)
        x = F.leaky_relu(x, SLOPE)
        for block in self.encoder[1:-1]:
            x = block(x)
        return x, self.encoder[-1](x)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, channels, height, width) to (n, h, w) scores, 5x5 for square images; labels are not used."""
        return self.score(self.features(images))

    def score(self, features: Maps, labels: Tensor | None = None) -> Tensor:
        """The maps of `features` to (n, h, w) scores; labels are not used."""
        scores: Tensor = self.head(features[1])
        return scores.squeeze(1)

    def reconstruct(self, features: Maps, corners: Tensor) -> tuple[Tensor, Tensor]:
        """Turn the maps of `features` into images in [-1, 1] that should equal those of `shown`.

        Args:
            features: from `features`.
            corners: (n, 2) in [0, 1), where the crop lies.
        """
        larger, last = features
        return self.whole(last), self.part(crop_quarters(larger, corners, self.grid))

    def shown(self, images: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
        """The images that `reconstruct` should give.

        Args:
            images: (n, channels, height, width).
            corners: (n, 2) in [0, 1), where the crop lies.

        Returns:
            The whole images, (n, channels, h, w), and a crop of half the height and width; larger ones are reduced by
            averaging to 16 times the side of the decoded map (128 to 224 pixels).
        """
        whole, part = (F.avg_pool2d(images, side) for side in self.pooling)
        return whole, crop_quarters(part, corners, self.grid)
