"""Membership attacks: can the training images be told from held-out ones by a generator's images, or by its critic?

By distance to generated images: Chen et al. 2020 (GAN-Leaks), arXiv 1909.03935, full black box. By critic scores: Hayes
et al. 2019 (LOGAN), arXiv 1705.07663, white box.
"""

import contextlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gankit.errors import GankitError
from gankit.evaluation.design import Estimate, Floats, VariancePart
from gankit.evaluation.extraction import BATCH
from gankit.evaluation.uncertainty import number_groups
from gankit.experiments.selection import random_subset
from gankit.images.grey_levels import rescale
from gankit.interfaces import Dataset, Indices, Pool
from gankit.metrics._distances import nearest
from gankit.runs.networks import call_part
from gankit.runs.run import Run

SPLITS = 200
"""Number of random divisions of the members for the control."""
ATTACKS = {"generator": "distance to the nearest generated image", "critic": "critic score"}


def attacks(source: Any, pool: Pool, training: Dataset, held_out: Dataset) -> tuple[dict[str, Any], list[str]]:
    """Attacks by a generator's images and, for a run, by its critic's scores; and warnings of attacks that succeed.

    Args:
        source: what is evaluated; a run has a critic.
        pool: `real` holds the held-out images, `real.training` the members, and `fake` the generated images.
        training: the members.
        held_out: images of the same origin that the generator has not seen.

    Returns:
        `{name: result}` for each of `ATTACKS` that can be made, and the warnings. A result is what `attack` returns,
        with the score in words under "by".
    """
    scores: dict[str, tuple[Floats, Floats]] = {}
    of_members = None if pool.real.training is None else pool.real.training.features
    of_others, of_fakes = pool.real.features, pool.fake.features
    if of_members is not None and of_others is not None and of_fakes is not None:
        scores["generator"] = _nearness(of_members, of_fakes), _nearness(of_others, of_fakes)
    if isinstance(source, Run) and training.image.shape == held_out.image.shape == source.image.shape:
        # The critic may be unable to score these images, or need more memory than there is.
        with contextlib.suppress(GankitError, MemoryError, torch.cuda.OutOfMemoryError):
            scores["critic"] = _critic_scores(source, training), _critic_scores(source, held_out)
    results, warnings = {}, []
    for name, (member_scores, other_scores) in scores.items():
        if (result := attack(member_scores, other_scores, training.groups, held_out.groups)) is None:
            continue
        results[name] = {"by": ATTACKS[name], **result}
        if result["low"] > 0.5 and result["area"] > result["control"]:
            warnings.append(
                f"training images can be told from held-out ones by {ATTACKS[name]}: area {result['area']:.2f} "
                f"({result['low']:.2f} to {result['high']:.2f}), and 95 % of attacks among training images alone stay "
                f"below {result['control']:.2f}"
            )
    return results, warnings


def attack(
    members: Floats, others: Floats, member_groups: NDArray[Any] | None, other_groups: NDArray[Any] | None
) -> dict[str, Any] | None:
    """How well a score tells members from others: the area under the ROC curve, with interval and control.

    The interval is over patients of both sides (Obuchowski 1997, Biometrics 53:567), of whom none may be on both: the
    covariance of the sides is left out. The control is the same attack on members alone: min(m, n // 2) of their n
    patients, chosen at random, take the place of the m other patients. Its value is the 95 % quantile over 200 such
    choices: a smaller area can come from the division of the data alone.

    Args:
        members: (images,) scores of training images; a larger one says "member".
        others: (other images,) scores of held-out images.
        member_groups: (images,) groups (patients), or None.
        other_groups: (other images,) the same.

    Returns:
        `{"area", "low", "high", "control", "members", "others"}`; the last two are numbers of patients. An area of 0.5
        is chance, 1 tells all apart. None with fewer than 4 patients among the members or 2 among the others.
    """
    patients, other_patients = number_groups(member_groups, len(members)), number_groups(other_groups, len(others))
    n, m = int(patients.max()) + 1, int(other_patients.max()) + 1
    if n < 4 or m < 2:
        return None
    member_shares, other_shares = _above(members, others), 1 - _above(others, members)
    area = float(member_shares.mean())
    parts = {
        "members": _variance_part(member_shares, area, patients),
        "others": _variance_part(other_shares, area, other_patients),
    }
    low, high = Estimate(area, parts).share_interval(min(n, m))
    control = _control(members, patients, min(m, n // 2))
    return {"area": area, "low": low, "high": high, "control": control, "members": n, "others": m}


def _variance_part(shares: Floats, area: float, patients: Indices) -> VariancePart:
    """What one side contributes to the area's variance, from how far its patients' shares are from the area."""
    sums = np.bincount(patients, shares - area)
    count = len(sums)
    return VariancePart(float((sums**2).sum()) * count / (count - 1) / len(shares) ** 2, count - 1)


def _control(members: Floats, patients: Indices, taken: int) -> float:
    """The 95 % quantile of areas where `taken` of the members' patients take the place of the others."""
    areas = []
    for number in range(SPLITS):
        is_taken = np.isin(patients, random_subset(int(patients.max()) + 1, taken, 0, "members", number))
        areas.append(_above(members[~is_taken], members[is_taken]).mean())
    return float(np.quantile(areas, 0.95))


def _above(scores: Floats, others: Floats) -> Floats:
    """(n,) for each score the share of the others below it; equal ones count half. Their mean is the area."""
    others = np.sort(others)
    below = np.searchsorted(others, scores, "left") + np.searchsorted(others, scores, "right")
    return np.asarray(below / (2 * len(others)))


def _nearness(features: NDArray[Any], fakes: NDArray[Any]) -> Floats:
    """(n,) minus the distance from each of (n, d) features to the nearest of those of generated images."""
    return -nearest(np.asarray(features), np.asarray(fakes))[1][:, 0]


def _critic_scores(run: Run, images: Dataset) -> Floats:
    """(n,) scores of a run's critic; of a map of scores its mean."""
    labels = _run_labels(run, images)
    batches: list[Floats] = []
    for start in range(0, len(images), BATCH):
        places = np.arange(start, min(start + BATCH, len(images)))
        pixels = rescale(images.read(places).astype(np.float32), images.value_range, (-1.0, 1.0))
        of_batch = None if labels is None else labels[places].to(run.device)
        # Without gradients, as `call_part` computes; a run's critic is in evaluation mode.
        scores = call_part("the critic", run.critic, torch.from_numpy(pixels).to(run.device), of_batch)
        batches.append(scores.cpu().double().reshape(len(places), -1).mean(1).numpy())
    values = np.concatenate(batches)
    if not np.isfinite(values).all():
        raise GankitError("the critic's scores are not finite")
    return values


def _run_labels(run: Run, images: Dataset) -> Tensor | None:
    """(n,) the images' classes as the run numbers them, by name; None where either has none."""
    if run.image.conditions:
        raise GankitError("the critic takes conditions as they were standardised for training, which is not known here")
    labels, names = images.labels, images.class_names
    if not run.image.classes or labels is None:
        return None
    if labels.ndim > 1:
        raise GankitError("the critic was trained on classes, and these images have conditions")
    return run.encode_labels(len(images), [names[label] for label in labels] if names else labels)
