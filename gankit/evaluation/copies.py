"""Generated images that copy the pixels of a training image: every evaluation looks for them, whatever its metrics."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gankit.errors import GankitError
from gankit.evaluation.tables import reads_training
from gankit.files import write_atomically
from gankit.images.pictures import pairs_png
from gankit.interfaces import Dataset, Indices, Rows
from gankit.metrics.leakage import NEAR_COPY, Thumbnail, duplicates, thumbnails

SIDE = 32
"""Pixels a side, at most, at which images are compared."""
CHUNK = 512
"""Number of images read at a time."""
MOST_DRAWN = 8
"""A picture shows at most this many pairs."""


def find_copies(
    fakes: Dataset, training: Dataset, held_out: Dataset | None, kind: str
) -> tuple[dict[str, Any], list[str]]:
    """How many generated images copy a training image or its mirror image, and warnings of them.

    A copy is exact if all pixels are equal, and near if the root mean square difference, at no more than 32 pixels a
    side, is below 3 of 255 grey levels. Any exact copy gives a warning. Where images have little contrast, new ones can
    be as near as copies: near ones give a warning only if their share is above that of held-out images or, where none
    are held out, of training images compared with the other training images. Exact copies are left out of both shares.
    Held-out images that equal a training image, so that the generator has seen them, give a warning too.

    Args:
        fakes: the generated images.
        training: those that the generator may have copied.
        held_out: real images that it has not seen.
        kind: what messages call an image of `training`, "training image" for example.

    Returns:
        `{"exact", "near", "near_expected"}`, two numbers of images and the expected share, or an empty dictionary where
        the images cannot be compared; and the warnings.
    """
    try:
        known = list(_thumbnails(training))
        exact, near, partner = _match(fakes, known)
        real_exact, real_near, _ = _match(training, known, itself=True) if held_out is None else _match(held_out, known)
    except GankitError as error:
        return {}, [f"copies of a {kind} are not looked for: {error}"]
    only_near = near & ~exact
    n_exact, n_near = int(exact.sum()), int(only_near.sum())
    is_new = ~real_exact  # an image that the generator has seen says nothing about new ones
    expected = float(real_near[is_new].mean()) if is_new.any() else 0.0
    warnings = []
    if held_out is not None and (shared := int(real_exact.sum())):
        warnings.append(
            f"{shared} of {len(held_out)} real images equal a {kind} or its mirror image: beside them a generator "
            "that only copies would score well; compare with images that it was not trained on"
        )

    def example(copies: NDArray[np.bool_]) -> str:
        first = int(np.flatnonzero(copies)[0])
        return f"image {_name(fakes, first)} copies {_name(training, int(partner[first]))}"

    if n_exact:
        warnings.append(
            f"{n_exact} of {len(fakes)} generated images equal a {kind} or its mirror image pixel by pixel "
            f"({n_exact / len(fakes):.1%}): {example(exact)}"
        )
    if n_near and (share := n_near / (len(fakes) - n_exact)) > expected:
        among = f"{len(fakes) - n_exact} other" if n_exact else len(fakes)
        warnings.append(
            f"{n_near} of {among} generated images are near copies of a {kind}, compared at up to {SIDE} pixels a side "
            f"({share:.1%}; {expected:.1%} of new real images): {example(only_near)}"
        )
    return {"exact": n_exact, "near": n_near, "near_expected": expected}, warnings


def show_pairs(
    values: Mapping[str, dict[str, Any]], fakes: Dataset, reals: Dataset, training: Dataset | None, folder: Path | None
) -> None:
    """In entries of a metrics file, name the files of each pair of images; draw the closest pairs in a folder.

    Metrics that read the training images pair generated images with these, all others with the reals.
    """
    for name, entry in values.items():
        if not (pairs := entry.get("details", {}).get("pairs")):
            continue
        partners = training if training is not None and reads_training(entry) else reals
        for side, images in (("fake", fakes), ("real", partners)):
            if files := images.known.files:
                for pair in pairs:
                    pair[f"{side}_file"] = files[pair[side]]
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            fake, real = (np.array([pair[side] for pair in pairs[:MOST_DRAWN]]) for side in ("fake", "real"))
            png = pairs_png(fakes.read(fake), fakes.value_range, partners.read(real), partners.value_range)
            write_atomically(folder / f"{name}-pairs.png", png)


def _match(
    images: Dataset, known: list[Thumbnail], itself: bool = False
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Indices]:
    """For each image, as it is and mirrored, whether a known one is equal, whether one is near or equal, and which.

    With `itself` the images are the known ones, and none counts as a copy of itself.
    """
    exact, near = np.zeros((2, len(images)), bool)
    partner = np.zeros(len(images), np.int64)
    for mirrored in (False, True):
        for i, j, _, equal in duplicates(list(_thumbnails(images, mirrored)), known, NEAR_COPY):
            if itself:
                others = i != j
                i, j, equal = i[others], j[others], equal[others]
            only_near = ~equal & ~exact[i]
            partner[i[only_near]] = j[only_near]
            partner[i[equal]] = j[equal]  # an equal one is named before one that is near
            near[i] = True
            exact[i[equal]] = True
    return exact, near, partner


def _thumbnails(images: Dataset, mirrored: bool = False) -> Iterator[Thumbnail]:
    for start in range(0, len(images), CHUNK):
        places = np.arange(start, min(start + CHUNK, len(images)))
        pixels = images.read(places)
        rows = Rows(images=pixels[..., ::-1] if mirrored else pixels, ids=places, value_range=images.value_range)
        yield from thumbnails(rows, "compared", SIDE)


def _name(images: Dataset, place: int) -> str:
    return images.known.files[place] if images.known.files else str(place)
