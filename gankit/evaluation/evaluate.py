"""Compare generated images with real ones: features are computed once, and every value comes with its context."""

import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import scipy
import torch

from gankit import seeds
from gankit.errors import DataError, GankitError
from gankit.evaluation.copies import find_copies, show_pairs
from gankit.evaluation.entries import evaluate_metrics
from gankit.evaluation.extraction import as_part, extractor, features_protocol, seconds_per_image
from gankit.evaluation.membership import attacks
from gankit.evaluation.sides import Side, open_reals, open_sides
from gankit.evaluation.sources import Source, Window, notes, open_named
from gankit.evaluation.statistics import Statistics
from gankit.evaluation.tables import Evaluated
from gankit.evaluation.uncertainty import MOST_LEFT_OUT_SINGLY
from gankit.experiments.experiment import Evaluation, Experiment, default_metrics
from gankit.experiments.selection import select_images
from gankit.files import user_path
from gankit.interfaces import Dataset, Features
from gankit.registry import Part
from gankit.runs.run import Run
from gankit.version import __version__ as gankit_version

Named = str | dict[str, Any] | Part


@seeds.plain_torch()
def evaluate(
    run_or_images: Source,
    real: Source | None = None,
    metrics: Named | Sequence[Named] | None = None,
    features: Named | Features | None = None,
    *,
    training: Source | None = None,
    count: int | None = None,
    seed: int | None = None,
    window: Window = None,
    permutations: int = 0,
    pictures: str | Path | None = None,
) -> Evaluated:
    """Compare images with real ones, as `gankit evaluate` does.

    Args:
        run_or_images: a run (or its folder), a data set, a folder of images, an npz file, a table with a data set's
            name and settings, or (n, c, h, w) images.
        real: the same, or a statistics file; for a run its held-out images, or its training images where it has none.
            None takes those of the run that is evaluated.
        metrics: one or several names, tables with a name, or parts; by default those of the run's `evaluation`
            settings, else frechet, kid, precision-recall, variance-ratio and memorisation, and kid within classes where
            both sides have several.
        features: a name, a table with a name, a part, or an extractor; by default those of the run's settings, else
            efficientnet-lite0 where the extra `offline` is installed, else pixels.
        training: the images that the generator was trained on, for metrics that look for copies; not needed for
            a run, from which they are read.
        count: images to draw from a run, by default as its settings say, else as many as there are real ones; or to
            choose from a set at random, by default all.
        seed: of the drawn latents, of the divisions of the reals, and of permutations; by default that of the run's
            settings, else 0.
        window: the values of black and white of arrays and files that are not 8-bit.
        permutations: random regroupings of a permutation test; 0 for none. Only metrics for which lower or higher is
            better get a p-value.
        pictures: a folder for pictures of the closest pairs, of metrics that find pairs.

    Returns:
        `{"protocol": {...}, "metrics": {name: {"value", "standard_error", "n_real", "n_fake", "real_vs_real",
        "metric"}}}`, a dictionary that prints as a table; with "p_value" on request, and "details" of some metrics.

        "standard_error" is the spread of the value at this number of images, not its bias: in closed form for kid, else
        the jackknife's (Efron and Stein 1981) over both sets, by group where the images have groups. None for too
        few images or groups, for a value at a bound such as 0 or 1, and for an estimate that exceeds what a share in
        [0, 1] allows.

        "real_vs_real" holds means over ten random divisions of the reals into halves: "value" compares the second half
        with the first, "fake_value_at_n" as many generated images with the first; "n" is their number, at most
        min(n_fake, n_real // 2). Generated images share no patients: where real images have groups, the
        second half is cut to one image of each group that is not in the first.

        The protocol has "copies", the numbers of generated images that copy pixels of a training image, whatever the
        metrics; with a statistics file only where `training` is given. With held-out images it also has "membership":
        how well attacks tell the training images from these. Both add warnings.

    Raises:
        GankitError: no real images where no run is evaluated, too few images, images that the extractor refuses, images
            deeper than 8 bits without a window, a statistics file of another protocol, unknown parts.
    """
    _check_arguments(metrics, permutations, pictures)
    fake_name, source = open_named(run_or_images, "fake", window)
    settings = source.experiment.evaluation if isinstance(source, Run) else Evaluation()
    given: Any = settings.metrics if metrics is None else metrics
    # A single metric may be iterable too. What is no metric at all, such as a number, `as_part` refuses.
    is_list = isinstance(given, Iterable) and not isinstance(given, (str, dict, Part))
    parts = [as_part("metric", metric) for metric in (given if is_list else [given])]
    by_default = metrics is None and [part.name for part in parts] == default_metrics()
    seed = settings.seed if seed is None else seed
    if real is None and not isinstance(source, Run):
        raise DataError(f"real, on the command line as --against: say which real images to compare {fake_name} with")

    sides = open_sides(
        source, fake_name, source if real is None else real, training, wants_training="training" in _needs(parts),
        count=settings.count if count is None else count, seed=seed, window=window,
    )  # fmt: skip
    if isinstance(sides.reals, Statistics):
        parts = _for_moments(parts, sides.reals.name, by_default, permutations)
    features_name, network = extractor(settings.features if features is None else features, sides.shape)
    protocol = features_protocol(features_name, network)
    warnings = notes(source, fake_name) if isinstance(source, Dataset) else []
    if isinstance(sides.reals, Statistics):
        warnings += sides.reals.check_features(protocol)
    needs = _needs(parts)
    pool = sides.pool(network, needs)

    values, more_warnings = evaluate_metrics(parts, pool, seed, permutations, by_default)
    warnings += more_warnings + sides.warnings(needs)
    protocol |= sides.protocol() | _context(seed)
    fake_images = sides.fakes.images
    training_images = sides.training.images if sides.training else None
    if isinstance(sides.reals, Side):
        folder = None if pictures is None else user_path(pictures)
        show_pairs(values, fake_images, sides.reals.images, training_images, folder)
    if originals := sides.possible_originals:
        copies, more_warnings = find_copies(fake_images, originals.images, sides.held_out, sides.kind_of_original)
        protocol["copies"] = copies
        warnings += more_warnings
    if training_images is not None and sides.held_out is not None:
        membership, more_warnings = attacks(source, pool, training_images, sides.held_out)
        protocol["membership"] = membership
        warnings += more_warnings
    protocol["warnings"] = list(dict.fromkeys(warnings))
    return Evaluated(protocol=protocol, metrics=values)


def cost_of_features(experiment: Experiment) -> tuple[int, float]:
    """How many images pass through the features when a run is evaluated, and the seconds, estimated from one batch."""
    training, held_out = select_images(experiment.data, experiment.training.seed)
    needs = _needs(experiment.evaluation.metrics)
    sets = [training] if held_out is None else [training, held_out] if "training" in needs else [held_out]
    count = sum(map(len, sets)) + (experiment.evaluation.count or len(sets[-1]))
    _, network = extractor(experiment.evaluation.features, sets[0].image.shape)
    with seeds.plain_torch():
        return count, count * seconds_per_image(network, sets[0].image.shape)


def _check_arguments(metrics: object, permutations: int, pictures: str | Path | None) -> None:
    """Refuse invalid arguments, before anything is opened or computed."""
    if permutations < 0:
        raise GankitError(f"permutations: {permutations} is not possible; give 0 for none, or a number above 0")
    if metrics is not None and not metrics:
        raise GankitError("metrics: name at least one")
    if pictures is not None and user_path(pictures).is_file():
        raise DataError(f"pictures: {user_path(pictures)} is a file; name a folder")


def _needs(parts: Sequence[Part]) -> set[str]:
    return {need for part in parts for need in part.build().needs}


def _for_moments(parts: list[Part], name: str, by_default: bool, permutations: int) -> list[Part]:
    """The metrics that can be computed from statistics alone; others are left out if `by_default`, else refused."""
    if permutations:
        raise GankitError(f"{name} holds no images to regroup: leave out permutations, or give the images")
    unfit = [part.name for part in parts if not part.build().takes_moments]
    if unfit and not by_default:
        raise DataError(
            f"{name} holds only mean and covariance, too little for {', '.join(unfit)}: leave these metrics "
            "out, or give images"
        )
    return [part for part in parts if part.name not in unfit]


def _context(seed: int) -> dict[str, Any]:
    """What a metrics file says of how values were computed, besides features and images."""
    return {
        "seed": seed,
        "standard_error": "the spread of the value at this number of images, not its bias: in closed form for kid, "
        f"else the jackknife over both sets, one image (group) at a time up to {MOST_LEFT_OUT_SINGLY}, else groups "
        "of them",
        "versions": {
            "gankit": gankit_version, "torch": torch.__version__, "numpy": np.__version__, "scipy": scipy.__version__,
            "pillow": PIL.__version__, "python": platform.python_version(),
        },
    }  # fmt: skip


@seeds.plain_torch()
def statistics(images: Source, features: Named | Features | None = None, *, window: Window = None) -> Statistics:
    """Mean and covariance of the features of real images, to be kept in place of the images.

    Args:
        images: as the real images of `evaluate`: of a run its held-out images, or its training images if it has none.
        features: as in `evaluate`.
        window: as in `evaluate`.

    Raises:
        GankitError: as `evaluate`; or features are chosen for a statistics file, whose features are fixed.
    """
    reals, _ = open_reals(images, window)
    if isinstance(reals, Statistics):
        if features is not None:
            raise DataError(
                f"{reals.name} holds statistics, whose features are fixed: leave features out, or give images"
            )
        return reals
    features_name, network = extractor(features, reals.images.image.shape)
    rows = reals.rows(network, {"features"})
    protocol = features_protocol(features_name, network) | {"content": reals.content}
    if remarks := notes(reals.images, reals.name):
        protocol["warnings"] = remarks
    return Statistics(reals.name, rows.moments, protocol)
