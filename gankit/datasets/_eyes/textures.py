"""Random textures of the renderer: smooth noise over the picture and random tables, one stream per image."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from gankit.datasets._eyes.layouts import Layout
from gankit.datasets._eyes.subjects import Subjects, stream

Array = NDArray[Any]

COARSE, FINE = 5.0, 1.2
HAIR_STEP = 0.125
_HAIRS, _ANGLES = 640, 256


@lru_cache(maxsize=64)
def _spline(points: int, step: float, cell: float) -> Array:
    """(points, knots) weights of a cubic B-spline with unit variance in the middle of the picture."""
    place = (np.arange(points) + 0.5) * step / cell + 1.0
    distance = np.abs(place[:, None] - np.arange(int(place[-1]) + 3))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, np.clip(2 - distance, 0, None) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    return cast(Array, (weights / np.sqrt(np.mean(np.sum(weights**2, axis=1)))).astype(np.float32))


@dataclass(frozen=True)
class Textures:
    """Random textures of n subjects' m = 2 n eyes, each of about zero mean and unit variance."""

    coarse: Array  # (m, h, w) blotches of about 5 mm
    fine: Array  # (m, h, w) grain of about 1 mm
    hairs: Array  # (m, 3, 640) along lids and brows, one entry each 0.125 mm: upper lashes, lower lashes, brow
    fibres: Array  # (m, 2, 256) round the iris: fine fibres and broad ones; both eyes share them
    sensor: Array  # (n, 3, height, width) at the picture's own pixels, white


def draw_textures(subjects: Subjects, layout: Layout, seed: int) -> Textures:
    """Draw the textures of some subjects; each depends on the seed, its class and its place in the class alone."""
    rows, columns = layout.height * layout.finer, layout.width * layout.finer
    step = layout.pixel / layout.finer
    splines = [(_spline(rows, step, cell), _spline(columns, step, cell)) for cell in (COARSE, FINE)]
    knots: list[list[NDArray[Any]]] = [[], []]
    hairs, fibres, sensor = [], [], []
    for label, index in zip(subjects["label"], subjects["index"], strict=True):
        random = stream(seed, int(label), int(index), "texture")
        hairs.append(random.standard_normal((2, 3, _HAIRS), dtype=np.float32))
        fibres.append(random.standard_normal((2, _ANGLES), dtype=np.float32))
        for grids, (down, across) in zip(knots, splines, strict=True):
            grids.append(random.standard_normal((down.shape[1], across.shape[1]), dtype=np.float32))
        sensor.append(random.standard_normal((3, layout.height, layout.width), dtype=np.float32))
    coarse, fine = (
        layout.split(down @ np.stack(grids) @ across.T).reshape(
            -1, layout.eye_shape[0] * layout.finer, layout.eye_shape[1] * layout.finer
        )
        for grids, (down, across) in zip(knots, splines, strict=True)
    )
    strands = gaussian_filter1d(np.stack(hairs).reshape(-1, 3, _HAIRS), 1.6, axis=-1)
    rings = np.stack(fibres)
    widths = enumerate((1.3, 7.0))
    rings = np.stack([gaussian_filter1d(rings[:, i], width, axis=-1, mode="wrap") for i, width in widths], axis=1)
    return Textures(coarse, fine, _unit(strands), np.repeat(_unit(rings), 2, axis=0), np.stack(sensor))


def _unit(values: Array) -> Array:
    return cast(Array, (values / values.std(axis=-1, keepdims=True)).astype(np.float32))


def read_table(table: Array, place: Array) -> Array:
    """(m, k) tables read at (m, h, w) places in entries, wrapping round; values between entries are interpolated."""
    size = table.shape[1]
    floor = np.floor(place)
    first = floor.astype(np.int32) % size
    rows = (np.arange(len(table), dtype=np.int32) * (size + 1))[:, None, None]
    flat = np.concatenate([table, table[:, :1]], axis=1).ravel()
    index = first + rows
    low = flat.take(index)
    return cast(Array, low + (place - floor) * (flat.take(index + 1) - low))
