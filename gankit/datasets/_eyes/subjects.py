"""Who is in the pictures: every random figure of a subject, from published anatomy (docs/explanation/eyes.md)."""

from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from gankit.datasets._eyes.colours import skin_from_ita

Array = NDArray[np.float64]
Subjects = dict[str, NDArray[Any]]

CLASS_NAMES = ("exotropia", "esotropia", "normal")
# Standard deviations in degrees, common to both eyes.
_FACING = {"yaw": 3.0, "roll": 3.0, "gaze_h": 2.0, "gaze_v": 2.0}
# Figures that depend on no other: mean, standard deviation and, where there are any, bounds.
_NORMAL: dict[str, tuple[float, ...]] = {
    "kappa": (5.0, 1.2), "pupil": (4.3, 0.8, 2.2, 6.5), "anisocoria": (0.0, 0.2), "pupil_nasal": (0.27, 0.09),
    "pupil_up": (0.20, 0.15), "iris": (11.45, 0.5, 10.4, 12.6), "tilt": (4.6, 2.0, -1.0, 10.0),
    "lash_length": (4.6, 1.2, 2.2, 7.5), "light_side": (0.0, 0.45, -0.9, 0.9), "light_up": (0.35, 0.30, -0.4, 0.9),
    "warmth": (0.02, 0.055), "green": (0.0, 0.015), "exposure": (0.06, 0.20, -0.5, 0.4),
    "contrast": (1.12, 0.10, 0.85, 1.4), "saturation": (0.92, 0.10, 0.6, 1.2),
}  # fmt: skip
# Figures that depend on no other: lowest and highest.
_UNIFORM = {
    "iris_colour": (0.0, 1.0), "iris_pattern": (0.0, 1.0), "crease_depth": (0.35, 1.2), "crease_width": (0.40, 0.95),
    "lashes": (0.35, 1.0), "hair": (0.0, 1.0), "nose": (0.6, 1.2), "sclera": (0.0, 1.0), "flash": (0.05, 0.55),
    "vignette": (0.0, 0.35), "chroma": (0.0, 1.0), "glint": (0.42, 0.62), "glint_power": (0.75, 1.0),
    "second": (0.04, 0.20),
}  # fmt: skip


def stream(*key: int | str) -> np.random.Generator:
    """The generator of one named stream; its first draws do not depend on how many follow."""
    return np.random.default_rng([part if isinstance(part, int) else crc32(part.encode()) for part in key])


def _deviation(label: int, count: int, seed: int) -> Array:
    random = stream(seed, label, "deviation")
    if label == 0:  # Gamma of mean 20 and SD 10
        return np.clip(random.gamma(4.0, 5.0, count), 4.0, 60.0)
    if label == 1:  # Gamma of mean 24 and SD 13
        return -np.clip(random.gamma((24 / 13) ** 2, 13**2 / 24, count), 4.0, 70.0)
    return random.normal(0.0, 2.5, count)


def _draw_class(label: int, count: int, seed: int) -> Subjects:
    def normal(name: str, mean: float, sd: float, low: float = -np.inf, high: float = np.inf) -> Array:
        return np.clip(stream(seed, label, name).normal(mean, sd, count), low, high)

    def uniform(name: str, low: float = 0.0, high: float = 1.0) -> Array:
        return stream(seed, label, name).uniform(low, high, count)

    def per_eye(name: str, sd: float) -> Array:
        return stream(seed, label, name).normal(0.0, sd, (count, 2))

    # Strabismus clinics see mostly the young; age decides lids, brows and wrinkles.
    age = np.where(uniform("child") < 0.5, uniform("young", 3, 15), uniform("old", 15, 75))
    grown = np.clip((age - 3) / 13, 0.0, 1.0)
    ita = np.where(uniform("pale") < 0.62, normal("ita", 42.0, 9.0, 20.0, 65.0), uniform("any-ita", -52.0, 58.0))
    lab, ita = skin_from_ita(ita, stream(seed, label, "skin").normal(0.0, 1.0, (count, 3)) * [3.0, 2.0, 2.0])
    folded = uniform("folded") < np.where(age < 15, 0.547, 0.125)
    pupil_distance = normal("ipd", 0.0, 3.0, -7.0, 7.0) + 56.0 + 7.2 * grown
    older = [20.0, 40.0, 60.0]
    lid_upper = np.select([age < a for a in older], [2.94, 3.23, 3.33], 2.42) + normal("mrd1", 0.25, 0.75)
    lid_lower = np.select([age < a for a in older], [5.37, 5.66, 5.29], 4.45) + normal("mrd2", 0.0, 0.6)
    figures = {name: normal(name, 0.0, sd) for name, sd in _FACING.items()}
    figures |= {name: normal(name.replace("_", "-"), *values) for name, values in _NORMAL.items()}
    figures |= {name: uniform(name.replace("_", "-"), *values) for name, values in _UNIFORM.items()}
    return figures | {
        "label": np.full(count, label, dtype=np.int64), "index": np.arange(count),
        "deviation": _deviation(label, count, seed),
        "laterality": (uniform("laterality") < 0.5).astype(np.int64),
        "hirschberg_ratio": normal("hirschberg", 20.5, 1.8, 15.0, 24.0),
        "age": age,
        "iris_shade": stream(seed, label, "iris-shade").normal(0.0, 1.0, (count, 3)),
        "ita": ita, "skin": lab, "pupil_distance": pupil_distance,
        "canthi": 31.0 + 0.35 * (pupil_distance - 56.0) + normal("canthi", 2.3, 1.3, -1.0, 5.0),
        "fissure": 23.8 + 3.6 * grown + normal("fissure", 0.0, 1.1),
        "lid_upper": np.clip(lid_upper, 1.2, 5.2), "lid_lower": np.clip(lid_lower, 4.0, 7.0),
        "lid_eyes": per_eye("lid-eyes", 0.25),
        "epicanthus": np.where(folded, uniform("fold", 1.0, 3.2), 0.0),
        "crease": np.where(uniform("single") < 0.42, 0.0, uniform("crease", 1.0, 3.6)),
        "lid_fullness": uniform("fullness", 0.3, 1.0),
        "bag": uniform("bag", 0.05, 0.4) + 0.5 * np.clip((age - 25) / 50, 0, 1) * uniform("older-bag"),
        "circles": uniform("circles", 0.0, 0.5) ** 1.3, "wrinkles": np.clip((age - 28) / 40, 0, 1),
        "liner": np.where(uniform("makeup") < 0.12, uniform("liner", 0.4, 1.0), 0.0) * (age > 16),
        "brow_height": np.maximum(normal("brow-height", 12.3, 2.8) + 2.5 * grown, 8.5),
        "brow_weight": uniform("brow", 0.35, 1.0), "brow_arch": uniform("arch", 0.5, 3.5),
        "socket": uniform("socket", 0.3, 1.0) * (0.6 + 0.4 * grown),
        "redness": uniform("redness", 0.1, 1.0) ** 1.6,
        "blur": uniform("blur", 0.0, 1.0) ** 2 * 0.75, "noise": uniform("noise") ** 3 * 6.0 + 0.6,
        "second_at": stream(seed, label, "second-at").uniform([0.5, 0.7], [1.6, 1.9], (count, 2)),
        "framing": stream(seed, label, "framing").normal(0.0, [0.7, 0.6], (count, 2, 2)),
    }  # fmt: skip


def draw_subjects(counts: tuple[int, int, int], seed: int) -> Subjects:
    """Draw the subjects of all three classes, in an order shuffled by the seed.

    A subject depends on the seed, its class and its place in the class, not on the counts. Each figure is one array,
    (n,) or (n, k) or (n, 2 eyes, k): lengths in mm, angles in degrees, deviation in signed prism dioptres (positive:
    exotropia), laterality 0 where the subject's right eye deviates and 1 for the left.
    """
    classes = [_draw_class(label, count, seed) for label, count in enumerate(counts)]
    order = stream(seed, "order").permutation(sum(counts))
    return {name: np.concatenate([part[name] for part in classes])[order] for name in classes[0]}
