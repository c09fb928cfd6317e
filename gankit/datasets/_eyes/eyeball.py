"""The open eye between the lids: sclera, iris, pupil and the reflexes of the cornea."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gankit.datasets._eyes.colours import iris_from_share, linear_from_srgb
from gankit.datasets._eyes.scene import Scene, bell, blend, coverage
from gankit.datasets._eyes.skin import light_direction
from gankit.datasets._eyes.textures import Textures, read_table

Array = NDArray[Any]

_GLOBE = 12.0
# The widest iris with a margin for the reflexes, in mm.
_CORNEA = 14.0


def _sclera(scene: Scene, textures: Textures) -> list[Array]:
    tone = scene.subjects["sclera"][:, None] - 0.5
    old = np.clip((scene.subjects["age"][:, None] - 30) / 60, 0, 1)
    base = np.array([212.0, 205.0, 197.0]) + tone * np.array([16.0, 16.0, 22.0]) - old * np.array([6.0, 10.0, 26.0])
    planes = [plane + np.zeros_like(scene.v) for plane in scene.paint(linear_from_srgb(base))]
    red = scene["redness"]
    corner = scene.u + scene.nasal
    far = np.clip(np.abs(scene.u - 0.9) / 9.0 - 0.35, 0.0, 1.0)
    # Vessels follow the level lines of two noises: thin, winding, denser towards the canthi.
    vessels = red * far * (bell(textures.fine + 0.5 * textures.coarse, 0.40) * 0.40 + 0.18)
    blend(planes, scene.paint(linear_from_srgb([178.0, 92.0, 84.0])), vessels)
    pink = np.clip(0.85 * np.exp(-np.maximum(corner - 1.0, 0.0) / 1.5), 0.0, 1.0)
    blend(planes, scene.paint(linear_from_srgb([196.0, 120.0, 110.0])), pink)
    caruncle = coverage(2.1 - np.abs(corner - 0.6) - 0.3 * np.abs(scene.v - scene.lower), 1.4) * 0.6
    blend(planes, scene.paint(linear_from_srgb([176.0, 92.0, 84.0])), caruncle)
    return planes


def _iris(scene: Scene, fibres: Array, grain: Array, away: Array, dx: Array, dy: Array) -> list[Array]:
    """Three (m, h, w) planes: `away` is the distance from the limbus centre in radii, (dx, dy) its direction."""
    subjects = scene.subjects
    base = scene.paint(iris_from_share(subjects["iris_colour"], subjects["iris_shade"], subjects["ita"]))
    angle = np.arctan2(dy, scene.temporal * dx) * np.float32(128 / np.pi)
    fine = read_table(fibres[:, 0], angle + 5.0 * away)
    broad = read_table(fibres[:, 1], angle - 9.0 * away)
    pattern = scene["iris_pattern"]
    crown = coverage(0.40 - pattern, 0.12)  # a pale collarette; beyond it sunshine rays, then flower lobes
    flower = coverage(pattern - 0.70, 0.12)
    ring = 0.52 + 0.05 * flower * broad + 0.02 * fine
    collar = bell(away - ring, 0.10) * (0.15 + 0.45 * crown)
    rays = (0.13 + 0.10 * (1 - crown) * (1 - flower)) * fine + (0.08 + 0.14 * flower) * broad
    tone = 1 + collar + rays * np.clip((away - 0.25) * 3, 0, 1) + 0.10 * grain
    tone *= 1 - 0.62 * coverage(away - 0.90, 0.22)
    right, up, _ = light_direction(scene)
    # The cornea bundles light onto the side of the iris that lies away from the lamp.
    tone *= 1 + 0.55 * (1 - scene["flash"]) * np.clip(-(right * dx + up * dy), -0.5, 1.0) * away
    warm = bell(away - 0.42, 0.16) * (0.10 + 0.3 * crown)
    return [np.maximum(base[c] * tone, 0.004) * (1 + warm * (0.5, 0.25, -0.1)[c]) for c in range(3)]


def _lit(scene: Scene, under: Array, over: Array) -> Array:
    """(m, h, w) light on the globe, `under` the upper and `over` the lower lid margin by so many mm."""
    right, up, near = light_direction(scene)
    flash = scene["flash"]
    nx, ny = np.clip(scene.x / _GLOBE, -0.95, 0.95), np.clip(scene.y / _GLOBE, -0.9, 0.9)
    nz = np.sqrt(np.maximum(1 - nx**2 - ny**2, 0.05))
    lit: Array = 0.26 + 0.66 * (flash * nz + (1 - flash) * np.maximum(near * nz + right * nx + up * ny, 0) / near)
    lit *= 1 - (0.56 + 0.25 * up) * np.exp(-np.maximum(under, 0.0) / 1.5)
    lit *= 1 - 0.22 * np.exp(-np.maximum(over, 0.0) / 0.8)
    lit *= 1 - 0.80 * np.square(np.clip(np.abs(scene.t - 0.5) * 2 - 0.20, 0, 1))
    return lit


def _cornea(scene: Scene, fibres: Array, eye: list[Array], x: Array, lit: Array, grain: Array) -> None:
    """Put iris, pupil and reflexes on the globe, in place: on the k columns round the iris alone.

    `eye` are three (m, h, k) planes, `lit` (m, h, k) is the light on them, `grain` fine noise, `x` (m, 1, k) mm towards
    the right of the picture, `fibres` (m, 2, entries) tables round the iris.
    """
    radius = scene["iris"] / 2
    dx, dy = (x - scene.limbus[0]) / scene.foreshortening / radius, (scene.y - scene.limbus[1]) / radius
    away = np.sqrt(dx**2 + dy**2)
    iris = [plane * lit for plane in _iris(scene, fibres, grain, away, dx, dy)]
    blend(eye, iris, coverage((1 - away) * radius, 0.55))

    uneven = scene.column(np.outer(scene.subjects["anisocoria"], [0.5, -0.5]))
    px, py = (x - scene.pupil[0]) / scene.foreshortening, scene.y - scene.pupil[1]
    hole = coverage((scene["pupil"] + uneven) / 2 - np.sqrt(px**2 + py**2), 0.30)
    blend(eye, scene.paint(linear_from_srgb([18.0, 16.0, 16.0])), hole)

    # What the wet cornea mirrors: a veil of sky or room above, then the flash and a weaker window.
    right, window = light_direction(scene)[0], scene["second"]
    gx, gy = x - scene.reflex[0], scene.y - scene.reflex[1]
    veil = coverage(1 - away, 0.2) * (0.001 + 0.03 * window * bell(dx - right, 0.55) * bell(dy - 0.45, 0.35))
    at = np.repeat(scene.subjects["second_at"], 2, axis=0)
    sx, sy = scene.column(at[:, 0]) * np.sign(scene["light_side"]), scene.column(at[:, 1])
    spot = coverage(0.42 - np.maximum(np.abs(gx - sx), 0.8 * np.abs(gy - sy)), 0.3) * window
    distance = np.sqrt(gx**2 + gy**2)
    flare = coverage(np.maximum(scene["glint"], scene.layout.pixel) / 2 - distance, 0.16) * scene["glint_power"]
    bloom = 0.018 * bell(distance, 1.1)
    blend(eye, [np.float32(0.75)] * 3, spot)
    blend(eye, [np.float32(1.25)] * 3, flare)
    for plane in eye:
        plane += veil + bloom


def open_eye(planes: list[Array], scene: Scene, textures: Textures, shade: Array) -> None:
    """Put the eyeball between the lids, in place.

    `planes` show the skin: three (m, h, w) of linear light. The lower lid has the skin's (m, h, w) shading.
    """
    under, over = scene.upper - scene.v, scene.v - scene.lower
    lit = _lit(scene, under, over) * (1 + 0.03 * textures.coarse)
    eye = [plane * lit for plane in _sclera(scene, textures)]

    # Iris and reflexes fill less than half of the columns, and are the costliest part.
    columns = _columns(scene)
    sources: list[Array] = [*eye, scene.x, lit, textures.fine]
    near = [np.take_along_axis(points, columns, axis=2) for points in sources]
    _cornea(scene, textures.fibres, near[:3], *near[3:])
    for plane, part in zip(eye, near[:3], strict=True):
        np.put_along_axis(plane, np.broadcast_to(columns, part.shape), part, axis=2)

    # The margin of the lower lid: a wet pink ledge with a bright line of tears on its inner edge.
    ledge = coverage(0.85 - np.abs(over), 0.35) * coverage(1.0 - scene.t, 0.1) * coverage(scene.t - 0.02, 0.06)
    tints = ((1.0, 0.10), (0.86, 0.055), (0.86, 0.05))
    pink = [plane * tint + add * shade for plane, (tint, add) in zip(planes, tints, strict=True)]
    blend(planes, pink, ledge * coverage(-over, 0.4) * 0.8)
    tears = bell(over - 0.15, 0.28) * (0.05 + 0.10 * scene["flash"])
    for plane in eye:
        plane += tears
    aperture = coverage(np.minimum(np.minimum(under, over), scene.inside), 0.35)
    blend(planes, eye, aperture)


def _columns(scene: Scene) -> NDArray[np.int64]:
    """(m, 1, k) the columns round each iris."""
    width = scene.x.shape[2]
    count = min(int(_CORNEA / scene.step) + 2, width)
    middle = (scene.limbus[0] - scene.x[:, :, :1]) / scene.step
    first = np.clip(np.rint(middle - count / 2), 0, width - count).astype(np.int64)
    return np.asarray(first + np.arange(count))
