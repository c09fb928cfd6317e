"""Render subjects to pictures: their eyes as light, and a camera's blur, white balance, tone curve and noise."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from gankit.datasets._eyes.eyeball import open_eye
from gankit.datasets._eyes.layouts import Layout
from gankit.datasets._eyes.scene import Scene
from gankit.datasets._eyes.skin import brows, lashes, skin
from gankit.datasets._eyes.subjects import Subjects
from gankit.datasets._eyes.textures import draw_textures

Array = NDArray[Any]

# Part of the cache's key: raise it whenever a pixel changes.
RENDERER = 4
# Points that one thread holds in one array: about what fits its share of the cache.
_POINTS = 2**18
_GREY = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)[:, None, None]
_REACH = 3


def box_filter(points: Array, finer: int) -> Array:
    """(..., h * finer, w * finer) points to (..., h, w) pixels by their mean."""
    rows = sum(points[..., k::finer, :] for k in range(1, finer)) + points[..., ::finer, :]
    columns = sum(rows[..., k::finer] for k in range(1, finer)) + rows[..., ::finer]
    return cast(Array, columns * np.float32(1 / finer**2))


def blur(pictures: Array, sigma: NDArray[np.float64]) -> Array:
    """Gaussian blur of (n, c, h, w) pictures with one sigma per picture, in pixels; borders repeat."""
    taps = np.exp(-0.5 * np.square(np.arange(_REACH + 1) / np.maximum(sigma, 0.05)[:, None]))
    taps /= 2 * taps.sum(axis=1, keepdims=True) - taps[:, :1]
    weights = taps.astype(np.float32).T[..., None, None, None]
    height, width = pictures.shape[-2:]
    for axis, size in ((2, height), (3, width)):
        wide = np.pad(pictures, [(_REACH, _REACH) if k == axis else (0, 0) for k in range(4)], mode="edge")
        total = weights[0] * pictures
        for k in range(1, _REACH + 1):
            before, after = (np.take(wide, range(_REACH + d, _REACH + d + size), axis=axis) for d in (-k, k))
            total += weights[k] * (before + after)
        pictures = total
    return pictures


def photograph(light: Array, noise: Array, subjects: Subjects, layout: Layout) -> NDArray[np.uint8]:
    """(n, 3, height, width) uint8 pictures of n subjects.

    From (2 n, 3, h, w) linear light of their right and left eyes, in turn, and (n, 3, height, width) white noise.
    """
    eyes = light.reshape(-1, 2, *light.shape[1:])
    # A strip is one photograph; stacked crops are two, and the lens does not mix them across the seam.
    frames = layout.join(eyes) if layout.strip else light
    copies = len(frames) // len(eyes)

    def of_frames(name: str) -> NDArray[np.float64]:
        return np.repeat(subjects[name].astype(np.float64), copies)

    def column(values: NDArray[np.float64]) -> Array:
        return values.astype(np.float32)[:, None, None, None]

    frames = blur(frames, of_frames("blur"))
    mean = np.repeat((eyes * _GREY).sum(axis=2).mean(axis=(1, 2, 3)), copies)
    warm, green = of_frames("warmth"), of_frames("green")
    balance = np.exp(np.stack([warm, green, -1.3 * warm], axis=1))
    gain = (0.30 / mean) ** 0.40 * np.exp(0.9 * of_frames("exposure"))
    frames = frames * (balance * gain[:, None]).astype(np.float32)[..., None, None]
    height, width = frames.shape[-2:]
    far = np.square(np.linspace(-1, 1, height))[:, None] * 0.4 + np.square(np.linspace(-1, 1, width)) * 0.6
    frames = frames * (1 - column(of_frames("vignette")) * far.astype(np.float32))
    grey = (frames * _GREY).sum(axis=1, keepdims=True)
    frames = np.maximum(grey + column(of_frames("saturation")) * (frames - grey), 0.0)
    # A shoulder keeps highlights from clipping hard; then the display's gamma and the photographer's contrast.
    frames = np.power(np.where(frames > 0.7, 1 - 0.3 * np.exp(-(frames - 0.7) / 0.3), frames), np.float32(1 / 2.2))
    frames = 0.5 + column(of_frames("contrast")) * (frames - 0.5)
    pictures = frames if layout.strip else layout.join(frames.reshape(eyes.shape))
    amount = column(subjects["noise"])
    grain = amount * (0.8 * noise[:, :1] + 0.6 * noise)
    pictures = 255 * pictures + grain * (1.15 - 0.45 * pictures)
    return np.clip(np.rint(_soften_colour(pictures, subjects["chroma"])), 0, 255).astype(np.uint8)


def _soften_colour(pictures: Array, share: NDArray[np.float64]) -> Array:
    """Blur colour but not brightness, as chroma subsampling does, for this share of (n, 3, h, w) pictures."""
    grey = (pictures * _GREY).sum(axis=1, keepdims=True)
    colour = pictures - grey
    height, width = colour.shape[-2:]
    pairs = colour.reshape(*colour.shape[:2], height // 2, 2, width // 2, 2).mean(axis=(3, 5))
    coarse = pairs.repeat(2, axis=2).repeat(2, axis=3)
    return cast(Array, grey + colour + share.astype(np.float32)[:, None, None, None] * (coarse - colour))


def _render_part(subjects: Subjects, layout: Layout, seed: int) -> NDArray[np.uint8]:
    textures = draw_textures(subjects, layout, seed)
    scene = Scene(subjects, layout, layout.finer)
    planes, shade = skin(scene, textures)
    brows(planes, scene, textures, shade)
    rows, columns = scene.eye_window()
    if rows.stop:
        fine = Scene(subjects, layout, 2 * layout.finer)
        fine.cut(*(slice(2 * part.start, 2 * part.stop) for part in (rows, columns)))
        *inner, shade, grain, blotches = (
            points[:, rows, columns].repeat(2, axis=1).repeat(2, axis=2)
            for points in (*planes, shade, textures.fine, textures.coarse)
        )
        near = replace(textures, fine=grain, coarse=blotches)
        open_eye(inner, fine, near, shade)
        lashes(inner, fine, near, shade)
        for plane, part in zip(planes, inner, strict=True):
            plane[:, rows, columns] = box_filter(part, 2)
    light = np.stack([box_filter(plane, layout.finer) for plane in planes], axis=1)
    return photograph(light, textures.sensor, subjects, layout)


def render(subjects: Subjects, layout: Layout, seed: int, threads: int | None = None) -> NDArray[np.uint8]:
    """(n, 3, height, width) uint8 pictures of n subjects.

    The seed is the subjects'. The number of threads, by default that of the cores, changes no pixel.
    """
    count = len(subjects["label"])
    points = layout.height * layout.width * (2 * layout.finer) ** 2
    size = max(1, _POINTS // points)
    pictures = np.empty((count, 3, layout.height, layout.width), dtype=np.uint8)

    def work(start: int) -> None:
        part = {name: values[start : start + size] for name, values in subjects.items()}
        pictures[start : start + size] = _render_part(part, layout, seed)

    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        list(pool.map(work, range(0, count, size)))
    return pictures
