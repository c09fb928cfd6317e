"""How many images of the eyes measure as strabismic, with how far that measurement can be trusted at their size."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gankit.datasets.eyes import estimate_deviation
from gankit.studies.agreement.arms import StudyImages
from gankit.studies.agreement.settings import AgreementStudy

USEFUL = 0.3
"""Sensitivity plus specificity less 1 (Youden's index), from which the measurement is of use."""


@final
class Estimator:
    """The geometric estimator of the deviation, tried on real images whose deviation is known.

    Attributes:
        known: what the trial gave: n, median error in prism dioptres, sensitivity, specificity, share not measured.
    """

    def __init__(self, limit: float, known: dict[str, float]) -> None:
        self.limit, self.known = limit, known

    @classmethod
    def of(cls, study: AgreementStudy, images: StudyImages) -> Estimator | None:
        """The estimator for a study's images, or None where they are not the eyes or it is of no use at their size."""
        if study.data.name != "eyes":
            return None
        held_out = images.held_out
        found = estimate_deviation(held_out.read(np.arange(len(held_out))))
        truth, measured = held_out.facts["deviation"], np.isfinite(found)
        strabismic = np.asarray(held_out.labels) != held_out.class_names.index("normal")
        sides = [measured & strabismic, measured & ~strabismic]
        if not all(side.any() for side in sides):
            return None
        called = np.abs(found) >= study.study.strabismic
        known = {
            "n": len(found),
            "median_error": float(np.median(np.abs(found - truth)[measured])),
            "sensitivity": float(called[sides[0]].mean()),
            "specificity": float((~called[sides[1]]).mean()),
            "not_measured": float(1 - measured.mean()),
            "truly": float(strabismic.mean()),
        }
        useful = known["sensitivity"] + known["specificity"] - 1 >= USEFUL
        return cls(study.study.strabismic, known) if useful else None

    def shares(self, images: NDArray[Any]) -> dict[str, Any]:
        """Of (n, 3, h, w) images: n, how many could be measured, and how many of these are strabismic."""
        found = estimate_deviation(images)
        measured = np.isfinite(found)
        return {
            "n": len(found),
            "measured": int(measured.sum()),
            "strabismic": int((np.abs(found[measured]) >= self.limit).sum()),
        }
