"""The ResNet critic of Gulrajani et al. 2017 (arXiv 1704.00028, appendix F), for any size and channels."""

import itertools
import math
from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen
from torch import Tensor, nn

from gankit.errors import PartError, counted
from gankit.interfaces import Critic, ImageSpec
from gankit.nn.layers import (
    ClassLogits,
    LabelEmbedding,
    ResampledConv2d,
    ResidualBlock,
    Width,
    pyramid,
    relu,
    with_spectral_norm,
)


class ResNetCritic(Critic):
    """Down-sampling residual blocks, blocks that keep the size, and a linear head.

    With labels the head adds the projection <e(label), features> (Miyato and Koyama 2018, arXiv 1802.05637, equation
    4). At 32x32 and width 128 this is the paper's CIFAR network (1,053,825 parameters); its 64x64 network is the recipe
    `wgan-gp-64`.

    Args:
        image: specification of the images to score.
        width: channels of every level, unless `widths` is given.
        widths: channels after each halving; with the stem "conv", the stem's channels come first. By default `width`,
            and halvings, at least one, until the shorter side has 8 to 14 pixels.
        flat_blocks: residual blocks after the last halving, which keep size and width.
        norm: "none" or "layer" (GroupNorm with one group). There is no batch normalisation: with it the score of a
            sample would depend on the others.
        spectral: spectral normalisation of every weight (arXiv 1802.05957).
        first_bias: whether each block's first convolution has a bias.
        stem: "block" for a residual block on pixels that halves the size, "conv" for one 3x3 convolution.
        head: "mean" or "sum" for ReLU and pooling over pixels, "flatten" for neither.
        projection: whether the score has the projection term; only a critic with a class head can do without it.
        class_head: adds logits of the classes, from the same features, for the loss `auxiliary-class`.
        fused: convolutions fused with pooling; equal up to rounding, faster.

    Raises:
        PartError: the size cannot be halved as often as `widths` says, there are no classes for a class head, or labels
            would have no effect.
    """

    channels_last = True
    capturable = True

    def __init__(
        self,
        image: ImageSpec,
        *,
        width: Width = 128,
        widths: Annotated[list[Width], MinLen(1)] | None = None,
        flat_blocks: Annotated[int, Ge(0), Le(1000)] = 2,
        norm: Literal["none", "layer"] = "none",
        spectral: bool = False,
        first_bias: bool = True,
        stem: Literal["block", "conv"] = "block",
        head: Literal["mean", "sum", "flatten"] = "mean",
        projection: bool = True,
        class_head: bool = False,
        fused: bool = True,
    ) -> None:
        super().__init__()
        if widths is None:
            levels, _, _ = pyramid(image, "critic resnet")
            widths = [width] * (max(levels - 1, 1) + (stem == "conv"))
        halvings = len(widths) - (stem == "conv")
        if image.height % 2**halvings or image.width % 2**halvings:
            most = math.gcd(image.height, image.width, 1 << 20).bit_length() - 1 + (stem == "conv")
            fewer = f"give critic.widths at most {counted(most, 'number')}"
            advice = fewer if most else f"set critic.stem=conv and critic.widths=[{widths[0]}]"
            raise PartError(
                f"critic resnet halves the image {counted(halvings, 'time')}, which {image.height}x{image.width} does "
                f"not allow: {advice}, or change data.size"
            )
        self.head = head
        if stem == "block":
            self.stem: nn.Module = ResidualBlock(
                image.channels, widths[0], "down", norm, first=True, first_bias=first_bias, fused=fused
            )
        else:
            self.stem = ResampledConv2d(image.channels, widths[0], 3)
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b, "down", norm, hidden=a, first_bias=first_bias, fused=fused)
            for a, b in itertools.pairwise(widths)
        )
        self.blocks.extend(
            ResidualBlock(widths[-1], widths[-1], None, norm, first_bias=first_bias) for _ in range(flat_blocks)
        )
        pixels = (image.height >> halvings) * (image.width >> halvings)
        dim = widths[-1] * (pixels if head == "flatten" else 1)
        self.linear = nn.Linear(dim, 1)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        if class_head and not image.classes:
            raise PartError("critic.class_head needs classes: set data.conditional=true, or critic.class_head=false")
        if image.conditional and not (projection or class_head):
            raise PartError("critic resnet would ignore the labels: set critic.projection or critic.class_head")
        self.projection = LabelEmbedding(image, dim, None) if image.conditional and projection else None
        self.logits = ClassLogits(image, dim) if class_head else None
        if class_head:
            self.class_logits = self._class_logits  # only then is it a ClassHead
        if spectral:
            with_spectral_norm(self)

    def features(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) to (n, dim), what the head scores."""
        x: Tensor = self.stem(images)
        for block in self.blocks:
            x = block(x)
        if self.head == "flatten":
            return x.flatten(1)
        x = relu(x)
        return x.mean((2, 3)) if self.head == "mean" else x.sum((2, 3))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, channels, height, width) and labels to (n,) scores."""
        return self.score(self.features(images), labels)

    def score(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, dim) features and labels to (n,) scores."""
        scores: Tensor = self.linear(features).squeeze(1)
        if self.projection is None:
            return scores
        projected: Tensor = self.projection(labels) * features
        return scores + projected.sum(1)

    def _class_logits(self, features: Tensor) -> Tensor:
        assert self.logits is not None
        logits: Tensor = self.logits(features)
        return logits
