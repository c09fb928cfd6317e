"""Judge generated images beside real ones: features once, every metric on them, and no value without its context."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

import gankit
from gankit import seeds
from gankit.config import Evaluation
from gankit.errors import DataError, GankitError, RunError
from gankit.interfaces import Dataset, Features, ImageSpec, Metric, Rows
from gankit.registry import Part, registry, valid_part
from gankit.run import Run, open_run

FEATURE_BATCH = 64
SPLITS = 10
"""Disjoint splits of the reals whose mean is the real-against-real value."""
LEAVE_ONE_OUT = 200
GROUPS = 50
"""Up to `LEAVE_ONE_OUT` units the jackknife leaves out one at a time, above that one of `GROUPS` groups."""

Source = Run | Dataset | NDArray[Any] | Tensor | str | Path


@dataclass(frozen=True)
class ImageSet:
    """Images to be judged, with what they are called and what is known of them."""

    name: str
    images: NDArray[Any]
    value_range: tuple[float, float]
    labels: NDArray[Any] | None = None
    groups: NDArray[Any] | None = None

    def scaled(self, start: int, stop: int) -> Tensor:
        """Some of the images as float32 in [0, 255]."""
        low, high = self.value_range
        return torch.from_numpy((self.images[start:stop].astype(np.float32) - low) * (255 / (high - low)))


def evaluate(
    run_or_images: Source,
    real: Source,
    metrics: Sequence[str | dict[str, Any] | Part] = ("frechet",),
    features: str | dict[str, Any] | Part | Features = "pixels",
    *,
    count: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Judge images beside real ones.

    Args:
        run_or_images: a run (or its folder), a data set, a folder of images, or (n, c, h, w) uint8 or uint16 images.
        real: the same; for a run its training images.
        metrics: names, tables with a name, or parts.
        features: a name, a table with a name, a part, or an extractor.
        count: images to draw from a run; by default as many as there are real ones.
        seed: of the drawn latents, and of the splits of the reals.

    Returns:
        `{"protocol": {...}, "metrics": {name: {"value", "standard_error", "n_real", "n_fake", "real_vs_real"}}}`. The
        standard error is the jackknife's (Efron and Stein 1981) over both sets, by group where the images have groups:
        the spread of the value at this number of images, not its bias; None where too few images or groups tell it.
        `real_vs_real` holds the mean value of ten disjoint splits of the reals (at most one group is in both parts) at
        `n` = min(n_fake, n_real // 2), and the fakes' value against the same parts.

    Raises:
        GankitError: too few images, images that the extractor refuses, float images without a range, unknown parts.
    """
    reals = image_set(real, "real", None, seed)
    fakes = image_set(run_or_images, "fake", count or len(reals.images), seed)
    for images in (reals, fakes):
        if len(images.images) < 2:
            raise DataError(f"{images.name}: {len(images.images)} images; at least 2 are needed")
    extractor = _extractor(features, reals.images.shape[1:])
    if not metrics:
        raise GankitError("metrics: name at least one")
    parts = [metric if isinstance(metric, Part) else _part("metric", metric) for metric in metrics]
    needs = {need for part in parts for need in registry("metric").get(part.name).needs}  # type: ignore[attr-defined]
    real_rows, fake_rows = (_rows(images, extractor, needs) for images in (reals, fakes))
    protocol = _protocol(features, extractor, reals, fakes, seed)
    return {"protocol": protocol, "metrics": {p.name: _judged(p, fake_rows, real_rows, seed) for p in parts}}


def _part(kind: str, value: str | dict[str, Any]) -> Part:
    table = {"name": value} if isinstance(value, str) else dict(value)
    if not isinstance(table.get("name"), str):
        raise GankitError(f"{kind}: the table needs a name: which {kind}?")
    return valid_part(kind, table.pop("name"), table)


def _extractor(features: str | dict[str, Any] | Part | Features, shape: tuple[int, ...]) -> Features:
    if isinstance(features, Features):
        return features.eval()
    part = features if isinstance(features, Part) else _part("features", features)
    extractor: Features = part.build(ImageSpec(*shape))
    return extractor.eval()


def image_set(source: Source, role: str, count: int | None, seed: int) -> ImageSet:
    """Images from whatever holds them; a run draws `count` of them, or is its training data where None.

    Raises:
        GankitError: nothing is there, or float images come without a range.
    """
    if isinstance(source, (str, Path)):
        role, source = str(source), open_source(source)
    if isinstance(source, Run):
        if count is None:
            from gankit.data import prepare

            if source.experiment.run is not None and source.experiment.run.data_in_process:
                raise RunError(
                    f"{source.path} was trained on data of the program that started it: give the real images"
                )
            data = prepare(source.experiment.data, source.experiment.training.seed)
            name = "held-out images" if data.held_out else "training images"
            return image_set(data.held_out or data.dataset, name, None, seed)
        latents, labels = source.draw(count, None, seed)
        images = source.decode(latents, labels)
        classes = None if labels is None or labels.dim() > 1 else labels.numpy()
        return ImageSet(f"run {source.path.name}", images, source.value_range, classes)
    if isinstance(source, Dataset):
        return ImageSet(role, source.images, source.value_range, source.labels, source.groups)
    images = source.detach().cpu().numpy() if isinstance(source, Tensor) else np.asarray(source)
    if images.ndim != 4:
        raise DataError(f"{role} images have the shape {images.shape}; (n, channels, height, width) is needed")
    if images.dtype.kind != "u":
        raise DataError(
            f"{role} images are {images.dtype}, whose black and white are not known; give uint8 or uint16 images, or a "
            "data set with a value_range"
        )
    return ImageSet(role, images, (0.0, float(np.iinfo(images.dtype).max)))


def open_source(name: str | Path) -> Run | Dataset:
    """A run folder, a folder of images, an npz file, or a data set by name.

    Raises:
        GankitError: it is none of these, or broken.
    """
    path = Path(name).expanduser()
    if (path / "experiment.toml").is_file():
        return open_run(path)
    if path.is_dir():
        # A folder that `gankit sample` wrote holds its grid beside the images that labels.csv lists.
        return _dataset("folder", path=str(path), unlisted="skip")
    if path.suffix == ".npz":
        return _dataset("npz", path=str(path))
    if len(path.parts) > 1:
        raise DataError(f"{name}: there is no such folder or file")
    return _dataset(str(name))


def _dataset(name: str, **settings: Any) -> Dataset:
    dataset: Dataset = gankit.build("dataset", name, None, **settings)
    return dataset


def _rows(images: ImageSet, extractor: Features, needs: set[str]) -> Rows:
    made: dict[str, Callable[[Tensor], Tensor]] = {
        "features": extractor, "images": lambda images: images,
    }  # fmt: skip
    gathered: dict[str, list[NDArray[Any]]] = {name: [] for name in made if name in needs}
    n = len(images.images)
    with torch.no_grad(), tqdm(total=n, unit="image", desc=f"features of {images.name}", disable=n < 2000) as bar:
        for start in range(0, n, FEATURE_BATCH):
            scaled = images.scaled(start, start + FEATURE_BATCH)
            for name, parts in gathered.items():
                parts.append(made[name](scaled).double().cpu().numpy())
            bar.update(len(scaled))
    fields = {name: np.concatenate(parts) for name, parts in gathered.items()}
    if not all(np.isfinite(values).all() for values in fields.values()):
        raise DataError(f"{images.name}: features are not finite; look for broken images")
    for name, known in (("labels", images.labels), ("groups", images.groups)):
        if known is not None:
            fields[name] = np.asarray(known)
    return Rows(fields | {"ids": np.arange(n)}, n)


def _value(part: Part, fake: Rows, real: Rows) -> dict[str, float]:
    metric: Metric = part.build()
    metric.update(real.batch(np.arange(real.count), True))
    metric.update(fake.batch(np.arange(fake.count), False))
    return metric.compute()


def _judged(part: Part, fake: Rows, real: Rows, seed: int) -> dict[str, Any]:
    values = _value(part, fake, real)
    main = next(iter(values))
    report: dict[str, Any] = {"value": values[main]}
    report |= {name: value for name, value in values.items() if name != main}

    def value(fakes: Rows, reals: Rows) -> float:
        return _value(part, fakes, reals)[main]

    of_real = _jackknife(real, lambda rows: value(fake, rows), seed)
    of_fake = _jackknife(fake, lambda rows: value(rows, real), seed)
    error = None if of_real is None or of_fake is None else math.sqrt(of_real + of_fake)
    report |= {"standard_error": error, "n_real": real.count, "n_fake": fake.count}
    report["real_vs_real"] = _real_against_real(value, fake, real, seed)
    return report


def _units(rows: Rows) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """What varies independently: the groups (patients) of the rows, or each row; and which one each row is of."""
    names, unit = np.unique(rows.fields.get("groups", np.arange(rows.count)), return_inverse=True)
    return names, unit.reshape(-1)


def _jackknife(rows: Rows, value: Callable[[Rows], float], seed: int) -> float | None:
    """The variance of `value` as one set of rows varies: Efron and Stein 1981, by groups of equal chance.

    None where there are too few to leave any out.
    """
    names, unit = _units(rows)
    if len(names) > LEAVE_ONE_OUT:
        order = torch.randperm(len(names), generator=seeds.source(seed, "jackknife")).numpy()
        unit = (order % GROUPS)[unit]
    parts = int(unit.max()) + 1
    left = [np.flatnonzero(unit != part) for part in range(parts)]
    if parts < 2 or min(map(len, left)) < 2:
        return None
    values = np.array([value(rows.take(indices)) for indices in left])
    return float((parts - 1) / parts * ((values - values.mean()) ** 2).sum())


def _real_against_real(
    value: Callable[[Rows, Rows], float], fake: Rows, real: Rows, seed: int
) -> dict[str, float | int] | None:
    n = min(fake.count, real.count // 2)
    if n < 2:
        return None
    between, beside = [], []
    names, unit = _units(real)
    for split in range(SPLITS):
        # Images of one patient are alike: with some in either part, the parts would look more alike than two samples.
        rank = torch.randperm(len(names), generator=seeds.source(seed, "split", split)).numpy()
        order = np.argsort(rank[unit], kind="stable")
        drawn = torch.randperm(fake.count, generator=seeds.source(seed, "split of fakes", split)).numpy()
        reference = real.take(order[:n])
        between.append(value(real.take(order[-n:]), reference))
        beside.append(value(fake.take(drawn[:n]), reference))
    return {"value": float(np.mean(between)), "n": n, "fake_value_at_n": float(np.mean(beside))}


def _protocol(features: Any, extractor: Features, reals: ImageSet, fakes: ImageSet, seed: int) -> dict[str, Any]:
    name = features if isinstance(features, str) else getattr(features, "name", type(extractor).__name__)
    name = features["name"] if isinstance(features, dict) else name
    n, d = min(len(reals.images), len(fakes.images)), extractor.dim
    warnings = []
    if n < d:
        warnings.append(
            f"{n} images in {d} dimensions: the value is mostly bias; read it beside real_vs_real and at equal n only"
        )
    if reals.name == "training images":
        warnings.append("the reference is the training images, which a copy of them would match best")
    return {
        "features": name,
        "features_dim": d,
        "features_protocol": extractor.protocol,
        "real": reals.name,
        "fake": fakes.name,
        "n_real": len(reals.images),
        "n_fake": len(fakes.images),
        "real_size": list(reals.images.shape[1:]),
        "fake_size": list(fakes.images.shape[1:]),
        "seed": seed,
        "standard_error": f"jackknife over both sets, one at a time up to {LEAVE_ONE_OUT}, else {GROUPS} groups",
        "versions": {
            "gankit": gankit.__version__, "torch": torch.__version__, "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "warnings": warnings,
    }  # fmt: skip


def quick_values(
    fake: NDArray[Any], real: Dataset, settings: Evaluation, value_range: tuple[float, float]
) -> dict[str, float]:
    """The metrics' bare values, for the log of a training."""
    extractor = _extractor(settings.features, real.images.shape[1:])
    needs = {need for part in settings.metrics for need in registry("metric").get(part.name).needs}  # type: ignore[attr-defined]
    fakes = _rows(ImageSet("fake", fake, value_range), extractor, needs)
    reals = _rows(ImageSet("real", real.images, value_range, real.labels, real.groups), extractor, needs)
    values: dict[str, float] = {}
    for part in settings.metrics:
        values |= _value(part, fakes, reals)
    return values


def compare(a: dict[str, Any] | str | Path, b: dict[str, Any] | str | Path, *, force: bool = False) -> dict[str, Any]:
    """The difference of two evaluations, metric by metric.

    Args:
        a: what `evaluate` returned, or the file that holds it.
        b: the same.
        force: compare although the protocols differ.

    Returns:
        `{metric: {"a", "b", "difference", "standard_error"}}`; the difference is b less a, its standard error that of
        independent values.

    Raises:
        GankitError: they differ in features, numbers of images or sizes, so that the values cannot be compared.
    """
    first, second = (value if isinstance(value, dict) else _read_metrics(Path(value)) for value in (a, b))
    keys = ("features", "features_dim", "features_protocol", "n_real", "n_fake", "real_size", "fake_size")
    different = [key for key in keys if first["protocol"][key] != second["protocol"][key]]
    if different and not force:
        told = "; ".join(f"{key}: {first['protocol'][key]} and {second['protocol'][key]}" for key in different)
        raise GankitError(f"evaluations that differ cannot be compared ({told}); evaluate both alike, or use force")
    return {
        name: {
            "a": one["value"],
            "b": (other := second["metrics"][name])["value"],
            "difference": other["value"] - one["value"],
            "standard_error": None
            if None in (one["standard_error"], other["standard_error"])
            else math.hypot(one["standard_error"], other["standard_error"]),
        }
        for name, one in first["metrics"].items()
        if name in second["metrics"]
    }


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {"protocol": content["protocol"], "metrics": content["metrics"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GankitError(f"{path} is no metrics file of gankit evaluate: {error}") from error


def title(metric: str, features: str) -> str:
    """How a value is headed: the name FID is kept for Inception's features."""
    if metric == "frechet":
        return "FID" if features == "inception-v3" else f"FD ({features})"
    return f"{metric} ({features})"


def text_table(report: dict[str, Any]) -> str:
    """An evaluation as lines for a terminal."""
    protocol = report["protocol"]
    lines = [f"fake: {protocol['fake']}   real: {protocol['real']}   features: {protocol['features']}, "
             f"{protocol['features_dim']} dimensions"]  # fmt: skip
    for name, entry in report["metrics"].items():
        error = "" if entry["standard_error"] is None else f" +- {entry['standard_error']:.2g}"
        lines.append(
            f"{title(name, protocol['features'])}: {entry['value']:.4g}{error} "
            f"(n = {entry['n_fake']} fake, {entry['n_real']} real)"
        )
        if beside := entry["real_vs_real"]:
            lines.append(
                f"  at n = {beside['n']}: fake against real {beside['fake_value_at_n']:.4g}, "
                f"real against real {beside['value']:.4g}"
            )
    return "\n".join([*lines, *(f"warning: {warning}" for warning in protocol["warnings"])])
