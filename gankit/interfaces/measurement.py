"""Quantities that a data set can measure from the pixels of an image, real or generated."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray


@dataclass(frozen=True)
class Measurement:
    """A fact about an image that can be measured from its pixels, and how to name it."""

    fact: str  # key of the true values in `Dataset.facts`, to compare the measured values with
    unit: str  # of the values, in words
    symbol: str  # of the unit
    limit: float  # threshold: images whose |value| is at least this are positive; a study may set another
    positive: str  # what a positive image is called: "strabismic"
    condition: str  # the medical condition that a positive image shows: "strabismus"
    negative_classes: tuple[str, ...]  # names of the classes whose images are not positive
    # (n, channels, height, width) images in the data set's range to (n,) values; NaN where one cannot be measured
    measure: Callable[[NDArray[Any]], NDArray[Any]]


@runtime_checkable
class MeasuresFacts(Protocol):
    """A data set that can measure a fact about images like its own."""

    measurement: Measurement  # a class attribute
