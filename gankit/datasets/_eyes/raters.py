"""Ten simulated raters who call each pair of eyes exotropic, esotropic or normal.

The parameters are those fitted to the nine counts of the founding paper's table of selection rates: a description of
that table, not a finding about raters (docs/explanation/eyes.md).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gankit.datasets._eyes.subjects import Subjects, stream

RATERS = 10
# Of the panels 0 to 299, the one whose nine counts at 60, 70 and 80 % come closest to the paper's
# (docs/explanation/eyes.md).
DEFAULT_PANEL = 278


@dataclass(frozen=True)
class RaterModel:
    """How a panel of raters sees a deviation; all but the last two in prism dioptres."""

    criterion: float = 7.4  # mean of the raters' criteria, above which a deviation is called one
    criterion_sd: float = 1.8  # their spread, fixed for a rater
    bias: float = 1.1  # mean of the image's own look, towards exotropia: what angle kappa adds
    bias_sd: float = 0.35  # its spread; the subject's kappa decides it
    noise: float = 2.1  # standard deviation of a single look
    noise_slope: float = 0.29  # further standard deviation, as a share of the deviation
    lapse: float = 0.17  # probability of calling a random class


FITTED = RaterModel()


def call(subjects: Subjects, seed: int, panel: int, model: RaterModel = FITTED) -> NDArray[np.int64]:
    """(n, 10) calls of a panel of raters who look at each subject once: 0 exotropia, 1 esotropia, 2 normal.

    `panel` decides the criteria; the looks depend on it, the subjects' seed, the class and the place in the class.
    """
    label, index, deviation = subjects["label"], subjects["index"], subjects["deviation"]
    criterion = stream(panel, "criteria").normal(model.criterion, model.criterion_sd, RATERS)
    look, lapse = np.empty((len(label), RATERS)), np.empty((len(label), RATERS))
    guess = np.empty((len(label), RATERS), dtype=np.int64)
    for c in np.unique(label):
        of_class = label == c
        shape = (int(index[of_class].max()) + 1, RATERS)
        look[of_class] = stream(seed, panel, int(c), "look").standard_normal(shape)[index[of_class]]
        lapse[of_class] = stream(seed, panel, int(c), "lapse").random(shape)[index[of_class]]
        guess[of_class] = (3 * stream(seed, panel, int(c), "guess").random(shape)[index[of_class]]).astype(np.int64)
    # Angle kappa makes every eye look a little exotropic: it is the one effect that all raters of an image share.
    bias = model.bias + model.bias_sd * (subjects["kappa"] - 5.0) / 1.2
    spread = np.sqrt(model.noise**2 + (model.noise_slope * deviation) ** 2)
    perceived = (deviation + bias)[:, None] + spread[:, None] * look
    calls = np.where(perceived > criterion, 0, np.where(perceived < -criterion, 1, 2))
    return np.where(lapse < model.lapse, guess, calls).astype(np.int64)


def agreement(calls: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) share of the calls (n, 10) that equal the label (n,), in [0, 1]: the selection rate."""
    return np.asarray(np.count_nonzero(calls == labels[:, None], axis=1) / calls.shape[1], dtype=np.float64)
