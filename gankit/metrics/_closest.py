"""The training images closest to the images of a pool, by distance and by angle, searched once for all its parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from gankit.errors import GankitError
from gankit.interfaces import Indices, Pool, Rows
from gankit.metrics._distances import Matrix, Shortlist
from gankit.metrics._rows import checked


@final
@dataclass(frozen=True, eq=False)
class Images:
    """Features, ids and group codes of some images, sorted by content; `order[i]` is the original place of image i."""

    features: Matrix
    ids: list[Any]
    codes: Indices
    order: Indices

    @classmethod
    def of(cls, rows: Rows, whose: str) -> Images:
        """The images of one side.

        Raises:
            GankitError: there are none, or they have no ids or no finite (n, d) features.
        """
        given, ids = rows.required("features", f"the {whose}"), rows.required("ids", f"the {whose}").tolist()
        features = np.ascontiguousarray(checked(given, f"features of the {whose} images"), dtype=np.float64)
        if not len(features):
            raise GankitError(f"memorisation: there are no {whose} images; give some")
        digests = [blake2b(row.tobytes(), digest_size=16).digest() for row in features]
        order = np.array(sorted(range(len(features)), key=lambda place: (digests[place], str(ids[place]))))
        groups = list(range(len(ids))) if rows.groups is None else rows.groups.tolist()
        seen: dict[Any, int] = {}
        codes = np.array([seen.setdefault(groups[place], len(seen)) for place in order])
        return cls(features[order], [ids[place] for place in order], codes, order)

    @property
    def grouped(self) -> bool:
        """Whether any group has several images."""
        return bool(self.codes.max() + 1 < len(self.codes))

    @cached_property
    def at_length_one(self) -> Matrix:
        """The features, each row divided by its length."""
        lengths = np.sqrt(np.square(self.features).sum(1, keepdims=True))
        rows: Matrix = self.features / np.where(lengths == 0, 1, lengths)
        return rows


class Distances(NamedTuple):
    """Distances of generated and of held-out images.

    Attributes:
        place: (n,) the training image closest to each generated one.
        near: (n,) distances to it.
        next: (n,) distances from that training image to its own closest other one.
        angle: (n,) distances to the training image closest by angle: of rows of length 1, the shorter of |x - y| and
            |x + y|.
        held: (m,) distances from each held-out image to its closest training image.
    """

    place: Indices
    near: Matrix
    next: Matrix
    angle: Matrix
    held: Matrix


@final
class Closest:
    """The closest training images of a pool, in lists that are made when first read.

    Without training images apart, the real images are the training images, and each is held out in turn.

    Args:
        pool: the images.
        listed: length of the lists where the real images are the training images; 1 serves the whole pool, longer
            ones its parts.

    Attributes:
        real: the real images.
        fake: the generated images.
        training: the training images.
        left_one_out: whether the real images are the training images.

    Raises:
        GankitError: as `Images.of`, or features of unlike lengths.
    """

    def __init__(self, pool: Pool, listed: int) -> None:
        self.real, self.fake = Images.of(pool.real, "real"), Images.of(pool.fake, "generated")
        apart = pool.real.training
        self.left_one_out = apart is None
        self.training = self.real if apart is None else Images.of(apart, "training")
        if len({images.features.shape[1] for images in (self.fake, self.real, self.training)}) > 1:
            raise GankitError(
                "generated, real and training images have features of different lengths; use one extractor"
            )
        self._listed = listed if self.left_one_out else 1
        self._lists: dict[tuple[str, int], Shortlist] = {}
        # For each place in the pool, the place among the sorted images of its side.
        self._position = np.concatenate([np.argsort(self.real.order), np.argsort(self.fake.order)])

    def distances(self, real: Indices, fake: Indices) -> Distances:
        """Distances when these images of the pool are the real and the generated ones.

        Args:
            real: (m,) places; where the real images are the training images, real ones alone.
            fake: (n,) places.
        """
        allowed = np.ones(len(self.training.ids), bool)
        if self.left_one_out:
            allowed[:] = False
            allowed[self._position[real]] = True
        other_groups = self.left_one_out and self.real.grouped
        held = self._closest("other groups" if other_groups else "any", real, allowed)[1]
        place, near = self._closest("any", fake, allowed)
        following = self._list("any", self.training).among(place, allowed)[1]
        return Distances(place, near, following, self._closest("angle", fake, allowed)[1], held)

    @property
    def between_training(self) -> Matrix:
        """(n,) distances from each training image to the closest other one, of another group where these are known."""
        everything = np.arange(len(self.training.ids))
        kind = "other groups" if self.training.grouped else "any"
        return self._list(kind, self.training).among(everything, np.ones(len(everything), bool))[1]

    def _closest(self, kind: str, places: Indices, allowed: NDArray[np.bool_]) -> tuple[Indices, Matrix]:
        """The closest allowed training image of each image at these places, those of the real side first."""
        is_real = places < len(self.real.ids)
        sides = ((self.real, places[is_real]), (self.fake, places[~is_real]))
        lists = [self._list(kind, images).among(self._position[part], allowed) for images, part in sides if len(part)]
        return np.concatenate([place for place, _ in lists]), np.concatenate([distance for _, distance in lists])

    def _list(self, kind: str, images: Images) -> Shortlist:
        """The closest training images of some images; training images are passed over themselves, or their group."""
        key = kind, id(images)
        if key not in self._lists:
            by_angle, codes = kind == "angle", np.arange(len(self.training.ids))
            if kind == "other groups":
                codes = self.training.codes
            x, y = (side.at_length_one if by_angle else side.features for side in (images, self.training))
            apart = (codes, codes) if images is self.training else None
            self._lists[key] = Shortlist(x, y, apart=apart, either_sign=by_angle, k=self._listed)
        return self._lists[key]
