"""Render subjects to pictures, some at a time, in threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from gankit.datasets._eyes.camera import box_filter, photograph
from gankit.datasets._eyes.eyeball import open_eye
from gankit.datasets._eyes.layouts import Layout
from gankit.datasets._eyes.scene import Scene
from gankit.datasets._eyes.skin import hairs, skin
from gankit.datasets._eyes.subjects import Subjects
from gankit.datasets._eyes.textures import draw_textures

# Part of the cache's key: raise it whenever a pixel changes.
RENDERER = 1
# Points that one thread holds in one array: about what fits its share of the cache.
_POINTS = 2**18


def _render_some(subjects: Subjects, layout: Layout, seed: int) -> NDArray[np.uint8]:
    textures = draw_textures(subjects, layout, seed)
    scene = Scene(subjects, layout)
    planes, shade = skin(scene, textures)
    planes = open_eye(planes, scene, textures, shade)
    hairs(planes, scene, textures, shade)
    light = np.stack([box_filter(plane, layout.finer) for plane in planes], axis=1)
    return photograph(light, textures.sensor, subjects, layout)


def render(subjects: Subjects, layout: Layout, seed: int, threads: int | None = None) -> NDArray[np.uint8]:
    """Render every subject.

    Args:
        subjects: n subjects, as `draw_subjects` gives them.
        layout: how the eyes lie in the picture.
        seed: decides textures and noise; the same as the subjects'.
        threads: how many to use; all cores by default. It changes no pixel.

    Returns:
        (n, 3, height, width) uint8.
    """
    count = len(subjects["label"])
    each = layout.height * layout.width * layout.finer**2
    size = max(1, _POINTS // each)
    pictures = np.empty((count, 3, layout.height, layout.width), dtype=np.uint8)

    def work(start: int) -> None:
        some = {name: values[start : start + size] for name, values in subjects.items()}
        pictures[start : start + size] = _render_some(some, layout, seed)

    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for _ in pool.map(work, range(0, count, size)):
            pass
    return pictures
