"""Layers that several networks share: convolutions fused with resampling, conditional normalisation, residual blocks.

Residual blocks and their initialisation follow Gulrajani et al. 2017 (arXiv 1704.00028, appendix F); conditional batch
normalisation de Vries et al. 2017 (arXiv 1707.00683).
"""

from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from gankit.errors import PartError
from gankit.images.spec import ImageSpec
from gankit.nn.double_backward import conv2d as conv2d
from gankit.nn.double_backward import leaky_relu as leaky_relu
from gankit.nn.double_backward import mean_pool as mean_pool
from gankit.nn.double_backward import relu as relu
from gankit.nn.layer_norm import LayerNorm
from gankit.nn.modes import cast, few_kernels
from gankit.nn.spectral_norm import with_spectral_norm as with_spectral_norm

Resample = Literal["up", "down"] | None
NormName = Literal["batch", "layer", "none"]
Width = Annotated[int, Ge(1)]


def pyramid(image: ImageSpec, part: str, doublings: int = 0) -> tuple[int, int, int]:
    """How a network reaches an image size by doubling.

    Args:
        image: the shorter side must be 4 to 7 times 2^k, and 2^k must divide the longer.
        part: the network's name, for the error.
        doublings: the least k.

    Returns:
        k, and the height and width of the smallest level.

    Raises:
        PartError: no k fits, or only smaller ones; names the nearest sizes that do.
    """
    short, long = sorted((image.height, image.width))
    k = max(short.bit_length() - 3, 0)
    if short < 4 or short % 2**k or long % 2**k:
        sides = [base << level for level in range(short.bit_length()) for base in (4, 5, 6, 7)]
        nearest = sorted(sorted(sides, key=lambda side: abs(side - short))[:2])
        raise PartError(
            f"{part} does not fit images {image.height} high and {image.width} wide: the shorter side must be 4 to 7 "
            "times a power of two that also divides the longer; "
            f"set data.size, for example {nearest[0]} or {nearest[1]}"
        )
    if k < doublings:
        least = 4 << doublings
        raise PartError(
            f"{part} does not fit images of {image.height}x{image.width}: the shorter side must be {least} pixels at "
            f"least; set data.size={least} or more"
        )
    return k, image.height >> k, image.width >> k


def unconditional_pyramid(image: ImageSpec, part: str) -> tuple[int, int, int]:
    """`pyramid` of a network that cannot use labels and needs at least one doubling.

    Raises:
        PartError: the image has labels, or its size does not fit or is too small.
    """
    levels = pyramid(image, part, 1)
    if image.conditional:
        kind = part.partition(" ")[0]
        raise PartError(f"{part} cannot use labels: set data.conditional=false, or {kind}.name=resnet")
    return levels


def fuse_resampling(weight: Tensor) -> Tensor:
    """(o, i, 3, 3) to (o, i, 4, 4): the sum of four copies, shifted by 0 or 1 pixel along each axis."""
    # The older ONNX exporter loses the shape of padded tensors. torch.compile cannot compile the call of `_is_tracing`.
    if not torch.compiler.is_compiling() and torch._C._is_tracing():
        for axis in (2, 3):
            first, second, third = weight.unbind(axis)
            weight = torch.stack([first, first + second, second + third, third], axis)
        return weight
    if few_kernels(weight.device):
        return F.avg_pool2d(F.pad(weight, (1, 1, 1, 1)), 2, 1, divisor_override=1)
    return sum((F.pad(weight, (i, 1 - i, j, 1 - j)) for i in (0, 1) for j in (0, 1)), weight.new_zeros(()))


def _upsampling(weight: Tensor) -> Tensor:
    return fuse_resampling(weight).flip(2, 3).transpose(0, 1)


def _downsampling(weight: Tensor) -> Tensor:
    return fuse_resampling(weight) / 4


class ResampledConv2d(nn.Conv2d):
    """A same-size convolution after nearest up-sampling by two, or before 2x2 mean pooling, or plain.

    With `fused`, a 3x3 kernel and its resampling are one 4x4 kernel of stride 2, and a 1x1 convolution runs on the
    smaller side: equal up to rounding, at less than half the arithmetic. Parameters and state are those of the plain
    convolution either way.
    """

    def __init__(
        self, channels_in: int, channels_out: int, size: int, resample: Resample = None, *,
        bias: bool = True, fused: bool = True, gain: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(channels_in, channels_out, size, padding=size // 2, bias=bias)
        self.resample = resample
        self.fused = fused
        nn.init.xavier_uniform_(self.weight, gain)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(n, i, h, w) to (n, o, h', w'), with h' and w' doubled, halved or kept."""
        if self.resample is None:
            return self._plain(x)
        up = self.resample == "up"
        if self.fused and self.kernel_size == (3, 3):
            kernel = cast(self.weight, _upsampling if up else _downsampling)
            if up:
                return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)
            return conv2d(x, kernel, self.bias, 2, 1)
        # A 1x1 convolution and resampling commute.
        resample_first = up != (self.fused and self.kernel_size == (1, 1))
        return self._plain(_resample(x, up)) if resample_first else _resample(self._plain(x), up)

    def _plain(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, self.bias, 1, self.kernel_size[0] // 2)


def _resample(x: Tensor, up: bool) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest") if up else mean_pool(x)


def influence_at(step: int, first: int, last: int) -> float:
    """How much labels act after `step` generator updates: 0 up to `first`, 1 from the later `last`, linear between.

    The transition of Shahbazi et al. 2022 (arXiv 2201.06578).
    """
    return min(max((step - first) / (last - first), 0.0), 1.0)


class LabelLayer(nn.Module):
    """A layer through which labels act on a network, little by little where `fade_in` says so.

    Attributes:
        fade: (first, last) step of the transition from no influence to all, or None.
        influence: a scalar buffer between 0 and 1, saved with the weights; None where labels always act in full.
    """

    fade: tuple[int, int] | None = None
    influence: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("influence", None)

    def fade_in(self, first: int, last: int) -> None:
        """Let labels come in from generator update `first` to a later `last`; `before_step` moves their influence."""
        self.fade = (first, last)
        self.set_influence(1.0)

    def set_influence(self, influence: float) -> None:
        """Set how much labels act, from 0 for not at all to 1 for in full."""
        if self.influence is None:
            self.influence = next(self.parameters()).detach().new_ones(())
        self.influence.fill_(influence)

    def before_step(self, step: int) -> dict[str, float] | None:
        """Set the influence of this step; the log shows it as `label_influence`."""
        if self.fade is None:
            if self.influence is not None:  # this run started from one whose labels faded in
                self.set_influence(1.0)
            return None
        influence = influence_at(step, *self.fade)
        self.set_influence(influence)
        return {"label_influence": influence}

    def blend(self, labelled: Tensor, unlabelled: Tensor | float = 0.0) -> Tensor:
        """`unlabelled` where labels have no influence, `labelled` where they have all of it, linear in between.

        Args:
            labelled: (n, k), a function of the labels.
            unlabelled: a number, or a tensor that broadcasts to the same shape.
        """
        if self.influence is None:
            return labelled
        blended = unlabelled + (labelled - unlabelled) * self.influence
        return torch.where(self.influence == 1, labelled, blended)  # without rounding where labels act in full

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *details: Any) -> None:
        key = f"{prefix}influence"
        if key in state_dict and self.influence is None:
            self.set_influence(1.0)
        elif self.influence is not None:  # files of format 1 lack it
            state_dict.setdefault(key, self.influence)
        super()._load_from_state_dict(state_dict, prefix, *details)


def label_layers(network: nn.Module) -> list[LabelLayer]:
    """The layers through which labels act on a network."""
    return [module for module in network.modules() if isinstance(module, LabelLayer)]


def set_influence(network: nn.Module, influence: float) -> None:
    """Set how much labels act, from 0 to 1, in every label layer of a network."""
    for layer in label_layers(network):
        layer.set_influence(influence)


class LabelEmbedding(LabelLayer):
    """Classes or float conditions to vectors: a table of rows, or a linear map.

    Where labels have no influence, all vectors are the same: the mean of the rows, the bias, or zeros where `start` is
    None. The network is then the one without labels.

    Args:
        image: says which, and how many.
        dim: length of a vector.
        start: the value of every vector before training; None draws them (Xavier uniform).
    """

    def __init__(self, image: ImageSpec, dim: int, start: float | None) -> None:
        super().__init__()
        self.has_bias = start is not None
        self.table = (
            nn.Embedding(image.classes, dim) if image.classes else nn.Linear(image.conditions, dim, start is not None)
        )
        if start is None:
            nn.init.xavier_uniform_(self.table.weight)
        elif isinstance(self.table, nn.Embedding):
            nn.init.constant_(self.table.weight, start)
        else:
            nn.init.zeros_(self.table.weight)
            nn.init.constant_(self.table.bias, start)

    def forward(self, labels: Tensor | None) -> Tensor:
        """(n,) int64 classes or (n, k) float conditions to (n, dim).

        Raises:
            PartError: labels are missing.
        """
        if labels is None:
            raise PartError("this network is conditional: give it labels")
        vectors: Tensor = self.table(labels if isinstance(self.table, nn.Embedding) else labels.to(self.table.weight))
        if self.influence is None or not self.has_bias:
            return self.blend(vectors)
        table = self.table
        return self.blend(vectors, table.weight.mean(0) if isinstance(table, nn.Embedding) else table.bias)


class ClassLogits(LabelLayer):
    """A linear head that names classes; where labels have no influence, all classes are equally likely.

    Args:
        image: how many classes.
        dim: length of the features.
    """

    def __init__(self, image: ImageSpec, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, image.classes)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(n, dim) features to (n, classes) logits."""
        return self.blend(self.linear(features))


class Norm(nn.Module):
    """Normalisation by name: batch, layer (over channels and pixels with gain and bias per channel), or none.

    With an `image` that has labels, gain and bias are functions of the label.
    """

    def __init__(self, name: NormName, channels: int, image: ImageSpec | None = None) -> None:
        super().__init__()
        labelled = image if image is not None and image.conditional and name != "none" else None
        self.norm: nn.Module
        if name == "batch":
            self.norm = nn.BatchNorm2d(channels, affine=labelled is None)
        elif name == "layer":
            self.norm = LayerNorm(channels, affine=labelled is None)
        else:
            self.norm = nn.Identity()
        self.gain = LabelEmbedding(labelled, channels, 1.0) if labelled else None
        self.shift = LabelEmbedding(labelled, channels, 0.0) if labelled else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, c, h, w) and labels to (n, c, h, w).

        Raises:
            PartError: labels are missing.
        """
        normalised: Tensor = self.norm(x)
        if self.gain is None or self.shift is None:
            return normalised
        gain, shift = self.gain(labels)[:, :, None, None], self.shift(labels)[:, :, None, None]
        return torch.addcmul(shift, normalised, gain)


class ResidualBlock(nn.Module):
    """Norm, ReLU, 3x3 convolution, norm, ReLU, 3x3 convolution, beside a shortcut (pre-activation).

    Up-sampling belongs to the first convolution, down-sampling to the second; a block that resamples or changes width
    has a 1x1 convolution in its shortcut.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        resample: "up", "down" or None.
        norm: normalisation before each activation.
        hidden: channels between the two convolutions; `channels_out` where None.
        image: makes the normalisation conditional where it has labels.
        first: the first block of a critic, which works on pixels: neither norm nor ReLU before its first convolution.
        first_bias: whether the first convolution has a bias.
        fused: see `ResampledConv2d`.
    """

    def __init__(
        self, channels_in: int, channels_out: int, resample: Resample, norm: NormName, *,
        hidden: int | None = None, image: ImageSpec | None = None, first: bool = False,
        first_bias: bool = True, fused: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        hidden = hidden or channels_out
        up, down = (resample if resample == direction else None for direction in ("up", "down"))
        self.norm1 = None if first else Norm(norm, channels_in, image)
        self.conv1 = ResampledConv2d(channels_in, hidden, 3, up, bias=first_bias, fused=fused, gain=2**0.5)
        self.norm2 = Norm(norm, hidden, image)
        self.conv2 = ResampledConv2d(hidden, channels_out, 3, down, fused=fused, gain=2**0.5)
        self.shortcut: nn.Module = nn.Identity()
        if resample or channels_in != channels_out:
            self.shortcut = ResampledConv2d(channels_in, channels_out, 1, resample, fused=fused)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, channels_in, h, w) to (n, channels_out, h', w')."""
        # Not in place: the shortcut needs the input as it is.
        inner = x if self.norm1 is None else relu(self.norm1(x, labels))
        inner = self.conv2(relu(self.norm2(self.conv1(inner), labels)))
        total: Tensor = inner + self.shortcut(x)
        return total
