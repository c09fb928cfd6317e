"""DICOM files to arrays at full depth: grey by modality and window, colour to RGB, resized as gankit resizes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from gankit.images.resizing import Fit, Size, resized
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import HTJ2KLossless, HTJ2KLosslessRPCL, JPEG2000Lossless, JPEGLSLossless, JPEGLSNearLossless

from gankit_dicom._guard import Problem, guarded
from gankit_dicom._header import GREY, PIXELS, decoders
from gankit_dicom._stream import by_adobe, check_count, check_frame
from gankit_dicom._tones import Function, Window, padding, read_table, stored_range, tones

FORMAT = 5  # counts changes of what decoding gives, so that cached arrays of older versions are not read
_STORED = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData")
_KEEPS_ALL_BITS = (HTJ2KLossless, HTJ2KLosslessRPCL, JPEG2000Lossless, JPEGLSLossless, JPEGLSNearLossless)
"""Syntaxes of which pydicom gives values as they were encoded; of JPEG 2000 with loss, they may be a little too large.

In all others it clears the unused bits.
"""
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as DICOM's YBR_FULL


@dataclass(frozen=True)
class Decoder:
    """Frames of DICOM files to arrays (c, h, w) of one type, where 0 is black and the type's largest value white.

    Attributes:
        bits: 8 or 16, of each channel.
        size: (height, width) to resize to, or None to keep each file's own.
        fit: "crop" fills the size and cuts what sticks out, "pad" shows all with black bars, "stretch" distorts.
        grey: True makes all grey, False all colour, None keeps each file's own.
        window: which values of grey files to show.
        function: of the window; None takes the file's own, or "linear" for a given window.
    """

    bits: int
    size: Size | None
    fit: Fit
    grey: bool | None
    window: Window
    function: Function | None

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or uint16."""
        return np.dtype(f"uint{self.bits}")

    def __call__(self, path: Path, frames: Sequence[int]) -> list[NDArray[Any]]:
        """(channels, height, width) for each of these frames of a file.

        Raises:
            Problem: the file cannot be read; the text holds neither its name nor any of its values.
        """
        header = guarded(lambda: pydicom.dcmread(path, specific_tags=[*PIXELS, *_STORED]))
        if "PixelData" not in header:
            raise Problem("has no pixels; replace it or take it out")
        guarded(lambda: check_count(header))
        guarded(lambda: by_adobe(header))
        return [self._frame(header, frame) for frame in frames]

    def _frame(self, header: Dataset, frame: int) -> NDArray[Any]:
        stored = _stored(header, frame)
        if header.file_meta.TransferSyntaxUID in _KEEPS_ALL_BITS:
            low, high = stored_range(header)
            if stored.min() < low or stored.max() > high:
                raise Problem("holds values that its bits (BitsStored) cannot; convert it or take it out")
        shades = guarded(lambda: self._shades(header, stored, frame))
        image = shades.round().clip(0, np.iinfo(self.dtype).max).astype(self.dtype)
        return image if self.size is None else resized(image, self.size, self.fit)

    def _shades(self, header: Dataset, stored: NDArray[Any], frame: int) -> NDArray[np.float64]:
        """(channels, height, width) from 0 to the type's largest value, not rounded."""
        largest = int(np.iinfo(self.dtype).max)
        if header.PhotometricInterpretation in GREY:
            shades = tones(header, frame).shades(stored, self.window, self.function, largest)
            if header.PhotometricInterpretation == "MONOCHROME1":  # the smallest value is white
                shades = largest - shades
            if padded := padding(header):
                shades[(stored >= padded[0]) & (stored <= padded[1])] = 0
            return np.repeat(shades[None], 3, axis=0) if self.grey is False else shades[None]
        if header.PhotometricInterpretation == "PALETTE COLOR":
            colours = _from_palette(header, stored)
        else:
            colours = stored / (2 ** int(header.BitsStored) - 1)
        if self.grey:
            return np.asarray((colours @ _LUMA)[None] * largest)
        return np.asarray(colours.transpose(2, 0, 1) * largest)


def _stored(header: Dataset, frame: int) -> NDArray[Any]:
    """(height, width) stored values or (height, width, 3) RGB of one frame, without what unused bits hold."""
    guarded(lambda: check_frame(header, frame))
    try:
        return guarded(lambda: _decoded(header, frame))
    except Problem:
        advice = decoders(header)
    more = f", or decode more files of its kind: {advice}" if advice else ""
    raise Problem(f"has pixels that cannot be decoded: they are cut off or damaged; replace it{more}")


def _decoded(header: Dataset, frame: int) -> NDArray[Any]:
    """As pydicom gives it, which ends a frame of RLE after Rows x Columns; one byte more may fill it up."""
    size = header.Rows * header.Columns
    warnings.filterwarnings("error", "The decoded RLE segment")
    warnings.filterwarnings("ignore", f"The decoded RLE segment.* {size + 1} vs. {size} bytes")
    return pixel_array(header, index=frame)


def _from_palette(header: Dataset, stored: NDArray[Any]) -> NDArray[np.float64]:
    """(height, width, 3) from 0 to 1 (DICOM PS3.3 C.7.6.3.1.5)."""
    if "RedPaletteColorLookupTableData" not in header:
        return _from_segments(header, stored)
    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    tables = [read_table(header[f"{name}Descriptor"].value, header[f"{name}Data"].value) for name in names]
    return np.stack([table(stored) / table.largest for table in tables], axis=-1)


def _from_segments(header: Dataset, stored: NDArray[Any]) -> NDArray[np.float64]:
    """As `_from_palette`, of a palette that is stored in segments (DICOM PS3.3 C.7.9.2)."""
    count, _, bits = (int(value) for value in header.RedPaletteColorLookupTableDescriptor)
    if bits == 8 and not 0 < count <= 256:  # pydicom would count the places of such a palette in 8 bits
        raise Problem("has a palette in segments that cannot be read; convert it to RGB, or take it out")
    return np.asarray(apply_color_lut(stored, header)[..., :3] / (2**bits - 1))
