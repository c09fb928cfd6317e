"""The points of a picture in the coordinates of each eye, and the curves of its lids."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from gankit.datasets._eyes.layouts import Layout
from gankit.datasets._eyes.optics import TEMPORAL, eye_positions
from gankit.datasets._eyes.subjects import Subjects

Array = NDArray[Any]


def coverage(distance: Any, width: Any) -> Array:
    """Share of a point inside a shape whose edge lies at this signed distance (positive: inside), `width` soft."""
    share: Array = distance / width
    share += np.float32(0.5)
    return np.clip(share, 0.0, 1.0, out=share)


def bell(distance: Any, width: Any) -> Array:
    """exp(-(distance / width)^2)."""
    power: Array = distance / width
    power *= power
    np.negative(power, out=power)
    return np.exp(power, out=power)


def blend(planes: list[Array], paint: Sequence[Any], share: Array) -> None:
    """Cover planes of light with this share of paint, in place."""
    for plane, colour in zip(planes, paint, strict=True):
        change = colour - plane
        change *= share
        plane += change


def _arc(t: Array, rise: Array | np.float32, fall: Array | np.float32) -> Array:
    """t^rise (1 - t)^fall with its peak scaled to one: a lid between its canthi at t = 0 and 1."""
    peak = rise / (rise + fall)
    return cast(Array, (t**rise * (1 - t) ** fall / (peak**rise * (1 - peak) ** fall)).astype(np.float32))


class Scene:
    """A few subjects' eyes (m = 2 n of them, right and left in turn) on a grid of `finer` points per pixel.

    Attributes:
        u: (m, 1, w) mm temporal of the projected rotation centre.
        v: (m, h, w) mm up, along the head's own vertical.
        x: (m, 1, w) mm towards the right of the picture.
        y: (m, h, 1) mm up in the picture.
        step: mm between points.
        upper: (m, 1, w) v of the upper lid margin; both lids meet at and beyond the canthi.
        lower: (m, 1, w) v of the lower lid margin.
        crease: (m, 1, w) v of the upper lid's crease.
        inside: (m, 1, w) mm from the nearer canthus, negative beyond it.
        t: (m, 1, w) place between the canthi, below 0 nasal and above 1 temporal of them.
    """

    def __init__(self, subjects: Subjects, layout: Layout, finer: int) -> None:
        self.subjects = subjects
        self.layout = layout
        self.finer = finer
        self.count = 2 * len(subjects["label"])
        self.step = layout.pixel / finer
        self.temporal = self.column(np.tile(TEMPORAL, self.count // 2))
        self._place_points()
        self._place_eyes()
        self._draw_lids()

    @staticmethod
    def column(values: NDArray[Any]) -> Array:
        """(m,) or (n, 2) figures of eyes to (m, 1, 1)."""
        return np.asarray(values, dtype=np.float32).reshape(-1, 1, 1)

    def __getitem__(self, name: str) -> Array:
        """(m, 1, 1) a subject's figure, the same for both eyes."""
        return self.column(np.repeat(self.subjects[name], 2))

    def paint(self, colours: NDArray[np.float64]) -> list[Array]:
        """(n, 3) linear colours of subjects, or (3,) of all, to three (m, 1, 1) planes."""
        rows = np.broadcast_to(colours, (self.count // 2, 3))
        return [self.column(np.repeat(rows[:, channel], 2)) for channel in range(3)]

    def _place_points(self) -> None:
        rows, columns = (side * self.finer for side in self.layout.eye_shape)
        x = (np.arange(columns) - (columns - 1) / 2) * self.step
        y = ((rows - 1) / 2 - np.arange(rows)) * self.step
        self.half = self["pupil_distance"] / 2 - 0.92  # rotation centre to midline: pupils stand temporal by kappa
        self.nasal_canthus = self.half - self["canthi"] / 2
        framing = self.subjects["framing"].reshape(-1, 2)
        roll = np.radians(self["roll"])
        if self.layout.strip:
            # Half a strip ends at the midline; a rolled head lifts one eye and lowers the other.
            off = np.repeat(self.subjects["framing"][:, 0], 2, axis=0)
            middle = self.temporal * (self.layout.eye_shape[1] * self.layout.pixel / 2 - self.half * np.cos(roll))
            across: Array = x[None, None] + middle + self.column(off[:, 0])
            lift = self.temporal * self.half * np.sin(roll)
            down: Array = y[None, :, None] - lift + 2.0 + self.column(2.5 * off[:, 1])
        else:
            middle = self.temporal * (self["fissure"] / 2 - self.nasal_canthus)
            across = x[None, None] + middle + self.column(framing[:, 0])
            down = y[None, :, None] + 0.6 + self.column(framing[:, 1])
        self.x, self.y = across.astype(np.float32), down.astype(np.float32)
        self.u = self.temporal * self.x
        # A shear stands for the head's roll: within three degrees it equals it, and lids stay functions of columns.
        self.v = self.y - np.tan(roll) * self.x

    def _place_eyes(self) -> None:
        """Turn the places of both eyes with the head, from its axes to those of the picture."""
        theta, *places = eye_positions(self.subjects)
        cos, sin = np.cos(np.radians(self["roll"])), np.sin(np.radians(self["roll"]))

        def turn(place: NDArray[Any]) -> tuple[Array, Array]:
            across, along = self.temporal * self.column(place[0]), self.column(place[1])
            return across * cos - along * sin, across * sin + along * cos

        self.limbus, self.pupil, self.reflex = map(turn, places)
        self.foreshortening = np.cos(np.radians(self.column(theta)))
        self.lifted = self.column(places[0][1])  # of the limbus

    def eye_window(self) -> tuple[slice, slice]:
        """The even rows and columns that hold every open eye and its lashes."""
        near = (self.v < self.upper + 5.5) & (self.v > self.lower - 3.5) & (self.inside > -1.5)
        if not near.any():
            return slice(0, 0), slice(0, 0)
        rows, columns = np.flatnonzero(near.any(axis=(0, 2))) // 2 * 2, np.flatnonzero(near.any(axis=(0, 1))) // 2 * 2
        return slice(rows[0], rows[-1] + 2), slice(columns[0], columns[-1] + 2)

    def cut(self, rows: slice, columns: slice) -> None:
        """Keep only these points."""
        self.v, self.y = self.v[:, rows, columns], self.y[:, rows]
        for name in ("u", "x", "upper", "lower", "crease", "t", "inside"):
            setattr(self, name, getattr(self, name)[:, :, columns])

    def _draw_lids(self) -> None:
        fold = self["epicanthus"]
        nasal = self.nasal_canthus - 0.85 * fold
        length = self["fissure"] - 0.85 * fold
        slope = np.tan(np.radians(self["tilt"]))
        self.t = (self.u + nasal) / length
        self.nasal = nasal
        t = np.clip(self.t, 1e-4, 1 - 1e-4)
        axis = -1.7 + slope * (self.u + self.nasal_canthus)
        uneven = self.column(self.subjects["lid_eyes"])
        # The upper lid follows the gaze almost wholly, the lower one less.
        upper = self["lid_upper"] + uneven + 0.75 * self.lifted
        lower = self["lid_lower"] - 0.4 * self.lifted
        rise = 0.62 + 0.09 * fold
        peak_axis = -1.7 + slope * (self.nasal_canthus - nasal + length * rise / (rise + 0.72))
        self.upper = axis + (upper - peak_axis) * _arc(t, rise, np.float32(0.72))
        self.lower = axis - (lower + peak_axis) * _arc(t, np.float32(0.95), np.float32(0.62))
        wide = np.clip((self.u + nasal + 0.5) / (length + 4.0), 1e-4, 1 - 1e-4)
        height = upper - peak_axis + self["crease"]
        beyond = np.clip(self.t - 1, 0, 1) * length
        self.crease = axis + 0.3 - 0.5 * beyond + height * _arc(wide, np.float32(0.55), np.float32(0.6))
        self.inside = np.minimum(self.t, 1 - self.t) * length
