"""Images of one set that are in another one too: Barz and Denzler 2020, J. Imaging 6(6):41, arXiv 1902.00423."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, NamedTuple, final

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from gankit.errors import GankitError
from gankit.interfaces import Indices, Meaning, Metric, Pool, Resampling, Result, Rows
from gankit.metrics._distances import pair_distances, within
from gankit.metrics._rows import Matrix

NEAR_COPY = 3.0
"""Root mean square difference, of 255 grey levels, below which two images are near copies of each other."""
LONGEST_SIDE, LONGEST_COARSE_SIDE = 64, 16
"""Most pixels a side: to compare images, and to look for candidates."""
PAIRS_LISTED = 50  # number of closest pairs in the details


class Thumbnail(NamedTuple):
    """What is kept of an image to find its duplicates."""

    id: Any
    label: Any
    content: bytes  # a digest
    small: NDArray[np.float32]  # (c, h, w)


def shrink(image: NDArray[Any], height: int, width: int) -> Matrix:
    """Exact area averaging: each new pixel is the mean of the old ones under it, weighted by their overlap.

    (c, h, w) of any numeric type to (c, height, width) float64, no larger than h and w. The mean square of the result
    is never above that of the image.
    """
    return _overlaps(image.shape[1], height) @ image.astype(np.float64) @ _overlaps(image.shape[2], width).T


@lru_cache(16)
def _overlaps(size: int, new: int) -> Matrix:
    """(new, size) weights: the overlap of each new pixel with each old one; each row sums to 1."""
    edges, pixels = np.arange(new + 1) * (size / new), np.arange(size)
    covered = np.minimum(pixels + 1, edges[1:, None]) - np.maximum(pixels, edges[:-1, None])
    return covered.clip(min=0) * (new / size) if new < size else np.eye(size)


def duplicates(
    first: Sequence[Thumbnail], second: Sequence[Thumbnail], threshold: float
) -> Iterator[tuple[Indices, Indices, Matrix, NDArray[np.bool_]]]:
    """Batches of p pairs of duplicates: (p,) indices in the first and the second set, RMS differences, whether exact.

    Candidates are found at 16 pixels a side or fewer, where search is cheap: averaging never increases a difference.
    Raises GankitError for images of different numbers of channels, both above 1.
    """
    pixels = _at_one_size(first, second)
    height, width = pixels[0].shape[2:]
    coarse_size = min(LONGEST_COARSE_SIDE, height), min(LONGEST_COARSE_SIDE, width)
    coarse_x, coarse_y = (np.array([shrink(image, *coarse_size).ravel() for image in images]) for images in pixels)
    x, y = (images.reshape(len(images), -1) for images in pixels)
    content = _ranks([image.content for image in [*first, *second]])
    content_x, content_y = content[: len(first)], content[len(first) :]
    radius = (threshold * (1 + 1e-6) + 1e-3) * float(np.sqrt(coarse_x.shape[1]))  # allows for rounding
    for i, j in within(coarse_x, coarse_y, radius):
        exact = content_x[i] == content_y[j]
        rms = pair_distances(x, y, i, j) / np.sqrt(x.shape[1])
        kept = exact | (rms < threshold)
        yield i[kept], j[kept], rms[kept], exact[kept]


def _at_one_size(first: Sequence[Thumbnail], second: Sequence[Thumbnail]) -> list[NDArray[np.float32]]:
    """Both sets as (n, c, h, w), shrunk to the smallest height and width in them; grey images repeat their channel."""
    shapes = np.array([image.small.shape for image in [*first, *second]])
    channels = set(shapes[:, 0].tolist())
    if len(channels - {1}) > 1:
        raise GankitError(
            f"leakage compares images of {sorted(channels)} channels; convert all to the same number of channels"
        )
    height, width = shapes[:, 1:].min(0).tolist()
    sets = []
    for images in (first, second):
        pixels = np.empty((len(images), max(channels), height, width), np.float32)
        for place, image in enumerate(images):
            fits = image.small.shape[1:] == (height, width)
            pixels[place] = image.small if fits else shrink(image.small, height, width)
        sets.append(pixels)
    return sets


def _ranks(values: Sequence[str | bytes]) -> Indices:
    """(n,) the rank of each value among the different ones."""
    return np.unique(np.array(values, dtype=object), return_inverse=True)[1]


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

    At most c * 64 * 64 numbers are kept of each image: 48 kB of memory for a colour image.

    Args:
        threshold: root mean square difference below which images are near duplicates, out of 255; 0: none.
    """

    needs = ("images", "ids", "labels")
    better = "lower"
    meanings: ClassVar = {
        "leakage": Meaning("share of the first images with an equal or similar one among the second", "lower",
                           share=True),
        "exact duplicates": Meaning("share of the first images with an equal one among the second", "lower",
                                    share=True),
    }  # fmt: skip

    def __init__(self, *, threshold: Annotated[float, Ge(0)] = NEAR_COPY) -> None:
        self.threshold = threshold

    def compute(self, real: Rows, fake: Rows) -> Result:
        """The two shares.

        Details: "pairs" lists the closest 50, with the RMS difference as "distance"; "exact_pairs", "near_pairs" (not
        exact) and, where both sets have labels, "differently_labelled_pairs" count all pairs.

        Raises:
            GankitError: a set without images or ids, images that are not (n, c, h, w) or not finite, or images of
                different numbers of channels, both above 1.
        """
        return _result(thumbnails(fake, "first"), thumbnails(real, "second"), self.threshold)

    def resampling(self, pool: Pool) -> Resampling:
        """Values from all pairs of duplicates in the pool; from scratch where its images are of several sizes."""
        return _Pairs(self, pool)


def thumbnails(rows: Rows, name: str, side: int = LONGEST_SIDE) -> list[Thumbnail]:
    """A digest and a small copy of each image, of at most `side` pixels a side.

    Raises GankitError without images or ids, and for images that are not (n, c, h, w) or not finite.
    """
    whole, ids = rows.required("images", f"the {name}"), rows.required("ids", f"the {name}").tolist()
    if whole.ndim != 4 or 0 in whole.shape[1:]:
        raise GankitError(f"leakage reads (n, c, h, w) images, those of the {name} set have shape {whole.shape}")
    labels: Sequence[Any] = [None] * len(whole) if rows.labels is None else rows.labels.tolist()
    if rows.class_names and rows.labels is not None and rows.labels.ndim == 1:
        labels = [rows.class_names[label] for label in labels]
    images: list[Thumbnail] = []
    each_image = (image for block in rows.image_blocks() for image in block)
    for image, identity, label in zip(each_image, ids, labels, strict=True):
        if not np.isfinite(image).all():
            raise GankitError(f"image {identity!r} of the {name} set has values that are NaN or infinite: fix it")
        content = blake2b(image.tobytes() + repr(image.shape).encode(), digest_size=16).digest()
        small = shrink(image, min(side, image.shape[1]), min(side, image.shape[2])).astype(np.float32)
        images.append(Thumbnail(identity, label, content, small))
    return images


def _result(first: Sequence[Thumbnail], second: Sequence[Thumbnail], threshold: float) -> Result:
    for images, name in ((first, "first (generated)"), (second, "second (real)")):
        if not images:
            raise GankitError(f"leakage: there are no images of the {name} set; give some")
    tally = _Tally(first, second)
    for batch in duplicates(first, second, threshold):
        tally.add(*batch)
    details = {"pairs": tally.closest(), "exact_pairs": tally.exact_pairs, "near_pairs": tally.near_pairs}
    warnings = []
    label_types = {type(image.label) for image in [*first, *second]}
    if len(label_types) == 1 and label_types != {type(None)}:  # all have labels, of one type
        details["differently_labelled_pairs"] = tally.differently_labelled
        if tally.differently_labelled:
            warnings.append(
                f"{tally.differently_labelled} of {tally.exact_pairs + tally.near_pairs} pairs of duplicates carry "
                "different labels: correct them"
            )
    values = {"leakage": float(tally.has_duplicate.mean()), "exact duplicates": float(tally.has_exact.mean())}
    return Result(values, details=details, warnings=warnings)


class _Tally:
    """What is known so far of the pairs of duplicates of two sets."""

    def __init__(self, first: Sequence[Thumbnail], second: Sequence[Thumbnail]) -> None:
        self._first, self._second = first, second
        self._first_rank, self._second_rank = (_ranks([str(image.id) for image in side]) for side in (first, second))
        labels = _ranks([repr(image.label) for image in [*first, *second]])
        self._first_label, self._second_label = labels[: len(first)], labels[len(first) :]
        self.has_duplicate, self.has_exact = np.zeros((2, len(first)), bool)  # of the images of the first set
        self.exact_pairs, self.near_pairs, self.differently_labelled = 0, 0, 0  # numbers of pairs
        self._closest = np.zeros(0, int), np.zeros(0, int), np.zeros(0)  # indices in both sets, and distances

    def add(self, i: Indices, j: Indices, rms: Matrix, exact: NDArray[np.bool_]) -> None:
        """Add a batch of `duplicates`."""
        self.has_duplicate[i], self.has_exact[i[exact]] = True, True
        self.exact_pairs += int(exact.sum())
        self.near_pairs += int((~exact).sum())
        self.differently_labelled += int((self._first_label[i] != self._second_label[j]).sum())
        first, second, distances = (np.append(*columns) for columns in zip(self._closest, (i, j, rms), strict=True))
        # Pairs at one distance come in the order of their ids.
        order = np.lexsort((self._second_rank[second], self._first_rank[first], distances))[:PAIRS_LISTED]
        self._closest = first[order], second[order], distances[order]

    def closest(self) -> list[dict[str, Any]]:
        """The closest pairs, closest first, as `Result.details` holds them: "fake" is of the first set."""
        return [
            {"fake": self._first[i].id, "real": self._second[j].id, "distance": float(rms)}
            for i, j, rms in zip(*self._closest, strict=True)
        ]


@final
class _Pairs(Resampling):
    """Finds the duplicates of the whole pool once; values on a part count the pairs with both images in it.

    As in `Leakage`, generated images are the first set and real ones the second.
    """

    def __init__(self, metric: Leakage, pool: Pool) -> None:
        super().__init__(metric, pool)
        self.threshold = metric.threshold
        self._images = thumbnails(pool.real, "second") + thumbnails(pool.fake, "first")

    @cached_property
    def _pairs(self) -> tuple[Indices, Indices, NDArray[np.bool_]] | None:
        """Places of both images of each pair, and whether they are exact duplicates; None for images of several sizes.

        Images are compared at the smallest size in their sets, which may be larger in a part than in the pool.
        """
        if len({image.small.shape for image in self._images}) > 1:
            return None
        blocks = list(duplicates(self._images, self._images, self.threshold))
        first, second, exact = (np.concatenate([block[column] for block in blocks]) for column in (0, 1, 3))
        return first, second, exact

    def _sublist(self, places: Indices) -> list[Thumbnail]:
        return [self._images[place] for place in places]

    def whole(self) -> Result:
        return _result(self._sublist(self.pool.fake_places), self._sublist(self.pool.real_places), self.threshold)

    def values(self, real: Indices, fake: Indices) -> Mapping[str, float]:
        if not len(real) or not len(fake) or self._pairs is None:
            return _result(self._sublist(fake), self._sublist(real), self.threshold).values
        first, second, exact = self._pairs
        in_second = np.zeros(len(self._images), bool)
        in_second[real] = True
        inside, has_duplicate, has_exact = in_second[second], np.zeros_like(in_second), np.zeros_like(in_second)
        has_duplicate[first[inside]] = True
        has_exact[first[inside & exact]] = True
        return {"leakage": float(has_duplicate[fake].mean()), "exact duplicates": float(has_exact[fake].mean())}
