"""Copies of training images: Meehan et al. 2020, arXiv 2004.05675; Alaa et al. 2022, arXiv 2102.08921, sec. 3.4.

The distances from generated images to their closest training images mean something only beside those of real images
that were held out. Bai et al. 2021, arXiv 2106.03062 (MiFID), gave the distance by angle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from gankit.errors import GankitError
from gankit.interfaces import Indices, Meaning, Metric, Pool, Resampling, Result, Rows
from gankit.metrics._distances import Rows64, Shortlist
from gankit.metrics._rows import Matrix, digests, read_rows

LEVEL = 0.001
"""Significance level: the probability that images that copy nothing are flagged."""
PAIRS_SHOWN = 8  # number of closest pairs in the details


@dataclass(frozen=True, eq=False)
class _Images:
    """Features, ids and group codes of some images, sorted by content: image i was at `original_places[i]`."""

    features: Rows64
    ids: list[Any]
    codes: Indices
    original_places: Indices

    @classmethod
    def of(cls, rows: Rows, whose: str) -> _Images:
        features = read_rows(rows, whose)
        ids = rows.required("ids", f"the {whose}").tolist()
        if not len(features):
            raise GankitError(f"memorisation: there are no {whose} images; give some")
        content = digests(features)
        order = np.array(sorted(range(len(features)), key=lambda place: (content[place], str(ids[place]))))
        groups = list(range(len(ids))) if rows.groups is None else rows.groups.tolist()
        seen: dict[Any, int] = {}
        codes = np.array([seen.setdefault(groups[place], len(seen)) for place in order])
        return cls(Rows64(features, places=order), [ids[place] for place in order], codes, order)

    @property
    def grouped(self) -> bool:
        """Whether any group has several images."""
        return bool(self.codes.max() + 1 < len(self.codes))

    @cached_property
    def unit_length(self) -> Rows64:
        """The features, scaled to rows of length 1."""
        lengths = np.concatenate([np.sqrt(np.square(rows).sum(1)) for _, rows in self.features.blocks()])
        return Rows64(self.features.rows, np.where(lengths == 0, 1, lengths), self.features.places)


class _Distances(NamedTuple):
    """Distances of m generated and n held-out images."""

    closest: Indices  # (m,) the training image closest to each generated one
    to_closest: Matrix  # (m,) distances to it
    between_training: Matrix  # (m,) distances from that training image to its own closest other one
    chord: Matrix  # (m,) distances to the training image closest by angle: min(|x - y|, |x + y|) of rows of length 1
    held_out: Matrix  # (n,) distances from each held-out image to its closest training image


def _effective_number(codes: Indices) -> float:
    """Number of independent images by their groups' codes (Kish 1965): images of one group count together."""
    counts = np.unique(codes, return_counts=True)[1]
    return float(counts.sum() ** 2 / np.square(counts).sum())


def _share_nearer(first: Matrix, second: Matrix) -> float:
    """The share of pairs of distances of which the first is below the second; ties count half."""
    second = np.sort(second)
    twice_farther = np.searchsorted(second, first, "left") + np.searchsorted(second, first, "right")
    return float(1 - twice_farther.sum() / (2 * len(first) * len(second)))


def _rank(n: int, left_one_out: bool) -> int:
    """Which of n held-out distances, from 1 for the smallest, is the threshold for a near copy: k of `Memorisation`.

    Two images that are closest to each other have the same leave-one-out distance, so that the smallest distances come
    twice: then the rank is doubled.
    """
    return min(n, 2 * max(1, (n + 2) // 200)) if left_one_out else max(1, (n + 1) // 100)


def _share_of_copies(fake_distances: Matrix, held_out_distances: Matrix, left_one_out: bool) -> float:
    """The share of generated images within the threshold for a near copy, which the held-out distances give."""
    index = _rank(len(held_out_distances), left_one_out) - 1
    return float((fake_distances <= np.partition(held_out_distances, index)[index]).mean())


def _values(distances: _Distances, left_one_out: bool) -> dict[str, float]:
    if not np.isfinite(distances.between_training).all():
        raise GankitError("memorisation has 1 training image; authenticity needs at least 2")
    if not np.isfinite(distances.held_out).all():
        raise GankitError("the real images are of one group, so none is held out; give more, or training images too")
    return {
        "memorisation": _share_nearer(distances.to_closest, distances.held_out),
        "near-copies": _share_of_copies(distances.to_closest, distances.held_out, left_one_out),
        "authenticity": float((distances.to_closest > distances.between_training).mean()),
        # Half the squared distance of rows of length 1 is 1 - |cos|. Sorted, so that the images' order changes no bit.
        "memorisation distance": float(np.sort(np.square(distances.chord) / 2).mean()),
    }


def _beyond_chance(memorisation: float, near_copies: float, n_tested: float, n_held: float) -> tuple[bool, bool]:
    """Whether each share is flagged, for effective numbers of tested and held-out images (halved if leave-one-out)."""
    from scipy.stats import hypergeom  # a second to load

    deviation = math.sqrt((n_tested + n_held + 1) / (12 * n_tested * n_held))  # of Mann and Whitney's U / (m n)
    m, n = max(1, int(n_tested)), max(1, int(n_held))
    rank, copies = _rank(n, False), int(near_copies * m + 1e-6)  # the share as a number of the m images
    # So many copies, or more, happen exactly if at most `rank - 1` of the `copies + rank - 1` smallest distances are of
    # held-out images. If nothing is copied, the held-out images are a random sample of all.
    chance = hypergeom.cdf(rank - 1, n + m, n, copies + rank - 1)
    return memorisation > 0.5 - ndtri(LEVEL) * deviation, bool(chance < LEVEL)


@final
class Memorisation(Metric):
    """Whether generated images are copies of training images, with two controls on the same features.

    Where `real.training` holds the training images, the real images are held out. Otherwise the real images are the
    training images, and each one's distance to the closest other (of another group, where groups are known) stands in
    for a held-out image's. Distances are Euclidean, exact in float64: equal features are at 0. All values are in
    [0, 1]; the first three are shares:

    - memorisation: of all pairs of a generated and a held-out image, those whose generated image is nearer to its
      closest training image than the held-out one is to its own; ties count half (Meehan et al. 2020, without their
      cells). 0.5 for images as new as held-out ones, 1 for copies, less for images far from all real ones.
    - near-copies: of generated images, those no farther from a training image than the k-th closest of n held-out
      images is, with k = max(1, floor((n + 1) / 100)). For images that copy nothing the expected share is k / (n + 1):
      1 / (n + 1) below 199 images, then close to 1 %. For leave-one-out distances, which come in equal pairs,
      k = 2 max(1, floor((n + 2) / 200)) and the expected share is k / (n + 2). Both assume independent images; similar
      images in a group raise them.
    - authenticity: of generated images, those farther from their closest training image than that one is from its own
      closest training image, of any group (Alaa et al. 2022).
    - memorisation distance: 1 - |cos| to the training image closest by angle, mean over generated images (Bai et al.
      2021); 0 for copies.

    Two values are flagged as beyond chance, one-sided at the level 0.001 each. Held-out images of one group count
    together in n, by Kish's formula, and leave-one-out distances count half; generated images count one by one in m:

    - memorisation, if it is above 0.5 by more than 3.09 of the rank sum's standard deviations,
      sqrt((m + n + 1) / (12 m n)).
    - near-copies, if the probability of so many or more is below the level, by the exact distribution of m new images'
      ranks among n held-out ones (negative hypergeometric).

    Controls: a copycat, training images shown as generated ones, must be flagged in both. Half of the held-out
    images (in whole groups), judged as if generated with the other half held out, must be flagged in neither. Separate
    held-out images must not be closer to training images than training images of other groups are, where there are any.
    """

    needs = ("features", "training", "groups", "ids")
    meanings: ClassVar = {
        "memorisation": Meaning("how often a generated image is nearer to a training image than a held-out one "
                                "is: 1 for copies", "0.5", share=True),
        "near-copies": Meaning("share of generated images that are as near to a training image as the nearest held-out "
                               "ones", "lower", share=True),
        "authenticity": Meaning("share of generated images farther from their nearest training image than its nearest "
                                "neighbour is", "higher", share=True),
        "memorisation distance": Meaning("mean distance by angle to the nearest training image: 0 for copies", "higher",
                                         share=True),  # 1 - |cos| is in [0, 1] too
    }  # fmt: skip

    def compute(self, real: Rows, fake: Rows) -> Result:
        """The four values.

        Details: the eight closest "pairs", "held_out" ("separate" or "leave-one-out"), "expected_near_copies",
        "controls". The `counts` of authenticity and memorisation distance are of training images where those are
        separate, as neither value uses held-out images.

        Raises:
            GankitError: no generated, training or held-out image, one training image, real images of one group without
                separate training images, features of different lengths or not finite.
        """
        return _Copies(self, Pool(real, fake), listed=1).whole()

    def resampling(self, pool: Pool) -> Resampling:
        """Values from the closest training images of all images of the pool, searched once."""
        return _Copies(self, pool)


class _Copies(Resampling):
    """Values from lists of the closest training images, which are made at first use.

    Without separate training images, the real images are the training images, and each is held out in turn. Each list
    then has `listed` images: the closest one is enough for the whole pool, but a part of the pool may not have it.
    """

    def __init__(self, metric: Metric, pool: Pool, listed: int = 32) -> None:
        super().__init__(metric, pool)
        self.real, self.fake = _Images.of(pool.real, "real"), _Images.of(pool.fake, "generated")
        separate_training = pool.real.training
        self.left_one_out = separate_training is None
        self.training = self.real if separate_training is None else _Images.of(separate_training, "training")
        if len({images.features.shape[1] for images in (self.fake, self.real, self.training)}) > 1:
            raise GankitError(
                "generated, real and training images have features of different lengths; use one extractor"
            )
        self._listed = listed if self.left_one_out else 1
        self._lists: dict[tuple[str, int], Shortlist] = {}
        # For each place in the pool, the place among the sorted images of its side.
        self._sorted_places = np.concatenate([np.argsort(side.original_places) for side in (self.real, self.fake)])

    def values(self, real: Indices, fake: Indices) -> Mapping[str, float]:
        if len(real) < 2 or not len(fake) or (self.left_one_out and real.max() >= self.pool.real.count):
            return super().values(real, fake)  # generated images taken for real ones are in no list
        return _values(self._distances(real, fake), self.left_one_out)

    def whole(self) -> Result:
        left_one_out = self.left_one_out
        distances = self._distances(self.real.original_places, self.fake.original_places + self.pool.real.count)
        values, near, held_out = _values(distances, left_one_out), distances.to_closest, distances.held_out
        n_held, n_training = self._effective_held_out(self.real.codes), len(self.training.ids)
        copycat = _copycat(min(n_training, len(near)), held_out, n_held, left_one_out)
        controls = {"copycat": copycat, "held-out reals": self._control_of_held_out(held_out)}
        details = {
            "pairs": [
                {"fake": self.fake.ids[i], "real": self.training.ids[distances.closest[i]], "distance": float(near[i])}
                for i in np.argsort(near, kind="stable")[:PAIRS_SHOWN]
            ],
            "held_out": "leave-one-out" if left_one_out else "separate",
            "expected_near_copies": _rank(len(held_out), left_one_out) / (len(held_out) + (2 if left_one_out else 1)),
            "controls": controls,
        }
        without_held_out = ("authenticity", "memorisation distance")
        counts = {} if left_one_out else dict.fromkeys(without_held_out, (n_training, len(near)))
        flags = _beyond_chance(values["memorisation"], values["near-copies"], len(near), n_held)
        return Result(values, counts, details, _warnings(values, details, flags))

    def _distances(self, real: Indices, fake: Indices) -> _Distances:
        allowed = np.full(len(self.training.ids), not self.left_one_out)  # which training images count
        if self.left_one_out:
            allowed[self._sorted_places[real]] = True
        closest, to_closest = self._closest("any", fake, allowed)
        _, between_training = self._list("any", self.training).among(closest, allowed)
        _, chord = self._closest("angle", fake, allowed)
        _, held_out = self._closest("other groups" if self.left_one_out and self.real.grouped else "any", real, allowed)
        return _Distances(closest, to_closest, between_training, chord, held_out)

    def _closest(self, kind: str, places: Indices, allowed: NDArray[np.bool_]) -> tuple[Indices, Matrix]:
        """The closest allowed training image of each image at these places, and its distance; real images first."""
        is_real = places < len(self.real.ids)
        sides = ((self.real, places[is_real]), (self.fake, places[~is_real]))
        lists = [self._list(kind, side).among(self._sorted_places[part], allowed) for side, part in sides if len(part)]
        return np.concatenate([place for place, _ in lists]), np.concatenate([distance for _, distance in lists])

    def _list(self, kind: str, images: _Images) -> Shortlist:
        """The training images closest to each image, not itself nor, if `kind` is "other groups", one of its group."""
        key = kind, id(images)
        if key not in self._lists:
            by_angle, codes = kind == "angle", np.arange(len(self.training.ids))
            if kind == "other groups":
                codes = self.training.codes
            x, y = (side.unit_length if by_angle else side.features for side in (images, self.training))
            never_match = (codes, codes) if images is self.training else None
            self._lists[key] = Shortlist(x, y, never_match=never_match, either_sign=by_angle, k=self._listed)
        return self._lists[key]

    def _effective_held_out(self, codes: Indices) -> float:
        """Number of independent held-out images; leave-one-out distances come in equal pairs, so each counts half."""
        return _effective_number(codes) / (2 if self.left_one_out else 1)

    def _control_of_held_out(self, held_out: Matrix) -> dict[str, Any]:
        """Half of the held-out images judged beside the other half.

        Groups stay whole: each in turn, the largest first, goes to the half that is smaller so far.
        """
        codes, left_one_out = self.real.codes, self.left_one_out
        counts = np.bincount(codes)
        sizes, in_second = [0, 0], np.zeros(len(counts), bool)
        for group in np.argsort(-counts, kind="stable"):
            in_second[group] = sizes[1] < sizes[0]
            sizes[int(in_second[group])] += counts[group]
        shown = in_second[codes]  # as if generated
        if shown.all() or not shown.any():
            return {"memorisation": None, "near-copies": None, "passed": False}
        as_fakes, others = held_out[shown], held_out[~shown]
        values = _share_nearer(as_fakes, others), _share_of_copies(as_fakes, others, left_one_out)
        numbers = (self._effective_held_out(codes[half]) for half in (shown, ~shown))
        flags = [*_beyond_chance(*values, *numbers), self._held_out_too_near(held_out)]
        return {"memorisation": values[0], "near-copies": values[1], "passed": not any(flags)}

    def _held_out_too_near(self, held_out: Matrix) -> bool:
        """Whether separate held-out images are closer to training images than these are to each other."""
        if self.left_one_out:
            return False
        everything = np.arange(len(self.training.ids))
        lists = self._list("other groups" if self.training.grouped else "any", self.training)
        between_training = lists.among(everything, np.ones(len(everything), bool))[1]
        if not np.isfinite(between_training).all():
            return False
        # Distances between training images come in equal pairs too.
        n_held, n_training = _effective_number(self.real.codes), _effective_number(self.training.codes) / 2
        return _beyond_chance(_share_nearer(held_out, between_training), 0.0, n_held, n_training)[0]


def _copycat(count: int, held_out: Matrix, n_held: float, left_one_out: bool) -> dict[str, Any]:
    """Training images shown as generated ones: each is at distance 0 from itself."""
    near = np.zeros(count)
    values = _share_nearer(near, held_out), _share_of_copies(near, held_out, left_one_out)
    return {"memorisation": values[0], "near-copies": values[1], "passed": all(_beyond_chance(*values, count, n_held))}


def _warnings(values: dict[str, float], details: dict[str, Any], flags: tuple[bool, bool]) -> list[str]:
    """Controls that failed, and values of the generated images that are flagged."""
    warnings, copycat, held_out = [], details["controls"]["copycat"], details["controls"]["held-out reals"]
    if not copycat["passed"]:
        warnings.append(
            "training images shown as generated ones are not told apart from new images (memorisation "
            f"{copycat['memorisation']:.2f}): with these features, or with so few images, copies would go unnoticed"
        )
    if held_out["memorisation"] is None:
        warnings.append("the held-out images are of one group, so nothing shows whether they are a fair baseline")
    elif not held_out["passed"]:
        warnings.append(
            "held-out real images fail as a control, nearer to others than new images should be: look for duplicates, "
            "or for one patient among training and held-out images; until then memorisation and near-copies say little"
        )
    rule = f"beyond chance at the level {LEVEL}"
    if flags[0]:
        warnings.append(
            f"generated images are nearer to training images than held-out ones are in {values['memorisation']:.0%} of "
            f"pairs, {rule}: look at the closest pairs"
        )
    if flags[1]:
        warnings.append(
            f"{values['near-copies']:.1%} of generated images are near copies of training images where "
            f"{details['expected_near_copies']:.1%} are expected, {rule}: look at the closest pairs"
        )
    return warnings
