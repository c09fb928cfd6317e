"""Affine maps of images, filtered against aliasing (Karras et al. 2020, arXiv 2006.06676, appendix B)."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import conv_transpose1d

SYM6: Final = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
"""The low-pass filter of the symlet with six vanishing moments (Daubechies 1992, table 6.3)."""
CENTRE: Final = 5
"""The tap nearest to the filter's centre of mass, 5.1; a whole number, so that flips take samples to samples."""


def warp(images: Tensor, sources: Tensor, taps: Tensor) -> Tensor:
    """Move the pixels of images; linear in the images, so that it can be differentiated any number of times.

    An image is continued beyond its borders by reflection. It is up-sampled by two, interpolated linearly between the
    finer samples, and down-sampled. Both filters are orthogonal and have the same taps, so that a move by whole pixels
    keeps all values.

    Args:
        images: (n, c, h, w).
        sources: (n, 3, 3) maps of a pixel's homogeneous position to that of its source, in pixels from the centre.
        taps: (12,) `SYM6`.

    Returns:
        (n, c, h, w).
    """
    size = images.shape[2:]
    periods = [_up_sampling(length, taps) for length in size]
    fine = torch.einsum("yh,nchw,xw->ncyx", periods[0], images, periods[1])
    filters = [_down_sampling(length, taps) for length in size]
    positions = [
        (torch.arange(matrix.shape[1], device=images.device, dtype=images.dtype) - CENTRE - (length - 1)) / 2
        for matrix, length in zip(filters, size, strict=True)
    ]
    y, x = (grid.flatten() for grid in torch.meshgrid(*positions, indexing="ij"))
    found = sources[:, :2] @ torch.stack([x, y, torch.ones_like(x)])
    # From pixels around the centre to samples from the first, rows (axis 1 of x, y) before columns.
    moved = _interpolate(fine, *(2 * found[:, axis] + size[1 - axis] - 1 + CENTRE for axis in (1, 0)))
    moved = moved.view(*moved.shape[:2], *(matrix.shape[1] for matrix in filters))
    return torch.einsum("hy,ncyx,wx->nchw", filters[0], moved, filters[1])


def _interpolate(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(n, c, k) values at (n, k) positions of periodic (n, c, y, x) images, linear between samples."""
    height, width = images.shape[2:]
    pick, maps = _by_index if images.is_cuda else _by_gather, images.flatten(2)
    top, left = rows.floor(), columns.floor()
    values = torch.zeros((), device=images.device, dtype=images.dtype)
    for down in (0, 1):
        for right in (0, 1):
            weights = (1 - (rows - top - down).abs()) * (1 - (columns - left - right).abs())
            places = (top + down).long().remainder(height) * width + (left + right).long().remainder(width)
            values = values + weights[:, None] * pick(maps, places)
    return values


def _by_gather(maps: Tensor, places: Tensor) -> Tensor:
    """(n, c, k) values of (n, c, m) maps at (n, k) places."""
    return maps.gather(2, places[:, None].expand(-1, maps.shape[1], -1))


def _by_index(maps: Tensor, places: Tensor) -> Tensor:
    """As `_by_gather`, for a GPU.

    Where sums are to be the same every time there, its derivative sorts the places once for all channels; that of the
    other sorts them for each channel, and in older versions of torch copies from the host, which no CUDA graph records.
    """
    samples = torch.arange(len(maps), device=maps.device)[:, None]
    return maps[samples, :, places].transpose(1, 2)


def _up_sampling(length: int, taps: Tensor) -> Tensor:
    """(p, length) matrix from a signal, reflected at both ends, to one period of twice as many samples."""
    reach, half = len(taps) // 2, max(length - 1, 1)
    pixels = torch.arange(-reach, 2 * half, device=taps.device)
    mirrored = ((pixels + half).remainder(2 * half) - half).abs().clamp(max=length - 1)
    signals = torch.eye(length, device=taps.device, dtype=taps.dtype)[:, mirrored]
    return conv_transpose1d(signals[:, None], taps[None, None], stride=2)[:, 0, 2 * reach :][:, : 4 * half].T


def _down_sampling(length: int, taps: Tensor) -> Tensor:
    """(length, 2 * length + 10) matrix that filters samples and keeps every second; the transpose of up-sampling."""
    pixels = torch.eye(length, device=taps.device, dtype=taps.dtype)
    return conv_transpose1d(pixels[:, None], taps[None, None], stride=2)[:, 0]
