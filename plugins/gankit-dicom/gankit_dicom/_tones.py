"""Stored values of grey images to shades of grey: the modality transformation, then the window (DICOM PS3.3 C.11)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_windowing

from gankit_dicom._guard import Problem

Function = Literal["linear", "linear-exact", "sigmoid"]
Window = Literal["file", "full"] | tuple[float, float]


@dataclass(frozen=True)
class Table:
    """A lookup table (DICOM PS3.3 C.11.1.1): values below and above it take its first and last entry."""

    entries: NDArray[Any]
    first: int
    bits: int

    @property
    def largest(self) -> int:
        """The value that stands for white."""
        return int(2**self.bits - 1)

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        """Whole numbers of any shape to entries."""
        # pydicom's own lookup keeps places in the type of the entries, where 4096 places do not fit 8-bit entries.
        places = np.rint(values).astype(np.int64) - self.first
        return np.asarray(self.entries[places.clip(0, len(self.entries) - 1)])


@dataclass(frozen=True)
class Tones:
    """How a frame's stored values become shades.

    Attributes:
        slope: of the rescaling to modality values (Hounsfield units, say).
        intercept: of it.
        modality: a table in place of slope and intercept, or None.
        span: the smallest and the largest modality value that the file can hold.
        window: centre, width and function's name of the file's own first window, as they stand there (a number that is
            missing is NaN), or None.
        voi: the file's own first table of shades, or None.
    """

    slope: float
    intercept: float
    modality: Table | None
    span: tuple[float, float]
    window: tuple[float, float, str] | None
    voi: Table | None

    @property
    def has_window(self) -> bool:
        """Whether the file has a window, or a table of shades in its place."""
        return self.window is not None or self.voi is not None

    def shades(
        self, stored: NDArray[Any], window: Window, function: Function | None, largest: int
    ) -> NDArray[np.float64]:
        """Stored values of any shape to shades from 0 (black) to `largest` (white), not rounded.

        Raises:
            Problem: the file's own window is invalid.
        """
        values = stored * self.slope + self.intercept if self.modality is None else self.modality(stored)
        if not isinstance(window, str):
            return windowed(values, *window, function or "linear", largest)
        if window == "file" and self.window is not None:
            return windowed(values, *own_window(self.window, function), largest)
        if window == "file" and self.voi is not None:
            return np.asarray(self.voi(values) * (largest / self.voi.largest))
        low, high = self.span
        return np.asarray((values - low) * (largest / (high - low)))


def own_window(window: tuple[float, float, str], function: Function | None) -> tuple[float, float, Function]:
    """A file's own window, with its own function unless another is given.

    Raises:
        Problem: it is invalid.
    """
    centre, width, name = window
    functions: dict[str, Function] = {"LINEAR": "linear", "LINEAR_EXACT": "linear-exact", "SIGMOID": "sigmoid"}
    chosen = function or functions.get(name)
    if chosen is None:
        raise Problem("has a window of a function that the standard does not know; set window = [centre, width]")
    if not is_window(centre, width, chosen):
        raise Problem("has an invalid window; set window = [centre, width]")
    return centre, width, chosen


def is_window(centre: float, width: float, function: Function) -> bool:
    """Whether a window has the width that its function needs (DICOM PS3.3 C.11.2.1.2.1)."""
    return math.isfinite(centre) and math.isfinite(width) and (width >= 1 if function == "linear" else width > 0)


def windowed(
    values: NDArray[Any], centre: float, width: float, function: Function, largest: int
) -> NDArray[np.float64]:
    """Values of any shape through a window, to shades from 0 to `largest` = 2^k - 1 (DICOM PS3.3 C.11.2.1)."""
    header = Dataset()  # pydicom takes the shades' range from these elements
    header.PhotometricInterpretation = "MONOCHROME2"
    header.PixelRepresentation = 0
    header.BitsStored = largest.bit_length()
    header.WindowCenter, header.WindowWidth = centre, width
    header.VOILUTFunction = function.upper().replace("-", "_")
    with np.errstate(over="ignore"):  # far below a sigmoid's centre, exp() is infinite and the shade 0
        return np.asarray(apply_windowing(values, header), dtype=np.float64)


def tones(header: Dataset, frame: int) -> Tones:
    """The transformations of one frame, from the frame itself, all frames in common, or the file.

    Raises:
        Problem: they are invalid.
    """
    rescaling = macro(header, frame, "PixelValueTransformationSequence")
    view = macro(header, frame, "FrameVOILUTSequence")
    ends = stored_range(header)
    modality = table(rescaling, "ModalityLUTSequence", signed=ends[0] < 0)
    # Converters leave out one of both: without a slope values are shifted, without an intercept scaled.
    slope, intercept = (_first(rescaling, name) for name in ("RescaleSlope", "RescaleIntercept"))
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    low, high = sorted(end * slope + intercept for end in ends)
    if not (low < high and math.isfinite(low) and math.isfinite(high) and math.isfinite(high - low)):
        raise Problem("has a rescaling that leaves nothing of its values; replace it or take it out")
    span = (low, high) if modality is None else (0.0, float(modality.largest))
    centre, width = _first(view, "WindowCenter"), _first(view, "WindowWidth")
    function = str(view.get("VOILUTFunction") or "LINEAR").strip().upper()
    numbers = [math.nan if number is None else number for number in (centre, width)]
    window = None if centre is width is None else (numbers[0], numbers[1], function)
    return Tones(slope, intercept, modality, span, window, table(view, "VOILUTSequence", signed=span[0] < 0))


def padding(header: Dataset) -> tuple[int, int] | None:
    """The smallest and the largest stored value of a grey file that is padding (DICOM PS3.3 C.7.5.1.1.2), or None.

    Raises:
        Problem: its pixels cannot hold such values.
    """
    ends = [_first(header, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:
        return None
    signed = bool(header.PixelRepresentation)
    lowest, highest = stored_range(header)
    values = sorted(int(end) for end in ends if end is not None)
    # Some files write a signed value as an unsigned one of 16 bits, or the other way about.
    values = [value - 2**16 if signed and value >= 2**15 else value for value in values]
    values = sorted(value + 2**16 if not signed and value < 0 else value for value in values)
    if not lowest <= values[0] <= values[-1] <= highest:
        raise Problem("has padding of a value that its pixels cannot hold; convert it or take it out")
    return values[0], values[-1]


def stored_range(header: Dataset) -> tuple[int, int]:
    """The smallest and the largest value that the stored bits hold."""
    bits = int(header.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if header.PixelRepresentation else (0, 2**bits - 1)


def macro(header: Dataset, frame: int, name: str) -> Dataset:
    """Where the elements of an enhanced multi-frame file's functional group stand (DICOM PS3.3 C.7.6.16)."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    common = header.get("SharedFunctionalGroupsSequence") or []
    for group in (*per_frame[frame : frame + 1], *common[:1]):
        if group.get(name):
            elements: Dataset = group[name].value[0]
            return elements
    return header


def _first(header: Dataset, name: str) -> float | None:
    value = header.get(name)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    return None if value is None or value == "" else float(value)


def table(header: Dataset, name: str, *, signed: bool) -> Table | None:
    """The first lookup table of a sequence, or None.

    Args:
        header: what holds the sequence.
        name: of the sequence.
        signed: whether the values that it maps may be negative, and its first mapped value with them.
    """
    sequence = header.get(name)
    if not sequence:
        return None
    item = sequence[0]
    count, first, bits = (int(value) for value in item.LUTDescriptor)
    # Implicit VR does not say whether the first value is signed, so pydicom and converters go by the stored values:
    # after a rescaling it is signed where the rescaled values may be negative (DICOM PS3.3 C.11.2.1.1).
    first = first % 2**16 if header.original_encoding[0] else first
    first -= 2**16 if signed and first >= 2**15 else 0
    return read_table((count, first, bits), item.LUTData)


def read_table(descriptor: Any, data: Any) -> Table:
    """A lookup table from its descriptor (entries, first value, bits) and its entries as numbers or packed bytes.

    Raises:
        Problem: there are fewer entries than it says.
    """
    count, first, bits = (int(value) for value in descriptor)
    count = count % 2**16 or 2**16  # 0 stands for 2^16, which a 16-bit number cannot hold
    words = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.atleast_1d(np.asarray(data))
    entries = words.astype(np.int64)
    if len(entries) < count <= 2 * len(entries):  # two 8-bit entries share a word; otherwise each has its own
        entries, bits = np.stack([entries & 255, entries >> 8], axis=1).reshape(-1), 8
    if len(entries) < count or not 1 <= bits <= 16:
        raise Problem("has a lookup table that is cut off; replace it or take it out")
    return Table(entries[:count], first, bits)
