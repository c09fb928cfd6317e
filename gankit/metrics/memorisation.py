"""Copies of training images: Meehan et al. 2020, arXiv 2004.05675; Alaa et al. 2022, arXiv 2102.08921, sec. 3.4.

The distances from generated images to their closest training images mean something only beside those of real images
that were held out. Bai et al. 2021, arXiv 2106.03062 (MiFID), gave the distance by angle.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom, norm

from gankit.errors import GankitError
from gankit.interfaces import Batch, Indices, Metric, Pool, Resampling
from gankit.metrics._neighbours import Matrix, Shortlist, nearest
from gankit.metrics._rows import checked

LEVEL = 0.001
"""Chance that a value of new images is called beyond chance."""
PAIRS = 8


@final
@dataclass(frozen=True)
class _Images:
    """Features, identities and group codes, in an order that depends on them alone; `order` leads there."""

    rows: Matrix
    ids: list[Any]
    codes: Indices
    order: list[int]
    grouped: bool

    @property
    def units(self) -> float:
        """Number of independent images (Kish 1965): images of one group count together."""
        return _units(self.codes)


def _float64(values: NDArray[Any], whose: str) -> Matrix:
    return np.ascontiguousarray(checked(values, f"features of {whose} images"), dtype=np.float64)


def _images(parts: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]], whose: str) -> _Images:
    if not parts or not sum(len(part[0]) for part in parts):
        raise GankitError(f"memorisation has seen no {whose} images; give some")
    if len({part[0].shape[1:] for part in parts}) > 1:
        raise GankitError(f"{whose} images have features of different lengths; use one extractor")
    rows = _float64(np.concatenate([part[0] for part in parts]), whose)
    ids = [name for part in parts for name in part[1].tolist()]
    digests = [blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
    order = sorted(range(len(rows)), key=lambda place: (digests[place], str(ids[place])))
    groups: list[Any] = []
    for features, _, names in parts:  # an image without a group is its own
        groups += [object() for _ in features] if names is None else names.tolist()
    seen: dict[Any, int] = {}
    codes = np.array([seen.setdefault(groups[place], len(seen)) for place in order])
    return _Images(rows[order], [ids[place] for place in order], codes, order, len(seen) < len(codes))


def _units(codes: Indices) -> float:
    counts = np.unique(codes, return_counts=True)[1]
    return float(counts.sum() ** 2 / np.square(counts).sum())


def _unit(rows: Matrix) -> Matrix:
    lengths = np.sqrt(np.square(rows).sum(1, keepdims=True))
    result: Matrix = rows / np.where(lengths == 0, 1, lengths)
    return result


def _nearer(near: Matrix, held: Matrix) -> float:
    """The share of pairs with the first distance below the second, ties by half."""
    held = np.sort(held)
    below = np.searchsorted(held, near, "left") + np.searchsorted(held, near, "right")
    return float(1 - below.sum() / (2 * len(near) * len(held)))


def _rank(n: int, left_one_out: bool) -> int:
    """Which of n held-out distances, from the smallest, bounds a near copy. Leave-one-out ones come in mutual pairs."""
    return min(n, 2 * max(1, (n + 2) // 200)) if left_one_out else max(1, (n + 1) // 100)


def _copies(near: Matrix, held: Matrix, left_one_out: bool) -> float:
    rank = _rank(len(held), left_one_out) - 1
    return float((near <= np.partition(held, rank)[rank]).mean())


def _values(near: Matrix, own: Matrix, angle: Matrix, held: Matrix, left_one_out: bool) -> dict[str, float]:
    """The values from one distance an image: of generated ones, of their neighbours to theirs, of held-out ones."""
    if not np.isfinite(own).all():
        raise GankitError("memorisation has 1 training image; authenticity needs at least 2")
    if not np.isfinite(held).all():
        raise GankitError("the real images are of one group, so none is held out; give more, or a training set apart")
    return {
        "memorisation": _nearer(near, held),
        "near-copies": _copies(near, held, left_one_out),
        "authenticity": float((near > own).mean()),
        "memorisation distance": float(np.sort(np.square(angle) / 2).mean()),  # of unit rows: 1 - |cos|
    }


def _beyond_chance(memorisation: float, copies: float, shown: float, held: float) -> tuple[bool, bool]:
    """Whether each value is beyond chance, for so many independent images shown and held out; see `Memorisation`."""
    error = math.sqrt((shown + held + 1) / (12 * shown * held))
    n, m = max(1, int(held)), max(1, int(shown))
    rank, count = _rank(n, False), int(copies * m + 1e-6)
    chance = hypergeom.cdf(rank - 1, n + m, n, count + rank - 1)
    return memorisation > 0.5 + norm.isf(LEVEL) * error, bool(chance < LEVEL)


@final
class Memorisation(Metric):
    """Whether generated images are copies of training images, with two controls on the same features.

    Batches with `training` are the training images; those with `real` alone are then held out. Without any training
    batch the real images are the training images, and each one's distance to the closest other (of another group, where
    groups are known) stands in for a held-out image's. Distances are Euclidean, exact in float64: equal features are
    at 0. Values are shares in [0, 1], but for the last, which is in [0, 1] too:

    - memorisation: of pairs of a generated and a held-out image, those in which the generated one is nearer to its
      closest training image than the held-out one to its own, ties by half (Meehan et al. 2020, without their cells).
      0.5 for images as new as held-out ones, 1 for copies, less for images far from all real ones.
    - near-copies: of generated images, those no farther from a training image than the k-th closest of n held-out
      images is, k = max(1, floor((n + 1) / 100)). New images are expected at k / (n + 1): 1/(n + 1) below 199 images,
      then close to 1 %. Leave-one-out distances come in mutual pairs: there k = 2 max(1, floor((n + 2) / 200)), and
      k / (n + 2) are expected. Both are for independent images: more where those of a group resemble each other.
    - authenticity: of generated images, those farther from the closest training image than that is from its own
      closest other training image, of any group (Alaa et al. 2022).
    - memorisation distance: 1 - |cos| to the training image closest by angle, mean over generated images (Bai et al.
      2021); 0 for copies.

    Beyond chance, one-sided at the level 0.001 each, are memorisation above 0.5 by more than 3.09 of the rank sum's
    standard deviations sqrt((m + n + 1) / (12 m n)), and a number of near copies that is as improbable by the exact
    distribution of m new images' ranks among n held-out ones (negative hypergeometric). Images of one group count
    together in n, by Kish's formula; leave-one-out distances count half.

    Controls: a copycat, training images shown as generated ones, must be beyond chance in both. Held-out reals, one
    half shown beside the other and split by group, must be in neither, nor nearer to the training images than those
    are to each other.
    """

    needs = ("features", "training", "groups", "ids")
    real: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]]
    fake: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]]
    training: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]]

    def __init__(self) -> None:
        for name in ("real", "fake", "training"):
            self.add_state(name, list, operator.add)
        self._details: dict[str, Any] = {}
        self._counts: dict[str, tuple[int, int]] = {}
        self._cautions: list[str] = []

    def update(self, batch: Batch) -> None:
        """Take in (n, d) features and ids, and groups where known, of training, of other real, or of generated images.

        Raises:
            GankitError: no features or ids, or features of another shape.
        """
        features, ids = np.array(self.wanted(batch, "features")), np.array(self.wanted(batch, "ids"))
        if features.ndim != 2:
            raise GankitError(f"memorisation reads (n, d) features, these have shape {features.shape}")
        groups = None if batch.groups is None else np.array(batch.groups)
        side = self.training if batch.training else self.real if batch.real else self.fake
        side.append((features, ids, groups))

    def compute(self) -> dict[str, float]:
        """The four values.

        Raises:
            GankitError: no generated, training or held-out image, one training image, real images of one group without
                training images apart, features of different lengths or not finite.
        """
        left_one_out = not self.training
        fake, real = _images(self.fake, "generated"), _images(self.real, "real")
        train = real if left_one_out else _images(self.training, "training")
        if len({images.rows.shape[1] for images in (fake, real, train)}) > 1:
            raise GankitError(
                "generated, real and training images have features of different lengths; use one extractor"
            )
        # Each training image finds itself, at 0, and the closest other: the copycat's distance and its own.
        twice = nearest(train.rows, train.rows, 2)[1]
        copycat, own = twice[:, 0], twice[:, 1]
        others = nearest(train.rows, train.rows, apart=(train.codes,) * 2)[1][:, 0] if train.grouped else own
        held = others if left_one_out else nearest(real.rows, train.rows)[1][:, 0]
        places, lengths = nearest(fake.rows, train.rows)
        place, near = places[:, 0], lengths[:, 0]
        angle = nearest(_unit(fake.rows), _unit(train.rows), either_sign=True)[1][:, 0]
        values = _values(near, own[place], angle, held, left_one_out)

        rank = _rank(len(held), left_one_out)
        self._details = {
            "pairs": [
                {"fake": fake.ids[i], "real": train.ids[place[i]], "distance": float(near[i])}
                for i in np.argsort(near, kind="stable")[:PAIRS]
            ],
            "held_out": "leave-one-out" if left_one_out else "separate",
            "expected_near_copies": rank / (len(held) + 1 + left_one_out),
            "controls": {
                "copycat": _copycat(copycat[: len(near)], held, real.units, left_one_out),
                "held-out reals": _held_out(held, real.codes, others, train.units, left_one_out),
            },
        }
        self._counts = {}
        if not left_one_out:
            self._counts = dict.fromkeys(("authenticity", "memorisation distance"), (len(own), len(near)))
        flags = _beyond_chance(
            values["memorisation"], values["near-copies"], len(near), real.units / (1 + left_one_out)
        )
        self._cautions = _sentences(values, self._details, flags)
        return values

    def counts(self) -> Mapping[str, tuple[int, int]]:
        """Where training images are apart: their number behind the values that read no held-out image."""
        return self._counts

    def details(self) -> Mapping[str, Any]:
        """The eight closest "pairs", "held_out" ("separate" or "leave-one-out"), "expected_near_copies", "controls"."""
        return self._details

    def cautions(self, real_vs_real: Mapping[str, float]) -> list[str]:
        """Controls that did not come out as they must, and values of the generated images that are beyond chance."""
        return self._cautions

    def resampling(self, pool: Pool) -> Resampling:
        """Distances once for the pool: to the training images, or lists of the closest real images."""
        return _LeftOut(self, pool) if pool.training is None else _Separate(self, pool)


def _copycat(near: Matrix, held: Matrix, units: float, left_one_out: bool) -> dict[str, Any]:
    values = _nearer(near, held), _copies(near, held, left_one_out)
    as_it_must = all(_beyond_chance(*values, len(near), units / (1 + left_one_out)))
    return {"memorisation": values[0], "near-copies": values[1], "as it must": as_it_must}


def _held_out(held: Matrix, codes: Indices, others: Matrix, units: float, left_one_out: bool) -> dict[str, Any]:
    """Half of the held-out images beside the other half; whole groups, the largest first, go to the smaller half."""
    names, counts = np.unique(codes, return_counts=True)
    sizes, second = [0, 0], np.zeros(len(names), bool)
    for name in np.argsort(-counts, kind="stable"):
        second[name] = sizes[1] < sizes[0]
        sizes[int(second[name])] += counts[name]
    shown = second[codes]
    if shown.all() or not shown.any():
        return {"memorisation": None, "near-copies": None, "as it must": False}
    values = _nearer(held[shown], held[~shown]), _copies(held[shown], held[~shown], left_one_out)
    share = 1 + left_one_out
    flags = [*_beyond_chance(*values, _units(codes[shown]) / share, _units(codes[~shown]) / share)]
    if not left_one_out and np.isfinite(others).all():
        flags.append(_beyond_chance(_nearer(held, others), 0.0, _units(codes), units / 2)[0])
    return {"memorisation": values[0], "near-copies": values[1], "as it must": not any(flags)}


def _sentences(values: dict[str, float], details: dict[str, Any], flags: tuple[bool, bool]) -> list[str]:
    said, copycat, held = [], *(details["controls"][name] for name in ("copycat", "held-out reals"))
    if not copycat["as it must"]:
        said.append(
            "training images shown as generated ones are not told from new images (memorisation "
            f"{copycat['memorisation']:.2f}): with these features, or with so few images, copies would go unnoticed"
        )
    if held["memorisation"] is None:
        said.append("the held-out images are of one group, so nothing shows whether they are a fair baseline")
    elif not held["as it must"]:
        said.append(
            "held-out real images are themselves flagged as copies: look for duplicates, or for one patient among both "
            "training and held-out images; until then memorisation and near-copies say little"
        )
    rule = f"beyond chance at the level {LEVEL}"
    if flags[0]:
        said.append(
            f"generated images are nearer to training images than held-out ones are in {values['memorisation']:.0%} of "
            f"pairs, {rule}: look at the closest pairs"
        )
    if flags[1]:
        said.append(
            f"{values['near-copies']:.1%} of generated images are near copies of training images where "
            f"{details['expected_near_copies']:.1%} are expected, {rule}: look at the closest pairs"
        )
    return said


@final
class _Separate(Resampling):
    """With training images apart, each image's distances are the same in every part of the pool."""

    def __init__(self, metric: Metric, pool: Pool) -> None:
        super().__init__(metric, pool)
        rows = _float64(np.concatenate([pool.real.fields["features"], pool.fake.fields["features"]]), "all")
        parts = [(batch.features, batch.ids, batch.groups) for batch in pool.training_batches()]
        train = _images(parts, "training").rows  # type: ignore[arg-type]
        place, near = nearest(rows, train)
        self._near, self._own = near[:, 0], nearest(train, train, 2)[1][place[:, 0], 1]
        self._angle = nearest(_unit(rows), _unit(train), either_sign=True)[1][:, 0]

    def values(self, real: Indices, fake: Indices) -> dict[str, float]:
        """As `Resampling.values`."""
        if not len(real) or not len(fake):
            return super().values(real, fake)
        return _values(self._near[fake], self._own[fake], self._angle[fake], self._near[real], False)


@final
class _LeftOut(Resampling):
    """Where the real images are the training images: lists of the closest ones, made when first read."""

    def __init__(self, metric: Metric, pool: Pool) -> None:
        super().__init__(metric, pool)
        rows = pool.real
        self._real = _images([(rows.fields["features"], rows.fields["ids"], rows.fields.get("groups"))], "real")
        self._fake = _float64(pool.fake.fields["features"], "generated")
        self._position = np.argsort(self._real.order)
        self._lists: dict[tuple[str, bool], Shortlist] = {}

    def _nearest(self, kind: str, places: Indices, allowed: NDArray[np.bool_]) -> tuple[Indices, Matrix]:
        """The nearest allowed real image of images of the pool, those of the real side first."""
        n = self.pool.real.count
        sides = {True: self._position[places[places < n]], False: places[places >= n] - n}
        found = [self._list(kind, side).among(rows, allowed) for side, rows in sides.items() if len(rows)]
        return np.concatenate([index for index, _ in found]), np.concatenate([length for _, length in found])

    def _list(self, kind: str, real: bool) -> Shortlist:
        if (kind, real) not in self._lists:
            x, y = self._real.rows if real else self._fake, self._real.rows
            codes = self._real.codes if kind == "other groups" else np.arange(len(y))
            if kind == "angle":
                x, y = _unit(x), _unit(y)
            apart = (codes, codes) if real else None
            self._lists[kind, real] = Shortlist(x, y, apart=apart, either_sign=kind == "angle")
        return self._lists[kind, real]

    def values(self, real: Indices, fake: Indices) -> dict[str, float]:
        """As `Resampling.values`."""
        if len(real) < 2 or not len(fake) or real.max() >= self.pool.real.count:
            return super().values(real, fake)
        allowed = np.zeros(self.pool.real.count, bool)
        allowed[self._position[real]] = True
        held = self._nearest("other groups" if self._real.grouped else "any", real, allowed)[1]
        place, near = self._nearest("any", fake, allowed)
        own = self._list("any", True).among(place, allowed)[1]
        return _values(near, own, self._nearest("angle", fake, allowed)[1], held, True)
