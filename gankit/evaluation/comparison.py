"""Metrics files: read, written, and compared value by value."""

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from gankit.errors import GankitError
from gankit.evaluation.entries import free_name, unnumbered
from gankit.evaluation.tables import SUFFIXES, Evaluated, is_table, reads_training, write_table
from gankit.files import open_ordinary, user_path, write_atomically

ALIKE = ("features", "features_dim", "features_protocol", "n_real", "n_fake", "real_size", "fake_size", "real_range",
         "fake_range", "real_content")  # fmt: skip
"""Facts of the protocol in which evaluations must agree to be compared."""


class _Baseline(BaseModel, strict=True):
    value: float
    n: int
    fake_value_at_n: float


class _Entry(BaseModel, strict=True):
    value: float
    standard_error: float | None
    n_real: int | None
    n_fake: int
    real_vs_real: _Baseline | None
    p_value: dict[str, float] | None = None
    metric: dict[str, Any]
    details: dict[str, Any] = {}
    real_influences: list[float] = []
    fake_variance: float = 0.0


class _Protocol(BaseModel, strict=True):
    features: str
    features_dim: int
    features_protocol: dict[str, Any]
    real: str
    fake: str
    n_real: int | None
    n_fake: int
    warnings: list[str]


class _File(BaseModel, strict=True):
    """What every metrics file holds; newer versions add to it."""

    protocol: _Protocol
    metrics: dict[str, _Entry]


def compare(a: dict[str, Any] | str | Path, b: dict[str, Any] | str | Path, *, force: bool = False) -> dict[str, Any]:
    """The difference of two evaluations, value by value.

    Args:
        a: what `evaluate` returned, or the file that holds it.
        b: the same.
        force: compare although the protocols differ.

    Returns:
        `{metric: {"a", "b", "difference", "standard_error"}}`; the difference is b minus a. Where both values were
        computed beside the same real images, its standard error follows from the influence of each of these on both
        values. It is the sum of both errors, an upper bound, where a file lacks these influences: in files of gankit
        0.1, and for errors in closed form from more than 2,000 images. With other real images it is that of independent
        values. It is None where a value has none.

    Raises:
        GankitError: they differ in features, real images, numbers of images, sizes or settings of a metric, so that the
            values cannot be compared.
    """
    first, second = (value if isinstance(value, dict) else read_metrics(user_path(value)) for value in (a, b))
    if not all({"protocol", "metrics"} <= value.keys() for value in (first, second)):
        raise GankitError("only evaluations can be compared: give what gankit.evaluate returned, or its file")
    shared = [name for name in first["metrics"] if name in second["metrics"]]
    if not shared:
        raise GankitError("the evaluations have no value in common: compute the same metrics for both")
    if not force and (different := _why_not_comparable(first, second, shared)):
        raise GankitError(
            f"the evaluations were not made in the same way ({'; '.join(different)}): evaluate both alike, or use force"
        )
    same_reals = first["protocol"].get("real_content") == second["protocol"].get("real_content")
    differences = {}
    for name in shared:
        one, other = first["metrics"][name], second["metrics"][name]
        differences[name] = {
            "a": one["value"], "b": other["value"], "difference": other["value"] - one["value"],
            "standard_error": _error_of_difference(one, other, same_reals),
        }  # fmt: skip
    return differences


def _why_not_comparable(first: dict[str, Any], second: dict[str, Any], shared: Sequence[str]) -> list[str]:
    """What keeps two evaluations from being compared in these values: each fact with what it is in both."""
    keys = [*ALIKE]
    if any(reads_training(first["metrics"][name]) for name in shared):
        keys.append("training_content")
    facts = [(key, first["protocol"].get(key), second["protocol"].get(key)) for key in keys]
    for name in shared:
        one, other = first["metrics"][name], second["metrics"][name]
        facts += [(f"{name}.{key}", one.get(key), other.get(key)) for key in ("metric", "n_real", "n_fake")]
    return [
        f"{key}: {one} and {other}" for key, one, other in facts if without_versions(one) != without_versions(other)
    ]


def _error_of_difference(one: dict[str, Any], other: dict[str, Any], same_reals: bool) -> float | None:
    """The standard error of `compare`, from two entries; None where an entry has no error."""
    errors: list[float] = [entry["standard_error"] for entry in (one, other) if entry["standard_error"] is not None]
    if len(errors) < 2:
        return None
    if not same_reals:
        return math.hypot(*errors)
    influences = one.get("real_influences", ()), other.get("real_influences", ())
    if not influences[0] or len(influences[0]) != len(influences[1]):
        return sum(errors)
    of_reals: float = sum((b - a) ** 2 for a, b in zip(*influences, strict=True))
    return math.sqrt(one["fake_variance"] + other["fake_variance"] + of_reals)


def read_metrics(path: Path) -> Evaluated:
    """A metrics file; raises GankitError if it is missing, or no metrics file."""
    try:
        with open_ordinary(path) as file:
            content: dict[str, Any] = json.load(file)
        _File.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        reason = f"{'.'.join(map(str, fault['loc'])) or 'all of it'}: {fault['msg']}"
        raise GankitError(f"{path} is not a metrics file of gankit evaluate: {reason}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise GankitError(f"{path} is not a metrics file of gankit evaluate: {error}") from error
    return Evaluated(protocol=content["protocol"], metrics=content["metrics"])


def check_files(files: Mapping[str, Path | None], adds: bool = True) -> dict[str, Path]:
    """The files that an evaluation is to be written to, checked before it is made, which may take long.

    Args:
        files: for each option, such as --csv, the path that it was given, or None. ~ is the home folder.
        adds: whether values are added to an existing metrics file; otherwise that file is set aside, whatever it holds.

    Raises:
        GankitError: a file cannot be written, or what stands there would be lost.
    """
    paths = {option: user_path(path) for option, path in files.items() if path is not None}
    for option, path in paths.items():
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise GankitError(f"{option}: {path} cannot be written: name a file in a folder that exists")
        suffix = f".{option.removeprefix('--')}"  # options such as --csv and --tex
        if option != "--out" and path.suffix != suffix:
            raise GankitError(f"{option}: {path} must end in {suffix}")
        if not path.is_file():
            continue
        if path.suffix in SUFFIXES and not is_table(path):
            raise GankitError(f"{option}: {path} holds something else than a table of gankit: name another file")
        if path.suffix not in SUFFIXES and adds:
            read_metrics(path)  # raises if no values can be added to it
    return paths


def write_evaluation(report: dict[str, Any], path: Path) -> str:
    """Write a table to a file that ends in .csv or .tex, else a metrics file; returns what was done, in words."""
    if path.suffix not in SUFFIXES:
        return write_metrics(report, path)
    write_table(report, path)
    return f"written to {path}"


def write_metrics(report: dict[str, Any], path: Path) -> str:
    """Write a metrics file, as a whole or not at all, without losing what the file held before; returns what was done.

    Values of the same images, features and seed are kept in the file beside the new ones. A file of another protocol
    is renamed first, to `metrics-1.json` or the next free number. Raises GankitError for another kind of file.
    """
    path = user_path(path)
    done = f"written to {path}"
    if path.is_file():
        before = read_metrics(path)
        if different := _why_not_mergeable(before["protocol"], report["protocol"]):
            fact = different[0].replace("_content", " images").replace("_", " ")
            done += f"; what was there differs in {fact}, and is now in {set_aside(path)}"
        else:
            report = _merge(before, report)
            done = f"added to {path}: {len(report['metrics'])} values"
    # The numbers of a list go on one line.
    text = re.sub(
        r"\[\n([-+.e\d,\s]+)\]", lambda numbers: f"[{' '.join(numbers[1].split())}]", json.dumps(report, indent=2)
    )
    write_atomically(path, text + "\n")
    return done


def set_aside(path: Path) -> Path:
    """Rename a file to `NAME-1`, or the next free number, so that it is not lost; returns the new path."""
    number = next(n for n in itertools.count(1) if not path.with_stem(f"{path.stem}-{n}").exists())
    return path.rename(path.with_stem(f"{path.stem}-{number}"))


def _why_not_mergeable(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """The facts in which two protocols differ; training images count only where both evaluations had some."""
    keys = [*ALIKE, "fake_content", "seed"]
    if "training_content" in first and "training_content" in second:
        keys.append("training_content")
    return [key for key in keys if without_versions(first.get(key)) != without_versions(second.get(key))]


def _merge(before: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """The values of both reports; a new value gets a number if its name belongs to a metric with other settings."""
    metrics, new = dict(before["metrics"]), []
    for name, entry in report["metrics"].items():
        base = unnumbered(name, report["metrics"])  # in the file the value may get another number than in the report
        key = free_name(base, [key for key, other in metrics.items() if other["metric"] != entry["metric"]])
        old = metrics.get(key, {})
        # A p-value that was not asked for this time is still that of the value.
        keeps_p_value = "p_value" in old and math.isclose(old["value"], entry["value"], rel_tol=1e-6)
        metrics[key] = ({"p_value": old["p_value"]} if keeps_p_value else {}) | entry
        new.append(key)
    # Old warnings are about old values: where none is left, they go.
    warnings = [] if set(metrics) == set(new) else before["protocol"]["warnings"]
    warnings = list(dict.fromkeys([*warnings, *report["protocol"]["warnings"]]))
    return {"protocol": before["protocol"] | report["protocol"] | {"warnings": warnings}, "metrics": metrics}


def without_versions(value: Any) -> Any:
    """A value of the protocol without the versions of packages, which rarely change a digit that is printed."""
    return {key: item for key, item in value.items() if key != "versions"} if isinstance(value, dict) else value
