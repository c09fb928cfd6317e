"""Judge generated images beside real ones: features once, every metric on them, and no value without its context."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import scipy
import torch

from gankit.errors import DataError, GankitError
from gankit.evaluation import extraction
from gankit.evaluation.extraction import extractor, part
from gankit.evaluation.sources import ImageSet, Source, Window, image_set, open_source, run_data
from gankit.evaluation.statistics import Statistics
from gankit.evaluation.uncertainty import LEAVE_ONE_OUT, free_name, judged
from gankit.experiments.experiment import default_features, default_metrics
from gankit.files import write_atomically
from gankit.images.pictures import pairs_png
from gankit.interfaces import Batch, Features, Metric, Pool
from gankit.metrics.frechet import Frechet
from gankit.registry import Part
from gankit.runs.run import Run
from gankit.version import __version__ as gankit_version

Named = str | dict[str, Any] | Part


def evaluate(
    run_or_images: Source,
    real: Source,
    metrics: Sequence[Named] | None = None,
    features: Named | Features | None = None,
    *,
    training: Source | None = None,
    count: int | None = None,
    seed: int = 0,
    window: Window = None,
    permutations: int = 0,
    pictures: str | Path | None = None,
) -> dict[str, Any]:
    """Judge images beside real ones.

    Args:
        run_or_images: a run (or its folder), a data set, a folder of images, an npz file, or (n, c, h, w) images.
        real: the same, or a statistics file; for a run its held-out images, or its training images where it has none.
        metrics: names, tables with a name, or parts; by default frechet, kid, precision-recall, variance-ratio and
            memorisation.
        features: a name, a table with a name, a part, or an extractor; by default efficientnet-lite0 where the extra
            `offline` is installed, else pixels.
        training: the images that the generator was trained on, for metrics that look for copies; those of a run are
            known.
        count: images to draw from a run; by default as many as there are real ones.
        seed: of the drawn latents, of the splits of the reals, and of permutations.
        window: the values of black and white of arrays and files that are not 8-bit.
        permutations: divisions of a permutation test, for metrics of which lower or higher is better; 0 for none.
        pictures: a folder for pictures of the closest pairs, of metrics that find pairs.

    Returns:
        `{"protocol": {...}, "metrics": {name: {"value", "standard_error", "n_real", "n_fake", "real_vs_real",
        "metric"}}}`. The standard error is in closed form for kid, else the jackknife's (Efron and Stein 1981) over
        both sets, by group where the images have groups: the spread of the value at this number of images, not its
        bias; None where too few images or groups tell it. `real_vs_real` holds the mean value of ten disjoint splits of
        the reals (at most one group is in both parts) at `n` = min(n_fake, n_real // 2), and the fakes' value against
        the same parts. "p_value" is there on request, "details" where a metric has more to tell.

    Raises:
        GankitError: too few images, images that the extractor refuses, images deeper than 8 bits without a window, a
            statistics file of another protocol, unknown parts.
    """
    run = open_source(run_or_images, window) if isinstance(run_or_images, (str, Path)) else run_or_images
    name = str(run_or_images) if isinstance(run_or_images, (str, Path)) else "fake"
    if permutations < 0:
        raise GankitError(f"permutations: {permutations} divisions cannot be made; 0 is for none")
    parts = None if metrics is None else [part("metric", metric) for metric in metrics]
    if parts is not None and not parts:
        raise GankitError("metrics: name at least one")
    wanted = parts or [part("metric", metric) for metric in default_metrics()]
    needs = {need for each in wanted for need in each.build().needs}
    reals, trained = _references(real, run, training, seed, window, "training" in needs)
    if isinstance(reals, Statistics):
        if permutations:
            raise GankitError(
                f"{reals.name} holds no images to divide anew: leave out permutations, or give the images"
            )
        if isinstance(run, Run) and count is None and reals.moments.n is None:
            raise GankitError(f"{reals.name} does not say of how many images it is: say how many to draw by count")
        drawn = count or (reals.moments.n if isinstance(run, Run) else None)
        serving = parts or [each for each in wanted if each.build().takes_moments]
        return _beside_statistics(image_set(run, name, drawn, seed, window), reals, serving,
                                  features if features is not None else default_features(), seed)  # fmt: skip
    fakes = image_set(run, name, count or (reals.count if isinstance(run, Run) else None), seed, window)
    parts = wanted
    _check_counts(reals, fakes, *([trained] if trained else []))
    chosen, network = extractor(features if features is not None else default_features(), reals.shape)
    pool = Pool(
        extraction.rows(reals, network, needs, shared=True),
        extraction.rows(fakes, network, needs, shared=True),
        extraction.rows(trained, network, needs, shared=True) if trained else None,
    )
    values: dict[str, dict[str, Any]] = {}
    warnings: list[str] = []
    for each in parts:
        entries, cautions = judged(each, pool, seed, permutations)
        for key, entry in entries.items():
            values[free_name(key, values)] = entry
            if pictures is not None and "pairs" in entry.get("details", {}):
                beside = trained if trained and "training" in each.build().needs else reals
                _picture(Path(pictures) / f"{key}-pairs.png", fakes, beside, entry["details"]["pairs"])
        warnings += cautions
    if "training" in needs and training is None and trained is None and reals.name != "training images":
        warnings.append(
            f"no training images were given: copies are looked for among the real images ({reals.name}), so that a "
            "generator that was trained on others passes whatever it copies"
        )
    if fakes.value_range != reals.value_range and (0.0, 255.0) not in (fakes.value_range, reals.value_range):
        warnings.append(
            f"black and white are {fakes.value_range} of the generated and {reals.value_range} of the real images"
        )
    if reals.name == "training images":
        warnings.append("the reference is the training images, which a copy of them would match best")
    protocol = _protocol(chosen, network, reals, fakes, seed) | {"warnings": list(dict.fromkeys(warnings))}
    if trained:
        protocol |= {"training": trained.name, "n_training": trained.count, "training_content": trained.digest()}
    return {"protocol": protocol, "metrics": values}


def statistics(images: Source, features: Named | Features | None = None, *, window: Window = None) -> Statistics:
    """Mean and covariance of the features of real images, to be stored in place of the images.

    Args:
        images: as the real images of `evaluate`: of a run its held-out images, or its training images without any.
        features: as in `evaluate`.
        window: as in `evaluate`.

    Raises:
        GankitError: as `evaluate`.
    """
    reals, _ = _references(images, None, None, 0, window, False)
    if isinstance(reals, Statistics):
        return reals
    chosen, network = extractor(features if features is not None else default_features(), reals.shape)
    gathering = Frechet().real
    gathering.add(extraction.features(reals, network))
    protocol = {"features": chosen, "features_dim": network.dim, "features_protocol": network.protocol,
                "content": reals.digest()}  # fmt: skip
    return Statistics(reals.name, gathering.moments(), protocol)


def _references(
    real: Source, judged_source: Any, training: Source | None, seed: int, window: Window, wants_training: bool
) -> tuple[ImageSet | Statistics, ImageSet | None]:
    """The real images, and the training images where they are other ones and asked for."""
    name = str(real) if isinstance(real, (str, Path)) else "real"
    source = open_source(real, window) if isinstance(real, (str, Path)) else real
    if isinstance(source, Statistics):
        return source, None
    trained = None
    if isinstance(source, Run):
        trained, held_out = run_data(source)
        reals = held_out or trained
        trained = trained if held_out else None
    else:
        reals = image_set(source, name, None, seed, window)
    if not wants_training:
        return reals, None
    if training is not None:
        opened = open_source(training, window) if isinstance(training, (str, Path)) else training
        name = str(training) if isinstance(training, (str, Path)) else "training"
        trained = run_data(opened)[0] if isinstance(opened, Run) else image_set(opened, name, None, seed, window)
    elif isinstance(judged_source, Run) and not (isinstance(source, Run) and source.path == judged_source.path):
        trained = None if _in_process(judged_source) else run_data(judged_source)[0]
    return reals, None if trained is not None and trained.digest() == reals.digest() else trained


def _check_counts(*sets: ImageSet) -> None:
    for images in sets:
        if images.count < 2:
            raise DataError(f"{images.name}: {images.count} images; at least 2 are needed")


def _in_process(run: Run) -> bool:
    return run.experiment.run is not None and run.experiment.run.data_in_process


def _beside_statistics(
    fakes: ImageSet, stored: Statistics, parts: list[Part], features: Named | Features, seed: int
) -> dict[str, Any]:
    _check_counts(fakes)
    chosen, network = extractor(features, fakes.shape)
    own = {"features": chosen, "features_dim": network.dim, "features_protocol": network.protocol}
    different = [
        key
        for key, value in own.items()
        if key in stored.protocol and _unversioned(stored.protocol[key]) != _unversioned(value)
    ]
    if different or network.dim != len(stored.moments.mean):
        told = "; ".join(f"{key}: {stored.protocol[key]} in the file, {own[key]} here" for key in different[:2])
        raise DataError(
            f"{stored.name} has the statistics of other features ({told or f'{len(stored.moments.mean)} dimensions'}); "
            f"features {chosen} have {network.dim} dimensions: choose the features that the file was made with"
        )
    if wrong := [each.name for each in parts if not each.build().takes_moments]:
        raise DataError(
            f"{stored.name} holds moments only, which do not serve {', '.join(wrong)}: leave these out, or give images"
        )
    warnings = []
    if not stored.protocol:
        warnings.append(f"{stored.name} does not say which features, resize and weights it was made with")
    elif (versions := stored.protocol.get("features_protocol", {}).get("versions")) != network.protocol.get("versions"):
        warnings.append(f"{stored.name} was made with {versions}")
    features_ = extraction.features(fakes, network)
    values: dict[str, dict[str, Any]] = {}
    for each in parts:
        metric: Metric = each.build()
        metric.update(Batch(real=True, moments=stored.moments))
        metric.update(Batch(real=False, features=features_))
        for key, value in metric.compute().items():
            values[free_name(key, values)] = {
                "value": value, "standard_error": None, "n_real": stored.moments.n, "n_fake": fakes.count,
                "real_vs_real": None, "metric": each.table(),
            }  # fmt: skip
        warnings += metric.cautions({})
    protocol = _protocol(chosen, network, stored, fakes, seed)
    return {"protocol": protocol | {"warnings": warnings}, "metrics": values}


def _unversioned(value: Any) -> Any:
    """A value of the protocol without the versions of packages, which rarely change a digit that is printed."""
    return {key: item for key, item in value.items() if key != "versions"} if isinstance(value, dict) else value


def _picture(path: Path, fakes: ImageSet, reals: ImageSet, pairs: list[dict[str, Any]]) -> None:
    """Each generated image above the real one that it is closest to."""
    if not pairs:
        return
    places = [np.array([pair[side] for pair in pairs[:8]]) for side in ("fake", "real")]
    path.parent.mkdir(parents=True, exist_ok=True)
    png = pairs_png(fakes.read(places[0]), fakes.value_range, reals.read(places[1]), reals.value_range)
    write_atomically(path, png)


def _protocol(name: str, network: Features, reals: ImageSet | Statistics, fakes: ImageSet, seed: int) -> dict[str, Any]:
    if isinstance(reals, Statistics):
        real = {"n_real": reals.moments.n, "real_size": None, "real_content": reals.protocol.get("content")}
    else:
        real = {
            "n_real": reals.count, "real_size": list(reals.shape), "real_range": list(reals.value_range),
            "real_content": reals.digest(),
        }  # fmt: skip
    return {
        "features": name,
        "features_dim": network.dim,
        "features_protocol": network.protocol,
        "real": reals.name,
        "fake": fakes.name,
        **real,
        "n_fake": fakes.count,
        "fake_size": list(fakes.shape),
        "fake_range": list(fakes.value_range),
        "fake_content": fakes.digest(),
        "seed": seed,
        "standard_error": "the spread of the value at this number of images, not its bias: in closed form for kid, "
        f"else the jackknife over both sets, one image (group) at a time up to {LEAVE_ONE_OUT}, else groups of them",
        "versions": {
            "gankit": gankit_version, "torch": torch.__version__, "numpy": np.__version__,
            "scipy": scipy.__version__, "pillow": PIL.__version__, "python": platform.python_version(),
        },
    }  # fmt: skip


def compare(a: dict[str, Any] | str | Path, b: dict[str, Any] | str | Path, *, force: bool = False) -> dict[str, Any]:
    """The difference of two evaluations, value by value.

    Args:
        a: what `evaluate` returned, or the file that holds it.
        b: the same.
        force: compare although the protocols differ.

    Returns:
        `{metric: {"a", "b", "difference", "standard_error"}}`; the difference is b less a, its standard error that of
        independent values (too large where both were judged beside the same reals).

    Raises:
        GankitError: they differ in features, real images, numbers of images, sizes or settings of a metric, so that the
            values cannot be compared.
    """
    first, second = (value if isinstance(value, dict) else read_metrics(Path(value)) for value in (a, b))
    keys = (
        "features", "features_dim", "features_protocol", "n_real", "n_fake", "real_size", "fake_size", "real_range",
        "fake_range", "real_content", "training_content",
    )  # fmt: skip
    shared = [name for name in first["metrics"] if name in second["metrics"]]
    if not shared:
        raise GankitError("the evaluations have no value in common: judge both by the same metrics")
    pairs = [(key, first["protocol"].get(key), second["protocol"].get(key)) for key in keys]
    for name in shared:
        one, other = first["metrics"][name], second["metrics"][name]
        pairs += [(f"{name}.{key}", one.get(key), other.get(key)) for key in ("metric", "n_real", "n_fake")]
    different = [f"{key}: {one} and {other}" for key, one, other in pairs if _unversioned(one) != _unversioned(other)]
    if different and not force:
        raise GankitError(
            f"evaluations that differ cannot be compared ({'; '.join(different)}); evaluate both alike, or use force"
        )
    return {
        name: {
            "a": (one := first["metrics"][name])["value"],
            "b": (other := second["metrics"][name])["value"],
            "difference": other["value"] - one["value"],
            "standard_error": None
            if None in (one["standard_error"], other["standard_error"])
            else math.hypot(one["standard_error"], other["standard_error"]),
        }
        for name in shared
    }


def read_metrics(path: Path) -> dict[str, Any]:
    """A metrics file.

    Raises:
        GankitError: it is missing, or none.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {"protocol": content["protocol"], "metrics": content["metrics"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GankitError(f"{path} is no metrics file of gankit evaluate: {error}") from error


def write_metrics(report: dict[str, Any], path: Path) -> None:
    """Write a metrics file, as a whole or not at all."""
    write_atomically(path, (json.dumps(report, indent=2) + "\n").encode())
