"""Colour anchors of skin and iris and the conversions between sRGB, linear light and CIE Lab (D65)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# Lab of skin by falling individual typology angle; dermatological bounds 55, 41, 28, 10 and -30 degrees.
_SKIN_LAB = np.array([[36, 9, 12], [46, 11, 17], [56, 11, 19], [62, 10, 18], [67, 9, 16], [72, 8, 14]], dtype=float)
_IRIS_SRGB = np.array(
    [[52, 34, 24], [70, 45, 29], [92, 60, 36], [128, 92, 56], [124, 108, 70], [104, 116, 88], [118, 136, 150]]
)
# Share of the population below which the n-th iris anchor is passed: mostly browns.
_IRIS_SHARE = np.array([0.0, 0.35, 0.62, 0.80, 0.88, 0.94, 1.0])

_RGB_FROM_XYZ = np.array(
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
)


def linear_from_srgb(values: ArrayLike) -> Array:
    """sRGB in [0, 255] to linear light in [0, 1], any shape."""
    scaled = np.asarray(values, dtype=np.float64) / 255
    return np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)


def linear_from_lab(lab: Array) -> Array:
    """CIE Lab (..., 3) to linear RGB (..., 3) in [0, 1] (D65)."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.95047, 1.0, 1.08883]
    rgb: NDArray[np.float64] = np.clip(xyz @ _RGB_FROM_XYZ.T, 0.0, 1.0)
    return rgb


def ita(lab: Array) -> Array:
    """Individual typology angle in degrees of CIE Lab (..., 3): atan((L - 50) / b)."""
    return np.degrees(np.arctan2(lab[..., 0] - 50, lab[..., 2]))


def skin_from_ita(angle: Array, jitter: Array) -> tuple[Array, Array]:
    """(n, 3) Lab of skin of (n,) typology angles in degrees, and (n,) its angles with the jitter.

    Angles of 55 are very light, of -50 dark; those beyond the anchors count as the nearest. The (n, 3) jitter is added
    to L, a and b.
    """
    lab = np.stack([np.interp(angle, ita(_SKIN_LAB), anchor) for anchor in _SKIN_LAB.T], axis=-1) + jitter
    return lab, ita(lab)


def iris_from_share(share: Array, shade: Array, angle: Array) -> Array:
    """(n, 3) linear RGB of irides, from a (n,) place in the population in [0, 1]: dark brown to grey-blue.

    `shade` is (n, 3) standard normal jitter; `angle` (n,) the skin's typology angle: dark skin rarely has light irides.
    """
    place = share * np.where(angle > 30, 1.0, 0.66)
    base = np.stack([np.interp(place, _IRIS_SHARE, anchor) for anchor in _IRIS_SRGB.T], axis=-1)
    return linear_from_srgb(np.clip(base * (1 + 0.10 * shade[:, :1]) + 4.0 * shade, 12, 235))
