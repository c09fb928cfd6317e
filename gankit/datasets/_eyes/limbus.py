"""Find the iris of an eye in a picture: the circle between its dark disc and the white of the eye."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter, zoom

Array = NDArray[Any]

IRIS_RADIUS = 5.75
# The search for irides runs at about this many mm per pixel, whatever the picture's own resolution.
_SEARCH = 0.55
_RADII = (5.1, 5.7, 6.2)
# Lids cover the iris above and below: only these arcs towards both canthi are looked at (radians).
_ARC = 0.85


def sample(pictures: Array, x: Array, y: Array) -> Array:
    """(m, k) bilinear values of (m, h, w) pictures at (m, k) columns and rows; the border repeats."""
    height, width = pictures.shape[1:]
    x, y = np.clip(x, 0, width - 1.001), np.clip(y, 0, height - 1.001)
    column, row = x.astype(np.int64), y.astype(np.int64)
    across, down = x - column, y - row
    eye = np.arange(len(pictures))[:, None]
    upper = pictures[eye, row, column] * (1 - across) + pictures[eye, row, column + 1] * across
    lower = pictures[eye, row + 1, column] * (1 - across) + pictures[eye, row + 1, column + 1] * across
    values: Array = upper * (1 - down) + lower * down
    return values


def _templates(shape: tuple[int, int], pixel: float) -> Array:
    """(radii, 2, h, w) rings of outward normals over both arcs, centred on the origin with wrap-around."""
    y, x = (np.minimum(np.arange(n), n - np.arange(n)) * np.where(np.arange(n) <= n // 2, 1, -1) for n in shape)
    y, x = np.meshgrid(y * pixel, x * pixel, indexing="ij")
    away = np.hypot(x, y)
    direction = np.stack([x, y]) / np.maximum(away, 1e-6)
    open_arc = np.abs(y) < np.sin(_ARC) * away
    rings = []
    for radius in _RADII:
        ring = np.exp(-0.5 * np.square((away - radius) / 0.35)) * open_arc
        inside = (away < radius - 0.8) & (np.abs(y) < 3.0)
        rings.append(np.concatenate([direction * ring / ring.sum(), (inside / inside.sum())[None]]))
    return np.stack(rings)


def search(reds: Array, pixel: float, centre: tuple[float, float], spread: tuple[float, float]) -> Array:
    """(m, 2) column and row, in pixels, of the centre of the most iris-like disc of each picture.

    `reds` are (m, h, w) brightness in [0, 255], in which irides are dark, of `pixel` mm per pixel. Eyes are expected
    `spread` mm across and down from `centre`, a column and a row in pixels.
    """
    scale = pixel / _SEARCH
    smooth = gaussian_filter(reds, (0, *(2 * [max(0.0, 0.45 / scale - 0.3)])))
    small = zoom(smooth, (1, scale, scale), order=1, grid_mode=True, mode="nearest")
    height, width = small.shape[1:]
    pad = int(7 / _SEARCH) + 1
    shape = (fft.next_fast_len(height + pad, real=True), fft.next_fast_len(width + pad, real=True))
    # Strong edges (lashes, brows) must not outweigh the whole arc of a limbus.
    down, across = (np.clip(g, -40, 40) for g in np.gradient(small, axis=(1, 2)))
    plain = np.clip(small, 0, 255)
    layers = np.stack([across, down, -0.06 * (plain - plain.mean(axis=(1, 2), keepdims=True))], axis=1)
    spectrum = fft.rfft2(layers.astype(np.float32), shape)
    templates = np.conj(fft.rfft2(_templates(shape, _SEARCH).astype(np.float32)))
    score = np.stack([fft.irfft2((spectrum * ring).sum(axis=1), shape)[:, :height, :width] for ring in templates])
    score = score.max(axis=0)
    column, row = (centre[0] + 0.5) * scale - 0.5, (centre[1] + 0.5) * scale - 0.5
    far_x = np.maximum(np.abs(np.arange(width) - column) * _SEARCH / spread[0] - 1, 0)
    far_y = np.maximum(np.abs(np.arange(height) - row) * _SEARCH / spread[1] - 1, 0)
    score = score - 60 * (far_x[None] + far_y[:, None])
    best = score.reshape(len(score), -1).argmax(axis=1)
    places = np.stack([best % width, best // width], axis=1)
    centres: Array = (places + 0.5) / scale - 0.5
    return centres


def refine(reds: Array, pixel: float, places: Array) -> tuple[Array, Array, Array]:
    """Fit a circle to the limbus within 1.5 mm of a first guess, the (m, 2) places that `search` gives.

    Returns:
        (m, 2) column and row of the centre, (m,) radius in mm, and (m, 30) the steps of brightness from inside to
        outside, first round the left arc, then round the right one.
    """
    angles = np.linspace(-_ARC, _ARC, 15)
    angles = np.concatenate([np.pi + angles, angles])
    side, up = np.cos(angles), np.sin(angles)
    steps = np.arange(-10, 11) * 0.16
    radius = np.full(len(reds), IRIS_RADIUS)
    smooth = gaussian_filter(reds, (0, *(2 * [0.35 if pixel > 0.4 else 0.18 / pixel])))
    strength = np.zeros((len(reds), len(angles)))
    for window in (1.5, 1.1, 0.9, 0.9):
        reach = (radius[:, None, None] + steps) / pixel
        x, y = (places[:, k, None, None] + reach * way[:, None] for k, way in ((0, side), (1, up)))
        profile = sample(smooth, x.reshape(len(reds), -1), y.reshape(len(reds), -1)).reshape(x.shape)
        slope = np.maximum(np.diff(profile, axis=2), 0) + 1e-3
        middle = (steps[1:] + steps[:-1]) / 2
        slope = slope**1.5 * np.exp(-0.5 * np.square(middle / (0.7 * window)))
        offset = (slope * middle).sum(axis=2) / slope.sum(axis=2)
        near, far = (np.abs(steps + shift) < 0.5 for shift in (1.0, -1.0))
        strength = profile[:, :, far].mean(axis=2) - profile[:, :, near].mean(axis=2)
        weight = np.clip(strength, 0, 50) + 0.5
        # Weighted least squares of offset = dr + dx cos + dy sin, pulled towards a typical radius and no shift down.
        base = np.stack([np.ones_like(side), side, up], axis=1)
        target = offset
        for _ in range(3):
            normal = np.einsum("mk,ki,kj->mij", weight, base, base)
            pull = weight.sum(axis=1)[:, None] * np.array([0.06, 0.002, 0.03])
            right = np.einsum("mk,ki,mk->mi", weight, base, target)
            right[:, 0] += pull[:, 0] * (IRIS_RADIUS - radius)
            solution = np.linalg.solve(normal + pull[:, :, None] * np.eye(3), right[..., None])[..., 0]
            rest = np.abs(target - solution @ base.T)
            weight = (np.clip(strength, 0, 50) + 0.5) / (1 + np.square(rest / 0.3))
        radius = np.clip(radius + solution[:, 0], 4.3, 6.8)
        places = places + np.clip(solution[:, 1:], -1.0, 1.0) / pixel
    return places, radius, strength
