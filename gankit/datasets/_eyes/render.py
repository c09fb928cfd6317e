"""Render subjects to pictures, some at a time, in threads."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gankit.datasets._eyes.camera import box_filter, photograph
from gankit.datasets._eyes.eyeball import open_eye
from gankit.datasets._eyes.layouts import Layout
from gankit.datasets._eyes.scene import Scene
from gankit.datasets._eyes.skin import brows, lashes, skin
from gankit.datasets._eyes.subjects import Subjects
from gankit.datasets._eyes.textures import draw_textures

# Part of the cache's key: raise it whenever a pixel changes.
RENDERER = 4
# Points that one thread holds in one array: about what fits its share of the cache.
_POINTS = 2**18


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
