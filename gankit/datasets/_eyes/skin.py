"""Skin round the eye: its relief under the light, its colour, and the hairs on it."""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from gankit.datasets._eyes.colours import linear_from_lab, linear_from_srgb
from gankit.datasets._eyes.scene import Scene, bell, blend, coverage
from gankit.datasets._eyes.textures import HAIR_STEP, Textures, read_table

Array = NDArray[Any]


def light_direction(scene: Scene) -> tuple[Array, Array, Array]:
    """Unit vector (m, 1, 1) towards the main light: right, up and to the camera."""
    side, up = scene["light_side"], scene["light_up"]
    length = np.sqrt(1 + side**2 + up**2)
    return side / length, up / length, 1 / length


def crease_reach(scene: Scene) -> Array:
    """(m, 1, w) how deep the crease is along the lid; a fold at the nasal canthus hides its beginning."""
    start, end = coverage(scene.t - 0.07 - 0.05 * scene["epicanthus"], 0.32), np.clip(3.3 - scene.t * 2.7, 0.0, 1.0)
    return cast(Array, start**2 * (3 - 2 * start) * end**2 * (3 - 2 * end))


def _relief(scene: Scene, textures: Textures) -> Array:
    """(m, h, w) height of the skin towards the camera in mm."""
    u, v = scene.u, scene.v
    socket = scene["socket"]
    height = (4.6 * bell(u, 13.0)) * bell(v + 0.5, 9.0)
    height += (socket * 5.0) * bell(v - scene["brow_height"], 6.5)
    height += (scene["nose"] * bell(u + scene.half, 9.5)) * (3.0 + 9.5 / (1 + np.exp((v + 6.0) / 7.0)))
    height -= (socket * 2.6 * bell(u + scene.nasal + 1.5, 5.0)) * bell(v - 6.0, 4.5)
    height -= 0.012 * np.square(np.maximum(u - 8.0, 0.0))
    height += 2.6 * bell(v + 24.0, 9.0)
    # Skin hangs over the crease and is taut on the lid plate below it.
    above = v - scene.crease
    has_crease = np.minimum(scene["crease"], 1.0) * scene["crease_depth"]
    reach = crease_reach(scene)
    height += (has_crease * reach) * (
        0.75 * bell(np.maximum(above, 0.0), 5.0) / (1 + np.exp(np.clip(-3.2 * above, -30, 30)))
        - 0.35 * bell(above, scene["crease_width"])
    )
    height += (scene["lid_fullness"] * 1.7 * reach) * bell(above - 3.2, 2.6)
    below = scene.lower - v
    height += (scene["bag"] * 2.4 * bell(u - 1.0, 12.0)) * (bell(below - 3.0, 2.0) - 0.8 * bell(below - 6.2, 1.8))
    fold = scene["epicanthus"] / 3.0
    edge = u + scene.nasal + 0.9 - 0.05 * np.square(v + 1.2)
    height += (fold * 0.8) * bell(v + 1.0, 3.5) * (bell(edge + 1.6, 1.6) - 0.6 * bell(edge, 0.8))
    feet = bell(u - 19.0, 4.0) * bell(v - 0.5, 6.0)
    height += (scene["wrinkles"] * 0.12) * feet * np.sin(4.2 * (v + 1.0) / (1 + 0.05 * np.maximum(u - 8, 0)))
    height += (0.030 + 0.03 * scene["wrinkles"]) * textures.fine + 0.10 * textures.coarse
    return height


def _slopes(height: Array, scene: Scene) -> tuple[Array, Array]:
    """(m, h, w) slopes of the relief, to the right and up."""
    layout, shape = scene.layout, height.shape
    # The halves of a strip meet on the bridge of the nose, whose slope must not jump there.
    whole = layout.join(height.reshape(-1, 2, *shape[1:])) if layout.strip else height
    slopes = []
    for axis, sign in ((2, 1), (1, -1)):
        wide = np.pad(whole, [(0, 0) if k != axis else (1, 1) for k in range(3)], mode="reflect", reflect_type="odd")
        size = whole.shape[axis]
        ahead, behind = (wide.take(range(k, k + size), axis=axis) for k in (2, 0))
        slope = (ahead - behind) * np.float32(sign / (2 * scene.step))
        slopes.append(layout.split(slope).reshape(shape) if layout.strip else slope)
    return slopes[0], slopes[1]


def skin(scene: Scene, textures: Textures) -> tuple[list[Array], Array]:
    """Draw the skin as if the eyes were shut: three planes (m, h, w) of linear light, and the shading.

    The shading is (m, h, w), 1 where the skin faces the light.
    """
    u, v = scene.u, scene.v
    height = _relief(scene, textures)
    slope_x, slope_y = _slopes(height, scene)
    facing = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    right, up, near = light_direction(scene)
    key = np.maximum((near - right * slope_x - up * slope_y) * facing, 0.0)
    flash = scene["flash"]
    shade = 0.24 + 0.76 * (flash * facing**1.5 + (1 - flash) * key / near)
    hollow = bell(u + scene.nasal + 1.0, 6.0) * bell(v - 5.0, 5.0) * 0.62
    hollow += bell(u - 1.0, 14.0) * bell(v - scene.crease - 2.0, 3.2) * 0.40
    shade *= 1 - scene["socket"] * hollow
    fold = np.minimum(scene["crease"], 1.0) * scene["crease_depth"] * crease_reach(scene)
    shade *= 1 - 0.42 * fold * bell(v - scene.crease, scene["crease_width"])
    between_canthi = coverage(np.minimum(scene.t, 1 - scene.t) + 0.03, 0.12)
    shade *= 1 - 0.32 * np.exp(-np.abs(v - scene.upper) / 0.9) * between_canthi

    colour = scene.paint(linear_from_lab(scene.subjects["skin"]))
    mottled = 1 + 0.045 * textures.coarse + 0.040 * textures.fine
    from_lids = np.maximum(np.maximum(v - scene.upper, scene.lower - v), -scene.inside)
    flush = (0.35 + 0.65 * scene["redness"]) * np.exp(-np.maximum(from_lids, 0.0) / 2.2) + 0.06 * textures.coarse
    circle = scene["circles"] * bell(scene.lower - 4.0 - v, 4.5) * bell(u + 3.0, 11.0)
    circle += 0.35 * scene["circles"] * bell(u + scene.nasal, 5.0) * bell(v - 1.0, 6.0)
    gloss = 0.05 * np.maximum(key * facing, 0.0) ** 24
    planes = []
    for c, (red, dark) in enumerate(((0.02, 0.42), (0.26, 0.62), (0.22, 0.50))):
        # Light that has travelled through skin is red: shadows are warmer than a grey factor would make them.
        tinted = shade if c == 0 else shade * (0.90 + 0.10 * shade) if c == 1 else shade * (0.86 + 0.14 * shade)
        planes.append(colour[c] * tinted * mottled * (1 - red * flush) * (1 - dark * circle) + gloss)
    return planes, shade


def _hair_colour(scene: Scene) -> list[Array]:
    fair = np.clip((scene.subjects["iris_colour"] - 0.62) * 2.6, 0, 1) * np.clip(scene.subjects["ita"] / 45, 0, 1)
    share = (0.25 * scene.subjects["hair"] + 0.75 * fair * scene.subjects["hair"])[:, None]
    return scene.paint(linear_from_srgb(np.array([24.0, 20.0, 19.0]) + share * np.array([92.0, 66.0, 40.0])))


def brows(planes: list[Array], scene: Scene, textures: Textures, shade: Array) -> None:
    """Draw the brows on the skin, in place."""
    u, v = scene.u, scene.v
    colour = [paint * (0.4 + 0.6 * shade) for paint in _hair_colour(scene)]
    along = np.clip((u + scene.half - 11.0) / 45.0, 0.0, 1.0)
    centre = scene["brow_height"] + scene["brow_arch"] * (1 - np.square((along - 0.62) / 0.62)) + 1.0
    thick = (1.2 + 2.2 * scene["brow_weight"]) * (1.15 - 0.95 * along**1.5)
    off = v - centre
    body = coverage(thick - np.abs(off), 2.6)
    body *= coverage(u + scene.half - 11.5, 5.0) * coverage(49.0 - u - scene.half, 8.0)
    streak = read_table(textures.hairs[:, 2], (0.9 * u - (1.1 - 1.6 * along) * off + 40.0) / HAIR_STEP)
    share = body * np.clip(0.62 + 0.20 * streak + 0.12 * textures.fine, 0.0, 1.0) * (0.25 + 0.70 * scene["brow_weight"])
    blend(planes, colour, np.clip(share, 0.0, 0.93))


def lashes(planes: list[Array], scene: Scene, textures: Textures, shade: Array) -> None:
    """Draw the lashes over the open eye, in place."""
    u, v = scene.u, scene.v
    colour = [paint * (0.4 + 0.6 * shade) for paint in _hair_colour(scene)]
    amount = scene["lashes"]
    across = np.clip((u + scene.nasal) / 22.0, 0.0, 1.25)
    within = coverage(scene.t - 0.09, 0.14) * coverage(0.97 - scene.t, 0.10)

    # The lash line: a dark margin that thickens towards the temple.
    out = v - scene.upper
    line = coverage(0.40 + 0.14 * across + 0.35 * scene["liner"] - np.abs(out - 0.05), 0.42) * within
    blend(planes, colour, line * np.minimum(0.50 + 0.40 * amount + 0.4 * scene["liner"], 0.95))

    # Lashes fan out towards the temple and rise from the margin, which they also overhang a little.
    lean = (across - 0.35) * 0.9
    root = u - lean * out + 0.03 * lean * out * np.abs(out)
    strands = read_table(textures.hairs[:, 0], (root + 40.0) / HAIR_STEP)
    length = scene["lash_length"] * (0.45 + 0.55 * across) * 0.62
    tip = np.clip(1 - out / length, 0.0, 1.0) * coverage(out + 0.55, 0.5)
    share = np.clip(0.35 + 0.65 * strands, 0.0, 1.0) * tip * within * (0.25 + 0.65 * amount)
    blend(planes, colour, np.clip(share, 0.0, 0.92))

    out = scene.lower - v
    root = u - (across - 0.4) * 0.9 * out
    strands = read_table(textures.hairs[:, 1], (root + 40.0) / HAIR_STEP)
    tip = np.clip(1 - out / (1.0 + 0.30 * scene["lash_length"]), 0.0, 1.0) * coverage(out - 0.7, 0.5)
    share = np.clip(strands - 0.35, 0.0, 1.0) * tip * coverage(scene.t - 0.3, 0.2) * coverage(1.0 - scene.t, 0.05)
    blend(planes, colour, np.clip(share * (0.15 + 0.55 * amount), 0.0, 0.8))
