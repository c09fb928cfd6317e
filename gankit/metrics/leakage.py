"""Images of one set that are in another one too: Barz and Denzler 2020, J. Imaging 6(6):41, arXiv 1902.00423."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Any, final

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from gankit.errors import GankitError
from gankit.interfaces import Batch, Indices, Metric, Pool, Resampling
from gankit.metrics._neighbours import Matrix, distances, within

SIDE, COARSE = 64, 16
"""Longest side in pixels at which images are compared, and at which candidates are looked for."""
PAIRS = 50


@final
@dataclass(frozen=True)
class _Image:
    """What is kept of an image: `small` is (c, h, w) float32 of at most 64 pixels a side, `content` a digest."""

    id: Any
    label: Any
    content: bytes
    small: NDArray[np.float32]


def shrink(image: NDArray[Any], height: int, width: int) -> Matrix:
    """Exact area averaging: each new pixel is the mean of what lies under it, parts of pixels by their share.

    Args:
        image: (c, h, w) of any numeric type.
        height: new height, at most h.
        width: new width, at most w.

    Returns:
        (c, height, width) float64. The mean square of the result is never above that of the image.
    """
    shrunken: Matrix = _shares(image.shape[1], height) @ image.astype(np.float64) @ _shares(image.shape[2], width).T
    return shrunken


@lru_cache(16)
def _shares(size: int, new: int) -> Matrix:
    """(new, size) weights: how much of each old pixel a new one covers; each row sums to 1."""
    edges, pixels = np.arange(new + 1) * (size / new), np.arange(size)
    covered = np.minimum(pixels + 1, edges[1:, None]) - np.maximum(pixels, edges[:-1, None])
    return covered.clip(min=0) * (new / size) if new < size else np.eye(size)


def _common(images: Sequence[_Image]) -> tuple[int, int, int]:
    shapes = np.array([image.small.shape for image in images])
    channels = set(shapes[:, 0].tolist())
    if len(channels - {1}) > 1:
        raise GankitError(f"leakage compares images of {sorted(channels)} channels; bring them to one number")
    return max(channels), int(shapes[:, 1].min()), int(shapes[:, 2].min())


def _at(images: Sequence[_Image], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """(n, c, h, w) of one size; grey images beside colour ones take their channels."""
    rows = np.empty((len(images), *shape), np.float32)
    for row, image in zip(rows, images, strict=True):
        row[:] = image.small if image.small.shape[1:] == shape[1:] else shrink(image.small, *shape[1:])
    return rows


def _duplicates(
    first: Sequence[_Image], second: Sequence[_Image], threshold: float
) -> Iterator[tuple[Indices, Indices, Matrix, NDArray[np.bool_]]]:
    """Places of duplicates in either set, their RMS difference, and whether they are exact; some pairs at a time.

    Averaging never makes a difference larger, so that duplicates are also close at a few pixels a side, where looking
    for them is cheap.
    """
    shape = _common([*first, *second])
    size = min(COARSE, shape[1]), min(COARSE, shape[2])
    images = _at(first, shape), _at(second, shape)
    x, y = (side.reshape(len(side), -1) for side in images)
    few, others = (np.array([shrink(image, *size).ravel() for image in side]) for side in images)
    codes: dict[bytes, int] = {}
    content = [np.array([codes.setdefault(image.content, len(codes)) for image in side]) for side in (first, second)]
    radius = (threshold * (1 + 1e-6) + 1e-3) * float(np.sqrt(few.shape[1]))  # wider than any rounding
    for i, j in within(few, others, radius):
        exact = content[0][i] == content[1][j]
        rms = distances(x, y, i, j) / np.sqrt(x.shape[1])
        kept = exact | (rms < threshold)
        yield i[kept], j[kept], rms[kept], exact[kept]


@final
class Leakage(Metric):
    """The share of images of a first set that have a duplicate in a second one: two splits, or two folders.

    The "generated" images are the first set, the "real" ones the second. Exact duplicates have equal content: a digest
    (blake2b) of the image as float32 in [0, 255] and of its shape. Near ones differ by less than `threshold` in root
    mean square over pixels and channels. For that, sides above 64 pixels are shrunk to 64 by exact area averaging, and
    all images to the smallest height and the smallest width of both sets; grey images are compared with each channel
    of colour ones. Turned, mirrored, cropped or brightened copies are not found. Values are shares in [0, 1]:

    - leakage: images of the first set with an exact or a near duplicate in the second.
    - exact duplicates: images of the first set with an exact one.

    Of an image at most c * 64 * 64 numbers are kept, so that memory grows by at most 48 kB a colour image.
    """

    needs = ("images", "ids", "labels")
    better = "lower"
    real: list[_Image]
    fake: list[_Image]

    def __init__(self, *, threshold: Annotated[float, Ge(0)] = 3.0) -> None:
        """
        Args:
            threshold: root mean square difference of near duplicates, in grey levels of 255; 0 for exact ones alone.
        """
        self.threshold = threshold
        self.add_state("real", list, operator.add)
        self.add_state("fake", list, operator.add)
        self._details: dict[str, Any] = {}
        self._cautions: list[str] = []

    def update(self, batch: Batch) -> None:
        """Take in (n, c, h, w) images in [0, 255] and ids, and labels where known; a digest and a small copy are kept.

        Raises:
            GankitError: no images or ids, another shape, or values that are not finite.
        """
        images, ids = self.wanted(batch, "images"), self.wanted(batch, "ids")
        side, name = (self.real, "second") if batch.real else (self.fake, "first")
        if images.ndim != 4 or 0 in images.shape[1:]:
            raise GankitError(f"leakage reads (n, c, h, w) images, those of the {name} set have shape {images.shape}")
        labels: Sequence[Any] = [None] * len(images) if batch.labels is None else batch.labels.tolist()
        if batch.class_names and batch.labels is not None and batch.labels.ndim == 1:
            labels = [batch.class_names[label] for label in labels]
        for image, identity, label in zip(images, ids.tolist(), labels, strict=True):
            if not np.isfinite(image).all():
                raise GankitError(f"image {identity!r} of the {name} set has values that are NaN or infinite: mend it")
            whole = image.astype(np.float32) + np.float32(0)  # -0.0 is 0.0
            content = blake2b(whole.tobytes() + repr(whole.shape).encode(), digest_size=16).digest()
            small = shrink(whole, min(SIDE, whole.shape[1]), min(SIDE, whole.shape[2])).astype(np.float32)
            side.append(_Image(identity, label, content, small))

    def compute(self) -> dict[str, float]:
        """The two shares.

        Raises:
            GankitError: a set without images, or images of different numbers of channels, both above 1.
        """
        for side, name in ((self.fake, "first (generated)"), (self.real, "second (real)")):
            if not side:
                raise GankitError(f"leakage has seen no images of the {name} set; give some")
        names = [_codes([str(image.id) for image in side]) for side in (self.fake, self.real)]
        kinds = {type(image.label) for image in self.fake + self.real}
        labels = _codes([repr(image.label) for image in self.fake + self.real])
        hit, same, counts = np.zeros(len(self.fake), bool), np.zeros(len(self.fake), bool), np.zeros(3, int)
        first, second, lengths = np.zeros(0, int), np.zeros(0, int), np.zeros(0)
        for i, j, rms, exact in _duplicates(self.fake, self.real, self.threshold):
            hit[i], same[i[exact]] = True, True
            counts += exact.sum(), (~exact).sum(), (labels[i] != labels[len(hit) + j]).sum()
            first, second, lengths = np.append(first, i), np.append(second, j), np.append(lengths, rms)
            order = np.lexsort((names[1][second], names[0][first], lengths))[:PAIRS]
            first, second, lengths = first[order], second[order], lengths[order]
        pairs = [
            {"fake": self.fake[i].id, "real": self.real[j].id, "distance": float(rms)}
            for i, j, rms in zip(first, second, lengths, strict=True)
        ]
        self._details = {"pairs": pairs, "exact_pairs": int(counts[0]), "near_pairs": int(counts[1])}
        self._cautions = []
        if len(kinds) == 1 and kinds != {type(None)}:  # all have labels, of one kind
            self._details["differently_labelled_pairs"] = int(counts[2])
            if counts[2]:
                self._cautions.append(
                    f"{counts[2]} of {counts[0] + counts[1]} pairs of duplicates carry different labels: correct them"
                )
        return {"leakage": float(hit.mean()), "exact duplicates": float(same.mean())}

    def details(self) -> Mapping[str, Any]:
        """Up to 50 "pairs", closest first, their distance the RMS difference; numbers of pairs in all.

        These are "exact_pairs", "near_pairs" (not exact), and, where both sets have labels,
        "differently_labelled_pairs".
        """
        return self._details

    def cautions(self, real_vs_real: Mapping[str, float]) -> list[str]:
        """Duplicates whose labels differ."""
        return self._cautions

    def resampling(self, pool: Pool) -> Resampling:
        """The pairs of duplicates once for the pool; from scratch where the sides differ in size."""
        resampling = _Pairs(self, pool)
        return resampling if resampling.one_size else super().resampling(pool)


def _codes(names: list[str]) -> Indices:
    """The rank of each name among the different ones."""
    ranks: Indices = np.unique(np.array(names, dtype=object), return_inverse=True)[1]
    return ranks


@final
class _Pairs(Resampling):
    """All pairs of duplicates in the pool, of which a part keeps those with either image in it."""

    def __init__(self, metric: Leakage, pool: Pool) -> None:
        super().__init__(metric, pool)
        whole = copy.deepcopy(metric)
        for places, real in ((pool.reals, True), (pool.fakes, False)):
            for batch in pool.batches(places, real):
                whole.update(batch)
        images = whole.real + whole.fake
        self.one_size = len({image.small.shape for image in images}) <= 1
        found = list(_duplicates(images, images, metric.threshold)) if images and self.one_size else []
        self._first, self._second, self._exact = (
            np.concatenate([part[column] for part in found] or [np.zeros(0, int)]) for column in (0, 1, 3)
        )

    def values(self, real: Indices, fake: Indices) -> dict[str, float]:
        """As `Resampling.values`."""
        if not len(real) or not len(fake):
            return super().values(real, fake)
        second = np.zeros(self.pool.real.count + self.pool.fake.count, bool)
        second[real] = True
        inside, hit, same = second[self._second], np.zeros_like(second), np.zeros_like(second)
        hit[self._first[inside]] = True
        same[self._first[inside & (self._exact != 0)]] = True
        return {"leakage": float(hit[fake].mean()), "exact duplicates": float(same[fake].mean())}
