"""Measure strabismus in a picture: the corneal reflex against the limbus in both eyes (Hirschberg's test)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from gankit.datasets._eyes.layouts import Layout
from gankit.datasets._eyes.limbus import refine, sample, search
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
