"""Metrics files: read, written, and compared value by value."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gankit.errors import GankitError
from gankit.files import locked, sole_writer, user_path, write_atomically


def compare(a: dict[str, Any] | str | Path, b: dict[str, Any] | str | Path, *, force: bool = False) -> dict[str, Any]:
    """The difference of two evaluations, value by value.

    Args:
        a: what `evaluate` returned, or the file that holds it.
        b: the same.
        force: compare although the protocols differ.

    Returns:
        `{metric: {"a", "b", "difference", "standard_error"}}`; the difference is b less a. Its standard error assumes
        that the values are independent: it is too large if both used the same real images.

    Raises:
        GankitError: they differ in features, real images, numbers of images, sizes or settings of a metric, so that the
            values cannot be compared.
    """
    first, second = (value if isinstance(value, dict) else read_metrics(user_path(value)) for value in (a, b))
    must_match = (
        "features", "features_dim", "features_protocol", "n_real", "n_fake", "real_size", "fake_size", "real_range",
        "fake_range", "real_content", "training_content",
    )  # fmt: skip
    shared = [name for name in first["metrics"] if name in second["metrics"]]
    if not shared:
        raise GankitError("the evaluations have no value in common: compute the same metrics for both")
    pairs = [(key, first["protocol"].get(key), second["protocol"].get(key)) for key in must_match]
    for name in shared:
        one, other = first["metrics"][name], second["metrics"][name]
        pairs += [(f"{name}.{key}", one.get(key), other.get(key)) for key in ("metric", "n_real", "n_fake")]
    different = [
        f"{key}: {one} and {other}" for key, one, other in pairs if without_versions(one) != without_versions(other)
    ]
    if different and not force:
        raise GankitError(
            f"the evaluations were not made in the same way ({'; '.join(different)}): evaluate both alike, or use force"
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
        GankitError: the file is missing, or is no metrics file.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {"protocol": content["protocol"], "metrics": content["metrics"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GankitError(f"{path} is no metrics file of gankit evaluate: {error}") from error


@contextlib.contextmanager
def sole_output(path: Path) -> Iterator[None]:
    """Be the only process that writes this file and the pictures beside it; of a run's folder, all that it holds.

    Raises:
        BusyError: another process writes there; says which.
    """
    in_run = (path.parent / "experiment.toml").is_file()
    with sole_writer(path.parent) if in_run else locked(path, path.with_name(f".{path.name}.lock")):
        yield


def write_metrics(report: dict[str, Any], path: Path) -> None:
    """Write a metrics file, as a whole or not at all."""
    write_atomically(user_path(path), json.dumps(report, indent=2) + "\n")


def without_versions(value: Any) -> Any:
    """A value of the protocol without the versions of packages, which rarely change a digit that is printed."""
    return {key: item for key, item in value.items() if key != "versions"} if isinstance(value, dict) else value
