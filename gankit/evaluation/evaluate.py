"""Evaluate generated images beside real ones: features are computed once, and every value comes with its context."""

import dataclasses
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import scipy
import torch

from gankit import seeds
from gankit.errors import DataError, GankitError, first_of
from gankit.evaluation import extraction
from gankit.evaluation.copies import find_copies, show_pairs
from gankit.evaluation.extraction import as_part, extractor, features_protocol
from gankit.evaluation.membership import attacks
from gankit.evaluation.sources import (
    TRAINING,
    Source,
    Window,
    in_process,
    notes,
    open_images,
    open_named,
    run_data,
    run_reference,
    too_few,
)
from gankit.evaluation.statistics import Statistics
from gankit.evaluation.tables import Evaluated
from gankit.evaluation.uncertainty import LEAVE_ONE_OUT, evaluate_metrics
from gankit.experiments.experiment import Evaluation, default_metrics
from gankit.files import user_path
from gankit.interfaces import Dataset, Features, Pool, Rows
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
    """Evaluate images beside real ones, as `gankit evaluate` does.

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
        count: images to draw from a run; by default as its settings say, else as many as there are real ones.
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
        the jackknife's (Efron and Stein 1981) over both sets, by group where the images have groups. None with too few
        images or groups to estimate it, at a bound, or where no share can have an error so large.

        "real_vs_real" holds means over ten random divisions of the reals into halves: "value" is that of the second
        half beside the first, "fake_value_at_n" that of as many generated images beside the first, and "n" their
        number, at most min(n_fake, n_real // 2). Generated images share no patients: where real images have groups, the
        second half is cut to one image of each group that is not in the first.

        The protocol has "copies", the numbers of generated images that copy pixels of a training image, whatever the
        metrics; beside a statistics file only where `training` is given. With held-out images it also has "membership":
        how well attacks tell the training images from these. Both add warnings.

    Raises:
        GankitError: no real images where no run is evaluated, too few images, images that the extractor refuses, images
            deeper than 8 bits without a window, a statistics file of another protocol, unknown parts.
    """
    if permutations < 0:
        raise GankitError(f"permutations: there cannot be {permutations} regroupings; 0 is for none")
    if metrics is not None and not metrics:
        raise GankitError("metrics: name at least one")
    folder = None if pictures is None else user_path(pictures)
    if folder is not None and folder.is_file():
        raise DataError(f"pictures: {folder} is a file; name a folder")
    if isinstance(metrics, (str, dict, Part)):
        metrics = [metrics]
    fake_name, source = open_named(run_or_images, "fake", window)
    settings = source.experiment.evaluation if isinstance(source, Run) else Evaluation()
    parts = [as_part("metric", metric) for metric in (settings.metrics if metrics is None else metrics)]
    by_default = metrics is None and [part.name for part in parts] == default_metrics()
    features = settings.features if features is None else features
    count = settings.count if count is None else count
    seed = settings.seed if seed is None else seed
    if real is None and not isinstance(source, Run):
        raise DataError(f"real, on the command line --against: say which real images to compare {fake_name} with")

    wants_training = "training" in _needs(parts) or training is not None
    reals, training_side = _references(source if real is None else real, source, training, window, wants_training)
    if isinstance(reals, Statistics):
        parts = _for_moments(parts, reals.name, by_default, permutations)
    fakes = _fakes(source, fake_name, reals, count, seed, window)
    shape = (fakes if isinstance(reals, Statistics) else reals).images.image.shape
    features_name, network = extractor(features, shape)
    needs = _needs(parts)
    warnings = notes(source, fake_name) if isinstance(source, Dataset) else []
    if isinstance(reals, Statistics):
        warnings += reals.check_features(features_protocol(features_name, network))
        real_rows = Rows(statistics=reals.moments)
    else:
        training_rows = training_side.rows(network, needs) if training_side and "training" in needs else None
        real_rows = dataclasses.replace(reals.rows(network, needs), training=training_rows)
    pool = Pool(real_rows, fakes.rows(network, needs))

    values, metric_warnings = evaluate_metrics(parts, pool, seed, permutations, by_default)
    warnings += metric_warnings
    protocol = _protocol(features_name, network, reals, fakes, seed)
    if isinstance(reals, _Side):
        show_pairs(values, fakes.images, reals.images, training_side.images if training_side else None, folder)
        lacks_training = "training" in needs and training is None and training_side is None
        warnings += notes(reals.images, reals.name) + _reference_warnings(fakes, reals, lacks_training)
    known = training_side or reals  # what the generator may have copied
    held_out = reals.images if training_side and isinstance(reals, _Side) else None
    if isinstance(known, _Side):
        kind = "training image" if training_side or training is not None or known.name == TRAINING else "real image"
        protocol["copies"], copy_warnings = find_copies(fakes.images, known.images, held_out, kind)
        warnings += copy_warnings
    if training_side:
        protocol |= {"training": training_side.name, "n_training": len(training_side.images)}
        protocol["training_content"] = training_side.content
    if training_side and held_out is not None:
        protocol["membership"], attack_warnings = attacks(source, pool, training_side.images, held_out)
        warnings += attack_warnings
    protocol["warnings"] = list(dict.fromkeys(warnings))
    return Evaluated(protocol=protocol, metrics=values)


@seeds.plain_torch()
def statistics(images: Source, features: Named | Features | None = None, *, window: Window = None) -> Statistics:
    """Mean and covariance of the features of real images, to be kept in place of the images.

    Args:
        images: as the real images of `evaluate`: of a run its held-out images, or its training images if it has none.
        features: as in `evaluate`.
        window: as in `evaluate`.

    Raises:
        GankitError: as `evaluate`; or features are chosen for a statistics file, which holds no images.
    """
    reals, _ = _references(images, None, None, window, wants_training=False)
    if isinstance(reals, Statistics):
        if features is not None:
            raise DataError(f"{reals.name} holds statistics, of features that are chosen already: give the images")
        return reals
    features_name, network = extractor(features, reals.images.image.shape)
    rows = reals.rows(network, {"features"})
    protocol = features_protocol(features_name, network) | {"content": reals.content}
    if remarks := notes(reals.images, reals.name):
        protocol["warnings"] = remarks
    return Statistics(reals.name, rows.moments, protocol)


@dataclass(frozen=True)
class _Side:
    """The generated, the real or the training images, and what tables call them."""

    name: str
    images: Dataset

    def __post_init__(self) -> None:
        if len(self.images) < 2:
            raise too_few(self.name, len(self.images))

    @cached_property
    def content(self) -> str:
        return self.images.digest()

    def protocol(self, side: str) -> dict[str, Any]:
        groups = self.images.groups
        return {
            f"n_{side}": len(self.images), f"{side}_size": list(self.images.image.shape),
            f"{side}_range": list(self.images.value_range), f"{side}_content": self.content,
            **({} if groups is None else {f"n_{side}_groups": len(np.unique(groups))}),
        }  # fmt: skip

    def rows(self, network: Features, needs: set[str]) -> Rows:
        return extraction.rows(self.images, network, needs, name=self.name, content=self.content, shared=True)


def _needs(parts: Sequence[Part]) -> set[str]:
    return {need for part in parts for need in part.build().needs}


def _for_moments(parts: list[Part], name: str, by_default: bool, permutations: int) -> list[Part]:
    """The metrics that can be computed from statistics alone; others are left out if `by_default`, else refused."""
    if permutations:
        raise GankitError(f"{name} holds no images to regroup: leave out permutations, or give the images")
    unfit = [part.name for part in parts if not part.build().takes_moments]
    if unfit and not by_default:
        raise DataError(
            f"{name} holds only mean and covariance, too little for {', '.join(unfit)}: leave these out, or give images"
        )
    return [part for part in parts if part.name not in unfit]


def _references(
    real: Source, source: Source | None, training: Source | None, window: Window, wants_training: bool
) -> tuple[_Side | Statistics, _Side | None]:
    """The real images; and the training images, if they are wanted or come with a run and are another set."""
    name, reference = open_named(real, "real", window)
    if isinstance(reference, Statistics):
        return reference, _training_images(training, None, None, window)
    if isinstance(reference, Run):
        (name, images), wants_training = run_reference(reference), True
    else:
        images = open_images(reference, name, window=window)
    reals = _Side(name, images)
    training_side = _training_images(training, source, reference, window) if wants_training else None
    is_other_set = training_side is not None and training_side.content != reals.content
    return reals, training_side if is_other_set else None


def _training_images(
    training: Source | None, source: Source | None, reference: Source | None, window: Window
) -> _Side | None:
    """The training images as given, else those of the evaluated run (`source`), else those of the reference run."""
    if training is not None:
        name, opened = open_named(training, "training", window)
        if not isinstance(opened, Run):
            return _Side(name, open_images(opened, name, window=window))
        return _Side(TRAINING, run_data(opened)[0])
    run = next((run for run in (source, reference) if isinstance(run, Run)), None)
    return None if run is None or in_process(run) else _Side(TRAINING, run_data(run)[0])


def _fakes(source: Source, name: str, reals: _Side | Statistics, count: int | None, seed: int, window: Window) -> _Side:
    """The images to evaluate; from a run as many as there are real ones, unless a number is given."""
    if isinstance(source, Run) and count is None:
        count = reals.moments.n if isinstance(reals, Statistics) else len(reals.images)
        if count is None:
            raise GankitError(f"{reals.name} does not say how many images it is of: give count, the number to draw")
    return _Side(name, open_images(source, name, count=count, seed=seed, window=window))


def _reference_warnings(fakes: _Side, reals: _Side, lacks_training: bool) -> list[str]:
    """What limits the comparison with these real images."""
    warnings, ranges = [], (fakes.images.value_range, reals.images.value_range)
    if lacks_training and reals.name != TRAINING:
        warnings.append(
            f"no training images were given: copies are looked for among the real images ({reals.name}), so that "
            "copies of other training images are not found"
        )
    if ranges[0] != ranges[1] and (0.0, 255.0) not in ranges:
        warnings.append(f"black and white are {ranges[0]} in the generated images, but {ranges[1]} in the real ones")
    sizes = [" x ".join(map(str, side.images.image.shape[1:])) for side in (fakes, reals)]
    if sizes[0] != sizes[1]:
        warnings.append(
            f"the generated images are of {sizes[0]} pixels, the real ones of {sizes[1]}: sharpness differs"
        )
    fake_classes, real_classes = _classes(fakes.images), _classes(reals.images)
    if fake_classes & real_classes and fake_classes != real_classes:
        warnings.append(
            f"the generated images are of {first_of(sorted(fake_classes))}, the real ones of "
            f"{first_of(sorted(real_classes))}: compare like with like"
        )
    if reals.name == TRAINING:
        warnings.append("the reference is the training images: a generator that only copies them would score best")
    return warnings


def _classes(images: Dataset) -> set[str]:
    """The names of the classes that images are of; empty where they are not known."""
    known = images.known
    if known.labels is None or not known.class_names:
        return set()
    return {known.class_names[label] for label in np.unique(known.labels)}


def _protocol(
    features_name: str, network: Features, reals: _Side | Statistics, fakes: _Side, seed: int
) -> dict[str, Any]:
    return {
        **features_protocol(features_name, network),
        "real": reals.name,
        "fake": fakes.name,
        **(
            {"n_real": reals.moments.n, "real_size": None, "real_content": reals.protocol.get("content")}
            if isinstance(reals, Statistics)
            else reals.protocol("real")
        ),
        **fakes.protocol("fake"),
        "seed": seed,
        "standard_error": "the spread of the value at this number of images, not its bias: in closed form for kid, "
        f"else the jackknife over both sets, one image (group) at a time up to {LEAVE_ONE_OUT}, else groups of them",
        "versions": {
            "gankit": gankit_version, "torch": torch.__version__, "numpy": np.__version__,
            "scipy": scipy.__version__, "pillow": PIL.__version__, "python": platform.python_version(),
        },
    }  # fmt: skip
