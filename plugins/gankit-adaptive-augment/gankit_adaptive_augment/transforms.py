"""The transformations of adaptive augmentation (Karras et al. 2020, arXiv 2006.06676, appendix B)."""

from __future__ import annotations

import math
from functools import reduce
from typing import Annotated, final

import torch
from annotated_types import Ge, Le
from gankit.interfaces import Augment
from gankit.nn.gradients import without_autocast
from gankit.registry import Scheduled, fill_at, value_at
from torch import Tensor

from gankit_adaptive_augment.warp import SYM6, warp

Probability = Annotated[float, Ge(0), Le(1)]


@final
class Transforms(Augment):
    """Pixel blitting, general geometric and colour transformations, each applied to a sample with a probability.

    They are the paper's "bgc" with its ranges; image-space filters and corruptions, which it leaves out by default, are
    not here. The geometric ones of a sample are combined into one affine map, so that its pixels are moved and filtered
    against aliasing only once; an image is continued beyond its borders by reflection. Those of colour are combined
    into one matrix over channels. Draws come from torch's global generator. Works for any number of channels, height
    and width. Switch off what would change a label: `flip` where left and right matter, `quarter_turns` and `rotation`
    where up and down do, `brightness`, `contrast` and `inversion` where grey levels do.

    Args:
        probability: of each transformation: a number from 0 to 1, or a table `{ start = 0, end = 0.3, steps = 10000 }`.
            None is 0.5; as `inner` of `adaptive` it is the probability that `adaptive` finds.
        flip: exchanges left and right of half of the samples that are chosen.
        quarter_turns: turns by 0, 90, 180 or 270 degrees.
        shift: moves by whole pixels, up to an eighth of each axis.
        scale: enlarges or shrinks by a log-normal factor, of standard deviation 0.2 octaves.
        rotation: turns by any angle, before `stretch`, after it or both.
        stretch: enlarges the width by such a factor and shrinks the height by it, or the reverse.
        slide: moves by normal distances, of standard deviation an eighth of each axis.
        brightness: adds a normal value, of standard deviation 0.2.
        contrast: multiplies by a log-normal factor, of standard deviation 0.5 octaves.
        inversion: changes the sign of the channels' mean, in half of the samples that are chosen.
        hue: turns colours around the axis of greys by any angle; for three channels only.
        saturation: multiplies the distance from grey by a log-normal factor, of standard deviation 1 octave; nothing on
            one channel.

    Attributes:
        p: the probability now, a scalar buffer.
    """

    capturable = True
    p: Tensor
    _taps: Tensor

    def __init__(
        self,
        *,
        probability: Scheduled[Probability] | None = None,
        flip: bool = True,
        quarter_turns: bool = True,
        shift: bool = True,
        scale: bool = True,
        rotation: bool = True,
        stretch: bool = True,
        slide: bool = True,
        brightness: bool = True,
        contrast: bool = True,
        inversion: bool = True,
        hue: bool = True,
        saturation: bool = True,
    ) -> None:
        super().__init__()
        self.probability = probability
        self.flip, self.quarter_turns, self.shift = flip, quarter_turns, shift
        self.scale, self.rotation, self.stretch, self.slide = scale, rotation, stretch, slide
        self.brightness, self.contrast, self.inversion = brightness, contrast, inversion
        self.hue, self.saturation = hue, saturation
        self.register_buffer("p", torch.tensor(0.5 if probability is None else float(value_at(probability, 0))))
        self.register_buffer("_taps", torch.tensor(SYM6), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) in [-1, 1] to the same shape and type, not clamped; a sample that no coin chose is unchanged."""
        n, channels, height, width = images.shape
        with without_autocast(images.device):
            fine = images.to(torch.promote_types(images.dtype, torch.float32))  # half precision is too coarse
            sources = self._sources(n, height, width)
            moves = (sources != torch.eye(3, device=images.device)).flatten(1).any(1)
            moved = warp(fine, sources.to(fine.dtype), self._taps.to(fine.dtype))
            fine = torch.where(moves[:, None, None, None], moved, fine)
            matrices, offsets = self._colours(n, channels)
            changed = torch.einsum("ndc,nchw->ndhw", matrices.to(fine.dtype), fine)
            return (changed + offsets.to(fine.dtype)[:, None, None, None]).to(images.dtype)

    def before_step(self, step: int) -> dict[str, float] | None:
        """Set the probability of this step; the log shows it where it moves."""
        p = fill_at(self.p, self.probability, step)
        return None if p is None else {"augment_probability": p}

    def set_probability(self, p: Tensor) -> None:
        """Take the probability, a scalar, from an augment that adapts it."""
        self.p.copy_(p)

    def _chosen(self, is_on: bool, values: Tensor, otherwise: float, p: Tensor | None = None) -> Tensor:
        """(n,) values with probability `p`, else `otherwise`.

        The coins are tossed even where a transformation is off, so that a switch does not change the draws of others.
        """
        coins = torch.rand(len(values), device=values.device)
        return torch.where((coins < (self.p if p is None else p)) & is_on, values, otherwise)

    def _sources(self, n: int, height: int, width: int) -> Tensor:
        """(n, 3, 3) maps of a pixel to its source: the inverses of the transformations, the first one leftmost."""
        device = self.p.device

        def uniform() -> Tensor:
            return 2 * torch.rand(n, device=device) - 1

        def factor() -> Tensor:
            return torch.exp2(0.2 * torch.randn(n, device=device))

        sign = 1 - 2 * torch.randint(2, (n,), device=device)
        turns = torch.randint(4, (n,), device=device) * (math.pi / 2)
        # One coin moves both axes.
        shifted, slid = (self._chosen(on, torch.ones(n, device=device), 0.0) for on in (self.shift, self.slide))
        scale, stretch = self._chosen(self.scale, factor(), 1.0), self._chosen(self.stretch, factor(), 1.0)
        once = 1 - (1 - self.p).sqrt()  # so that a sample is turned before, after or both with probability p
        before, after = (self._chosen(self.rotation, math.pi * uniform(), 0.0, once) for _ in range(2))
        shifts = [-shifted * (0.125 * size * uniform()).round() for size in (width, height)]
        slides = [-slid * 0.125 * size * torch.randn(n, device=device) for size in (width, height)]
        inverses = [
            _scaling(self._chosen(self.flip, sign, 1.0), torch.ones(n, device=device)),
            _rotation(-self._chosen(self.quarter_turns, turns, 0.0)),
            _translation(*shifts),
            _scaling(1 / scale, 1 / scale),
            _rotation(-before),
            _scaling(1 / stretch, stretch),
            _rotation(-after),
            _translation(*slides),
        ]
        return reduce(torch.matmul, inverses)

    def _colours(self, n: int, channels: int) -> tuple[Tensor, Tensor]:
        """(n, c, c) matrices over channels and (n,) what is then added.

        All transformations keep the axis of greys and the plane across it, so that their product is one factor along
        the axis, and a turn and a factor in the plane.
        """
        device = self.p.device
        normal = torch.randn(3, n, device=device)
        brightness = self._chosen(self.brightness, 0.2 * normal[0], 0.0)
        contrast = self._chosen(self.contrast, torch.exp2(0.5 * normal[1]), 1.0)
        sign = self._chosen(self.inversion, 1 - 2 * torch.randint(2, (n,), device=device), 1.0)
        hue = self._chosen(self.hue and channels == 3, math.pi * (2 * torch.rand(n, device=device) - 1), 0.0)
        saturation = self._chosen(self.saturation, torch.exp2(normal[2]), 1.0)
        identity = torch.eye(channels, device=device)
        grey = torch.full_like(identity, 1 / channels)
        across = hue.cos()[:, None, None] * (identity - grey)
        if channels == 3:  # the product with the axis's unit vector
            across = across + hue.sin()[:, None, None] * (identity.roll(1, 0) - identity.roll(1, 1)) / math.sqrt(3)
        mixed = sign[:, None, None] * grey + saturation[:, None, None] * across
        same = (sign == 1) & (hue == 0) & (saturation == 1)  # where rounding must change nothing
        mixed = torch.where(same[:, None, None], identity, mixed)
        return contrast[:, None, None] * mixed, contrast * sign * brightness


def _matrix(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """(n, 3, 3) homogeneous maps from the entries of their first two rows."""
    last = torch.zeros_like(rows[0][0]), torch.zeros_like(rows[0][0]), torch.ones_like(rows[0][0])
    return torch.stack([torch.stack(row, 1) for row in (*rows, last)], 1)


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    zero = torch.zeros_like(y)
    return _matrix((x, zero, zero), (zero, y, zero))


def _rotation(angle: Tensor) -> Tensor:
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _matrix((cosine, -sine, zero), (sine, cosine, zero))


def _translation(x: Tensor, y: Tensor) -> Tensor:
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrix((one, zero, x), (zero, one, y))
