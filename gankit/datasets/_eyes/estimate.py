"""Measure strabismus in a picture: the corneal reflex against the limbus in both eyes (Hirschberg's test)."""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter, zoom

from gankit.datasets._eyes.layouts import Layout
from gankit.datasets._eyes.optics import LIMBUS_TO_REFLEX

Array = NDArray[Any]

# Population figures of the renderer's subjects, in degrees: angle kappa and conjugate gaze.
_KAPPA, _KAPPA_SD, _GAZE_SD = 5.0, 1.2, 2.0
# Standard error of one eye's angle in degrees, per mm of pixel size: reflex and limbus are a seventh of a pixel off.
_ERROR = 1.5
# What counts as an eye, from the 1st percentile of renders and the bulk of noise. Steps are out of 255: the limbus
# (mean over both arcs; the weaker side and the scatter as shares of it) and the reflex; lengths in mm.
_LIMBUS_STEP, _WEAKER_SIDE, _SCATTER, _REFLEX_STEP = 10.0, 0.30, 0.95, 4.5
# And a pair: the weaker limbus as a share of the stronger, how far apart reflexes may be in height, and radii.
_WEAKER_EYE, _HEIGHTS, _RADII_APART = 0.55, 0.9, 0.8
# Of a typical iris, in mm.
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
    return cast(Array, upper * (1 - down) + lower * down)


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
    return cast(Array, (places + 0.5) / scale - 0.5)


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


def find_reflex(greys: Array, pixel: float, places: Array, radius: Array) -> tuple[Array, Array]:
    """Find the corneal reflex: the small bright spot nearest the height of the limbus centre.

    From (m, h, w) brightness, mm per pixel, (m, 2) column and row of the limbus centre and its (m,) radius in mm.

    Returns:
        (m, 2) mm right of and below the limbus centre, and (m,) brightness above the surroundings.
    """
    step = float(np.clip(pixel / 3, 0.15, 0.25))
    grid = np.arange(-np.ceil(5.0 / step), np.ceil(5.0 / step) + 1) * step
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    x, y = np.meshgrid(grid, grid[np.abs(grid) < 3.2])
    values = sample(greys, places[:, :1] + x.ravel() / pixel, places[:, 1:] + y.ravel() / pixel).reshape(-1, *x.shape)
    sigma = max(0.36, 0.62 * pixel) / step
    xx, yy, xy = (gaussian_filter(values, (0, sigma, sigma), order=(0, *order)) for order in ((0, 2), (2, 0), (1, 1)))
    # A spot curves down in every direction; a limbus, a lid and the ring between pupil and limbus only in one.
    spots = -(xx + yy) / 2 - np.sqrt(np.square((xx - yy) / 2) + np.square(xy))
    spots = np.maximum(spots * 4 * sigma**2, 0)
    # A second reflex of a window stands higher; that of a flash beside the lens is level with the pupil.
    scores = spots * np.exp(-0.5 * np.square(y / 1.3) - 0.5 * np.square((x + 0.5) / 3.0))
    scores -= 255 * (np.hypot(x, y) > 0.76 * radius[:, None, None])
    best = scores.reshape(len(spots), -1).argmax(axis=1)
    x, y, spots = x.ravel(), y.ravel(), spots.reshape(len(spots), -1)
    peak = np.take_along_axis(spots, best[:, None], axis=1)[:, 0]
    near = np.hypot(x - x[best][:, None], y - y[best][:, None]) < max(0.75, 1.2 * pixel)
    mass = np.maximum(spots - 0.4 * peak[:, None], 0) * near + 1e-9
    centroid = np.stack([(mass * x).sum(axis=1), (mass * y).sum(axis=1)], axis=1) / mass.sum(axis=1, keepdims=True)
    return centroid, peak


def _window(layout: Layout) -> tuple[slice, slice, tuple[float, float], tuple[float, float]]:
    """Rows and columns of an eye's part worth searching, the expected place in them, and how far (mm) eyes stray."""
    height, width = layout.eye_shape
    if not layout.strip:
        return slice(None), slice(None), (width / 2 - 1.0 / layout.pixel, height / 2 + 0.6 / layout.pixel), (9.0, 3.0)
    row, column, spread = height / 2 + 2.0 / layout.pixel, 31.0 / layout.pixel, (12.0, 7.0)
    top, left = (max(0, int(at - (far + 8.0) / layout.pixel)) for at, far in ((row, spread[1]), (column, spread[0])))
    bottom, right = (int(at + (far + 8.0) / layout.pixel) + 1 for at, far in ((row, spread[1]), (column, spread[0])))
    return slice(top, bottom), slice(left, right), (column - left, row - top), spread


def eye_angles(pictures: Array, layout: Layout) -> Array:
    """(n, 2) degrees by which each eye is turned to the temple, right eye first, from its reflex alone.

    From (n, 3, height, width) pictures in [0, 255]. Angle kappa is included; NaN where no pair of eyes is found.
    """
    eyes = layout.split(pictures)
    eyes[:, 0] = eyes[:, 0, ..., ::-1].copy()  # mirrored, because the right eye's temple lies on the left
    rows, columns, centre, spread = _window(layout)
    eyes = eyes.reshape(-1, *eyes.shape[2:])[..., rows, columns]
    # Irides of every colour are darker in red than the skin and the white round them.
    red = 0.75 * eyes[:, 0] + 0.25 * eyes[:, 1]
    places = search(red, layout.pixel, centre, spread)
    places, radius, steps = refine(red, layout.pixel, places)
    reflex, peak = find_reflex(eyes.mean(axis=1), layout.pixel, places, radius)
    angle = np.degrees(np.arcsin(np.clip(-reflex[:, 0] / LIMBUS_TO_REFLEX, -0.95, 0.95)))
    is_pair = _is_pair(steps, peak, reflex[:, 1], radius, layout.pixel)
    return np.where(is_pair[:, None], angle.reshape(-1, 2), np.nan)


def _is_pair(steps: Array, peak: Array, height: Array, radius: Array, pixel: float) -> NDArray[np.bool_]:
    """(n,) whether limbus and reflex look like those of two eyes of one person, and not like another pattern."""
    mean = np.maximum(steps.mean(axis=1), 1e-6)
    sides = steps.reshape(len(steps), 2, -1).mean(axis=2)
    eye = (mean > _LIMBUS_STEP) & (sides.min(axis=1) > _WEAKER_SIDE * mean) & (steps.std(axis=1) < _SCATTER * mean)
    eye &= (peak > _REFLEX_STEP) & (np.abs(height) < _HEIGHTS + 0.5 * pixel)
    pairs, levels, radii = mean.reshape(-1, 2), height.reshape(-1, 2), radius.reshape(-1, 2)
    pair = (pairs.min(axis=1) > _WEAKER_EYE * pairs.max(axis=1)) & (np.ptp(radii, axis=1) < _RADII_APART)
    return np.asarray(pair & (np.ptp(levels, axis=1) < _HEIGHTS + 0.4 * pixel) & eye.reshape(-1, 2).all(axis=1))


def deviation_from_angles(angles: Array, pixel: float) -> NDArray[np.float64]:
    """The most plausible deviation of two eyes that are turned by these angles.

    Either eye may be the one that fixes, and shows kappa and gaze alone. Both hypotheses are solved by weighted
    least squares over the sum of the angles (2 kappa + deviation, free of gaze) and their difference (the deviation
    less twice the gaze, free of kappa), and weighed by how well they fit.

    From `eye_angles` and the mm per pixel, which decide an angle's error: (n,) signed prism dioptres, positive for
    exotropia; NaN where an angle is.
    """
    error = 2 * (_ERROR * pixel) ** 2
    total, spread = angles.sum(axis=1) - 2 * _KAPPA, angles[:, 0] - angles[:, 1]
    of_total, of_spread = 4 * _KAPPA_SD**2 + error, 4 * _GAZE_SD**2 + error
    signs = np.array([[1.0], [-1.0]])  # the right eye deviates, the left eye deviates
    turn = (total / of_total + signs * spread / of_spread) / (1 / of_total + 1 / of_spread)
    misfit = np.square(total - signs * spread) / (of_total + of_spread)
    share = np.exp(-0.5 * (misfit - misfit.min(axis=0)))
    turn = (turn * share).sum(axis=0) / share.sum(axis=0)
    return np.asarray(100 * np.tan(np.radians(turn)), dtype=np.float64)
