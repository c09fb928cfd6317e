"""What some data sets can measure on the pixels of images like their own, real or generated."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray


@dataclass(frozen=True)
class Measurement:
    """A fact of an image that can be measured on its pixels, and the words for it.

    Attributes:
        fact: the name in `Dataset.facts` of the true values, which the measured ones are compared with.
        unit: of the values, in words.
        symbol: of the unit.
        limit: the threshold: from this absolute value on an image counts as positive, unless a study sets another.
        positive: what a positive image is called: "strabismic".
        condition: the medical condition that a positive image shows: "strabismus".
        negative_classes: names of the classes whose images are not positive.
        measure: (n, channels, height, width) images in the data set's range to (n,) values; NaN where one cannot be
            measured.
    """

    fact: str
    unit: str
    symbol: str
    limit: float
    positive: str
    condition: str
    negative_classes: tuple[str, ...]
    measure: Callable[[NDArray[Any]], NDArray[Any]]


@runtime_checkable
class MeasuresFacts(Protocol):
    """A data set that can measure a fact of images like its own.

    Attributes:
        measurement: what and how; an attribute of the class.
    """

    measurement: Measurement
