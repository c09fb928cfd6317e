"""The critic of Liu et al. 2021 (FastGAN, arXiv 2101.04775, section 3.2): an encoder with small decoders."""

from __future__ import annotations

from typing import Annotated, final

import torch
from annotated_types import Ge
from gankit.interfaces import Critic, ImageSpec
from gankit.nn.layers import LabelEmbedding, Norm, NormName, ResampledConv2d, pyramid, with_spectral_norm
from torch import Tensor, nn
from torch.nn import functional as F

from gankit_fastgan.layers import SLOPE, Decoder, ResidualDown, channels_at, crop_quarters, level_name

Maps = tuple[Tensor, ...]
DOUBLINGS = 4
"""Doublings of each decoder in the paper, from 8x8 to 128x128."""
SMALL_LEVEL = 5
"""The second branch sees images whose shorter side is at most 4 to 7 times 2^5, 128 pixels for a power of two."""


class Encoder(nn.Module):
    """Residual halvings of an image.

    Args:
        image: specification of the images that it sees; they may be reduced ones.
        channels: by level, of the first convolution and of each halving.
        norm: the normalisation.
    """

    def __init__(self, image: ImageSpec, channels: dict[int, int], norm: NormName) -> None:
        super().__init__()
        top, *levels = channels
        self.conv = ResampledConv2d(image.channels, channels[top], 3)
        self.blocks = nn.ModuleDict({level_name(n): ResidualDown(channels[n + 1], channels[n], norm) for n in levels})

    def forward(self, images: Tensor) -> Maps:
        """(n, channels, height, width) to the last two maps, the larger first."""
        maps = [F.leaky_relu(self.conv(images), SLOPE)]
        for block in self.blocks.values():
            maps.append(block(maps[-1]))
        return maps[-2], maps[-1]


class Head(nn.Module):
    """A map to one score for every 4x4 window, with the projection of a label (arXiv 1802.05637).

    Args:
        image: says which labels there are.
        channels: of the map.
        norm: the normalisation.
    """

    def __init__(self, image: ImageSpec, channels: int, norm: NormName) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=norm == "none"),
            Norm(norm, channels),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(channels, 1, 4),
        )
        self.projection = LabelEmbedding(image, channels, None) if image.conditional else None

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """(n, c, h, w) and labels to (n, 1, h - 3, w - 3) scores."""
        scores: Tensor = self.layers(x)
        if self.projection is None:
            return scores
        projected: Tensor = (self.projection(labels) * x.mean((2, 3))).sum(1)
        return scores + projected[:, None, None, None]


@final
class FastGANCritic(Critic):
    """Residual halvings until the shorter side is 8 to 14 pixels, then one score for every 4x4 window; in two branches.

    Images below 32 pixels are halved once more, to 4 to 7 pixels. The second branch scores the image at half its side,
    and at 128 pixels at most, by layers of its own. Decoders turn maps into images: the last map of either branch into
    the whole image, reduced; and a crop of the first branch's map before the last into a crop of the image. Only the
    loss `fastgan-reconstruction` trains them; without it they are not used. The shorter side of the image must be 4 to
    7 times 2^k with k at least 2, and 2^k must divide the longer. At 64x64 and width 64 it has 19,107,595 parameters,
    6,793,993 of them in the decoders. Labels act by projection on the last map's mean.

    Args:
        image: specification of the images to score.
        width: channels where the shorter side is 64 to 127 pixels; twice as many at half the side.
        norm: "batch", as in published trainings, "layer" (GroupNorm with one group) or "none". With "batch" the score
            of a sample depends on the others: such a critic is refused beside a gradient penalty.
        spectral: spectral normalisation of every weight but the decoders' (arXiv 1802.05957).
        second: whether there is a second branch.

    Raises:
        PartError: the size does not fit.
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
        second: bool = True,
    ) -> None:
        super().__init__()
        levels, height, width_ = pyramid(image, "critic fastgan", 2)
        end = min(1, levels - 2)  # the last map's level: of small images one more, so that the second branch halves too
        self.grid = (height << end + 1, width_ << end + 1)
        seen = {"first": levels, "second": min(levels - 1, SMALL_LEVEL)}
        if not second:
            del seen["second"]
        channels = {n: channels_at(width, n) for n in range(end, levels + 1)}
        # Branches and levels have names, not numbers: runs that start from others take their layers by name.
        self.encoders = nn.ModuleDict(
            {
                name: Encoder(image, {n: channels[n] for n in range(top, end - 1, -1)}, norm)
                for name, top in seen.items()
            }
        )
        self.heads = nn.ModuleDict({name: Head(image, channels[end], norm) for name in seen})
        if spectral:
            with_spectral_norm(self)
        # Fewer than the paper's where a reconstruction would have more pixels than the image or crop that it shows.
        doublings = {name: min(DOUBLINGS, top - end) for name, top in seen.items()}
        part_doublings = min(DOUBLINGS, levels - end - 1)
        self.wholes = nn.ModuleDict(
            {name: Decoder(width, end, channels[end], image.channels, most, norm) for name, most in doublings.items()}
        )
        self.part = Decoder(width, end + 1, channels[end + 1], image.channels, part_doublings, norm)
        self.reduction = 2 ** (levels - seen.get("second", levels))
        reductions = [levels - end - most for most in doublings.values()] + [levels - end - 1 - part_doublings]
        self.pooling = [2**halvings for halvings in reductions]

    def features(self, images: Tensor) -> Maps:
        """(n, channels, height, width) to the maps that are scored and decoded.

        Returns:
            (n, c, h, w) with a shorter side of 16 to 28 pixels (of smaller images 8 to 14), (n, 2 c, h / 2, w / 2),
            and the second branch's last map of the same shape.
        """
        maps: Maps = self.encoders["first"](images)
        if "second" not in self.encoders:
            return maps
        return (*maps, self.encoders["second"](F.avg_pool2d(images, self.reduction))[1])

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, channels, height, width) and labels to (n, branches, h, w) scores, 5x5 each of 8x8 maps."""
        return self.score(self.features(images), labels)

    def score(self, features: Maps, labels: Tensor | None = None) -> Tensor:
        """The maps of `features` and labels to (n, branches, h, w) scores."""
        return torch.cat([head(x, labels) for head, x in zip(self.heads.values(), features[1:], strict=True)], 1)

    def reconstruct(self, features: Maps, corners: Tensor) -> Maps:
        """Turn the maps of `features` into images in [-1, 1] that should equal those of `shown`.

        Args:
            features: from `features`.
            corners: (n, 2) in [0, 1), where the crop lies.
        """
        larger, *last = features
        wholes = [decoder(x) for decoder, x in zip(self.wholes.values(), last, strict=True)]
        return (*wholes, self.part(crop_quarters(larger, corners, self.grid)))

    def shown(self, images: Tensor, corners: Tensor) -> Maps:
        """The images that `reconstruct` should give.

        Args:
            images: (n, channels, height, width).
            corners: (n, 2) in [0, 1), where the crop lies.

        Returns:
            The whole image for each branch, (n, channels, h, w), and a crop of half the height and width; larger ones
            are reduced by averaging to 16 times the side of the decoded map (128 to 224 pixels).
        """
        *wholes, part = (F.avg_pool2d(images, side) for side in self.pooling)
        return (*wholes, crop_quarters(part, corners, self.grid))
